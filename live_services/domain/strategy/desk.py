"""Strategies of one task: at a closed bar a model's score proposes a position, or a rule does and a model judges it.

The same object serves the live runner and the backtest. Ticks go in (or bars), proposals come out; a proposal's event
time is its decision time, the end of its bar, whatever watermark happened to close that bar. Features are computed once
and each strategy is asked once for each rung that it trades on. The desk holds no positions: it proposes whenever the
rule says so, and the account of each broker takes it or passes over it. Nothing is proposed that would end after the
last exit: such a decision has no label, so nothing was learned or measured of it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from feature_store.bars.builder import BarBuilder
from feature_store.features.engine import FeatureEngine
from feature_store.features.schema import FeatureSchema, feature_schema
from feature_store.labels.barrier_return import VOLATILITY
from feature_store.market.clocks import BarClock
from feature_store.market.types import MINUTE_NS, Bars, Instrument, Session, Ticks, Universe
from feature_store.online.blocks import Block
from live_services.domain.basis import Stamp
from live_services.domain.events import (
    BarValues,
    ExitTerms,
    MarketGap,
    Side,
    SignalGenerated,
    SignalShadowed,
    event_id,
    self_caused,
)
from live_services.domain.log import LogPosition
from live_services.domain.partitions import owned
from live_services.domain.strategy.asked import Asked, Assignment, StrategyKey, asked
from live_services.domain.strategy.history import HistoryUsed, LaterHistory, SessionBars, SessionHistory
from live_services.domain.strategy.loaded_model import LoadedModel, RuleFailures, judged, said
from live_services.domain.strategy.newest_rows import NewestRows
from live_services.domain.strategy.terms import Distances, distances, shares
from models_registry.specification import Broker, StrategySpec

_BAR: Final = tuple(BarValues.model_fields)  # columns of `Bars` by the same names
_HISTORY_ROWS: Final = 100_000  # stepped at once; the rows of a whole history would take gigabytes


Proposal = SignalGenerated | SignalShadowed


@dataclass(frozen=True, slots=True, eq=False)
class _Batch:
    """Closed bars with the feature rows of every schema in use, by schema hash."""

    bars: Bars
    rows: dict[str, tuple[NDArray[np.float64], NDArray[np.bool_]]]


@dataclass(frozen=True, slots=True, eq=False)
class _Scores:
    """Scores of a batch for one strategy; NaN where nothing may be opened."""

    score: NDArray[np.float64]
    side: NDArray[np.int8]
    """1 to buy, -1 to sell, 0 where nothing is opened."""
    candidates: NDArray[np.intp]
    """Rows that open something, ascending."""
    model_of: NDArray[np.int64]
    """Index into the assignments, by row."""


class _Decided(NamedTuple):
    """What opens a position."""

    model: LoadedModel
    instrument: Instrument
    side: Side
    score: float
    bar: BarValues
    features: dict[str, float]
    """Finite: nothing is decided on a row that is not."""
    volatility: float
    """Fraction per bar; NaN if the model does not look at it."""
    barriers: Distances | None
    """None of a rule's whose barriers have no width, for which there is no label either: it is not proposed."""

    @property
    def threshold(self) -> float:
        """The one that the score is beyond."""
        sell = self.model.sell_threshold
        return self.model.buy_threshold if self.side == "BUY" or sell is None else sell


