"""Skew: a row that went out live against the row that history mode computes from the recorded market, bit for bit.

Independent of the live path: the day's ticks become bars in one step and rows in one step, on the same history. Equal
means every bit of every feature; a difference names feature, instrument, time and both values.
"""

from __future__ import annotations

import bisect
import hashlib
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from feature_store.bars.builder import bars_of_session
from feature_store.features.engine import feature_table
from feature_store.features.schema import FeatureSchema, UnknownFeature, feature_schema
from feature_store.market.clocks import BarClock
from feature_store.market.corporate_actions import CorporateActions
from feature_store.market.types import Bars, Session, Ticks, Universe, ist_text
from feature_store.online.blocks import Block
from live_services.domain.events import SignalGenerated, SkewDifference
from live_services.domain.strategy.history import Stretch, no_bars

_KEPT: Final = 20  # differences that are listed; all are counted
NO_BAR: Final = "(bar)"
"""Stands for a feature where the recorded market has no such bar at all."""


@dataclass(frozen=True, slots=True)
class LiveRow:
    """A feature row that went out."""

    instrument: int
    """Index in the universe."""
    bar_end_ns: int
    schema_hash: str
    names: tuple[str, ...]
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class SkewReport:
    """What the comparison found."""

    rows_equal: int = 0
    rows_different: int = 0
    rows_unverified: int = 0
    """Rows of schemas that this code declares otherwise."""
    differences: tuple[SkewDifference, ...] = ()
    """The first ones, in order of time, instrument and feature."""
    notes: tuple[str, ...] = ()
    """What could not be looked at, and why."""

    @property
    def rows(self) -> int:
        """Rows that were compared."""
        return self.rows_equal + self.rows_different

    def __add__(self, other: SkewReport) -> SkewReport:
        return SkewReport(
            self.rows_equal + other.rows_equal,
            self.rows_different + other.rows_different,
            self.rows_unverified + other.rows_unverified,
            (self.differences + other.differences)[:_KEPT],
            self.notes + other.notes,
        )


def row_of_signal(signal: SignalGenerated, universe: Universe) -> LiveRow:
    """Give the row that a signal was decided on.

    Raises
    ------
    ValueError
        If its instrument is not in the universe.
    """
    values = tuple(math.nan if value is None else value for value in signal.features.values())
    instrument = universe.index_of_token.get(signal.instrument_token)
    if instrument is None:
        raise ValueError(f"{signal.symbol} (token {signal.instrument_token}) is not in the universe of this session")
    return LiveRow(instrument, signal.bar.end_ns, signal.feature_schema_hash, tuple(signal.features), values)


def rows_of_block(schema: FeatureSchema, block: Block, universe: Universe) -> list[LiveRow]:
    """Give the warm rows of a block of the online store."""
    return [
        LiveRow(universe.index_of_token[token], int(block.bar_end_ns[k]), schema.hash, schema.names, tuple(row))
        for k, (token, row) in enumerate(zip(block.tokens.tolist(), block.rows.tolist(), strict=True))
        if block.warm[k] and token in universe.index_of_token
    ]


def sampled(universe: Universe, candidates: NDArray[np.bool_], session: Session, count: int) -> NDArray[np.bool_]:
    """Choose instruments by a hash of the session's date and their token: others every day, the same at every restart.

    Parameters
    ----------
    candidates : ndarray of bool, shape (n_instruments,)
        Whom to choose from.
    count : int
        How many at most.
    """
    ranked = sorted(
        np.flatnonzero(candidates).tolist(),
        key=lambda k: hashlib.sha256(f"{session.date}|{universe.tokens[k]}".encode()).digest(),
    )
    chosen = np.zeros(len(universe), dtype=np.bool_)
    chosen[ranked[:count]] = True
    return chosen


def bars_of_market(market: Sequence[Ticks | Bars], session: Session, universe: Universe, clock: BarClock) -> Bars:
    """Make the bars of a session from what was recorded of it, in one step; bars that came as bars stay as they are."""
    if not market:
        return no_bars()
    ticks = [part for part in market if isinstance(part, Ticks)]
    if not ticks:
        bars = Bars.concatenate([part for part in market if isinstance(part, Bars)])
        return bars[np.lexsort((bars.instrument, bars.end_ns))]
    if any(part.has_depth for part in ticks):
        ticks = [part.with_depth() for part in ticks]
    whole = Ticks.concatenate(ticks)
    return bars_of_session(whole[np.argsort(whole.event_time_ns, kind="stable")], session, len(universe), clock)


