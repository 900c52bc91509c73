"""Strategy runner: the market in, proposals to every broker out; which model runs from when on is on its control topic.

One process for all brokers: features are computed once, and each strategy is asked on the rung of every broker it
names, and on the challenger's, whose scores go to a topic that no account reads. A model stands in the control records
by strategy and rung. What ran at the end of a session goes on in the next one if the registry has nothing to say.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Final, Protocol

import structlog

from feature_store.features.engine import compile_kernels
from feature_store.features.schema import FeatureSchema
from feature_store.market.types import Bars, Ticks, ist_text
from feature_store.online.blocks import Block
from live_services.domain.basis import Stamp
from live_services.domain.configuration import StrategiesConfig, changes
from live_services.domain.events import (
    DeadLetter,
    Event,
    MarketGap,
    ModelLoaded,
    ModelRefused,
    StrategiesConfigured,
    StrategiesStopped,
    StrategyHistoryUsed,
    StrategyModelAssigned,
    event_id,
    self_caused,
)
from live_services.domain.log import MarketSlice, Readiness, Record, StrategyRuntime, TaskId
from live_services.domain.snapshot import Tree
from live_services.domain.strategy.asked import Assignment, StrategyKey
from live_services.domain.strategy.desk import StrategyDesk
from live_services.domain.strategy.history import LaterHistory, SessionHistory, used_of
from live_services.domain.strategy.loaded_model import LoadedModel
from live_services.domain.strategy.written_desk import make_ready_to_write
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
from live_services.runtime.service import SETTINGS_WAIT, Input, Opening, Service
from live_services.services.model_loading import ModelLoader, Refusal
from live_services.services.session_history import (
    Histories,
    HistorySource,
    KeptHistories,
    history_used,
    require_same_history,
)
from live_services.services.session_plans import SessionPlan, SessionPlans, knows_too_much, strategies_configured
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
    opened_for : sequence of Broker
        Those that the session under way was opened for, if it was: it goes on speaking to them.
    rows : RowSink, optional
    history : HistorySource, optional
        Default: none, so that every instrument is WARMING at first.
    kept : KeptHistories, optional
        What a restart goes on from, whatever became of the store since; default: the store has to be as it was.
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
        opened_for: Sequence[Broker] = (),
        rows: RowSink | None = None,
        history: HistorySource | None = None,
        kept: KeptHistories | None = None,
        inferred: Inferred | None = None,
    ) -> None:
        self.inputs: tuple[Input, ...] = (
            Input(market_topic(settings.market.feed)),
            Input(STRATEGIES_CONTROL, "control"),
        )
        self.outputs: tuple[Topic, ...] = (
            *(broker_topics(broker).signals_raw for broker in dict.fromkeys([*brokers, *opened_for])),
            SIGNALS_SHADOW,
            MODELS_LOADED,
            MODELS_REFUSED,
            STRATEGIES_SUMMARY,
        )
        self._on_bars: Final = settings.market.feed == "bars"
        config = StrategiesConfig(
            strategies=settings.strategies, bar_minutes=settings.market.bar_minutes, brokers=tuple(brokers)
        )
        self._plans: Final = SessionPlans(config, loader, {*brokers, *opened_for})
        self._partitions: Final = settings.kafka.market_partitions
        self._stamp: Final = stamp
        self._rows: Final = rows
        self._histories: Final = Histories(history, kept)
        self._inferred: Final = inferred
        self._history_logged: dict[tuple[int, str], StrategyHistoryUsed] = {}

    async def prepare(self, task: TaskId, control: Sequence[Event]) -> None:
        """Load what the control records name, look at the ledger, and compile the kernels.

        Raises
        ------
        ModelUnavailable
            If a version that the log says was running cannot be loaded any more.
        live_services.runtime.failures.WrongShape
            If the session speaks to a broker that this process was not built to speak to.
        """
        _log.debug("preparing", task=str(task), control_records=len(control))
        await asyncio.to_thread(compile_kernels)
        for event in control:
            if isinstance(event, StrategiesConfigured):
                self._plans.learn(task, event)
        plan = self._plans.own
        for event in control:
            match event:
                case StrategiesConfigured(session_date=date):
                    plan = self._plans.of(task, date)
                case StrategyHistoryUsed(session_date=date):
                    self._history_logged[task.partition, date] = event
                case StrategyModelAssigned(model_version=str(version)) if (event.strategy, event.rung) in plan.asked:
                    await plan.loader.require(event.model_name, version, event.sidecar_sha256)
        await self._plans.start()

    def open_session(self, opening: Opening[StrategyState]) -> StrategyState:
        """Begin the session on the bars before it, without models; ``commands`` assigns them.

        Reading the bars is the one thing done here that is no pure function; it takes seconds for a whole exchange.
        """
        plan, before = self._plan_of(opening), opening.before
        running = {} if before is None else {key: before.running(key) for key in before.desk.keys}
        models = {key: model for key, model in running.items() if model is not None}
        carried = {} if before is None else plan.carried(before.plan, models)
        desk = self._desk(opening, plan, self._history_of(opening, plan, carried.values()))
        return StrategyState(opening.task, plan, desk, carried)

    def _plan_of(self, opening: Opening[StrategyState]) -> SessionPlan:
        return self._plans.of(opening.task, opening.session.date.isoformat())

    def _desk(
        self, opening: Opening[StrategyState], plan: SessionPlan, history: SessionHistory | LaterHistory | None
    ) -> StrategyDesk:
        return StrategyDesk(
            opening.universe,
            opening.session,
            plan.config.strategies,
            bar_minutes=plan.config.bar_minutes,
            brokers=plan.config.brokers,
            stamp=self._stamp,
            partition=opening.task.partition,
            partitions=self._partitions,
            history=history,
            of_bars=self._on_bars,
        )

    def _history_of(
        self, opening: Opening[StrategyState], plan: SessionPlan, carried: Iterable[LoadedModel]
    ) -> SessionHistory | None:
        """Give what features go on from: what they did by the log, else the sessions that models need, and keep it."""
        logged = self._history_logged.get((opening.task.partition, opening.session.date.isoformat()))
        if logged is not None:
            return self._histories.as_used(opening, used_of(logged))

        def needed() -> int:
            wanted = [one.model for one in tuple(plan.loader.candidates.values())]  # another thread writes them
            models = [*carried, *(model for model in wanted if model is not None)]
            return max((model.schema.history_sessions for model in models), default=0)

        return self._histories.begun(opening, needed)

    def snapshot(self, state: StrategyState) -> Tree:
        """Write down what features, decisions and models stand on; the history is read again."""
        return state.snapshot()

    def restore(self, opening: Opening[StrategyState], kept: Tree) -> StrategyState:
        """Go on with what was decided, on the history that it was decided on, with the models that `prepare` loaded.

        Raises
        ------
        HistoryChanged
            If the history is not what it was.
        """
        used, plan = used_in(kept), self._plan_of(opening)
        state = StrategyState(opening.task, plan, self._desk(opening, plan, self._histories.later(opening, used)), {})
        state.restore(kept, partial(self._model, plan), plan.loader.known)
        self._say_what_waits(state)
        return state

    def commands(self, state: StrategyState, now_ns: int) -> Iterator[Event]:
        """Log the session's configuration and what the features stand on; assign to each strategy and rung what it
        should run and does not; announce each refused version once; and sum up what runs, if it is not what was said
        last.

        What the log already assigned is followed as it was, whatever would be refused now.
        """
        state.plan.loader.check()
        if not state.configured:
            date = state.desk.session.date.isoformat()
            yield strategies_configured(state.task, date, state.plan.config, self._stamp.git_commit, now_ns)
        if state.history_logged != state.desk.history_used:
            yield history_used(state.task, state.desk, now_ns)
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
            state.history_logged = require_same_history(state.task, state.desk, event)
            return ()
        if isinstance(event, StrategiesConfigured):
            state.configured = True
            self._say_what_waits(state)
            return ()
        if isinstance(event, StrategiesStopped):
            _log.error("strategies_stopped", task=str(state.task), reason=event.reason, until="the session's end")
            state.stopped = event.reason
            return ()
        raise TypeError(f"{self.name} does not take {record!r:.200}")

    def settings_wait(self, state: StrategyState) -> tuple[str, ...]:
        """Say what the settings would change from the next session on."""
        return changes(state.plan.config, self._plans.own.config)

    def _say_what_waits(self, state: StrategyState) -> None:
        if waiting := self.settings_wait(state):
            _log.warning(SETTINGS_WAIT, task=str(state.task), changes=waiting, until="the next session")

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
        state.plan.summaries.rules_failed(state.desk.failures)
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
        plan = state.plan if state is not None else self._plans.own
        return tuple(self._runtime(plan, state, key) for key in plan.asked)

    def _runtime(self, plan: SessionPlan, state: StrategyState | None, key: StrategyKey) -> StrategyRuntime:
        (strategy, rung), name = key, plan.asked[key].model_name
        candidate, refusal = plan.loader.candidates.get(key), plan.loader.refusals.get(key)
        model = candidate.model if candidate is not None else None
        if state is not None:
            refusal, model = self._refusal(state, key), state.running(key)
        refusal = refusal or plan.loader.strayed.get(key)
        if state is not None and state.stopped:
            why = f"it proposes nothing more in this session: {state.stopped}"
            return StrategyRuntime(strategy, rung, "disabled", name, reason=why)
        amiss = f"version {refusal.version} is refused: {refusal.reason}" if refusal is not None else ""
        if model is not None:
            failed = state.desk.failures.get(key) if state is not None else None
            words = filter(None, (amiss, str(failed or ""), plan.loader.outage))
            version, note = model.identity.model_version, model.against_gate(rung)
            return StrategyRuntime(strategy, rung, "ready", name, version, "; ".join(words), note)
        if amiss:
            return StrategyRuntime(strategy, rung, "disabled", name, reason=amiss)
        if candidate is None:
            return StrategyRuntime(strategy, rung, "waiting", name, reason=plan.silence)
        if candidate.model is None:
            return StrategyRuntime(strategy, rung, "disabled", name, reason=candidate.reason)
        return StrategyRuntime(strategy, rung, "waiting", name, reason=f"{candidate.reason}, which is about to run")

    def _summary_due(self, state: StrategyState, now_ns: int) -> Iterator[Event]:
        said = standing = self.strategies(state)
        if outage := state.plan.loader.outage:
            said = tuple(replace(one, reason=one.reason.removesuffix(outage).removesuffix("; ")) for one in standing)
        if said != state.summarized:
            state.summarized = said
            yield state.plan.summaries.of(state.task, state.desk.session.date.isoformat(), standing, now_ns)

    def _say_warming(self, state: StrategyState) -> None:
        instruments, warming = state.desk.warming()
        if warming != (state.warming or ()):
            say = Readiness(instruments, warming)
            _log.info("features_warming" if warming else "features_warm", task=str(state.task), state=str(say))
        state.warming = warming

    # --- models ---------------------------------------------------------------------------------------------------

    def _assign(self, state: StrategyState, event: StrategyModelAssigned) -> Iterable[Event]:
        key = event.strategy, event.rung
        if key not in state.plan.asked:
            return ()  # a strategy or a broker that the configuration no longer has
        if event.model_version is None:
            state.desk.assign(Assignment(event.event_time_ns, event.strategy, None, event.rung))
            return ()
        model = self._model(state.plan, event.strategy, event.model_name, event.model_version)
        state.desk.assign(Assignment(event.event_time_ns, event.strategy, model, event.rung))
        make_ready_to_write(state.desk)
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

    def _model(self, plan: SessionPlan, strategy: str, name: str, version: str) -> LoadedModel:
        """Give a version that was loaded, as a strategy asks it."""
        model = plan.loader.loaded(name, version)
        if self._inferred is None:
            return model
        return replace(model, model=TimedModel(model.model, strategy, self._inferred))

    def _assignment_due(self, state: StrategyState, key: StrategyKey, now_ns: int) -> Iterator[Event]:
        """Give the record that lets a strategy run what stands on its rung. While that is not known, or is refused,
        what runs goes on; and at a session's open what ran at the end of the session before.
        """
        first, running = state.desk.assigned(key) is None, state.running(key)
        candidate, refusal = state.plan.loader.candidates.get(key), self._refusal(state, key)
        if candidate is not None and refusal is None:
            moved = _identity(candidate.model) != _identity(running)
            if moved or (first and not _may_be_absent(key)):
                yield self._assigned(state, key, candidate.model, candidate.reason, now_ns)
            return
        if not first:
            return
        why = state.plan.silence
        if refusal is not None:
            why = f"{state.plan.asked[key].ref(key[1])} stands for version {refusal.version}: {refusal.reason}"
        carried = state.carried.get(key)
        if carried is not None:
            spoilt = knows_too_much(carried, state.desk.session)
            said = f"version {carried.identity.model_version} ran at the end of the session before"
            why = f"{said} and is carried over: {why}" if spoilt is None else f"{why}; {said}, but {spoilt.reason}"
            carried = carried if spoilt is None else None
        if carried is not None or not _may_be_absent(key):
            yield self._assigned(state, key, carried, why, now_ns)

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
            model_name=state.plan.asked[key].model_name,
            model_version=version,
            feature_schema_hash=model.identity.feature_schema_hash if model is not None else None,
            sidecar_sha256=model.sidecar_sha256 if model is not None else None,
            reason=reason,
        )

    def _refusal(self, state: StrategyState, key: StrategyKey) -> Refusal | None:
        """Say why what stands on a rung now may not run in this session, if it may not."""
        candidate = state.plan.loader.candidates.get(key)
        if candidate is None or candidate.model is None:
            return state.plan.loader.refusals.get(key)
        return (
            None
            if candidate.model.identity == _identity(state.running(key))
            else knows_too_much(candidate.model, state.desk.session)
        )

    def _refusal_due(self, state: StrategyState, key: StrategyKey, now_ns: int) -> Iterator[Event]:
        for refusal in (self._refusal(state, key), state.plan.loader.strayed.get(key)):
            if refusal is not None and (key, refusal) not in state.refused:
                state.refused.add((key, refusal))
                yield self._refused(state, key, refusal, now_ns)

    def _refused(self, state: StrategyState, key: StrategyKey, refusal: Refusal, now_ns: int) -> ModelRefused:
        (strategy, rung), running = key, _identity(state.running(key))
        if running is not None or _may_be_absent(key):  # of one that is skipped for it the summary warns
            state.plan.summaries.refused(key, refusal)
        date = state.desk.session.date.isoformat()
        return ModelRefused(
            **self_caused("refused", str(state.task), date, strategy, rung, refusal.version, refusal.reason),
            event_time_ns=now_ns,
            strategy=strategy,
            rung=rung,
            model_name=state.plan.asked[key].model_name,
            model_version=refusal.version,
            reason=refusal.reason,
            running_version=running.model_version if running is not None else None,
            task=str(state.task),
        )


def _may_be_absent(key: StrategyKey) -> bool:
    """Say of a strategy on a rung whether it is nothing to speak of when no version is there."""
    return key[1] == "challenger"


def _identity(model: LoadedModel | None) -> ModelIdentity | None:
    return model.identity if model is not None else None
