"""Skew monitor: computes sampled live rows again from the recorded market, every minute of event time.

It shares no state with the strategy runner: the ticks of a few instruments are kept, made into bars and rows in one
step each on a history read anew, and compared with the rows in the runner's signals, bit for bit. A row that went to
several brokers is compared once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, field
from typing import Any, Final

import numpy as np
import structlog
from numpy.typing import NDArray

from feature_store.market.clocks import BarClock
from feature_store.market.types import MINUTE_NS, Bars, Session, Ticks, Universe, ist_text
from live_services.domain.events import Event, FeatureSkewMeasured, MarketGap, SignalGenerated, self_caused
from live_services.domain.log import MarketSlice, Record, TaskId
from live_services.domain.partitions import owned
from live_services.domain.snapshot import Tree
from live_services.domain.strategy.history import HistoryUsed, SessionBars, SessionHistory
from live_services.domain.strategy.skew import (
    LiveRow,
    SkewReport,
    bars_of_market,
    compare_session,
    describe,
    row_of_signal,
    sampled,
)
from live_services.domain.topics import FEATURES_SKEW, Scope, Topic, broker_topics, market_topic
from live_services.domain.written import (
    fields_of,
    in_few_tables,
    read_rows,
    read_tables,
    read_values,
    written_rows,
    written_tables,
    written_values,
)
from live_services.runtime.service import Input, Opening, Service
from live_services.services.session_history import Histories, HistorySource, KeptHistories, used_here
from live_services.settings import Settings
from models_registry.specification import Broker

_log = structlog.get_logger("monitoring")


@dataclass(slots=True)
class SkewState:
    """What one task kept of a session."""

    task: TaskId
    session: Session
    universe: Universe
    history: SessionHistory
    """Of the instruments that are kept."""
    sample: NDArray[np.bool_]
    """Instruments whose rows are computed again."""
    kept: NDArray[np.bool_]
    """These and the market's index."""
    market: list[Ticks | Bars] = field(default_factory=list)
    gaps: list[MarketGap] = field(default_factory=list)
    waiting: dict[tuple[str, LiveRow], int] = field(default_factory=dict)
    """The whole minute at which a row is compared, by strategy and row: what went to several brokers stands once."""


