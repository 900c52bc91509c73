"""Explain an order: from its fill back to the model, the data that trained it and the code that decided.

ExplainError
├── UnknownOrder   no such order on the log
└── BrokenChain    a link is missing; ``link`` names it
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeVar

from pydantic import BaseModel, ConfigDict
from rich.markup import escape
from rich.tree import Tree

from feature_store.market.types import MINUTE_NS, ist_text
from live_services.composition import build_registry
from live_services.domain.events import (
    Event,
    OrderCancelled,
    OrderFilled,
    OrderRejected,
    OrderSubmitted,
    SignalGenerated,
    SignalValidated,
    StrategyModelAssigned,
    Watermark,
    event_or_none,
)
from live_services.domain.topics import Topic, broker_topics
from live_services.failures import CommandFailed
from live_services.home import require_layout
from live_services.settings import Settings
from models_registry.refusals import ModelRefusedError
from models_registry.registry import RegistryUnavailable
from models_registry.sidecar import Sidecar
from models_registry.specification import Broker

EventLog = Callable[[Topic], Iterable[Event]]
"""Gives the events of a topic in the order of the log."""
SidecarSource = Callable[[str, str], Sidecar]
"""``(model name, version)`` → its sidecar; raises as `models_registry.registry.Registry.sidecar`."""

_SHORTEST_PREFIX: Final = 6
_EXAMPLES: Final = 3

_Found = TypeVar("_Found", bound=Event)


class ExplainError(CommandFailed):
    """An order that cannot be explained; the message says what to try."""


class UnknownOrder(ExplainError):
    """No order with this id."""


class BrokenChain(ExplainError):
    """A link between an order and its origin is missing."""

    def __init__(self, link: str, message: str) -> None:
        super().__init__(f"{link}: {message}")
        self.link = link


class Explanation(BaseModel):
    """Everything an order stands on, newest link first."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    outcome: OrderFilled | OrderRejected | OrderCancelled | None
    """How it ended; None while it is pending."""
    order: OrderSubmitted
    validated: SignalValidated
    signal: SignalGenerated
    """With score, feature row, bar, and the offsets of the market frames of that bar."""
    opened: SignalGenerated | None
    """If the signal closes a position: the one that opened it, unless retention has dropped it."""
    assigned: StrategyModelAssigned | None
    """The control record that let the strategy run this model."""
    sidecar: Sidecar

    @property
    def stages_agree(self) -> bool:
        """Whether one configuration and one commit made signal, verdict and order."""
        stages = (self.signal.basis, self.validated.basis, self.order.basis)
        return len({(basis.config_digest, basis.git_commit) for basis in stages}) == 1


async def explain_from_log(settings: Settings, broker: Broker, order_id: str | None) -> Explanation:
    """Explain an order by what is on Kafka and in the model registry, by default the one filled last.

    Raises
    ------
    CommandFailed
        No order was filled yet, or another version wrote what is in the home.
    ExplainError
        There is no such order, or a link of its chain is gone.
    """
    require_layout(settings.alpha_panda_home)
    topics = broker_topics(broker)
    needed = (
        topics.orders_submitted,
        topics.orders_filled,
        topics.orders_rejected,
        topics.orders_cancelled,
        topics.signals_validated,
        topics.signals_raw,
        topics.control,
    )
    log = {topic.name: await _read_events(settings, topic) for topic in needed}
    if order_id is None:
        filled = [e for e in log[topics.orders_filled.name] if isinstance(e, OrderFilled)]
        if not filled:
            raise CommandFailed(f"no order was filled on {topics.orders_filled.name} yet: let a session run first")
        order_id = max(filled, key=lambda e: e.event_time_ns).order_id
    registry = build_registry(settings)
    return await asyncio.to_thread(explain_order, order_id, lambda topic: log[topic.name], registry.sidecar, broker)


async def _read_events(settings: Settings, topic: Topic) -> Sequence[Event]:
    """Read a topic's committed events, without its watermarks; what is no event is left to the dead letters."""
    from live_services.adapters.kafka import read_topic

    events = [event_or_none(record.value) async for record in read_topic(settings.kafka, topic.name)]
    return [event for event in events if event is not None and not isinstance(event, Watermark)]


