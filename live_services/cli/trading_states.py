"""Who may trade, by the word of the accounts on the log; and what was commanded that no account has answered."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from rich.markup import escape

from feature_store.market.types import ist_text
from live_services.cli.log_view import LogBackwards, events_backwards, newest
from live_services.cli.output import Document, Field, FittingTable
from live_services.domain.account.trading_states import TradingStates
from live_services.domain.events import (
    DEAD_LETTERS,
    AccountOpened,
    AnswersCommands,
    Command,
    RecordHandedIn,
    TradingState,
    TradingStateChanged,
    TradingStateCommanded,
    TradingStateInForce,
    TradingSwitched,
)
from live_services.domain.topics import broker_topics
from live_services.next_steps import to_type
from models_registry.specification import Broker


@dataclass(frozen=True, slots=True)
class TradingStatesView:
    """One broker's."""

    broker: Broker
    in_force: tuple[TradingStateInForce, ...]
    """Of every scope that is not ACTIVE."""
    unanswered: tuple[TradingStateCommanded, ...]
    """What was commanded and is not in force: no account runs, or it waits for its first session. In order."""
    off: TradingSwitched | None = None
    """Since when and why no order is given, whatever the states are; None: the trading stage is on."""


async def read_trading_states(log: LogBackwards, brokers: Iterable[Broker]) -> tuple[TradingStatesView, ...]:
    """Read what is in force at each broker, and what waits for its account."""
    return tuple([await _read(log, broker) for broker in brokers])


async def _read(log: LogBackwards, broker: Broker) -> TradingStatesView:
    topics = broker_topics(broker)
    states, changes, answered = TradingStates(), list[TradingStateInForce](), -1
    async with aclosing(events_backwards(log, topics.control, AnswersCommands)) as events:
        async for event, _ in events:
            answered = max(answered, event.command_offset)
            if isinstance(event, TradingStateChanged):
                changes.append(event.in_force)
            elif isinstance(event, AccountOpened):
                states = TradingStates.carried(event.trading_states)
                break
    for change in reversed(changes):
        states = states.after(change)
    unanswered = list[TradingStateCommanded]()
    async with aclosing(events_backwards(log, topics.commands, Command)) as commands:
        async for command, record in commands:
            if record.offset <= answered:
                break
            mended = command.record if isinstance(command, RecordHandedIn) else command
            if isinstance(mended, TradingStateCommanded):
                unanswered.append(mended)
    switched = await newest(log, topics.control, TradingSwitched)
    off = switched if switched is not None and not switched.enabled else None
    return TradingStatesView(broker, states.in_force, tuple(reversed(unanswered)), off)


def not_in_force(views: Iterable[TradingStatesView]) -> list[str]:
    """Say which commands no account has answered."""
    return [
        f"{state_text(command.state, flatten=command.flatten)} of {command.strategy or 'all'} at {view.broker}, "
        f"commanded by {command.commanded_by} ({command.reason}), is NOT in force: no account has answered it"
        for view in views
        for command in view.unanswered
    ]


def halted_by_letters(views: Iterable[TradingStatesView]) -> list[str]:
    """Say which brokers a flood of dead letters halted: that was nobody's word."""
    return [
        f"{view.broker} is {one.state}, by no person: {one.reason}; "
        f"{to_type(f'resume --broker {view.broker} --reason WHY')} lifts it"
        for view in views
        for one in view.in_force
        if one.commanded_by == DEAD_LETTERS and one.state != "ACTIVE"
    ]


def trading_states_record(views: Sequence[TradingStatesView]) -> list[Document]:
    """Give it as JSON; a broker without ``in_force`` is ACTIVE."""
    return [
        {
            "broker": view.broker,
            "in_force": [one.model_dump(mode="json") for one in view.in_force],
            "unanswered": [one.model_dump(mode="json") for one in view.unanswered],
            "trading_off": view.off.reason if view.off is not None else None,
        }
        for view in views
    ]


def trading_states_table(views: Sequence[TradingStatesView]) -> FittingTable:
    """Lay it out, a line for each broker and for each strategy that has a state of its own; times are IST."""
    table = FittingTable(
        (
            Field("broker"),
            Field("strategy"),
            Field("trading state"),
            Field("since (IST)"),
            Field("by whom and why", text=True),
        )
    )
    for view in views:
        if view.off is not None:
            since = ist_text(view.off.event_time_ns).removesuffix(" IST")
            table.add_row(view.broker, "all", "[yellow]no orders[/]", since, escape(view.off.reason))
        if all(one.strategy is not None for one in view.in_force):
            table.add_row(view.broker, "all", "[green]ACTIVE[/]", "", "")
        for one in view.in_force:
            table.add_row(
                view.broker,
                escape(one.strategy or "all"),
                f"[bold red]{one.state}[/]" + (", flat" if one.flatten else ""),
                ist_text(one.since_ns).removesuffix(" IST"),
                escape(f"{one.commanded_by}: {one.reason}"),
            )
        for command in view.unanswered:
            table.add_row(
                view.broker,
                escape(command.strategy or "all"),
                f"[yellow]{state_text(command.state, flatten=command.flatten)} waits[/]",
                "",
                escape(f"{command.commanded_by}: {command.reason} (no account has answered it)"),
            )
    return table


def state_text(state: TradingState, *, flatten: bool) -> str:
    """Name a state as a person commands it."""
    return f"{state} after flattening" if flatten else state
