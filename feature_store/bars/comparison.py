"""Bars of our own builder against a vendor's bars of the same market: what is missing, what differs, by how much."""

from __future__ import annotations

import datetime as dt
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from feature_store.market.types import IST, SECOND_NS, Bars, MarketDataError, Universe, ist_text

if TYPE_CHECKING:
    import pandas as pd

PRICES: Final = ("open", "high", "low", "close")
FIELDS: Final = ("end_ns", *PRICES, "volume", "tick_count")
"""What is compared, bit for bit; ``tick_count`` only where both sides count ticks."""
_SAME_PRICE_INR: Final = 0.0001  # what features keep of a price


class BarDifference(NamedTuple):
    """One value, or one bar, that the two sides do not share."""

    symbol: str
    start_ns: int
    field: str
    """One of `FIELDS`, or ``bar`` for a bar that one side lacks."""
    built: float | None
    """None, with the field ``bar``: only the vendor has it."""
    vendor: float | None


@dataclass(frozen=True, eq=False)
class BarComparison:
    """What comparing built bars with a vendor's found; nothing, if it passed."""

    built_bars: int
    vendor_bars: int
    compared_bars: int
    """Bars that both sides have."""
    only_vendor: int
    """Bars that our builder did not make."""
    only_built: int
    """Bars that the vendor does not have."""
    differing: dict[str, int]
    """Bars that differ, by field; fields without a difference are not named."""
    largest_difference_inr: float
    largest_difference_bps: float
    """Of the prices, in basis points of the vendor's."""
    largest_difference_shares: int
    shift_ns: int
    """How much later the vendor stamps the same bars, when most closes agree only so (END-stamped bars); else 0."""
    first: tuple[BarDifference, ...]
    """The first differences in order of time and symbol."""
    start_ns: NDArray[np.int64] = field(repr=False)
    """Start of every compared bar whose prices or volume differ, ascending."""
    price_difference_bps: NDArray[np.float64] = field(repr=False)
    """Largest difference of the four prices of each of them, signed, built less vendor."""

    @property
    def passed(self) -> bool:
        """Whether both sides have the same bars, and at least one."""
        return self.compared_bars > 0 and not (self.only_vendor or self.only_built or self.differing)

    def summary(self) -> str:
        """Say in one line what was found."""
        if self.passed:
            return f"all {self.compared_bars:,} bars agree"
        parts = [f"{self.compared_bars:,} bars compared"]
        parts += [f"{self.only_vendor:,} only the vendor has"] if self.only_vendor else []
        parts += [f"{self.only_built:,} only the ticks make"] if self.only_built else []
        parts += [f"{count:,} differ in {name}" for name, count in self.differing.items()]
        if self.largest_difference_inr > 0:
            parts.append(f"prices by up to ₹{self.largest_difference_inr:.2f} ({self.largest_difference_bps:.1f} bps)")
        if self.largest_difference_shares:
            parts.append(f"volumes by up to {self.largest_difference_shares:,} shares")
        if self.shift_ns:
            parts.append(f"the vendor's bars are stamped {self.shift_ns / SECOND_NS:+g} s off ours")
        return "; ".join(parts)

    def table(self) -> pd.DataFrame:
        """Give the first differences for people: symbol, start of the bar (IST), field, built and vendor's value."""
        import pandas as pd

        rows = [(d.symbol, ist_text(d.start_ns), d.field, d.built, d.vendor) for d in self.first]
        return pd.DataFrame(rows, columns=["symbol", "start", "field", "built", "vendor"])