def explain_order(order_id: str, log: EventLog, sidecars: SidecarSource, broker: Broker = "paper") -> Explanation:
    """Follow an order back through the log.

    Parameters
    ----------
    order_id
        The id of the order, or its first characters (at least six) if no other order begins with them.
    log
        Reads a topic's events.
    sidecars
        Reads a model version's sidecar.

    Raises
    ------
    UnknownOrder
        If no order, or more than one, has that id.
    BrokenChain
        If something it stands on is missing.
    """
    topics = broker_topics(broker)
    order = _find_order(order_id, log, topics.orders_submitted)
    validated = _only(
        log(topics.signals_validated),
        SignalValidated,
        lambda event: event.signal_id == order.signal_id,
        _gone("validated signal", topics.signals_validated, order.signal_id),
    )
    signal = _only(
        log(topics.signals_raw),
        SignalGenerated,
        lambda event: event.event_id == order.signal_id,
        _gone("raw signal", topics.signals_raw, order.signal_id),
    )
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
    return Explanation(
        outcome=_outcome(order, log, broker),
        order=order,
        validated=validated,
        signal=signal,
        opened=_opened(signal, log(topics.signals_raw)),
        assigned=_assigned(signal, log(topics.control)),
        sidecar=sidecar,
    )


def _find_order(order_id: str, log: EventLog, topic: Topic) -> OrderSubmitted:
    orders = {event.order_id: event for event in log(topic) if isinstance(event, OrderSubmitted)}
    if order_id in orders:
        return orders[order_id]
    matches = [key for key in orders if key.startswith(order_id)] if len(order_id) >= _SHORTEST_PREFIX else []
    if len(matches) == 1:
        return orders[matches[0]]
    if matches:
        raise UnknownOrder(f"{len(matches)} orders begin with {order_id!r}; give more of the id: {', '.join(matches)}")
    if not orders:
        raise UnknownOrder(f"no order {order_id!r}: {topic.name} holds no orders yet. Let a session run first")
    short = f"; give at least {_SHORTEST_PREFIX} characters" if len(order_id) < _SHORTEST_PREFIX else ""
    newest = ", ".join(list(orders)[-_EXAMPLES:])
    raise UnknownOrder(f"no order {order_id!r} among {len(orders)} on {topic.name}. The newest are {newest}{short}")


def _gone(link: str, topic: Topic, signal_id: str) -> BrokenChain:
    return BrokenChain(link, f"signal {signal_id} is not on {topic.name}; its retention may have dropped it")


def _only(events: Iterable[Event], kind: type[_Found], fits: Callable[[_Found], bool], missing: ExplainError) -> _Found:
    for event in events:
        if isinstance(event, kind) and fits(event):
            return event
    raise missing


def _outcome(
    order: OrderSubmitted, log: EventLog, broker: Broker
) -> OrderFilled | OrderRejected | OrderCancelled | None:
    topics = broker_topics(broker)
    for topic in (topics.orders_filled, topics.orders_rejected, topics.orders_cancelled):
        for event in log(topic):
            if isinstance(event, OrderFilled | OrderRejected | OrderCancelled) and event.order_id == order.order_id:
                return event
    return None


def _opened(closing: SignalGenerated, raw: Iterable[Event]) -> SignalGenerated | None:
    if closing.intent != "close":
        return None
    who = (closing.strategy, closing.instrument_token)
    opens = (
        event
        for event in raw
        if isinstance(event, SignalGenerated)
        and event.intent == "open"
        and (event.strategy, event.instrument_token) == who
        and event.event_time_ns < closing.event_time_ns
    )
    return max(opens, key=lambda event: event.event_time_ns, default=None)


def _assigned(signal: SignalGenerated, control: Iterable[Event]) -> StrategyModelAssigned | None:
    found = None
    for event in control:
        if (
            isinstance(event, StrategyModelAssigned)
            and (event.strategy, event.model_version) == (signal.strategy, signal.model_version)
            and event.event_time_ns < signal.event_time_ns
            and (found is None or event.event_time_ns >= found.event_time_ns)
        ):
            found = event
    return found