class StrategyDesk:
    """All strategies of one task for one session.

    Parameters
    ----------
    universe : Universe
        Instruments by index.
    session : Session
        The session; its end bounds entries.
    strategies : sequence of StrategySpec
        In the order in which their proposals come at one instant.
    bar_minutes : int
        Length of the bars built from ticks.
    brokers : sequence of Broker
        Those that run; a strategy speaks to the ones of them that it names, and a broker gives the rung.
    stamp : Stamp
        Configuration and code, for the proposals' basis.
    partition, partitions : int
        The task's market partition and how many there are. Bars of instruments that it does not own (the market's
        index) are context: features see them, nothing is decided on them.
    history : SessionHistory or LaterHistory, optional
        What features go on from; default: nothing, so that every instrument is WARMING at first.
    of_bars : bool
        Whether the market comes as bars, so that a gap in it lacks bars and not ticks.
    """

    def __init__(
        self,
        universe: Universe,
        session: Session,
        strategies: Sequence[StrategySpec],
        *,
        bar_minutes: int,
        brokers: Sequence[Broker] = ("paper",),
        stamp: Stamp | None = None,
        partition: int = 0,
        partitions: int = 1,
        history: SessionHistory | LaterHistory | None = None,
        of_bars: bool = False,
    ) -> None:
        self.session = session
        self.decided_ns = 0
        """End of the last bars that were decided on; 0 before the first."""
        self.failures: dict[StrategyKey, RuleFailures] = {}
        """Where the rule of a strategy failed in the session, by rung."""
        self._universe = universe
        self._partition = partition
        self._own = owned(universe, partition, partitions)
        self._may_trade = self._own & np.array([i.tradable for i in universe.instruments], dtype=np.bool_)
        self._asked = {(one.spec.name, one.rung): one for one in asked(strategies, brokers)}
        self._stamp = stamp or Stamp()
        self._bar_ns = bar_minutes * MINUTE_NS
        self._clock = BarClock.minutes(bar_minutes)
        self._builder = BarBuilder(len(universe), self._clock)
        self._engines: dict[str, FeatureEngine] = {}
        self._newest: dict[str, NewestRows] = {}
        self._written: dict[str, dict[str, NDArray[Any]]] = {}
        """What was written of each engine last; see `live_services.domain.strategy.written_desk`."""
        mine = (history or SessionHistory(universe)).part_of(partition, partitions)
        self._actions = mine.actions
        self._of_bars = of_bars
        self._opens: list[int] = []
        """Of the sessions that it went on from, the last ones."""
        self._kept_sessions = feature_schema(None, self._clock).history_sessions
        """What the settings have live read back too, so that any schema of this clock that comes later gets warm."""
        self._bars = SessionBars(mine, session, self._bar_ns, of_bars=of_bars)
        self._waiting: list[Bars] = []
        self._frames: deque[tuple[LogPosition, int, int]] = deque()
        self._named = {one.name: _named(universe, one.instruments) for one in strategies}

    def next_session(self, session: Session) -> None:
        """Go on with the next session of the same universe; nobody runs a model in it yet.

        Features stand on what was stepped so far, as if it were the history of a desk that begins. A schema that is new
        then catches up on the last sessions: as many as every feature of this clock needs, or a schema that ever ran.
        """
        self._opens = [*self._opens, self.session.open_ns][-self._kept_sessions :]
        from_ns = self._opens[0] if len(self._opens) == self._kept_sessions else 0
        before = [bars for bars in self._bars.parts if bars.end_ns[-1] > from_ns]
        empty = SessionHistory(self._universe)
        self._bars = SessionBars(empty, session, self._bar_ns, of_bars=self._of_bars, carried=before)
        self.session, self.decided_ns = session, 0
        self.failures.clear()
        self._builder = BarBuilder(len(self._universe), self._clock)
        self._waiting.clear()
        self._frames.clear()
        for one in self._asked.values():
            one.assignments.clear()

    @property
    def history_used(self) -> HistoryUsed:
        """What the features stand on, for the log; a gap of the market changes it.

        Sessions that this desk went on from are not in it.
        """
        return self._bars.used

    # --- models -------------------------------------------------------------------------------------------------

    @property
    def keys(self) -> tuple[StrategyKey, ...]:
        """The strategies, each with every rung that it is asked on."""
        return tuple(self._asked)

    def assign(self, assignment: Assignment) -> None:
        """Let a strategy run another model on a rung, or none.

        A schema that is new to the session catches up on history and the session's bars, so its rows are what they
        would have been.

        Raises
        ------
        KeyError
            If nobody runs this strategy on this rung.
        """
        assignments = self._asked[assignment.strategy, assignment.rung].assignments
        if assignment.model is not None and assignment.model.schema.hash not in self._engines:
            self._start_engine(assignment.model.schema)
        assignments.append(assignment)

    def _start_engine(self, schema: FeatureSchema) -> None:
        engine = FeatureEngine(schema, self._universe, self._actions)
        newest = NewestRows(schema, self._universe, self._own)
        for bars in self._bars.parts:
            _step(engine, newest, bars)
        self._kept_sessions = max(self._kept_sessions, schema.history_sessions)
        self._engines[schema.hash], self._newest[schema.hash] = engine, newest
        self._written.pop(schema.hash, None)

    def assigned(self, key: StrategyKey) -> Assignment | None:
        """Give the newest assignment of a strategy on a rung; None before the first."""
        assignments = self._asked[key].assignments
        return assignments[-1] if assignments else None

    def newest_rows(self) -> list[tuple[FeatureSchema, Block]]:
        """Give the newest feature row of each of the task's own instruments, for every schema in use."""
        return [(newest.schema, newest.block(self._partition)) for newest in self._newest.values() if newest.end_ns]

    def warming(self) -> tuple[int, tuple[str, ...]]:
        """Give how many instruments may be traded here, and the symbols of those whose next row is not warm yet."""
        running = {a[-1].model.schema.hash for one in self._asked.values() if (a := one.assignments) and a[-1].model}
        cold = np.zeros(len(self._universe), dtype=np.bool_)
        for schema in running:
            cold |= self._engines[schema].warming()
        symbols = (self._universe.instruments[k].symbol for k in np.flatnonzero(cold & self._may_trade))
        return int(self._may_trade.sum()), tuple(symbols)

    # --- market data --------------------------------------------------------------------------------------------

    def on_ticks(self, ticks: Ticks, position: LogPosition | None = None) -> list[Proposal]:
        """Take ticks in order of time; decide on the bars that their own times closed."""
        if not len(ticks):
            return []
        self._note_frame(position, int(ticks.event_time_ns[0]), int(ticks.event_time_ns[-1]))
        return self._decide(self._builder.step(ticks, self.session))

    def on_bars(self, bars: Bars, position: LogPosition | None = None) -> None:
        """Take closed bars; ``advance`` decides once every bar of that end is here."""
        if len(bars):
            self._note_frame(position, int(bars.start_ns.min()), int(bars.end_ns[-1]) - 1)
            self._waiting.append(bars)

    def on_gap(self, gap: MarketGap) -> list[Proposal]:
        """Take a gap of the market; decide on the bars that were over before it.

        Features go on over the stored bars that stand in for those that are gone, or begin anew: see `SessionBars`.
        """
        decided = self.advance(gap.event_time_ns)
        stand_ins = self._bars.gap(gap)
        for newest in tuple(self._newest.values()):
            if stand_ins is None:
                self._start_engine(newest.schema)
            else:
                _step(self._engines[newest.schema.hash], newest, stand_ins)
        return decided

    def advance(self, watermark_ns: int) -> list[Proposal]:
        """Close and decide what the watermark closed.

        Built bars end at or before the watermark; of bars that came as bars, all those with an end before it are here.
        """
        signals = self._decide(self._builder.advance(watermark_ns))
        if self._waiting:
            signals += self._decide(self._complete_before(watermark_ns))
        while self._frames and self._frames[0][2] < watermark_ns - 2 * self._bar_ns:
            self._frames.popleft()
        return signals

    def next_decision_ns(self, watermark_ns: int) -> int:
        """Give the earliest end of a built bar that ``advance(watermark_ns)`` has not decided; after the close, the
        next instant.
        """
        session = self.session
        if watermark_ns >= session.close_ns:
            return watermark_ns + 1
        bars_over = (watermark_ns - session.open_ns) // self._bar_ns
        return min(session.open_ns + (bars_over + 1) * self._bar_ns, session.close_ns)

    def _complete_before(self, watermark_ns: int) -> Bars:
        bars = self._waiting[0] if len(self._waiting) == 1 else Bars.concatenate(self._waiting)
        due = bars.end_ns < watermark_ns
        if due.all():
            self._waiting = []
        else:
            self._waiting, bars = [bars[~due]], bars[due]
        later, ties = np.diff(bars.end_ns), np.diff(bars.instrument) > 0
        in_order = bool(np.all((later > 0) | ((later == 0) & ties)))  # as a store gives them: nothing is to be copied
        return bars if in_order else bars[np.lexsort((bars.instrument, bars.end_ns))]

    def _note_frame(self, position: LogPosition | None, first_ns: int, last_ns: int) -> None:
        if position is not None:
            self._frames.append((position, first_ns, last_ns))

    # --- decisions ----------------------------------------------------------------------------------------------

    def _decide(self, closed: Bars) -> list[Proposal]:
        bars = self._bars.take(closed)
        if not len(bars):
            return []
        self.decided_ns = int(bars.end_ns[-1])
        batch = _Batch(bars, {schema: engine.step(bars) for schema, engine in self._engines.items()})
        for schema, rows in batch.rows.items():
            self._newest[schema].take(bars, *rows)
        found = [proposal for one in self._asked.values() for proposal in self._proposals(one, batch)]
        self._forget_unused_models(int(bars.end_ns[-1]))
        found.sort(key=lambda proposal: proposal.event_time_ns)  # stable: strategies in their order at one instant
        return found

    def _proposals(self, one: Asked, batch: _Batch) -> Iterator[Proposal]:
        scores = self._scores(one, batch)
        model_of = scores.model_of[scores.candidates]
        for index in np.unique(model_of).tolist():  # ascending with time, as the candidates
            model = one.assignments[index].model
            if model is None:
                continue
            for decided in self._decided(one, batch, scores, scores.candidates[model_of == index], model):
                if one.rung == "challenger":
                    yield self._shadowed(one, decided)
                if decided.barriers is not None:
                    for broker in one.brokers:
                        yield self._proposed(one, broker, decided, decided.barriers)

    def _decided(
        self, one: Asked, batch: _Batch, scores: _Scores, at: NDArray[np.intp], model: LoadedModel
    ) -> Iterator[_Decided]:
        """Take what opens positions out of the arrays, column by column: one by one costs more than all the rest."""
        bars, rows, names = batch.bars[at], batch.rows[model.schema.hash][0][at], model.schema.names
        volatility = rows[:, names.index(VOLATILITY)] if VOLATILITY in names else np.full(len(at), np.nan)
        barriers = distances(one.spec, one.label, bars.close, volatility)
        columns = (bars.instrument, scores.side[at], scores.score[at], volatility, *(getattr(bars, c) for c in _BAR))
        for values, between, (instrument, side, score, deviation, *bar) in zip(
            rows.tolist(), barriers, zip(*(column.tolist() for column in columns), strict=True), strict=True
        ):
            yield _Decided(
                model,
                self._universe.instruments[instrument],
                "BUY" if side > 0 else "SELL",
                score,
                BarValues.trusted(dict(zip(_BAR, bar, strict=True))),
                dict(zip(names, values, strict=True)),
                deviation,
                between,
            )

    def _scores(self, one: Asked, batch: _Batch) -> _Scores:
        bars = batch.bars
        score, side = np.full(len(bars), np.nan), np.zeros(len(bars), dtype=np.int8)
        effective = np.array([assignment.effective_ns for assignment in one.assignments], dtype=np.int64)
        model_of = np.searchsorted(effective, bars.end_ns, side="left") - 1
        last_entry_ns = self.session.close_ns - one.spec.last_entry_minutes_before_close * MINUTE_NS
        due_ns, last_exit_ns = bars.end_ns + one.label.horizon_ns, one.label.last_exit_ns(self.session)
        tradable = self._may_trade & self._named[one.spec.name]
        may_open = tradable[bars.instrument] & (bars.end_ns < last_entry_ns) & (due_ns <= last_exit_ns)
        for index in range(max(int(model_of.min()), 0), int(model_of.max()) + 1):
            model = one.assignments[index].model
            if model is None:
                continue
            rows, warm = batch.rows[model.schema.hash]
            mine = warm & may_open & (model_of == index)
            given = np.ascontiguousarray(rows[mine])
            finite = np.isfinite(given)
            if not finite.all():  # without depth, or without the index, at that bar
                complete = finite.all(axis=1)
                mine[mine], given = complete, given[complete]
            if not len(given):
                continue
            if one.proposer is None:
                score[mine], side[mine] = said(model, given)
            else:
                score[mine], side[mine], failed = judged(model, one.proposer, given)
                if failed is not None:
                    before = self.failures.get((one.spec.name, one.rung))
                    self.failures[one.spec.name, one.rung] = failed if before is None else before + failed
        return _Scores(score, side, np.flatnonzero(side), model_of)

    def _proposed(self, one: Asked, broker: Broker, decided: _Decided, barriers: Distances) -> SignalGenerated:
        spec, model, instrument, bar = one.spec, decided.model, decided.instrument, decided.bar
        stop_inr_e4, target_inr_e4 = barriers
        end_ns, close, identity = bar.end_ns, bar.close, vars(model.identity)
        own_id = event_id("signal", broker, spec.name, one.rung, instrument.instrument_token, end_ns, 0)
        frames: Sequence[LogPosition] = ()
        if self._frames:
            frames = [at for at, first_ns, last_ns in self._frames if first_ns < end_ns and last_ns >= bar.start_ns]
        return SignalGenerated.trusted(
            {
                "event_type": "signal.generated",
                "broker": broker,
                "event_id": own_id,
                "correlation_id": own_id,
                "causation_id": own_id,
                "event_time_ns": end_ns,
                "schema_version": 2,
                "model_name": identity["model_name"],
                "model_version": identity["model_version"],
                "feature_schema_hash": identity["feature_schema_hash"],
                "basis": self._stamp.basis(frames),
                "strategy": spec.name,
                "rung": one.rung,
                "instrument_token": instrument.instrument_token,
                "symbol": instrument.symbol,
                "product": spec.product,
                "side": decided.side,
                "intent": "open",
                "quantity": shares(spec, close, decided.volatility, stop_inr_e4, instrument.lot_size),
                "priority": spec.priority,
                "exit": ExitTerms.trusted(
                    {
                        "expiry_ns": end_ns + one.label.horizon_ns,
                        "stop_distance_inr_e4": stop_inr_e4,
                        "target_distance_inr_e4": target_inr_e4,
                    }
                ),
                "score": decided.score,
                "threshold": decided.threshold,
                "reference_price": close,
                "bar": bar,
                "features": decided.features,
            }
        )

    def _shadowed(self, one: Asked, decided: _Decided) -> SignalShadowed:
        model, instrument, decision_ns = decided.model, decided.instrument, decided.bar.end_ns
        return SignalShadowed.trusted(
            {
                **self_caused("shadow", one.spec.name, one.rung, instrument.instrument_token, decision_ns),
                "event_time_ns": decision_ns,
                "strategy": one.spec.name,
                "model_name": model.identity.model_name,
                "model_version": model.identity.model_version,
                "feature_schema_hash": model.identity.feature_schema_hash,
                "instrument_token": instrument.instrument_token,
                "symbol": instrument.symbol,
                "side": decided.side,
                "score": decided.score,
                "threshold": decided.threshold,
                "reference_price": decided.bar.close,
            }
        )

    def _forget_unused_models(self, decided_ns: int) -> None:
        """Drop assignments that were superseded before the last decision, and engines nobody needs."""
        for one in self._asked.values():
            while len(one.assignments) > 1 and one.assignments[1].effective_ns < decided_ns:
                del one.assignments[0]
        used = {model.schema.hash for one in self._asked.values() for model in one.models}
        for schema in self._engines.keys() - used:
            del self._engines[schema], self._newest[schema]
            self._written.pop(schema, None)


def _step(engine: FeatureEngine, newest: NewestRows, bars: Bars) -> None:
    """Let features go on over bars that nothing is decided on."""
    for first in range(0, len(bars), _HISTORY_ROWS):
        part = bars[first : first + _HISTORY_ROWS]
        newest.take(part, *engine.step(part))


def _named(universe: Universe, symbols: Sequence[str]) -> NDArray[np.bool_]:
    """Give which instruments a strategy names, shape ``(n,)``; every one if it names none."""
    return np.array([not symbols or i.symbol in symbols for i in universe.instruments], dtype=np.bool_)
