"""Universes by date: which symbols were members when, so that what was delisted or dropped later is not forgotten."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from feature_store.market.types import InvalidRows, Universe, day_of_date, ist_day


@dataclass(frozen=True, slots=True)
class MemberPeriod:
    """A time in which a symbol was a member."""

    symbol: str
    first: dt.date
    """Its first date as a member."""
    last: dt.date | None = None
    """Its last date as a member; None while it still is one."""

    def holds(self, date: dt.date) -> bool:
        """Whether a date is in this period; both ends are."""
        return self.first <= date and (self.last is None or date <= self.last)


@dataclass(frozen=True)
class Membership:
    """Who was a member when.

    Raises
    ------
    InvalidRows
        If a period ends before it begins, or two of a symbol overlap; rows are counted from 1 in the order given.
    """

    periods: tuple[MemberPeriod, ...]

    def __post_init__(self) -> None:
        refuse_wrong_periods("membership", list(enumerate(self.periods, start=1)), [])
        object.__setattr__(self, "periods", tuple(sorted(self.periods, key=lambda p: (p.symbol, p.first))))

    @cached_property
    def symbols(self) -> frozenset[str]:
        """Every symbol that was ever a member."""
        return frozenset(period.symbol for period in self.periods)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the periods, whatever order they came in."""
        text = "\n".join(f"{p.symbol}\t{p.first}\t{p.last or ''}" for p in self.periods)
        return hashlib.sha256(text.encode()).hexdigest()

    def members(self, date: dt.date) -> frozenset[str]:
        """Give the symbols that were members on a date."""
        return frozenset(period.symbol for period in self.periods if period.holds(date))

    def mask(self, instrument: NDArray[np.int32], time_ns: NDArray[np.int64], universe: Universe) -> NDArray[np.bool_]:
        """Tell which rows are of an instrument that was a member on the row's date in Asia/Kolkata.

        Parameters
        ----------
        instrument : int32, shape (n,)
            Indices in ``universe``. A symbol that the table does not name was never a member: list the index too if
            its rows are wanted.
        time_ns : int64, shape (n,)
            UTC epoch nanoseconds, a bar's start or a tick's time.

        Returns
        -------
        bool, shape (n,)
        """
        days, place = np.unique(ist_day(time_ns), return_inverse=True)
        member = np.zeros((len(universe), len(days)), dtype=np.bool_)
        for period in self.periods:
            index = universe.index_of_symbol.get(period.symbol)
            if index is not None:
                begin = np.searchsorted(days, day_of_date(period.first))
                end = len(days) if period.last is None else np.searchsorted(days, day_of_date(period.last), "right")
                member[index, begin:end] = True
        return np.asarray(member[instrument, place], dtype=np.bool_)


def refuse_wrong_periods(where: str, rows: Sequence[tuple[int, MemberPeriod]], problems: list[tuple[int, str]]) -> None:
    """Refuse periods that end before they begin or overlap; as `corporate_actions.refuse_wrong_actions`."""
    good: list[tuple[int, MemberPeriod]] = []
    for row, period in rows:
        if period.last is not None and period.last < period.first:
            problems.append((row, f"{period.symbol} leaves on {period.last}, before it joins on {period.first}"))
        else:
            good.append((row, period))
    good.sort(key=lambda item: (item[1].symbol, item[1].first, item[0]))
    for (earlier_row, earlier), (row, later) in pairwise(good):
        if earlier.symbol == later.symbol and earlier.holds(later.first):
            until = f"to {earlier.last}" if earlier.last else "on, without an end"
            problems.append(
                (row, f"{later.symbol} from {later.first} overlaps row {earlier_row}, {earlier.first} {until}")
            )
    if problems:
        raise InvalidRows(where, sorted(problems))