def render(explanation: Explanation) -> Tree:
    """Draw an explanation as a tree for the terminal."""
    order, signal = explanation.order, explanation.signal
    root = Tree(f"[bold]order {order.order_id}[/]  {order.side} {order.quantity} {order.symbol}  ({order.intent})")
    root.add(_outcome_line(explanation))
    verdict = root.add(
        f"risk accepted {explanation.validated.quantity} of {signal.quantity} at {ist_text(signal.event_time_ns)}"
    )
    verdict.add(f"rules asked: {', '.join(explanation.validated.rules)}")
    decision = verdict.add(f"signal {signal.event_id}: {signal.strategy} {_why(explanation)}")
    _add_data(decision, signal)
    _add_model(decision, explanation)
    code = root.add(f"code: commit {signal.basis.git_commit or 'unknown'}")
    code.add(f"configuration {signal.basis.config_digest[:16] or 'unknown'}")
    if not explanation.stages_agree:
        code.add("[yellow]risk or execution ran another commit or configuration than the strategy[/]")
    return root


def _why(explanation: Explanation) -> str:
    signal, opened = explanation.signal, explanation.opened
    if signal.intent == "open":
        return f"scored {signal.score:.6f} against {signal.threshold:.6f}"
    if opened is None:  # the threshold is that of the opening all the same
        return f"closed by time; what opened it is not on the log any more (its threshold was {signal.threshold:.6f})"
    minutes = explanation.sidecar.label_horizon_bars * (signal.bar.end_ns - signal.bar.start_ns) // MINUTE_NS
    on_time = signal.event_time_ns - opened.event_time_ns >= minutes * MINUTE_NS
    when = f"its horizon of {minutes} minutes" if on_time else "the last exit before the session's close"
    return f"closed at {when}; opened at {opened.score:.6f} against {opened.threshold:.6f}"


def _outcome_line(explanation: Explanation) -> str:
    outcome = explanation.outcome
    if outcome is None:
        return "pending"
    if isinstance(outcome, OrderFilled):
        return (
            f"filled {outcome.quantity} at ₹{outcome.price:,.2f}, {ist_text(outcome.event_time_ns)} "
            f"({outcome.fill_model}), costs ₹{outcome.costs_inr:,.2f}"
        )
    return f"{outcome.event_type.removeprefix('order.')}: {escape(outcome.reason)}"


def _add_data(decision: Tree, signal: SignalGenerated) -> None:
    row = decision.add(f"feature row (schema {signal.feature_schema_hash[:16]}…)")
    for name, value in signal.features.items():
        row.add(f"{name} = {value:.9g}" if value is not None else f"{name} has no value")
    bar = signal.bar
    data = decision.add(f"bar {ist_text(bar.start_ns)} → {ist_text(bar.end_ns)}")
    data.add(f"open {bar.open} high {bar.high} low {bar.low} close {bar.close} volume {bar.volume}")
    data.add(f"made of {bar.tick_count} ticks")
    for partition, (first, last) in signal.basis.input_positions.items():
        data.add(f"{partition} offsets {first} to {last}")


def _add_model(decision: Tree, explanation: Explanation) -> None:
    signal, sidecar, assigned = explanation.signal, explanation.sidecar, explanation.assigned
    model = decision.add(f"model {signal.model_name} version {signal.model_version} ({sidecar.algorithm})")
    if assigned is not None:
        model.add(f"running since {ist_text(assigned.event_time_ns)}: {escape(assigned.reason)}")
    trained = model.add(f"trained {ist_text(sidecar.created_at_ns)} by {escape(sidecar.created_by)}")
    trained.add(
        f"data: {escape(sidecar.market)}, {sidecar.training_rows} rows, digest {sidecar.training_data_digest[:16]}…"
    )
    trained.add(f"period {ist_text(sidecar.training_start_ns)} → {ist_text(sidecar.training_end_ns)}")
    trained.add(
        f"label {sidecar.label}, {len(sidecar.folds)} folds, gate {'passed' if sidecar.gate.passed else 'FAILED'}"
    )
    trained.add(f"code: commit {sidecar.git_commit}")
    if sidecar.run_url:
        trained.add(f"run {sidecar.run_url}")