def compare(
    rows: Iterable[LiveRow],
    bars: Sequence[Bars],
    universe: Universe,
    clock: BarClock,
    actions: CorporateActions | None = None,
) -> SkewReport:
    """Compute rows again from bars and compare them bit for bit.

    Parameters
    ----------
    rows : iterable of LiveRow
        What went out.
    bars : sequence of Bars
        History, then the session's bars, in order of time: of all instruments in question and of the market's index.
    universe, clock, actions
        As the live side had them.
    """
    by_schema: dict[tuple[str, tuple[str, ...]], list[LiveRow]] = defaultdict(list)
    for row in rows:
        by_schema[row.schema_hash, row.names].append(row)
    report = SkewReport()
    for (schema_hash, names), mine in by_schema.items():
        try:
            schema = feature_schema(names, clock)
        except UnknownFeature as unknown:
            report += SkewReport(rows_unverified=len(mine), notes=(f"{len(mine)} rows: {unknown}",))
            continue
        if schema.hash != schema_hash:
            note = f"{len(mine)} rows are of feature schema {schema_hash[:12]}, which this code declares otherwise"
            report += SkewReport(rows_unverified=len(mine), notes=(note,))
            continue
        report += _compare(mine, Bars.concatenate([no_bars(), *bars]), schema, universe, actions)
    return report


def compare_session(
    rows: Iterable[LiveRow],
    stretches: Sequence[Stretch],
    universe: Universe,
    clock: BarClock,
    actions: CorporateActions | None = None,
) -> SkewReport:
    """Compute a session's rows again, each from the stretch that it stood on; see `compare`."""
    of_stretch: list[list[LiveRow]] = [[] for _ in stretches]
    begins = [stretch.after_ns for stretch in stretches]
    for row in rows:
        of_stretch[bisect.bisect_left(begins, row.bar_end_ns) - 1].append(row)
    report = SkewReport()
    for mine, stretch in zip(of_stretch, stretches, strict=True):
        report += compare(mine, stretch.bars, universe, clock, actions)
    return report


def _compare(
    rows: list[LiveRow], bars: Bars, schema: FeatureSchema, universe: Universe, actions: CorporateActions | None
) -> SkewReport:
    table, _ = feature_table(bars, schema, universe, actions)
    place = {key: k for k, key in enumerate(zip(bars.instrument.tolist(), bars.end_ns.tolist(), strict=True))}
    different: list[SkewDifference] = []
    wrong = 0
    for row in sorted(rows, key=lambda one: (one.bar_end_ns, one.instrument)):
        at = place.get((row.instrument, row.bar_end_ns))
        found = _differences(row, None if at is None else table[at], universe)
        wrong += bool(found)
        different += found
    return SkewReport(len(rows) - wrong, wrong, differences=tuple(different[:_KEPT]))


def _differences(row: LiveRow, again: NDArray[np.float64] | None, universe: Universe) -> list[SkewDifference]:
    live = np.array(row.values, dtype=np.float64)
    if again is None:
        return [_difference(row, universe, NO_BAR, math.nan, math.nan)]
    # every NaN says the same: there is no value
    same = (live.view(np.int64) == np.ascontiguousarray(again).view(np.int64)) | (np.isnan(live) & np.isnan(again))
    return [
        _difference(row, universe, row.names[k], float(live[k]), float(again[k]))
        for k in np.flatnonzero(~same).tolist()
    ]


def _difference(row: LiveRow, universe: Universe, feature: str, live: float, again: float) -> SkewDifference:
    instrument = universe.instruments[row.instrument]
    return SkewDifference(
        feature=feature,
        instrument_token=instrument.instrument_token,
        symbol=instrument.symbol,
        bar_end_ns=row.bar_end_ns,
        live=live if math.isfinite(live) else None,
        recomputed=again if math.isfinite(again) else None,
        live_bits=_bits(live),
        recomputed_bits=_bits(again),
    )


def _bits(value: float) -> str:
    return np.float64(value).tobytes()[::-1].hex()


def describe(difference: SkewDifference) -> str:
    """Say a difference in one line."""
    where = f"{difference.symbol} at {ist_text(difference.bar_end_ns)}"
    if difference.feature == NO_BAR:
        return f"{where}: a row went out, but the recorded market has no such bar"
    return (
        f"{difference.feature} of {where}: live {difference.live!r} ({difference.live_bits}), computed again "
        f"{difference.recomputed!r} ({difference.recomputed_bits})"
    )
