"""Strategy runner: the market in, proposals to every broker out; which model runs from when on is on its control topic.

One process for all brokers: features are computed once, and each strategy is asked on the rung of every broker it
names, and on the challenger's, whose scores go to a topic that no account reads. A model stands in the control records
by strategy and rung. What ran at the end of a session goes on in the next one if the registry has nothing to say.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from typing import Final, Protocol

import structlog

from feature_store.features.engine import compile_kernels
from feature_store.features.schema import FeatureSchema
from feature_store.market.types import Bars, Session, Ticks, Universe, ist_text
from feature_store.online.blocks import Block
from live_services.domain.basis import Stamp
from live_services.domain.events import (
    DeadLetter,
    Event,
    MarketGap,
    ModelLoaded,
    ModelRefused,
    StrategiesStopped,
    StrategyHistoryUsed,
    StrategyModelAssigned,
    event_id,
    self_caused,
)
from live_services.domain.log import MarketSlice, Readiness, Record, StrategyRuntime, TaskId
from live_services.domain.snapshot import Tree
from live_services.domain.strategy.desk import Assignment, StrategyDesk, StrategyKey, asked
from live_services.domain.strategy.history import HistoryUsed, SessionHistory, used_of
from live_services.domain.strategy.loaded_model import LoadedModel
from live_services.domain.topics import (
    MODELS_LOADED,
    MODELS_REFUSED,
    SIGNALS_SHADOW,
    STRATEGIES_CONTROL,
    STRATEGIES_SUMMARY,
    Scope,
    Topic,
    broker_topics,
    market_topic,
)
from live_services.runtime.failures import RuntimeFailure
from live_services.runtime.service import Input, Opening, Service
from live_services.services.loading_summary import LoadingSummaries
from live_services.services.model_loading import ModelLoader, Refusal, knows_too_much
from live_services.services.strategy_state import StrategyState, used_in
from live_services.services.timed_model import Inferred, TimedModel
from live_services.settings import Settings
from models_registry.refs import ModelIdentity
from models_registry.specification import Broker

_log = structlog.get_logger("trading")


class RowSink(Protocol):
    """Where the newest feature rows go."""

    def offer(self, schema: FeatureSchema, block: Block, /) -> None:
        """Take a task's newest rows; returns at once and never raises."""
        ...


class HistorySource(Protocol):
    """Where the features of a session go on from."""

    def of(
        self, session: Session, universe: Universe, sessions: Sequence[str] | None = None, needed: int = 0
    ) -> SessionHistory:
        """Give the history of a session: that of the sessions named, else of the last ones there are."""
        ...


class HistoryChanged(RuntimeFailure):
    """The bars that a session's features stood on are not what they were, so it cannot be run again as it was."""


