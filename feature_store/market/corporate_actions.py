"""Corporate actions: raw prices stay as they are; dated factors stand beside them.

A row says that prices of ``symbol`` before ``ex_date`` are to be multiplied by ``factor``: 0.5 for a split of one share
into two or a bonus of one for one. Where an action changes how many shares there are for each one held before (split,
bonus, consolidation), earlier volumes are divided by it, so that the turnover in rupees stays; a dividend, a demerger
or a rights issue changes the worth of a share, and no volume. Actions of a symbol on one date are one row with the
product of their factors; where one of them changes volumes, that is its kind. Prices are adjusted on reading
(`CorporateActions.adjust`) and, live, at the ex-date (`feature_store.features.engine`); files are never rewritten.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Final, Self

import numpy as np
from numpy.typing import NDArray

from feature_store.market.types import Bars, InvalidRows, MarketDataError, Universe, date_of_day, ist_day, ist_ns

if TYPE_CHECKING:
    import pandas as pd

LOWERING_KINDS = ("split", "bonus", "dividend", "rights", "demerger")
"""Kinds after which a share is worth less; their factor is below 1."""
RAISING_KINDS = ("consolidation",)
"""Kinds after which a share is worth more; their factor is above 1."""
KINDS = (*LOWERING_KINDS, *RAISING_KINDS, "other")
VOLUME_KINDS = frozenset({"split", "bonus", "consolidation"})
"""Kinds after which there are more shares, or fewer, for each one held before: earlier volumes are divided."""

_MIDNIGHT = dt.time(0)
_RATIOS: Final[tuple[tuple[int, int], ...]] = (
    *((1, n) for n in (2, 3, 4, 5, 10, 20, 50, 100)),
    *((2, 3), (2, 5), (3, 4), (4, 5), (5, 6), (9, 10)),
    *((n, 1) for n in (2, 5, 10, 20, 50, 100)),
)
"""Prices after to before, of splits of a face value (10 → 1, 2, 5; 5 → 1, 2; …), of usual bonuses (1 for 1 to 1 for 9,
2 to 4 for 1, 3 for 2) and of consolidations into one share. A rarer bonus (2 for 3) has the ratio of many a demerger.
"""
_NIGHT = 0.08  # how far from its ratio a split opens: what else happened in the night


@dataclass(frozen=True, slots=True)
class CorporateAction:
    """One action of one instrument."""

    symbol: str
    ex_date: dt.date
    """The first session at the new price."""
    kind: str
    """One of `KINDS`."""
    factor: float
    """Prices before ``ex_date`` are multiplied by it; finite and positive."""

    @property
    def volume_factor(self) -> float:
        """What volumes before ``ex_date`` are multiplied by; 1 for a kind that changes no number of shares."""
        return 1.0 / self.factor if self.kind in VOLUME_KINDS else 1.0

    def problem(self) -> str | None:
        """Say what is wrong with this row, if anything."""
        if not self.symbol.strip():
            return "the symbol is missing"
        if self.kind not in KINDS:
            return f"kind {self.kind!r} is unknown; write one of {', '.join(KINDS)}"
        if not (math.isfinite(self.factor) and self.factor > 0):
            return f"factor {self.factor:g} is no positive number; a split of one share into two has the factor 0.5"
        if self.kind in LOWERING_KINDS and self.factor >= 1:
            return (
                f"factor {self.factor:g} of a {self.kind} is not below 1; prices before the ex-date are multiplied by "
                f"it (perhaps {1 / self.factor:g}?), and a consolidation has a kind of its own"
            )
        if self.kind in RAISING_KINDS and self.factor <= 1:
            return f"factor {self.factor:g} of a {self.kind} is not above 1 (perhaps {1 / self.factor:g}?)"
        return None


@dataclass(frozen=True)
class CorporateActions:
    """Corporate actions of any instruments, in order of ``(symbol, ex_date)``.

    Raises
    ------
    InvalidRows
        If an action is wrong in itself, or a ``(symbol, ex_date)`` is there twice; rows are counted from 1 in the order
        given.
    """

    actions: tuple[CorporateAction, ...] = ()

    def __post_init__(self) -> None:
        refuse_wrong_actions("corporate actions", list(enumerate(self.actions, start=1)), [])
        ordered = sorted(self.actions, key=lambda action: (action.symbol, action.ex_date))
        object.__setattr__(self, "actions", tuple(ordered))

    @classmethod
    def none(cls) -> Self:
        """Give no actions at all."""
        return cls()

    def __len__(self) -> int:
        return len(self.actions)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the actions, whatever order they came in."""
        text = "\n".join(f"{a.symbol}\t{a.ex_date}\t{a.kind}\t{a.factor!r}" for a in self.actions)
        return hashlib.sha256(text.encode()).hexdigest()

    def for_universe(self, universe: Universe) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        """Give the actions of a universe's instruments as arrays; symbols outside it are left out.

        Returns
        -------
        offsets : int64, shape (n_instruments + 1,)
            The actions of instrument ``i`` are ``offsets[i]`` to ``offsets[i + 1]`` of the other two.
        ex_ns : int64, shape (m,)
            Midnight IST of the ex-date, UTC epoch nanoseconds; ascending within an instrument.
        factors : float64, shape (m, 2)
            What earlier prices and what earlier volumes are multiplied by.
        """
        index = universe.index_of_symbol
        rows = sorted(
            (index[a.symbol], ist_ns(a.ex_date, _MIDNIGHT), a.factor, a.volume_factor)
            for a in self.actions
            if a.symbol in index
        )
        counts = np.bincount([row[0] for row in rows], minlength=len(universe)) if rows else np.zeros(len(universe))
        return (
            np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            np.array([row[1] for row in rows], dtype=np.int64),
            np.array([row[2:] for row in rows], dtype=np.float64).reshape(len(rows), 2),
        )

    def adjust(self, bars: Bars, universe: Universe, as_of: dt.date) -> Bars:
        """Give bars at the prices of ``as_of``: actions with a later ex-date were not yet known and do nothing.

        Factors are applied one by one in order of ex-date. Volumes are rounded to whole shares, half to even, once.
        ``tick_count`` and the columns of the best quote do not depend on the price's scale and stay.
        """
        offsets, ex_ns, factors = self.for_universe(universe)
        prices = np.stack([bars.open, bars.high, bars.low, bars.close])
        volume = bars.volume.astype(np.float64)
        touched = np.zeros(len(bars), dtype=np.bool_)
        for i in np.flatnonzero(np.diff(offsets)):
            of_instrument = bars.instrument == i
            for k in range(offsets[i], offsets[i + 1]):
                if ex_ns[k] <= ist_ns(as_of, _MIDNIGHT):
                    rows = of_instrument & (bars.start_ns < ex_ns[k])
                    prices[:, rows] *= factors[k, 0]
                    volume[rows] *= factors[k, 1]
                    touched |= rows
        return replace(
            bars,
            open=prices[0],
            high=prices[1],
            low=prices[2],
            close=prices[3],
            volume=np.where(touched, np.rint(volume).astype(np.int64), bars.volume),
        )