def compare_bars(built: Bars, vendor: Bars, universe: Universe, *, examples: int = 20) -> BarComparison:
    """Compare the bars that our builder made of ticks with a vendor's, matched by instrument and start.

    Parameters
    ----------
    built, vendor : Bars
        On one clock, over the same sessions, both indexed by ``universe``.
    universe : Universe
        The instruments, for the names.
    examples : int
        How many differences to list.

    Raises
    ------
    MarketDataError
        If one side has two bars of one instrument and start.
    """
    ours, theirs = _keys(built, vendor, 0)
    for name, bars, keys in (("built", built, ours), ("vendor's", vendor, theirs)):
        _refuse_duplicates(name, bars, keys, universe)
    _, at_built, at_vendor = np.intersect1d(ours, theirs, assume_unique=True, return_indices=True)
    in_time = np.lexsort((built.instrument[at_built], built.start_ns[at_built]))
    mine, other = built[at_built[in_time]], vendor[at_vendor[in_time]]
    unequal = {name: _unequal(mine, other, name) for name in FIELDS}
    only_vendor, only_built = _without(vendor, at_vendor), _without(built, at_built)
    differs = unequal["volume"] | np.logical_or.reduce([unequal[name] for name in PRICES])
    by_price = np.stack([getattr(mine, name) - getattr(other, name) for name in PRICES])
    bps = by_price / np.stack([getattr(other, name) for name in PRICES]) * 1e4
    widest = np.take_along_axis(bps, np.abs(bps).argmax(axis=0)[None, :], axis=0)[0]
    return BarComparison(
        built_bars=len(built),
        vendor_bars=len(vendor),
        compared_bars=len(mine),
        only_vendor=len(only_vendor),
        only_built=len(only_built),
        differing={name: int(rows.sum()) for name, rows in unequal.items() if rows.any()},
        largest_difference_inr=float(np.abs(by_price).max(initial=0.0)),
        largest_difference_bps=float(np.abs(bps).max(initial=0.0)),
        largest_difference_shares=int(np.abs(mine.volume - other.volume).max(initial=0)),
        shift_ns=stamp_shift(built, vendor) or 0,
        first=_first((mine, other), unequal, (only_built, only_vendor), universe, examples),
        start_ns=mine.start_ns[differs],
        price_difference_bps=widest[differs],
    )


def stamp_shift(built: Bars, vendor: Bars, shifts_ns: Sequence[int] | None = None) -> int | None:
    """Give how much later the vendor stamps the same bars, told by their closes.

    Only closes are compared: volumes, and sometimes highs and lows, of vendors differ without a shift.

    Parameters
    ----------
    built, vendor : Bars
        Indexed by one universe.
    shifts_ns : sequence of int, optional
        What is tried beside 0; default: one bar's length later and earlier.

    Returns
    -------
    shift_ns : int or None
        0 if more than half of the bars of the shorter side close as they stand; else the shift after which most do, if
        they are more than half; None if nothing makes them agree.
    """
    fewest = min(len(built), len(vendor))
    if fewest == 0:
        return None
    length = int(np.median(built.end_ns - built.start_ns))
    tried = (0, *(shifts_ns if shifts_ns is not None else (length, -length)))
    counts = {shift_ns: _close_for_close(built, vendor, shift_ns) for shift_ns in tried}
    best = 0 if 2 * counts[0] > fewest else max(counts, key=lambda shift_ns: counts[shift_ns])
    return best if 2 * counts[best] > fewest else None