class StrategyRunner(Service[StrategyState]):
    """One task for each market partition.

    Parameters
    ----------
    settings : Settings
        With the strategies, the feed, the clock and the number of market partitions.
    loader : ModelLoader
        Of the same strategies and brokers.
    stamp : Stamp
        Configuration and code, for the proposals' basis.
    brokers : sequence of Broker
        Those that run.
    rows : RowSink, optional
    history : HistorySource, optional
        Default: none, so that every instrument is WARMING at first.
    inferred : Inferred, optional
        Hears of each call of a model.
    """

    name = "strategy_runner"
    scope: Scope = "shared"

    def __init__(
        self,
        settings: Settings,
        loader: ModelLoader,
        stamp: Stamp,
        *,
        brokers: Sequence[Broker] = ("paper",),
        rows: RowSink | None = None,
        history: HistorySource | None = None,
        inferred: Inferred | None = None,
    ) -> None:
        self.inputs: tuple[Input, ...] = (
            Input(market_topic(settings.market.feed)),
            Input(STRATEGIES_CONTROL, "control"),
        )
        self.outputs: tuple[Topic, ...] = (
            *(broker_topics(broker).signals_raw for broker in brokers),
            SIGNALS_SHADOW,
            MODELS_LOADED,
            MODELS_REFUSED,
            STRATEGIES_SUMMARY,
        )
        self._on_bars: Final = settings.market.feed == "bars"
        self._strategies: Final = settings.strategies
        self._asked: Final = {(one.spec.name, one.rung): one.spec for one in asked(settings.strategies, brokers)}
        self._bar_minutes: Final = settings.market.bar_minutes
        self._partitions: Final = settings.kafka.market_partitions
        self._brokers: Final = tuple(brokers)
        self._loader: Final = loader
        self._stamp: Final = stamp
        self._rows: Final = rows
        self._history: Final = history
        self._inferred: Final = inferred
        self._summaries: Final = LoadingSummaries(settings.strategies, brokers)
        self._history_logged: dict[tuple[int, str], StrategyHistoryUsed] = {}

    async def prepare(self, task: TaskId, control: Sequence[Event]) -> None:
        """Load what the control records name, look at the ledger, and compile the kernels.

        Raises
        ------
        ModelUnavailable
            If a version that the log says was running cannot be loaded any more.
        """
        _log.debug("preparing", task=str(task), control_records=len(control))
        await asyncio.to_thread(compile_kernels)
        for event in control:
            match event:
                case StrategyHistoryUsed(session_date=date):
                    self._history_logged[task.partition, date] = event
                case StrategyModelAssigned(model_version=str(version)) if (event.strategy, event.rung) in self._asked:
                    await self._loader.require(event.model_name, version, event.sidecar_sha256)
        await self._loader.start()

    def open_session(self, opening: Opening[StrategyState]) -> StrategyState:
        """Begin the session on the bars before it, without models; ``commands`` assigns them.

        Reading the bars is the one thing done here that is no pure function; it takes seconds for a whole exchange.
        """
        before = opening.before
        running = {} if before is None else {key: before.running(key) for key in before.desk.keys}
        carried = {key: model for key, model in running.items() if model is not None and key in self._asked}
        desk = self._desk(opening, self._history_of(opening, carried.values()))
        return StrategyState(opening.task, desk, carried)

    def _desk(self, opening: Opening[StrategyState], history: SessionHistory | None) -> StrategyDesk:
        return StrategyDesk(
            opening.universe,
            opening.session,
            self._strategies,
            bar_minutes=self._bar_minutes,
            brokers=self._brokers,
            stamp=self._stamp,
            partition=opening.task.partition,
            partitions=self._partitions,
            history=history,
            of_bars=self._on_bars,
        )

    def _history_of(self, opening: Opening[StrategyState], carried: Iterable[LoadedModel]) -> SessionHistory | None:
        """Read what features go on from: as the log says that they did, else the sessions that models need."""
        if self._history is None:
            return None
        session, universe = opening.session, opening.universe
        logged = self._history_logged.get((opening.task.partition, session.date.isoformat()))
        if logged is not None:
            return self._history.of(session, universe, logged.sessions).as_it_was(used_of(logged))
        wanted = [
            candidate.model for candidate in tuple(self._loader.candidates.values())
        ]  # another thread writes them
        models = [*carried, *(model for model in wanted if model is not None)]
        needed = max((model.schema.history_sessions for model in models), default=0)
        return self._history.of(session, universe, needed=needed)

    def snapshot(self, state: StrategyState) -> Tree:
        """Write down what features, decisions and models stand on; the history is the store's to give again."""
        return state.snapshot()

    def restore(self, opening: Opening[StrategyState], kept: Tree) -> StrategyState:
        """Go on with what was decided, on the history that it was decided on, with the models that `prepare` loaded.

        Raises
        ------
        HistoryChanged
            If the history is not what it was.
        """
        used = used_in(kept)
        history = None
        if self._history is not None:
            history = self._history.of(opening.session, opening.universe, used.sessions).as_it_was(used)
        state = StrategyState(opening.task, self._desk(opening, history), {})
        if state.desk.history_used.digest != used.digest:
            raise _changed(state, opening.session.date.isoformat(), used)
        state.restore(kept, self._model, self._loader.known)
        return state

    def commands(self, state: StrategyState, now_ns: int) -> Iterator[Event]:
        """Log what the features stand on; assign to each strategy and rung what it should run and does not; announce
        each refused version once; and sum up what runs, if it is not what was said last.

        What the log already assigned is followed as it was, whatever would be refused now.
        """
        self._loader.check()
        if state.history_logged != state.desk.history_used:
            yield _history_used(state, now_ns)
        for key in state.desk.keys:
            yield from self._assignment_due(state, key, now_ns)
            yield from self._refusal_due(state, key, now_ns)
        yield from self._summary_due(state, now_ns)

    def flooded(self, letter: DeadLetter, reason: str, state: StrategyState, now_ns: int) -> Iterable[Event]:
        """Propose nothing more in this session: the market that models see has holes. Exits are the accounts'."""
        if not state.stopped:
            caused = self_caused("strategies_stopped", str(state.task), letter.event_id)
            yield StrategiesStopped(**caused | {"causation_id": letter.event_id}, event_time_ns=now_ns, reason=reason)

    def handle(self, record: Record, state: StrategyState, now_ns: int) -> Iterable[Event]:
        """Take market data, a gap in it, or a control record of this task.

        Raises
        ------
        TypeError
            For any other event.
        """
        if isinstance(record, MarketSlice):
            return self._on_market(record, state)
        event = record.event
        if isinstance(event, MarketGap):
            _log.warning("market_gap", task=str(state.task), until=ist_text(event.until_ns), reason=event.reason)
            proposals = state.desk.on_gap(event)
            self._offer_rows(state)
            return () if state.stopped else proposals
        if isinstance(event, StrategyModelAssigned):
            return self._assign(state, event)
        if isinstance(event, StrategyHistoryUsed):
            _require_same_history(state, event)
            return ()
        if isinstance(event, StrategiesStopped):
            _log.error("strategies_stopped", task=str(state.task), reason=event.reason, until="the session's end")
            state.stopped = event.reason
            return ()
        raise TypeError(f"{self.name} does not take {record!r:.200}")

    def _on_market(self, record: MarketSlice, state: StrategyState) -> Iterable[Event]:
        market: Ticks | Bars = record.market
        if isinstance(market, Bars):
            state.desk.on_bars(market, record.position)
            return ()
        proposals = state.desk.on_ticks(market, record.position)
        self._offer_rows(state)
        return () if state.stopped else proposals

    def advance(self, state: StrategyState, now_ns: int) -> Iterable[Event]:
        """Decide on the bars that the watermark closed."""
        proposals = state.desk.advance(now_ns)
        self._offer_rows(state)
        return () if state.stopped else proposals

    def _offer_rows(self, state: StrategyState) -> None:
        """Hand on the rows of a new decision; nothing comes back, so what becomes of them changes no decision."""
        if state.desk.decided_ns <= state.offered_ns:
            return
        state.offered_ns = state.desk.decided_ns
        self._summaries.rules_failed(state.desk.failures)
        self._say_warming(state)
        if self._rows is not None:
            for schema, block in state.desk.newest_rows():
                self._rows.offer(schema, block)

    def promise(self, state: StrategyState, now_ns: int) -> int:
        """Bars built from ticks and ending now are decided, and nothing is proposed before the next one ends; of bars
        that come as bars, more may end now.
        """
        return now_ns if self._on_bars else state.desk.next_decision_ns(now_ns)

    def readiness(self, state: StrategyState) -> Readiness:
        """Say how many instruments may be traded, and which are WARMING."""
        return Readiness(*state.desk.warming())

    def strategies(self, state: StrategyState | None) -> tuple[StrategyRuntime, ...]:
        """Say what runs of each strategy on each rung; before a session opens, what its next one would begin with."""
        return tuple(self._runtime(state, key) for key in self._asked)

    def _runtime(self, state: StrategyState | None, key: StrategyKey) -> StrategyRuntime:
        (strategy, rung), name = key, self._asked[key].model_name
        candidate, refusal = self._loader.candidates.get(key), self._loader.refusals.get(key)
        model = candidate.model if candidate is not None else None
        if state is not None:
            refusal, model = self._refusal(state, key), state.running(key)
        refusal = refusal or self._loader.strayed.get(key)
        if state is not None and state.stopped:
            why = f"it proposes nothing more in this session: {state.stopped}"
            return StrategyRuntime(strategy, rung, "disabled", name, reason=why)
        amiss = f"version {refusal.version} is refused: {refusal.reason}" if refusal is not None else ""
        if model is not None:
            version = model.identity.model_version
            return StrategyRuntime(strategy, rung, "ready", name, version, amiss or self._loader.outage)
        if amiss:
            return StrategyRuntime(strategy, rung, "disabled", name, reason=amiss)
        if candidate is None:
            return StrategyRuntime(strategy, rung, "waiting", name, reason=self._silence())
        if candidate.model is None:
            return StrategyRuntime(strategy, rung, "disabled", name, reason=candidate.reason)
        return StrategyRuntime(strategy, rung, "waiting", name, reason=f"{candidate.reason}, which is about to run")

    def _summary_due(self, state: StrategyState, now_ns: int) -> Iterator[Event]:
        said = standing = self.strategies(state)
        if self._loader.outage:
            said = tuple(replace(one, reason="") for one in standing)
        if said != state.summarized:
            state.summarized = said
            yield self._summaries.of(state.task, state.desk.session.date.isoformat(), standing, now_ns)

    def _say_warming(self, state: StrategyState) -> None:
        instruments, warming = state.desk.warming()
        if warming != (state.warming or ()):
            say = Readiness(instruments, warming)
            _log.info("features_warming" if warming else "features_warm", task=str(state.task), state=str(say))
        state.warming = warming

    # --- models ---------------------------------------------------------------------------------------------------

    def _assign(self, state: StrategyState, event: StrategyModelAssigned) -> Iterable[Event]:
        key = event.strategy, event.rung
        if key not in self._asked:
            return ()  # a strategy or a broker that the configuration no longer has
        if event.model_version is None:
            state.desk.assign(Assignment(event.event_time_ns, event.strategy, None, event.rung))
            return ()
        model = self._model(event.strategy, event.model_name, event.model_version)
        state.desk.assign(Assignment(event.event_time_ns, event.strategy, model, event.rung))
        return (
            ModelLoaded(
                event_id=event_id("loaded", event.event_id),
                correlation_id=event.correlation_id,
                causation_id=event.event_id,
                event_time_ns=event.event_time_ns,
                strategy=event.strategy,
                rung=event.rung,
                model_name=event.model_name,
                model_version=event.model_version,
                feature_schema_hash=model.identity.feature_schema_hash,
                artifact_sha256=model.artifact_sha256,
                task=str(state.task),
            ),
        )

    def _model(self, strategy: str, name: str, version: str) -> LoadedModel:
        """Give a version that was loaded, as a strategy asks it."""
        model = self._loader.loaded(name, version)
        if self._inferred is None:
            return model
        return replace(model, model=TimedModel(model.model, strategy, self._inferred))

    def _assignment_due(self, state: StrategyState, key: StrategyKey, now_ns: int) -> Iterator[Event]:
        """Give the record that lets a strategy run what stands on its rung. While that is not known, or is refused,
        what runs goes on; and at a session's open what ran at the end of the session before.
        """
        first, running = state.desk.assigned(key) is None, state.running(key)
        candidate, refusal = self._loader.candidates.get(key), self._refusal(state, key)
        if candidate is not None and refusal is None:
            changes = _identity(candidate.model) != _identity(running)
            if changes or (first and not _may_be_absent(key)):
                yield self._assigned(state, key, candidate.model, candidate.reason, now_ns)
            return
        if not first:
            return
        why = f"{self._ref(key)} stands for version {refusal.version}: {refusal.reason}" if refusal else self._silence()
        carried = state.carried.get(key)
        if carried is not None:
            spoilt = knows_too_much(carried, state.desk.session)
            said = f"version {carried.identity.model_version} ran at the end of the session before"
            why = f"{said} and is carried over: {why}" if spoilt is None else f"{why}; {said}, but {spoilt.reason}"
            carried = carried if spoilt is None else None
        if carried is not None or not _may_be_absent(key):
            yield self._assigned(state, key, carried, why, now_ns)

    def _silence(self) -> str:
        return self._loader.outage or "the model registry has not answered yet"

    def _ref(self, key: StrategyKey) -> str:
        return str(self._asked[key].ref(key[1]))

    def _assigned(
        self, state: StrategyState, key: StrategyKey, model: LoadedModel | None, reason: str, now_ns: int
    ) -> StrategyModelAssigned:
        strategy, rung = key
        version = model.identity.model_version if model is not None else None
        return StrategyModelAssigned(
            **self_caused("assigned", str(state.task), strategy, rung, now_ns, version or ""),
            event_time_ns=now_ns,
            strategy=strategy,
            rung=rung,
            model_name=self._asked[key].model_name,
            model_version=version,
            feature_schema_hash=model.identity.feature_schema_hash if model is not None else None,
            sidecar_sha256=model.sidecar_sha256 if model is not None else None,
            reason=reason,
        )

    def _refusal(self, state: StrategyState, key: StrategyKey) -> Refusal | None:
        """Say why what stands on a rung now may not run in this session, if it may not."""
        candidate = self._loader.candidates.get(key)
        if candidate is None or candidate.model is None:
            return self._loader.refusals.get(key)
        return (
            None
            if candidate.model.identity == _identity(state.running(key))
            else knows_too_much(candidate.model, state.desk.session)
        )

    def _refusal_due(self, state: StrategyState, key: StrategyKey, now_ns: int) -> Iterator[Event]:
        for refusal in (self._refusal(state, key), self._loader.strayed.get(key)):
            if refusal is not None and (key, refusal) not in state.refused:
                state.refused.add((key, refusal))
                yield self._refused(state, key, refusal, now_ns)

    def _refused(self, state: StrategyState, key: StrategyKey, refusal: Refusal, now_ns: int) -> ModelRefused:
        (strategy, rung), running = key, _identity(state.running(key))
        if running is not None or _may_be_absent(key):  # of one that is skipped for it the summary warns
            self._summaries.refused(key, refusal)
        date = state.desk.session.date.isoformat()
        return ModelRefused(
            **self_caused("refused", str(state.task), date, strategy, rung, refusal.version, refusal.reason),
            event_time_ns=now_ns,
            strategy=strategy,
            rung=rung,
            model_name=self._asked[key].model_name,
            model_version=refusal.version,
            reason=refusal.reason,
            running_version=running.model_version if running is not None else None,
            task=str(state.task),
        )


