"""Strategy runner: the market in, raw signals out; which model runs from when on is a record on its control topic."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Protocol

import structlog

from feature_store.features.engine import compile_kernels
from feature_store.features.schema import FeatureSchema
from feature_store.market.types import Session, Universe, ist_text
from feature_store.online.blocks import Block
from live_services.domain.basis import Stamp
from live_services.domain.events import (
    Event,
    ModelLoaded,
    ModelRefused,
    StrategyHistoryUsed,
    StrategyModelAssigned,
    event_id,
)
from live_services.domain.log import BarSlice, EventRecord, Readiness, Record, TaskId, TickSlice
from live_services.domain.strategy.desk import Assignment, StrategyDesk
from live_services.domain.strategy.history import HistoryUsed, SessionHistory
from live_services.domain.topics import MODELS_LOADED, MODELS_REFUSED, Scope, Topic, broker_topics, market_topic
from live_services.runtime.service import Input
from live_services.services.model_loading import Candidate, ModelLoader, Refusal
from live_services.settings import Settings
from models_registry.refs import ModelIdentity
from models_registry.specification import Broker, StrategySpec

_log = structlog.get_logger(__name__)


class RowSink(Protocol):
    """Where the newest feature rows go."""

    def offer(self, schema: FeatureSchema, block: Block, /) -> None:
        """Take a task's newest rows; returns at once and never raises."""
        ...


class HistorySource(Protocol):
    """Where the features of a session go on from."""

    def of(self, session: Session, sessions: Sequence[str] | None = None, needed: int = 0) -> SessionHistory:
        """Give the history of a session: that of the sessions named, else of the last ones there are."""
        ...


class HistoryChanged(Exception):
    """The bars that a session's features stood on are not what they were, so it cannot be run again as it was."""


@dataclass(slots=True)
class StrategyState:
    """One task's strategies for one session."""

    task: TaskId
    desk: StrategyDesk
    offered_ns: int = 0
    """The decision whose rows went to the sink."""
    history_logged: HistoryUsed | None = None
    """What the log says that the features stand on."""
    warming: tuple[str, ...] | None = None
    """Symbols that were said to be WARMING; None before the first word on it."""
    refused: set[tuple[str, str, str]] = field(default_factory=set)
    """What was announced as refused: strategy, version, reason."""


