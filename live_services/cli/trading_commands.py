"""Commanding a trading state: it goes on the log, and is in force once the account says so there.

Nothing is asked of the account's process itself: a command that finds none running stands on the log until one does.
"""

from __future__ import annotations

import asyncio
import getpass
import time
import uuid
from collections.abc import Sequence
from typing import Final, Literal

import structlog

from feature_store.market.types import ist_text
from live_services.adapters.kafka import EventProducer, KafkaSetupError, NoBroker, topic_partitions
from live_services.cli.answers import ANSWER_SECONDS, answer_to, checked_reason
from live_services.cli.errors import did_you_mean, out
from live_services.cli.log_view import LogBackwards, log_backwards, newest
from live_services.cli.trading_states import read_trading_states, state_text
from live_services.composition import running_brokers, skip_reason
from live_services.domain.events import (
    PnlSnapshot,
    TradingState,
    TradingStateChanged,
    TradingStateCommanded,
    TradingStateInForce,
    self_caused,
)
from live_services.domain.topics import BROKERS, broker_topics
from live_services.failures import CommandFailed
from live_services.machine.stack import Stack
from live_services.machine.supervision import NotRunning
from live_services.next_steps import to_type
from live_services.settings import Settings
from models_registry.specification import Broker

_audit = structlog.get_logger("audit")

Verb = Literal["halt", "reduce", "flatten", "resume"]
_STATES: Final[dict[Verb, TradingState]] = {
    "halt": "HALTED",
    "reduce": "REDUCING",
    "flatten": "REDUCING",
    "resume": "ACTIVE",
}
_MEANING: Final[dict[Verb, str]] = {
    "halt": "No entry, and no exit either, not even the square-off, until `resume`, `reduce` or `flatten`. Stops, "
    "targets and orders that are at the exchange stay there and may fill.",
    "reduce": "No entry; exits go on.",
    "flatten": "What was held is being closed at the market, and if that is closed, at its next open; no entry.",
    "resume": "Entries and exits go on; what a halt held back is raised now.",
}


async def command_trading_state(
    settings: Settings, verb: Verb, reason: str, *, broker: str | None = None, strategy: str | None = None
) -> str:
    """Put a command on the log of each broker it is for, wait for the answers, and say them.

    Returns
    -------
    str
        What is not in force although a desk runs here; empty: nothing.

    Raises
    ------
    CommandFailed
        No reason or one that is too long, no such broker or strategy, no Kafka, or another version wrote the home.
    live_services.adapters.kafka.KafkaSetupError
        If the topic of commands does not exist.
    """
    reason = checked_reason(reason)
    if broker is not None and broker not in BROKERS:
        raise CommandFailed(f"there is no broker {broker!r}; choose one of {', '.join(BROKERS)}")
    log = log_backwards(settings)
    brokers = await _brokers(log, settings, broker, strategy)
    await _require_topics(settings, brokers)
    commands = [_commanded(one, verb, reason, strategy) for one in brokers]
    async with EventProducer(settings.kafka) as producer:
        for command in commands:
            await producer.produce(command)
            _audit.info("trading_state_commanded", **command.model_dump(exclude={"event_type", "schema_version"}))
    answers = await asyncio.gather(*(answer_to(log, command) for command in commands))
    for command, answer in zip(commands, answers, strict=True):
        if isinstance(answer, TradingStateChanged):
            _tell(f"{_scope(command)}: {_from_when(answer.in_force)}. {_MEANING[verb]}")
    for view in await read_trading_states(log, brokers):
        _tell_what_else(view.in_force, strategy, view.broker)
        if view.off is not None:
            _tell(f"  {view.broker} gives NO orders, exits neither, until trading is on again: {view.off.reason}")
    waiting = [
        command
        for command, answer in zip(commands, answers, strict=True)
        if not isinstance(answer, TradingStateChanged)
    ]
    return _not_in_force(settings, waiting) if waiting else ""


async def _require_topics(settings: Settings, brokers: Sequence[Broker]) -> None:
    for one in brokers:
        try:
            await topic_partitions(settings.kafka, [broker_topics(one).commands.name])
        except NoBroker:
            raise
        except KafkaSetupError as unknown:
            if (skipped := skip_reason(settings, one)) is None:
                raise
            raise CommandFailed(
                f"{one} is skipped ({skipped}), and no desk ever ran it on this Kafka: there is nothing to command"
            ) from unknown


