"""Strategies of one task: a model's score at each closed bar opens, and time closes.

The same object serves the live runner and the backtest. Ticks go in (or bars), signals come out; a signal's event time
is its decision time, the end of its bar, whatever watermark happened to close that bar. A position is held as long as
the strategy's label looks ahead: it closes at the first decision time of the task, of whichever instrument, at or after
opening decision + horizon. None is opened of which that lies after the last exit: such a decision has no label, so
nothing was learned or measured of it. A task's strategies trade on virtual positions: they are not told what risk or
the broker did, so nothing flows backwards.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from feature_store.bars.builder import BarBuilder
from feature_store.features.engine import FeatureEngine
from feature_store.features.schema import FeatureSchema
from feature_store.labels.forward_return import ForwardReturn
from feature_store.market.clocks import BarClock
from feature_store.market.types import MINUTE_NS, Bars, Session, Ticks, Universe
from feature_store.online.blocks import Block
from live_services.domain.basis import Stamp
from live_services.domain.events import BarValues, Intent, Side, SignalGenerated, event_id
from live_services.domain.log import LogPosition
from live_services.domain.partitions import owned
from live_services.domain.strategy.history import HistoryUsed, SessionHistory, joined
from live_services.domain.strategy.newest_rows import NewestRows
from live_services.domain.topics import Broker
from models_registry.refs import ModelIdentity
from models_registry.specification import StrategySpec

_HISTORY_ROWS: Final = 100_000  # stepped at once; the rows of a whole history would take gigabytes


class ScoringModel(Protocol):
    """What a strategy needs of a model; a row's score depends on that row alone."""

    def score(self, X: NDArray[np.float64], /) -> NDArray[np.float64]:  # noqa: N803
        """Score feature rows ``(n, F)`` in schema order; shape ``(n,)``, finite for finite rows."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class LoadedModel:
    """A version that was proved and is ready to score."""

    identity: ModelIdentity
    schema: FeatureSchema
    model: ScoringModel
    buy_threshold: float
    """Open long at or above."""
    sell_threshold: float
    """Open short at or below."""
    artifact_sha256: str = ""
    training_end_ns: int = 0
    """When the last label that it was trained on ended; a session that opened before is no test of it."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """A strategy runs a model, or none, for decisions strictly later than ``effective_ns``."""

    effective_ns: int
    strategy: str
    model: LoadedModel | None


@dataclass(frozen=True, slots=True, eq=False)
class _Batch:
    """Closed bars with the feature rows of every schema in use, by schema hash."""

    bars: Bars
    rows: dict[str, tuple[NDArray[np.float64], NDArray[np.bool_]]]


@dataclass(frozen=True, slots=True, eq=False)
class _Instant:
    """The rows of a batch whose bars end at one time; their instruments ascend."""

    batch: _Batch
    first: int
    end: int

    @property
    def decision_ns(self) -> int:
        return int(self.batch.bars.end_ns[self.first])

    def row_of(self, instrument: int) -> int | None:
        """Row of an instrument's bar; None if it has none now."""
        instruments = self.batch.bars.instrument[self.first : self.end]
        at = int(np.searchsorted(instruments, instrument))
        return self.first + at if at < len(instruments) and instruments[at] == instrument else None


@dataclass(slots=True)
class _VirtualPosition:
    instrument: int
    side: Side
    quantity: int
    threshold: float
    opened_score: float
    model: LoadedModel
    batch: _Batch
    """With ``row``: the instrument's newest bar."""
    row: int
    due_ns: int
    """Opening decision + horizon."""


@dataclass(slots=True)
class _Book:
    """One strategy of a task: its assignments in order of time, and its virtual positions by instrument."""

    settings: StrategySpec
    label: ForwardReturn
    """What its models foretell: how long its positions are held, and until when one may be."""
    assignments: list[Assignment] = field(default_factory=list)
    positions: dict[int, _VirtualPosition] = field(default_factory=dict)

    @property
    def models(self) -> Iterator[LoadedModel]:
        yield from (assignment.model for assignment in self.assignments if assignment.model is not None)
        yield from (position.model for position in self.positions.values())


@dataclass(frozen=True, slots=True, eq=False)
class _Scores:
    """Scores of a batch for one strategy; NaN where nothing may be opened."""

    score: NDArray[np.float64]
    candidates: NDArray[np.intp]
    """Rows beyond a threshold, ascending."""
    model_of: NDArray[np.int64]
    """Index into the assignments, by row."""