class StrategyRunner:
    """A `Service`: one task for each market partition."""

    name = "strategy_runner"
    single_task = False

    def __init__(
        self,
        settings: Settings,
        universe: Universe,
        loader: ModelLoader,
        stamp: Stamp,
        *,
        broker: Broker = "paper",
        rows: RowSink | None = None,
        history: HistorySource | None = None,
    ) -> None:
        topics = broker_topics(broker)
        self.scope: Scope = broker
        self._broker: Broker = broker
        self.inputs: tuple[Input, ...] = (Input(market_topic(settings.market.feed)), Input(topics.control, "control"))
        self.outputs: tuple[Topic, ...] = (topics.signals_raw, MODELS_LOADED, MODELS_REFUSED)
        self._on_bars = settings.market.feed == "bars"
        self._strategies = {strategy.name: strategy for strategy in settings.strategies}
        self._bar_minutes = settings.market.bar_minutes
        self._universe = universe
        self._loader = loader
        self._stamp = stamp
        self._partitions = settings.kafka.market_partitions
        self._rows = rows
        self._history = history
        self._sessions_logged: dict[tuple[int, str], tuple[str, ...]] = {}

    async def prepare(self, task: TaskId, control: Sequence[Event]) -> None:  # a Service takes the task
        """Load what the session's control records name, look at the aliases, and compile the kernels.

        Raises
        ------
        ModelUnavailable
            If a version that the log says was running cannot be loaded any more.
        """
        _log.debug("preparing", task=str(task), control_records=len(control))
        await asyncio.to_thread(compile_kernels)
        for event in control:
            if isinstance(event, StrategyHistoryUsed):
                self._sessions_logged[task.partition, event.session_date] = event.sessions
            if isinstance(event, StrategyModelAssigned) and event.model_version is not None:
                await self._loader.require(event.model_name, event.model_version)
        await self._loader.start()

    def open_session(self, session: Session, task: TaskId) -> StrategyState:
        """Begin the session on the bars before it, without positions or models; ``commands`` assigns the models.

        Reading them is the one thing done here that is no pure function; it takes a second for a whole exchange.
        """
        history = None
        if self._history is not None:
            logged = self._sessions_logged.get((task.partition, session.date.isoformat()))
            history = self._history.of(session, logged, needed=self._loader.history_sessions)
        desk = StrategyDesk(
            self._universe,
            session,
            tuple(self._strategies.values()),
            bar_minutes=self._bar_minutes,
            broker=self._broker,
            stamp=self._stamp,
            partition=task.partition,
            partitions=self._partitions,
            history=history,
        )
        return StrategyState(task, desk)

    def commands(self, state: StrategyState, now_ns: int) -> Iterable[Event]:
        """Log what the features stand on; assign to each strategy what it should run and does not; announce each
        refused version once.

        What the log already assigned is followed as it was, whatever would be refused now.
        """
        self._loader.check()
        if state.history_logged != state.desk.history_used:
            yield self._history_used(state, now_ns)
        for strategy in self._strategies.values():
            yield from self._assignment_due(state, strategy, now_ns)
            yield from self._refusals_due(state, strategy, now_ns)

    def handle(self, record: Record, state: StrategyState, now_ns: int) -> Iterable[Event]:
        """Take market data, or a control record of this task.

        Raises
        ------
        TypeError
            For any other event.
        """
        if isinstance(record, TickSlice):
            signals = state.desk.on_ticks(record.ticks, record.position)
            self._offer_rows(state)
            return signals
        if isinstance(record, BarSlice):
            state.desk.on_bars(record.bars, record.position)
            return ()
        if isinstance(record.event, StrategyModelAssigned):
            return self._assign(state, record)
        if isinstance(record.event, StrategyHistoryUsed):
            _require_same_history(state, record.event)
            return ()
        raise TypeError(f"{self.name} does not take {record!r:.200}")

    def advance(self, state: StrategyState, now_ns: int) -> Iterable[Event]:
        """Decide on the bars that the watermark closed."""
        signals = state.desk.advance(now_ns)
        self._offer_rows(state)
        return signals

    def _offer_rows(self, state: StrategyState) -> None:
        """Hand on the rows of a new decision; nothing comes back, so what becomes of them changes no decision."""
        if state.desk.decided_ns <= state.offered_ns:
            return
        state.offered_ns = state.desk.decided_ns
        self._say_warming(state)
        if self._rows is not None:
            for schema, block in state.desk.newest_rows():
                self._rows.offer(schema, block)

    def promise(self, now_ns: int) -> int:
        """Bars built from ticks and ending now are decided; of bars that come as bars, more may end now."""
        return now_ns if self._on_bars else now_ns + 1

    def readiness(self, state: StrategyState) -> Readiness:
        """Say how many instruments may be traded, and which are WARMING."""
        return Readiness(*state.desk.warming())

    def _say_warming(self, state: StrategyState) -> None:
        instruments, warming = state.desk.warming()
        if warming != (state.warming or ()):
            say = Readiness(instruments, warming)
            _log.info("features_warming" if warming else "features_warm", task=str(state.task), state=str(say))
        state.warming = warming

    def _history_used(self, state: StrategyState, now_ns: int) -> StrategyHistoryUsed:
        used, date = state.desk.history_used, state.desk.session.date.isoformat()
        identity = event_id("history_used", str(state.task), date, used.digest, used.today_until_ns, str(used.broken))
        return StrategyHistoryUsed(
            broker=self._broker,
            event_id=identity,
            correlation_id=identity,
            causation_id=identity,
            event_time_ns=now_ns,
            session_date=date,
            **asdict(used),
        )

    # --- models ---------------------------------------------------------------------------------------------------

    def _assign(self, state: StrategyState, record: EventRecord) -> Iterable[Event]:
        event = record.event
        if not isinstance(event, StrategyModelAssigned) or event.strategy not in self._strategies:
            return ()  # a strategy that the configuration no longer has
        if event.model_version is None:
            state.desk.assign(Assignment(event.event_time_ns, event.strategy, None))
            return ()
        model = self._loader.loaded(event.model_name, event.model_version)
        state.desk.assign(Assignment(event.event_time_ns, event.strategy, model))
        ref = self._strategies[event.strategy].ref("champion")
        return (
            ModelLoaded(
                broker=self._broker,
                event_id=event_id("loaded", event.event_id),
                correlation_id=event.correlation_id,
                causation_id=event.event_id,
                event_time_ns=event.event_time_ns,
                strategy=event.strategy,
                model_name=event.model_name,
                model_version=event.model_version,
                alias=ref.alias,
                feature_schema_hash=model.identity.feature_schema_hash,
                artifact_sha256=model.artifact_sha256,
                task=str(state.task),
            ),
        )

    def _assignment_due(self, state: StrategyState, strategy: StrategySpec, now_ns: int) -> Iterable[Event]:
        current = state.desk.assigned(strategy.name)
        running = _running(state, strategy)
        candidate = self._loader.candidates.get(strategy.name)
        wanted = candidate.model.identity if candidate is not None and candidate.model is not None else None
        if current is not None and candidate is not None and wanted == running:
            return
        knows_too_much = _knows_too_much(state, candidate)
        if candidate is None or knows_too_much is not None:
            if current is not None:
                return  # the registry is silent, or names a version that is refused: what runs goes on
            refused = f"{strategy.ref('champion')} names version {knows_too_much.version}: " if knows_too_much else ""
            reason = refused + (knows_too_much.reason if knows_too_much else self._why_unknown(strategy))
            candidate, wanted = Candidate(None, reason), None
        if wanted is None:
            _log.warning("strategy_disabled", strategy=strategy.name, task=str(state.task), reason=candidate.reason)
        identity = event_id("assigned", str(state.task), strategy.name, now_ns, wanted.model_version if wanted else "")
        yield StrategyModelAssigned(
            event_type="strategy.model_assigned",
            broker=self._broker,
            event_id=identity,
            correlation_id=identity,
            causation_id=identity,
            event_time_ns=now_ns,
            strategy=strategy.name,
            model_name=strategy.model,
            model_version=wanted.model_version if wanted else None,
            feature_schema_hash=wanted.feature_schema_hash if wanted else None,
            reason=candidate.reason,
        )

    def _why_unknown(self, strategy: StrategySpec) -> str:
        refusal = self._loader.refusals.get(strategy.name)
        if refusal is not None:
            return f"{strategy.ref('champion')} names version {refusal.version}: {refusal.reason}"
        return self._loader.outage or "the model registry has not answered yet"

    def _refusals_due(self, state: StrategyState, strategy: StrategySpec, now_ns: int) -> Iterable[Event]:
        running = _running(state, strategy)
        knows_too_much = _knows_too_much(state, self._loader.candidates.get(strategy.name))
        if knows_too_much is not None and (running is None or running.model_version != knows_too_much.version):
            yield from self._refusal_due(state, strategy, knows_too_much, now_ns)
        refusal = self._loader.refusals.get(strategy.name)
        if refusal is not None:
            yield from self._refusal_due(state, strategy, refusal, now_ns)

    def _refusal_due(
        self, state: StrategyState, strategy: StrategySpec, refusal: Refusal, now_ns: int
    ) -> Iterable[Event]:
        if (strategy.name, refusal.version, refusal.reason) in state.refused:
            return
        state.refused.add((strategy.name, refusal.version, refusal.reason))
        running = _running(state, strategy)
        _log.warning("model_refused", strategy=strategy.name, version=refusal.version, reason=refusal.reason)
        ref = strategy.ref("champion")
        identity = event_id("refused", str(state.task), strategy.name, refusal.version, refusal.reason)
        yield ModelRefused(
            broker=self._broker,
            event_id=identity,
            correlation_id=identity,
            causation_id=identity,
            event_time_ns=now_ns,
            strategy=strategy.name,
            model_name=ref.name,
            model_version=refusal.version,
            alias=ref.alias,
            reason=refusal.reason,
            running_version=running.model_version if running is not None else None,
            task=str(state.task),
        )


