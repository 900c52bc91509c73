"""Explain an order or a proposal: why it came to be, how it ended, and what it stands on.

From an exit to the order that opened its position and to what the trade came to; from there to the proposal, the model,
the data that trained it and the code that decided.

ExplainError
├── UnknownId     nothing on the log has this id
└── BrokenChain   a link is missing; ``link`` names it
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from pydantic import BaseModel, ConfigDict

from live_services.adapters.spans import trace_id_of
from live_services.cli.log_view import LogBackwards, all_of, events_backwards, log_backwards, newest
from live_services.composition import build_registry
from live_services.domain.account.trades import Trade, round_trips
from live_services.domain.basis import Outcome, RiskVerdict
from live_services.domain.events import (
    Event,
    OrderCancelled,
    OrderFilled,
    OrderRejected,
    OrderSubmitted,
    SignalGenerated,
    SignalRejected,
    SignalValidated,
    StrategyModelAssigned,
    TradingStateChanged,
    TradingStateInForce,
    TradingSwitched,
)
from live_services.domain.topics import STRATEGIES_CONTROL, BrokerTopics, broker_topics
from live_services.failures import CommandFailed
from live_services.settings import Settings
from models_registry.refusals import ModelRefusedError
from models_registry.registry import RegistryUnavailable
from models_registry.sidecar import Sidecar
from models_registry.specification import Broker

SidecarSource = Callable[[str, str], Sidecar]
"""``(model name, version)`` → its sidecar; raises as `models_registry.registry.Registry.sidecar`."""

_SHORTEST_PREFIX: Final = 6
_EXAMPLES: Final = 3
# A proposal is written before its order, but maybe by the clock of another machine.
_CLOCKS_APART_MS: Final = 60_000


class ExplainError(CommandFailed):
    """Something that cannot be explained; the message says what to try."""


class UnknownId(ExplainError):
    """No order and no signal with this id."""


class BrokenChain(ExplainError):
    """A link between an order and its origin is missing."""

    def __init__(self, link: str, message: str) -> None:
        super().__init__(f"{link}: {message}")
        self.link = link


class OrderStory(BaseModel):
    """An order, and what became of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    order: OrderSubmitted
    outcomes: tuple[Outcome, ...]
    """In order of time; none while it waits or rests."""


class Explanation(BaseModel):
    """What an order or a proposal stands on, newest link first."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    order: OrderSubmitted | None
    """What was asked for, or the entry of the proposal that was; None where no order came of it."""
    outcomes: tuple[Outcome, ...]
    """What became of the order."""
    verdict: SignalValidated | SignalRejected | None
    """Risk's word that the order stands on: of an exit, why it was raised. None: risk has not judged yet."""
    commanded: TradingStateInForce | None
    """Of an exit that flattened: the command."""
    trading_off: str = ""
    """Why what was validated was not ordered: the trading stage was off then. Empty for everything else."""
    signal: SignalGenerated
    """The proposal at the head: score, feature row, bar, and the offsets of the market frames of that bar."""
    orders: tuple[OrderStory, ...]
    """Every order of the proposal, in order of time."""
    trade: Trade | None
    """What it came to, once the entry has filled."""
    assigned: StrategyModelAssigned | None
    """The control record that let the strategy run this model."""
    sidecar: Sidecar
    trace_id: str = ""
    """Under which a collector has it from its frame to its fills; empty if it was not traced."""

    @property
    def stages_agree(self) -> bool:
        """Whether one configuration and one commit made proposal, verdict and order."""
        stages = [event.basis for event in (self.signal, self.verdict, self.order) if event is not None]
        return len({(basis.config_digest, basis.git_commit) for basis in stages}) == 1

    @property
    def opening(self) -> OrderStory | None:
        """Give the order that opened the position."""
        return next((story for story in self.orders if story.order.intent == "open"), None)


@dataclass(frozen=True, slots=True)
class _Found:
    """What an id stands for."""

    signal_id: str
    order_id: str | None = None
    verdict: RiskVerdict | None = None
    written_ms: int | None = None
    """When something that answers the proposal was written."""


async def explain_from_log(settings: Settings, broker: Broker, asked: str | None) -> Explanation:
    """Explain by what is on Kafka and in the model registry, by default the order filled last.

    Raises
    ------
    CommandFailed
        No order was filled yet, no Kafka is known, or another version wrote what is in the home.
    ExplainError
        There is no such id, or a link of its chain is gone.
    """
    log = log_backwards(settings)
    if asked is None:
        topic = broker_topics(broker).orders_filled
        filled = await newest(log, topic, OrderFilled)
        if filled is None:
            raise CommandFailed(f"no order was filled on {topic.name} yet: let a session run first")
        asked = filled.order_id
    return await explain(asked, log, build_registry(settings).sidecar, broker)