class StrategyDesk:
    """All strategies of one task for one session.

    Parameters
    ----------
    universe : Universe
        Instruments by index.
    session : Session
        The session; its end bounds entries.
    strategies : sequence of StrategySpec
        In the order in which their signals come at one instant.
    bar_minutes : int
        Length of the bars built from ticks.
    broker : Broker
        Whose signals these are.
    stamp : Stamp
        Configuration and code, for the signals' basis.
    partition, partitions : int
        The task's market partition and how many there are. Bars of instruments that it does not own (the market's
        index) are context: features see them, nothing is decided on them.
    history : SessionHistory, optional
        What features go on from; default: nothing, so that every instrument is WARMING at first.
    """

    def __init__(
        self,
        universe: Universe,
        session: Session,
        strategies: Sequence[StrategySpec],
        *,
        bar_minutes: int,
        broker: Broker = "paper",
        stamp: Stamp | None = None,
        partition: int = 0,
        partitions: int = 1,
        history: SessionHistory | None = None,
    ) -> None:
        self.session = session
        self.decided_ns = 0
        """End of the last bars that were decided on; 0 before the first."""
        self._universe = universe
        self._partition = partition
        self._own = owned(universe, partition, partitions)
        self._may_trade = self._own & np.array([i.tradable for i in universe.instruments], dtype=np.bool_)
        self._books = {
            one.name: _Book(one, ForwardReturn(one.holding_bars, bar_minutes, one.exit_minutes_before_close))
            for one in strategies
        }
        self._broker: Broker = broker
        self._stamp = stamp or Stamp()
        self._bar_ns = bar_minutes * MINUTE_NS
        self._builder = BarBuilder(len(universe), BarClock.minutes(bar_minutes))
        self._engines: dict[str, FeatureEngine] = {}
        self._newest: dict[str, NewestRows] = {}
        whole = history or SessionHistory(universe)
        self.history_used = HistoryUsed(whole.sessions, whole.digest)
        """What the features stand on; changes once at most, with the first row of a session joined in its middle."""
        self._history = whole.part_of(partition, partitions)
        self._bars: list[Bars] = [self._history.before] if len(self._history.before) else []
        self._begun = False
        self._waiting: list[Bars] = []
        self._frames: deque[tuple[LogPosition, int, int]] = deque()
        self._named = {one.name: _named(universe, one.instruments) for one in strategies}

    # --- models -------------------------------------------------------------------------------------------------

    def assign(self, assignment: Assignment) -> None:
        """Let a strategy run another model, or none; open virtual positions keep the model that opened them.

        A schema that is new to the session catches up on history and the session's bars, so its rows are what they
        would have been.
        """
        book = self._books[assignment.strategy]
        book.assignments.append(assignment)
        if assignment.model is not None and assignment.model.schema.hash not in self._engines:
            self._start_engine(assignment.model.schema)

    def _start_engine(self, schema: FeatureSchema) -> None:
        engine = FeatureEngine(schema, self._universe, self._history.actions)
        newest = NewestRows(schema, self._universe, self._own)
        for bars in self._bars:
            for first in range(0, len(bars), _HISTORY_ROWS):
                part = bars[first : first + _HISTORY_ROWS]
                newest.take(part, *engine.step(part))
        self._engines[schema.hash], self._newest[schema.hash] = engine, newest

    def assigned(self, strategy: str) -> Assignment | None:
        """Give a strategy's newest assignment; None before the first."""
        assignments = self._books[strategy].assignments
        return assignments[-1] if assignments else None

    def newest_rows(self) -> list[tuple[FeatureSchema, Block]]:
        """Give the newest feature row of each of the task's own instruments, for every schema in use."""
        return [(newest.schema, newest.block(self._partition)) for newest in self._newest.values() if newest.end_ns]

    def warming(self) -> tuple[int, tuple[str, ...]]:
        """Give how many instruments may be traded here, and the symbols of those whose next row is not warm yet."""
        running = {a[-1].model.schema.hash for b in self._books.values() if (a := b.assignments) and a[-1].model}
        cold = np.zeros(len(self._universe), dtype=np.bool_)
        for schema in running:
            cold |= self._engines[schema].warming()
        symbols = (self._universe.instruments[k].symbol for k in np.flatnonzero(cold & self._may_trade))
        return int(self._may_trade.sum()), tuple(symbols)

    # --- market data --------------------------------------------------------------------------------------------

    def _begin(self, first_ns: int) -> None:
        """Find out, at the first row of the market, whether the session was joined at its open or in its middle."""
        self._begun = True
        bars, used = joined(self._history, self.session, self._bar_ns, first_ns, self.history_used)
        if used != self.history_used:
            self._bars, self.history_used = bars, used
            for newest in tuple(self._newest.values()):
                self._start_engine(newest.schema)

    def on_ticks(self, ticks: Ticks, position: LogPosition | None = None) -> list[SignalGenerated]:
        """Take ticks in order of time; decide on the bars that their own times closed."""
        if not len(ticks):
            return []
        if not self._begun:
            self._begin(int(ticks.event_time_ns[0]))
        self._note_frame(position, int(ticks.event_time_ns[0]), int(ticks.event_time_ns[-1]))
        return self._decide(self._builder.step(ticks, self.session))

    def on_bars(self, bars: Bars, position: LogPosition | None = None) -> None:
        """Take closed bars; ``advance`` decides once every bar of that end is here."""
        if len(bars):
            if not self._begun:
                self._begin(int(bars.start_ns[0]))
            self._note_frame(position, int(bars.start_ns.min()), int(bars.end_ns[-1]) - 1)
            self._waiting.append(bars)

    def advance(self, watermark_ns: int) -> list[SignalGenerated]:
        """Close and decide what the watermark closed.

        Built bars end at or before the watermark; of bars that came as bars, all those with an end before it are here.
        """
        signals = self._decide(self._builder.advance(watermark_ns))
        if self._waiting:
            signals += self._decide(self._complete_before(watermark_ns))
        while self._frames and self._frames[0][2] < watermark_ns - 2 * self._bar_ns:
            self._frames.popleft()
        return signals

    def _complete_before(self, watermark_ns: int) -> Bars:
        bars = Bars.concatenate(self._waiting)
        due = bars.end_ns < watermark_ns
        self._waiting = [] if due.all() else [bars[~due]]
        ready = bars[due]
        return ready[np.lexsort((ready.instrument, ready.end_ns))]

    def _note_frame(self, position: LogPosition | None, first_ns: int, last_ns: int) -> None:
        if position is not None:
            self._frames.append((position, first_ns, last_ns))

    # --- decisions ----------------------------------------------------------------------------------------------

    def _decide(self, bars: Bars) -> list[SignalGenerated]:
        if not len(bars):
            return []
        self._bars.append(bars)
        self.decided_ns = int(bars.end_ns[-1])
        batch = _Batch(bars, {schema: engine.step(bars) for schema, engine in self._engines.items()})
        for schema, rows in batch.rows.items():
            self._newest[schema].take(bars, *rows)
        scores = {name: self._scores(book, batch) for name, book in self._books.items()}
        signals: list[SignalGenerated] = []
        edges = [0, *(np.flatnonzero(np.diff(bars.end_ns)) + 1).tolist(), len(bars)]
        for first, end in itertools.pairwise(edges):
            signals += self._decide_at(_Instant(batch, first, end), scores)
        self._forget_unused_models(int(bars.end_ns[-1]))
        return signals

    def _decide_at(self, instant: _Instant, scores: dict[str, _Scores]) -> list[SignalGenerated]:
        closes: list[tuple[int, SignalGenerated]] = []
        opens: list[tuple[int, SignalGenerated]] = []
        for name, book in self._books.items():
            closed = list(self._closes(book, instant))
            closes += closed
            opens += self._opens(book, instant, scores[name], {instrument for instrument, _ in closed})
        return [signal for group in (closes, opens) for _, signal in sorted(group, key=lambda pair: pair[0])]

    def _scores(self, book: _Book, batch: _Batch) -> _Scores:
        bars = batch.bars
        score, beyond = np.full(len(bars), np.nan), np.zeros(len(bars), dtype=np.bool_)
        effective = np.array([assignment.effective_ns for assignment in book.assignments], dtype=np.int64)
        model_of = np.searchsorted(effective, bars.end_ns, side="left") - 1
        last_entry_ns = self.session.close_ns - book.settings.last_entry_minutes_before_close * MINUTE_NS
        due_ns, last_exit_ns = bars.end_ns + book.label.horizon_ns, book.label.last_exit_ns(self.session)
        tradable = self._may_trade & self._named[book.settings.name]
        may_open = tradable[bars.instrument] & (bars.end_ns < last_entry_ns) & (due_ns <= last_exit_ns)
        for index in np.unique(model_of):
            model = book.assignments[index].model if index >= 0 else None
            if model is None:
                continue
            rows, warm = batch.rows[model.schema.hash]
            mine = warm & may_open & (model_of == index)
            mine[mine] = np.isfinite(rows[mine]).all(axis=1)  # without depth, or without the index, at that bar
            if not mine.any():
                continue
            found = model.model.score(np.ascontiguousarray(rows[mine]))
            score[mine] = found
            beyond[mine] = (found >= model.buy_threshold) | (found <= model.sell_threshold)
        return _Scores(score, np.flatnonzero(beyond), model_of)

    def _closes(self, book: _Book, instant: _Instant) -> Iterator[tuple[int, SignalGenerated]]:
        decision_ns = instant.decision_ns
        for instrument, position in sorted(book.positions.items()):
            if (row := instant.row_of(instrument)) is not None:
                position.batch, position.row = instant.batch, row
            if decision_ns >= position.due_ns:
                del book.positions[instrument]
                yield instrument, self._close(book, position, decision_ns)

    def _opens(
        self, book: _Book, instant: _Instant, scores: _Scores, closed: set[int]
    ) -> Iterator[tuple[int, SignalGenerated]]:
        batch = instant.batch
        lo, hi = np.searchsorted(scores.candidates, (instant.first, instant.end))
        for row in scores.candidates[lo:hi].tolist():
            instrument = int(batch.bars.instrument[row])
            model = book.assignments[scores.model_of[row]].model
            if model is None or instrument in book.positions or instrument in closed:
                continue
            score, close = float(scores.score[row]), float(batch.bars.close[row])
            side: Side = "BUY" if score >= model.buy_threshold else "SELL"
            position = _VirtualPosition(
                instrument=instrument,
                side=side,
                quantity=max(int(book.settings.notional_per_trade_inr // close), 1),
                threshold=model.buy_threshold if side == "BUY" else model.sell_threshold,
                opened_score=score,
                model=model,
                batch=batch,
                row=row,
                due_ns=instant.decision_ns + book.label.horizon_ns,
            )
            book.positions[instrument] = position
            yield instrument, self._signal(book, position, instant.decision_ns, intent="open", side=side, score=score)

    def _close(self, book: _Book, position: _VirtualPosition, decision_ns: int) -> SignalGenerated:
        rows, _ = position.batch.rows[position.model.schema.hash]
        row = np.ascontiguousarray(rows[position.row : position.row + 1])
        # a row without a value, say of a quote that went away, cannot be scored: the position closes all the same
        score = float(position.model.model.score(row)[0]) if np.isfinite(row).all() else position.opened_score
        side: Side = "SELL" if position.side == "BUY" else "BUY"
        return self._signal(book, position, decision_ns, intent="close", side=side, score=score)

    def _signal(
        self, book: _Book, position: _VirtualPosition, decision_ns: int, *, intent: Intent, side: Side, score: float
    ) -> SignalGenerated:
        instrument = self._universe.instruments[position.instrument]
        bar = _bar_values(position.batch.bars, position.row)
        model = position.model
        row = position.batch.rows[model.schema.hash][0][position.row].tolist()
        values = [None if math.isnan(value) else value for value in row]
        identity = event_id("signal", book.settings.name, instrument.instrument_token, decision_ns, intent)
        return SignalGenerated(
            broker=self._broker,
            event_id=identity,
            correlation_id=identity,
            causation_id=identity,
            event_time_ns=decision_ns,
            model_name=model.identity.model_name,
            model_version=model.identity.model_version,
            feature_schema_hash=model.identity.feature_schema_hash,
            basis=self._stamp.basis(
                at for at, first_ns, last_ns in self._frames if first_ns < bar.end_ns and last_ns >= bar.start_ns
            ),
            strategy=book.settings.name,
            instrument_token=instrument.instrument_token,
            symbol=instrument.symbol,
            side=side,
            intent=intent,
            quantity=position.quantity,
            score=score,
            threshold=position.threshold,
            reference_price=bar.close,
            bar=bar,
            features=dict(zip(model.schema.names, values, strict=True)),
        )

    def _forget_unused_models(self, decided_ns: int) -> None:
        """Drop assignments that were superseded before the last decision, and engines nobody needs."""
        for book in self._books.values():
            while len(book.assignments) > 1 and book.assignments[1].effective_ns < decided_ns:
                del book.assignments[0]
        used = {model.schema.hash for book in self._books.values() for model in book.models}
        for schema in self._engines.keys() - used:
            del self._engines[schema], self._newest[schema]


def _named(universe: Universe, symbols: Sequence[str]) -> NDArray[np.bool_]:
    """Give which instruments a strategy names, shape ``(n,)``; every one if it names none."""
    return np.array([not symbols or i.symbol in symbols for i in universe.instruments], dtype=np.bool_)


def _bar_values(bars: Bars, row: int) -> BarValues:
    return BarValues(
        start_ns=int(bars.start_ns[row]),
        end_ns=int(bars.end_ns[row]),
        open=float(bars.open[row]),
        high=float(bars.high[row]),
        low=float(bars.low[row]),
        close=float(bars.close[row]),
        volume=int(bars.volume[row]),
        tick_count=int(bars.tick_count[row]),
    )