def _history_used(state: StrategyState, now_ns: int) -> StrategyHistoryUsed:
    used, date = state.desk.history_used, state.desk.session.date.isoformat()
    identity = "history_used", str(state.task), date, used.digest, used.today_until_ns, str(used.broken)
    return StrategyHistoryUsed(**self_caused(*identity), event_time_ns=now_ns, session_date=date, **asdict(used))


def _require_same_history(state: StrategyState, event: StrategyHistoryUsed) -> None:
    logged = used_of(event)
    if state.desk.history_used != logged:
        raise _changed(state, event.session_date, logged)
    state.history_logged = logged


def _changed(state: StrategyState, date: str, logged: HistoryUsed) -> HistoryChanged:
    here = state.desk.history_used
    days = f"{logged.sessions[0]} to {logged.sessions[-1]}" if logged.sessions else "no session"
    what = "today's stored bars" if here.digest == logged.digest else f"the stored bars of {days}, or the actions,"
    return HistoryChanged(
        f"{state.task}: {what} changed while the session of {date} ran: its features stand on "
        f"{_short(logged)}, the offline store now gives {_short(here)}. Going on would differ from what was "
        "decided before. Bring the bars (and market.corporate_actions) back as they were, or end the session "
        "here: start with an empty Kafka"
    )


def _short(used: HistoryUsed) -> str:
    today = f" and {used.today_digest[:12]} of today" if used.today_until_ns else ""
    broken = ", begun anew behind a gap" if used.broken else ""
    return f"{used.digest[:12]} ({len(used.sessions)} sessions){today}{broken}"


def _may_be_absent(key: StrategyKey) -> bool:
    """Say of a strategy on a rung whether it is nothing to speak of when no version is there."""
    return key[1] == "challenger"


def _identity(model: LoadedModel | None) -> ModelIdentity | None:
    return model.identity if model is not None else None