async def explain(asked: str, log: LogBackwards, sidecars: SidecarSource, broker: Broker = "paper") -> Explanation:
    """Follow an order or a proposal back through the log.

    Parameters
    ----------
    asked
        The id of an order, of a proposal, or of an event about one of them; or its first characters (at least six) if
        no other id begins with them.
    log
        Reads a topic backwards; of the large ones only as much as is needed.
    sidecars
        Reads a model version's sidecar.

    Raises
    ------
    UnknownId
        If nothing, or more than one thing, has that id.
    BrokenChain
        If something it stands on is missing.
    """
    topics = broker_topics(broker)
    found = await _find(asked, log, topics)
    stories = await _stories(log, topics, found.signal_id)
    story = _story_of(found, stories)
    signal, trace_id = await _proposal(log, topics, found)
    verdict = found.verdict
    if story is not None:
        verdict = await _verdict(log, topics, story.order)
    return Explanation(
        order=story.order if story is not None else None,
        outcomes=story.outcomes if story is not None else (),
        verdict=verdict,
        commanded=await _commanded(log, topics, verdict),
        trading_off=await _trading_off(log, topics, verdict) if story is None else "",
        signal=signal,
        orders=stories,
        trade=_trade(stories),
        assigned=await _assigned(log, signal),
        sidecar=await asyncio.to_thread(_sidecar, sidecars, signal),
        trace_id=trace_id,
    )


# --- what an id stands for --------------------------------------------------------------------------------------------


async def _find(asked: str, log: LogBackwards, topics: BrokerTopics) -> _Found:
    """Look for an id where it is cheapest first; proposals and refusals are many, and come last."""
    looked = (
        (topics.orders_submitted, OrderSubmitted, ("order_id", "event_id", "causation_id", "signal_id")),
        (topics.orders_filled, OrderFilled, ("event_id",)),
        (topics.orders_rejected, OrderRejected, ("event_id",)),
        (topics.orders_cancelled, OrderCancelled, ("event_id",)),
        (topics.signals_validated, SignalValidated, ("event_id", "signal_id")),
        (topics.signals_rejected, SignalRejected, ("event_id", "signal_id")),
        (topics.signals_raw, SignalGenerated, ("event_id",)),
    )
    for topic, kind, names in looked if len(asked) >= _SHORTEST_PREFIX else ():
        matches: dict[str, _Found] = {}
        async with aclosing(events_backwards(log, topic, kind, containing=f'"{asked}')) as events:
            async for event, record in events:
                for name in names:
                    if (value := str(getattr(event, name))).startswith(asked):
                        matches[value] = _stands_for(event, name, record.timestamp_ms)
                if asked in matches and kind in (SignalRejected, SignalGenerated):
                    break  # whole, so there is no other; and there may be many more records
        if asked in matches or len(matches) == 1:
            return matches.get(asked) or next(iter(matches.values()))
        if matches:
            ids = ", ".join(sorted(matches))
            raise UnknownId(f"{len(matches)} ids on {topic.name} begin with {asked!r}; give more of it: {ids}")
    raise await _unknown(asked, log, topics)


def _stands_for(event: Event, name: str, written_ms: int) -> _Found:
    if isinstance(event, SignalGenerated):
        return _Found(event.event_id, written_ms=written_ms)
    if isinstance(event, SignalRejected | SignalValidated):
        return _Found(event.signal_id, verdict=event, written_ms=written_ms)
    assert isinstance(event, OrderSubmitted | OrderFilled | OrderRejected | OrderCancelled)  # noqa: S101 - of `_find`
    return _Found(event.signal_id, None if name == "signal_id" else event.order_id, written_ms=written_ms)


async def _unknown(asked: str, log: LogBackwards, topics: BrokerTopics) -> UnknownId:
    if len(asked) < _SHORTEST_PREFIX:
        return UnknownId(f"{asked!r} is too short: give at least the first {_SHORTEST_PREFIX} characters of an id")
    newest_ids: list[str] = []
    async with aclosing(events_backwards(log, topics.orders_submitted, OrderSubmitted)) as events:
        async for event, _ in events:
            newest_ids.append(event.order_id)
            if len(newest_ids) == _EXAMPLES:
                break
    there = f"The newest orders are {', '.join(newest_ids)}" if newest_ids else "There are no orders yet"
    return UnknownId(f"no order and no signal of this account has an id that begins with {asked!r}. {there}")


# --- the links --------------------------------------------------------------------------------------------------------