def _commanded(broker: Broker, verb: Verb, reason: str, strategy: str | None) -> TradingStateCommanded:
    now_ns = time.time_ns()
    return TradingStateCommanded(
        **self_caused("trading_state_commanded", broker, now_ns, uuid.uuid4().hex),
        broker=broker,
        event_time_ns=now_ns,
        commanded_at_ns=now_ns,
        commanded_by=getpass.getuser(),
        reason=reason,
        state=_STATES[verb],
        flatten=verb == "flatten",
        strategy=strategy,
    )


async def _brokers(
    log: LogBackwards, settings: Settings, broker: str | None, strategy: str | None
) -> tuple[Broker, ...]:
    """Say which brokers a command is for; a strategy is known by the settings, or by what it did or was told there."""
    candidates = tuple(one for one in BROKERS if one == broker) or running_brokers(settings)
    if not candidates:
        raise CommandFailed("no broker runs by these settings; name one with --broker")
    if strategy is None:
        return candidates
    named = {one: await _strategies_at(log, settings, one) for one in candidates}
    found = tuple(one for one in candidates if strategy in named[one])
    if not found:
        raise _no_strategy(strategy, candidates, set().union(*named.values()))
    return found


async def require_strategy(settings: Settings, broker: Broker, strategy: str | None) -> None:
    """Check that a command is for the whole broker or for a strategy that is known there.

    Raises
    ------
    CommandFailed
        There is no such strategy.
    """
    if strategy is not None and strategy not in (
        named := await _strategies_at(log_backwards(settings), settings, broker)
    ):
        raise _no_strategy(strategy, (broker,), named)


def _no_strategy(strategy: str, brokers: Sequence[Broker], named: set[str]) -> CommandFailed:
    hint = did_you_mean(strategy, named) or f"{to_type('config show')} names them"
    return CommandFailed(f"there is no strategy {strategy!r} at {' or '.join(brokers)}; {hint}")


async def _strategies_at(log: LogBackwards, settings: Settings, broker: Broker) -> set[str]:
    names = {spec.name for spec in settings.strategies if broker in spec.brokers}
    snapshot = await newest(log, broker_topics(broker).pnl_snapshots, PnlSnapshot)
    names |= {total.strategy for total in snapshot.strategies} if snapshot is not None else set()
    (states,) = await read_trading_states(log, [broker])
    return names | {one.strategy for one in states.in_force if one.strategy is not None}


def _not_in_force(settings: Settings, waiting: Sequence[TradingStateCommanded]) -> str:
    """Tell of commands without an answer; give, as a failure, that a desk runs here and does not obey."""
    scopes = ", ".join(f"{_scope(one)} {state_text(one.state, flatten=one.flatten)}" for one in waiting)
    try:
        Stack(settings).supervisor.processes()
    except NotRunning:
        _tell(f"{scopes}: nothing runs on this home; it stands on the log and is in force at the next start.")
        return ""
    reasons = [skip_reason(settings, one.broker) for one in waiting]
    if all(reasons):
        _tell(f"{scopes}: it stands on the log and is in force once the broker runs; {reasons[0]}.")
        return ""
    return (
        f"{scopes}: NOT in force, no account answered within {ANSWER_SECONDS:g} s. It stands on the log, and is in "
        f"force as soon as the account is live in a session; {to_type('status')} says why it is not"
    )


def _tell_what_else(in_force: Sequence[TradingStateInForce], strategy: str | None, broker: Broker) -> None:
    """Name what is in force beside the command: the stricter one counts."""
    for one in in_force:
        if one.strategy != strategy and (strategy is None or one.strategy is None):
            whom = one.strategy or broker
            _tell(f"  {whom} is {one.state} by a command of its own since {ist_text(one.since_ns)}: {one.reason}")


def _scope(command: TradingStateCommanded) -> str:
    return command.broker if command.strategy is None else f"{command.strategy} at {command.broker}"


def _from_when(in_force: TradingStateInForce) -> str:
    state = state_text(in_force.state, flatten=in_force.flatten)
    return f"{state} is in force from the watermark {ist_text(in_force.since_ns)} on"


def _tell(line: str) -> None:
    out.print(line, soft_wrap=True, markup=False)