def comparison_plot(comparison: BarComparison) -> bytes:
    """Draw a comparison as PNG: how many bars differ, in what, and when and by how much the prices do."""
    # Figure, not pyplot: no window system, no process-wide state.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    counts, prices = figure.subplots(1, 2, width_ratios=[2, 3])
    found = {"only vendor": comparison.only_vendor, "only built": comparison.only_built}
    found |= {name: comparison.differing.get(name, 0) for name in FIELDS}
    bars = counts.barh(list(found), list(found.values()), color="#b4442f")
    counts.bar_label(bars, fmt="{:,.0f}", padding=2)
    counts.invert_yaxis()
    counts.margins(x=0.2)
    counts.set(xlabel="bars", title=f"{comparison.compared_bars:,} bars compared")
    if not any(found.values()):
        counts.set_xlim(0, 1)
    if len(comparison.start_ns):
        times: list[Any] = [dt.datetime.fromtimestamp(t // SECOND_NS, IST) for t in comparison.start_ns.tolist()]
        prices.plot(times, comparison.price_difference_bps, ".", color="#b4442f", markersize=3)
        locator = AutoDateLocator(tz=IST)  # type: ignore[no-untyped-call]
        prices.xaxis.set_major_locator(locator)
        prices.xaxis.set_major_formatter(ConciseDateFormatter(locator, tz=IST))  # type: ignore[no-untyped-call]
    else:
        prices.text(0.5, 0.5, "no price and no volume differs", ha="center", transform=prices.transAxes)
        prices.set_xticks([])
    prices.axhline(0.0, color="black", linewidth=0.8)
    prices.set(ylabel="built less vendor, bps", title="Largest difference of a bar's prices")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100, metadata={"Software": None})
    return buffer.getvalue()


def _keys(built: Bars, vendor: Bars, shift_ns: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Number the pairs of start and instrument of both sides."""
    starts = np.concatenate([built.start_ns, vendor.start_ns - shift_ns])
    instruments = np.concatenate([built.instrument, vendor.instrument]).astype(np.int64)
    _, place = np.unique(starts, return_inverse=True)
    keys = place.astype(np.int64) * (int(instruments.max(initial=0)) + 1) + instruments
    return keys[: len(built)], keys[len(built) :]


def _refuse_duplicates(name: str, bars: Bars, keys: NDArray[np.int64], universe: Universe) -> None:
    order = np.argsort(keys, kind="stable")
    repeated = np.flatnonzero(np.diff(keys[order]) == 0)
    if len(repeated):
        row = int(order[repeated[0] + 1])
        raise MarketDataError(
            f"row {row} of the {name} bars is a second bar of {universe.instruments[bars.instrument[row]].symbol} at "
            f"{ist_text(int(bars.start_ns[row]))}: remove one of them, or read the file with feature_store.sources"
        )


def _unequal(mine: Bars, other: Bars, name: str) -> NDArray[np.bool_]:
    left, right = getattr(mine, name), getattr(other, name)
    unequal = np.asarray(left != right, dtype=np.bool_)
    return unequal & (left > 0) & (right > 0) if name == "tick_count" else unequal


def _without(bars: Bars, rows: NDArray[np.intp]) -> Bars:
    left = np.ones(len(bars), dtype=np.bool_)
    left[rows] = False
    return bars[left]


def _close_for_close(built: Bars, vendor: Bars, shift_ns: int) -> int:
    """How many bars of the vendor's, so much earlier, close at the price of ours."""
    ours, theirs = _keys(built, vendor, shift_ns)
    _, at_built, at_vendor = np.intersect1d(ours, theirs, return_indices=True)
    return int(np.count_nonzero(np.abs(built.close[at_built] - vendor.close[at_vendor]) <= _SAME_PRICE_INR))


def _first(
    pairs: tuple[Bars, Bars],
    unequal: dict[str, NDArray[np.bool_]],
    alone: tuple[Bars, Bars],
    universe: Universe,
    count: int,
) -> tuple[BarDifference, ...]:
    mine, other = pairs

    def symbol(bars: Bars, row: int) -> str:
        return universe.instruments[int(bars.instrument[row])].symbol

    found = [
        BarDifference(
            symbol(mine, row),
            int(mine.start_ns[row]),
            name,
            float(getattr(mine, name)[row]),
            float(getattr(other, name)[row]),
        )
        for name, rows in unequal.items()
        for row in np.flatnonzero(rows)[:count].tolist()
    ]
    for bars, built_there in zip(alone, (True, False), strict=True):
        for row in np.argsort(bars.start_ns, kind="stable")[:count].tolist():
            close = float(bars.close[row])
            values = (close, None) if built_there else (None, close)
            found.append(BarDifference(symbol(bars, row), int(bars.start_ns[row]), "bar", *values))
    return tuple(sorted(found, key=lambda d: (d.start_ns, d.symbol))[:count])