async def _stories(log: LogBackwards, topics: BrokerTopics, signal_id: str) -> tuple[OrderStory, ...]:
    orders = await all_of(log, topics.orders_submitted, OrderSubmitted, containing=signal_id)
    if not orders:
        return ()
    ends: list[Outcome] = [
        *await all_of(log, topics.orders_filled, OrderFilled, containing=signal_id),
        *await all_of(log, topics.orders_rejected, OrderRejected, containing=signal_id),
        *await all_of(log, topics.orders_cancelled, OrderCancelled, containing=signal_id),
    ]
    ends.sort(key=lambda event: event.event_time_ns)
    return tuple(
        OrderStory(order=order, outcomes=tuple(end for end in ends if end.order_id == order.order_id))
        for order in orders
    )


def _story_of(found: _Found, stories: Sequence[OrderStory]) -> OrderStory | None:
    """Give the order that was asked for; for a proposal, its entry."""
    for story in stories:
        if found.order_id == story.order.order_id or (found.order_id is None and story.order.intent == "open"):
            return story
    if found.order_id is not None:
        raise BrokenChain("order", f"order {found.order_id} is not on the log any more; its retention has dropped it")
    return None


async def _proposal(log: LogBackwards, topics: BrokerTopics, found: _Found) -> tuple[SignalGenerated, str]:
    """Find the proposal, and the trace that its record names."""
    wanted, topic = found.signal_id, topics.signals_raw
    before_ms = None if found.written_ms is None else found.written_ms + _CLOCKS_APART_MS
    # Of several partitions each has an order of its own; an id is on one of them.
    proposals = events_backwards(log, topic, SignalGenerated, containing=wanted, before_ms=before_ms)
    async with aclosing(proposals):
        async for signal, record in proposals:
            if signal.event_id == wanted:
                return signal, trace_id_of(record.headers)
    raise BrokenChain("proposal", f"signal {wanted} is not on {topic.name}; its retention may have dropped it")


async def _verdict(log: LogBackwards, topics: BrokerTopics, order: OrderSubmitted) -> SignalValidated:
    wanted, topic = order.causation_id, topics.signals_validated
    verdict = await newest(log, topic, SignalValidated, lambda event: event.event_id == wanted, containing=wanted)
    if verdict is None:
        raise BrokenChain("validated signal", f"{wanted} is not on {topic.name}; its retention may have dropped it")
    return verdict


async def _commanded(
    log: LogBackwards, topics: BrokerTopics, verdict: RiskVerdict | None
) -> TradingStateInForce | None:
    """Give the newest command before an exit that flattened its strategy, or the broker."""
    if not isinstance(verdict, SignalValidated) or verdict.reason != "flatten":
        return None

    def flattened(event: TradingStateChanged) -> bool:
        scope, since_ns = event.in_force.strategy, event.in_force.since_ns
        return event.in_force.flatten and scope in (None, verdict.strategy) and since_ns <= verdict.event_time_ns

    change = await newest(log, topics.control, TradingStateChanged, flattened)
    return change.in_force if change is not None else None


async def _trading_off(log: LogBackwards, topics: BrokerTopics, verdict: RiskVerdict | None) -> str:
    """Say why the trading stage was off when something was validated; empty if it was on."""
    if not isinstance(verdict, SignalValidated):
        return ""
    at_ns = verdict.event_time_ns
    last = await newest(log, topics.control, TradingSwitched, lambda event: event.event_time_ns <= at_ns)
    return last.reason if last is not None and not last.enabled else ""


def _trade(stories: Sequence[OrderStory]) -> Trade | None:
    fills = [end for story in stories for end in story.outcomes if isinstance(end, OrderFilled)]
    fills.sort(key=lambda fill: fill.event_time_ns)
    return round_trips(fills)[0] if fills and fills[0].intent == "open" else None


async def _assigned(log: LogBackwards, signal: SignalGenerated) -> StrategyModelAssigned | None:
    """Give the newest record before the proposal that let its strategy run its version on its rung."""
    who = (signal.strategy, signal.rung, signal.model_version)
    said = await all_of(log, STRATEGIES_CONTROL, StrategyModelAssigned, containing=f'"{signal.strategy}"')
    mine = [event for event in said if (event.strategy, event.rung, event.model_version) == who]
    return next((event for event in reversed(mine) if event.event_time_ns < signal.event_time_ns), None)


def _sidecar(sidecars: SidecarSource, signal: SignalGenerated) -> Sidecar:
    try:
        sidecar = sidecars(signal.model_name, signal.model_version)
    except (ModelRefusedError, RegistryUnavailable, LookupError, OSError) as cause:
        raise BrokenChain(
            "sidecar",
            f"{signal.model_name} version {signal.model_version} cannot be read from the model registry ({cause}). "
            "Is the registry running, and was the version deleted?",
        ) from cause
    if sidecar.feature_schema_hash != signal.feature_schema_hash:
        raise BrokenChain(
            "sidecar",
            f"{signal.model_name} version {signal.model_version} has feature schema {sidecar.feature_schema_hash[:16]}…"
            f", the signal was made with {signal.feature_schema_hash[:16]}…: this is another registry",
        )
    return sidecar