def _require_same_history(state: StrategyState, event: StrategyHistoryUsed) -> None:
    here = state.desk.history_used
    logged = HistoryUsed(**{f.name: getattr(event, f.name) for f in fields(HistoryUsed)})
    if here != logged:
        days = f"{logged.sessions[0]} to {logged.sessions[-1]}" if logged.sessions else "no session"
        what = "today's stored bars" if here.digest == logged.digest else f"the stored bars of {days}, or the actions,"
        raise HistoryChanged(
            f"{state.task}: {what} changed while the session of {event.session_date} ran: its features stand on "
            f"{_short(logged)}, the offline store now gives {_short(here)}. Going on would differ from what was "
            "decided before. Bring the bars (and market.corporate_actions) back as they were, or end the session "
            "here: start with an empty Kafka"
        )
    state.history_logged = logged


def _short(used: HistoryUsed) -> str:
    today = f" and {used.today_digest[:12]} of today" if used.today_until_ns else ""
    broken = ", joined in the middle" if used.broken else ""
    return f"{used.digest[:12]} ({len(used.sessions)} sessions){today}{broken}"


def _running(state: StrategyState, strategy: StrategySpec) -> ModelIdentity | None:
    current = state.desk.assigned(strategy.name)
    return current.model.identity if current is not None and current.model is not None else None


def _knows_too_much(state: StrategyState, candidate: Candidate | None) -> Refusal | None:
    """Say why a version may not trade this session: it was trained on what happens in it, or later."""
    session, model = state.desk.session, candidate.model if candidate is not None else None
    if model is None or model.training_end_ns <= session.open_ns:
        return None
    return Refusal(
        model.identity.model_version,
        f"it was trained on data up to {ist_text(model.training_end_ns)}, after the session of {session.date} opened "
        f"({ist_text(session.open_ns)}), so it knows what is to come: set market.train_through to a day before "
        f"{session.date} and train again, or replay a later session",
    )