class SkewMonitor(Service[SkewState]):
    """One task for each market partition, beside the strategy runner's.

    Parameters
    ----------
    settings : Settings
        With the feed, the clock, the number of market partitions and of the instruments that are compared.
    history : HistorySource
    kept : KeptHistories, optional
        What the session was opened with, for a monitor that goes on from a snapshot after the store was corrected;
        default: the rows are compared with what the store has by then.
    brokers : sequence of Broker
        Those that run; the rows are in the signals to them.
    """

    name = "skew_monitor"
    scope: Scope = "shared"

    def __init__(
        self,
        settings: Settings,
        history: HistorySource,
        *,
        kept: KeptHistories | None = None,
        brokers: Sequence[Broker] = ("paper",),
    ) -> None:
        signals = (Input(broker_topics(broker).signals_raw) for broker in brokers)
        self.inputs: tuple[Input, ...] = (Input(market_topic(settings.market.feed)), *signals)
        self.outputs: tuple[Topic, ...] = (FEATURES_SKEW,)
        self._of_bars: Final = settings.market.feed == "bars"
        self._histories: Final = Histories(history, kept)
        self._clock: Final = BarClock.minutes(settings.market.bar_minutes)
        self._partitions: Final = settings.kafka.market_partitions
        self._count: Final = settings.skew.instruments

    def open_session(self, opening: Opening[SkewState]) -> SkewState:
        """Choose the instruments of the day and read their history."""
        return self._opened(opening, self._histories.begun(opening, lambda: 0))

    def _opened(self, opening: Opening[SkewState], history: SessionHistory | None) -> SkewState:
        session, universe, task = opening.session, opening.universe, opening.task
        tradable = np.array([i.tradable for i in universe.instruments], dtype=np.bool_)
        sample = sampled(universe, tradable & owned(universe, task.partition, self._partitions), session, self._count)
        kept = sample.copy()
        if universe.market_index is not None:
            kept[universe.market_index] = True
        part = (history or SessionHistory(universe)).only(kept)
        return SkewState(task, session, universe, part, sample, kept)

    def snapshot(self, state: SkewState) -> Tree:
        """Write down what is kept of the market, its gaps, the rows that wait, and what they are compared on."""
        state.market = in_few_tables(state.market)
        return {
            "used": used_here(state.history).snapshot(),
            "market": written_tables(state.market),
            "gaps": written_values(MarketGap, state.gaps),
            "waiting": written_rows(
                [strategy, at_ns, astuple(row)] for (strategy, row), at_ns in state.waiting.items()
            ),
        }

    def restore(self, opening: Opening[SkewState], kept: Tree) -> SkewState:
        """Go on with what was kept, on the history that the session was opened with, if it is here still."""
        there = fields_of(kept)
        stood_on = self._histories.still_kept(opening, HistoryUsed.restored(there["used"]))
        state = self._opened(opening, stood_on) if stood_on is not None else self.open_session(opening)
        state.market, state.gaps = read_tables(there["market"]), read_values(MarketGap, there["gaps"])
        state.waiting = {(strategy, _row_of(*row)): at_ns for strategy, at_ns, row in read_rows(there["waiting"])}
        return state

    def handle(self, record: Record, state: SkewState, now_ns: int) -> Iterable[Event]:
        """Keep what was recorded of the sampled instruments, its gaps, and the rows in their signals.

        Raises
        ------
        TypeError
            For any other event.
        """
        if isinstance(record, MarketSlice):
            mine = state.kept[record.market.instrument]
            if mine.any():
                state.market.append(record.market[mine])
        elif isinstance(record.event, MarketGap):
            state.gaps.append(record.event)
        elif isinstance(record.event, SignalGenerated):
            row = row_of_signal(record.event, state.universe)
            if state.sample[row.instrument]:
                minute_ns = -(-record.event.event_time_ns // MINUTE_NS) * MINUTE_NS
                state.waiting.setdefault((record.event.strategy, row), minute_ns)
        else:
            raise TypeError(f"{self.name} does not take {record!r:.200}")
        return ()

    def advance(self, state: SkewState, now_ns: int) -> Iterable[Event]:
        """Compare the rows of every whole minute that is over; one event for each minute that has any."""
        minutes = sorted({minute_ns for minute_ns in state.waiting.values() if minute_ns < now_ns})
        if not minutes:
            return
        market = bars_of_market(state.market, state.session, state.universe, self._clock)
        stood_on = SessionBars(state.history, state.session, self._clock.size, of_bars=self._of_bars)
        stretches = stood_on.take_session(market, state.gaps)
        for minute_ns in minutes:
            due = [key for key, at_ns in state.waiting.items() if at_ns == minute_ns]
            for key in due:
                del state.waiting[key]
            rows = [row for _, row in due]
            report = compare_session(rows, stretches, state.universe, self._clock, state.history.actions)
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

    def _measured(self, state: SkewState, minute_ns: int, report: SkewReport) -> FeatureSkewMeasured:
        date = state.session.date.isoformat()
        return FeatureSkewMeasured(
            **self_caused("skew", str(state.task), date, minute_ns),
            event_time_ns=minute_ns,
            session_date=date,
            partition=state.task.partition,
            rows_equal=report.rows_equal,
            rows_different=report.rows_different,
            rows_unverified=report.rows_unverified,
            history_digest=state.history.digest,
            differences=report.differences,
        )


def _row_of(instrument: int, bar_end_ns: int, schema_hash: str, names: list[str], values: list[Any]) -> LiveRow:
    """Give a row that was written down; no value is the one NaN that a signal's row has, so that both are the same."""
    there = tuple(math.nan if math.isnan(value) else value for value in values)
    return LiveRow(instrument, bar_end_ns, schema_hash, tuple(names), there)
