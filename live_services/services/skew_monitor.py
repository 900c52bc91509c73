"""Skew monitor: computes sampled live rows again from the recorded market, every minute of event time.

It shares no state with the strategy runner: the ticks of a few instruments are kept, made into bars and rows in one
step each on a history read anew, and compared with the rows in the runner's signals, bit for bit.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import structlog
from numpy.typing import NDArray

from feature_store.market.clocks import BarClock
from feature_store.market.types import MINUTE_NS, Bars, Session, Ticks, Universe, ist_text
from live_services.domain.events import Event, FeatureSkewMeasured, SignalGenerated, event_id
from live_services.domain.log import EventRecord, Record, TaskId, TickSlice
from live_services.domain.partitions import owned
from live_services.domain.strategy.history import HistoryUsed, SessionHistory, joined
from live_services.domain.strategy.skew import (
    LiveRow,
    SkewReport,
    bars_of_market,
    compare,
    describe,
    row_of_signal,
    sampled,
)
from live_services.domain.topics import Scope, Topic, broker_topics, market_topic
from live_services.runtime.service import Input
from live_services.services.strategy_runner import HistorySource
from live_services.settings import Settings
from models_registry.specification import Broker

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class SkewState:
    """What one task kept of a session."""

    task: TaskId
    session: Session
    history: SessionHistory
    sample: NDArray[np.bool_]
    """Instruments whose rows are computed again."""
    kept: NDArray[np.bool_]
    """These and the market's index."""
    market: list[Ticks | Bars] = field(default_factory=list)
    waiting: list[tuple[int, LiveRow]] = field(default_factory=list)
    """Rows by the whole minute at which they are compared."""
    before: list[Bars] | None = None
    """What the kept instruments go on from; known with the first row of the market."""


class SkewMonitor:
    """A `Service`: one task for each market partition, beside the strategy runner's."""

    name = "skew_monitor"
    single_task = False

    def __init__(
        self, settings: Settings, universe: Universe, history: HistorySource, *, broker: Broker = "paper"
    ) -> None:
        topics = broker_topics(broker)
        self.scope: Scope = broker
        self._broker: Broker = broker
        self.inputs: tuple[Input, ...] = (Input(market_topic(settings.market.feed)), Input(topics.signals_raw))
        self.outputs: tuple[Topic, ...] = (topics.feature_skew,)
        self._universe = universe
        self._history = history
        self._clock = BarClock.minutes(settings.market.bar_minutes)
        self._partitions = settings.kafka.market_partitions
        self._count = settings.skew.instruments

    async def prepare(self, task: TaskId, control: Sequence[Event]) -> None:
        """Need nothing."""

    def open_session(self, session: Session, task: TaskId) -> SkewState:
        """Choose the instruments of the day and read their history."""
        universe = self._universe
        tradable = np.array([i.tradable for i in universe.instruments], dtype=np.bool_)
        sample = sampled(universe, tradable & owned(universe, task.partition, self._partitions), session, self._count)
        kept = sample.copy()
        if universe.market_index is not None:
            kept[universe.market_index] = True
        return SkewState(task, session, self._history.of(session), sample, kept)

    def commands(self, state: SkewState, now_ns: int) -> Iterable[Event]:
        """Give none."""
        return ()

    def handle(self, record: Record, state: SkewState, now_ns: int) -> Iterable[Event]:
        """Keep what was recorded of the sampled instruments, and the rows in their signals.

        Raises
        ------
        TypeError
            For any other event.
        """
        if isinstance(record, EventRecord):
            if not isinstance(record.event, SignalGenerated):
                raise TypeError(f"{self.name} does not take {record!r:.200}")
            row = row_of_signal(record.event, self._universe)
            if state.sample[row.instrument]:
                state.waiting.append((-(-record.event.event_time_ns // MINUTE_NS) * MINUTE_NS, row))
            return ()
        table: Ticks | Bars = record.ticks if isinstance(record, TickSlice) else record.bars
        if state.before is None and len(table):
            state.before = self._before(
                state, int(table.event_time_ns[0] if isinstance(table, Ticks) else table.start_ns[0])
            )
        mine = state.kept[table.instrument]
        if mine.any():
            state.market.append(table[mine])
        return ()

    def advance(self, state: SkewState, now_ns: int) -> Iterable[Event]:
        """Compare the rows of every whole minute that is over; one event for each minute that has any."""
        due = [entry for entry in state.waiting if entry[0] < now_ns]
        if not due:
            return
        state.waiting = [entry for entry in state.waiting if entry[0] >= now_ns]
        market = bars_of_market(state.market, state.session, self._universe, self._clock)
        bars = [*(state.before or ()), market]
        for minute_ns, rows in itertools.groupby(sorted(due, key=lambda entry: entry[0]), key=lambda entry: entry[0]):
            report = compare([row for _, row in rows], bars, self._universe, self._clock, state.history.actions)
            for difference in report.differences:
                _log.error(
                    "feature_skew",
                    task=str(state.task),
                    feature=difference.feature,
                    symbol=difference.symbol,
                    bar_end=ist_text(difference.bar_end_ns),
                    live=difference.live,
                    recomputed=difference.recomputed,
                    said=describe(difference),
                )
            yield self._measured(state, minute_ns, report)

    def promise(self, now_ns: int) -> int:
        """Say what was asked: nothing is merged by what this service produces."""
        return now_ns

    def _before(self, state: SkewState, first_ns: int) -> list[Bars]:
        history, used = state.history, HistoryUsed(state.history.sessions, state.history.digest)
        mine = history.part_of(state.task.partition, self._partitions)
        before, _ = joined(mine, state.session, self._clock.size, first_ns, used)
        return [bars[state.kept[bars.instrument]] for bars in before]

    def _measured(self, state: SkewState, minute_ns: int, report: SkewReport) -> FeatureSkewMeasured:
        date = state.session.date.isoformat()
        identity = event_id("skew", str(state.task), date, minute_ns)
        return FeatureSkewMeasured(
            broker=self._broker,
            event_id=identity,
            correlation_id=identity,
            causation_id=identity,
            event_time_ns=minute_ns,
            session_date=date,
            partition=state.task.partition,
            rows_equal=report.rows_equal,
            rows_different=report.rows_different,
            rows_unverified=report.rows_unverified,
            history_digest=state.history.digest,
            differences=report.differences,
        )