def refuse_wrong_actions(
    where: str, rows: Iterable[tuple[int, CorporateAction]], problems: list[tuple[int, str]]
) -> None:
    """Refuse actions that are wrong in themselves or there twice, each with the number of its row.

    Parameters
    ----------
    where : str
        What the rows are in, as the message says it.
    rows : iterable of (int, CorporateAction)
        Row number and action.
    problems : list of (int, str)
        What is known to be wrong already: row number and problem.

    Raises
    ------
    InvalidRows
        If there is any problem.
    """
    seen: dict[tuple[str, dt.date], int] = {}
    for row, action in rows:
        problem = action.problem()
        if problem is None:
            first = seen.setdefault((action.symbol, action.ex_date), row)
            if first != row:
                problem = (
                    f"{action.symbol} has an action on {action.ex_date} in row {first} already; "
                    "write one row with the product of the factors"
                )
        if problem is not None:
            problems.append((row, problem))
    if problems:
        raise InvalidRows(where, sorted(problems))


def suspected_splits(
    bars: Bars, universe: Universe, actions: CorporateActions | None = None, jump: float = 0.15
) -> pd.DataFrame:
    """Find opens too far from the previous close for a night's news, which no action explains.

    An instrument's first open of a date is compared with its last close of the last date it has, after the factors of
    the actions between them. It is flagged when the larger of the two is more than ``1 + jump`` times the smaller. So
    an unadjusted split is flagged, and also an action whose prices the source had adjusted already, which would be
    adjusted twice.

    Parameters
    ----------
    bars : Bars
        Raw bars of any clock.
    jump : float
        Positive share of the smaller price. With 0.15 a bonus of one for four (``4:5``) is flagged, and genuine gaps
        hardly are: the pre-open auction of stocks with derivatives first ends at 10 % from the previous close.

    Returns
    -------
    DataFrame
        One row for each suspect, in order of ``(date, symbol)``: ``symbol, date, previous_date, previous_close, open``
        (as in the bars), ``ratio`` (open over previous close), ``simple_ratio`` (such as ``1:2``, of a split, a bonus
        or a consolidation, within 8 % of it; empty where there is none, as after many a demerger), ``off`` (``ratio``
        over it, less 1; NaN without one) and ``factor`` (of the actions between; 1 without any).
    """
    if not jump > 0:
        raise MarketDataError(f"jump is {jump}; it is a positive share of a price, such as 0.25")
    actions = actions or CorporateActions.none()
    order = np.lexsort((bars.start_ns, bars.instrument))
    ordered = bars[order]
    day = ist_day(ordered.start_ns)
    begins = np.flatnonzero((np.diff(ordered.instrument, prepend=-1) != 0) | (np.diff(day, prepend=-1) != 0))
    begins = begins[begins > 0]
    begins = begins[ordered.instrument[begins] == ordered.instrument[begins - 1]]
    factor = _factors_between(actions, universe, ordered, begins)
    explained = ordered.open[begins] / (ordered.close[begins - 1] * factor)
    suspects = np.flatnonzero(np.maximum(explained, 1.0 / explained) > 1.0 + jump)
    at = begins[suspects]
    ratio = ordered.open[at] / ordered.close[at - 1]
    simple = np.log([a / b for a, b in _RATIOS])
    nearest = np.abs(np.log(ratio)[:, None] - simple[None, :]).argmin(axis=1)
    off = ratio / np.exp(simple[nearest]) - 1.0
    near = np.abs(off) <= _NIGHT
    symbols = [universe.instruments[i].symbol for i in ordered.instrument[at]]
    import pandas as pd  # the live side makes no tables, and does without the 40 MB

    table = pd.DataFrame(
        {
            "symbol": pd.Series(symbols, dtype="str"),
            "date": _dates(ordered.start_ns[at]),
            "previous_date": _dates(ordered.start_ns[at - 1]),
            "previous_close": ordered.close[at - 1],
            "open": ordered.open[at],
            "ratio": ratio,
            "simple_ratio": pd.Series(
                [":".join(map(str, _RATIOS[k])) if is_near else "" for k, is_near in zip(nearest, near, strict=True)],
                dtype="str",
            ),
            "off": np.where(near, off, np.nan),
            "factor": factor[suspects],
        }
    )
    return table.sort_values(["date", "symbol"], ignore_index=True)


def _factors_between(
    actions: CorporateActions, universe: Universe, ordered: Bars, begins: NDArray[np.intp]
) -> NDArray[np.float64]:
    """Product of the factors with an ex-date after the bar before each of ``begins`` and not after it."""
    offsets, ex_ns, factors = actions.for_universe(universe)
    product = np.ones(len(begins))
    instrument = ordered.instrument[begins]
    for i in np.flatnonzero(np.diff(offsets)):
        rows = np.flatnonzero(instrument == i)
        for k in range(offsets[i], offsets[i + 1]):
            before, after = ordered.start_ns[begins[rows] - 1], ordered.start_ns[begins[rows]]
            product[rows[(before < ex_ns[k]) & (ex_ns[k] <= after)]] *= factors[k, 0]
    return product


def _dates(time_ns: NDArray[np.int64]) -> pd.Series[dt.date]:
    import pandas as pd

    return pd.Series([date_of_day(day) for day in ist_day(time_ns).tolist()], dtype="object")
