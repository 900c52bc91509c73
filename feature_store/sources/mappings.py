"""What a person says of a file whose columns, times and stamps are not those that we know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from feature_store.market.clocks import BarClock, UnknownClock
from feature_store.market.types import MarketDataError


@dataclass(frozen=True)
class ColumnMapping:
    """How to read a file whose columns have names of their own.

    Raises
    ------
    MarketDataError
        If the zone, the clock or the stamp is unknown.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    """The file's name of each of our columns (``time``, ``symbol``, ``open`` …); others go by their usual names."""
    time_format: str | None = None
    """``epoch_s``, ``epoch_ms``, ``epoch_us``, ``epoch_ns``, or a format of `datetime.strptime`; default: what the
    times plainly show."""
    zone: str | None = None
    """Zone of times that have none; default: UTC where the times of day leave no other reading, else Asia/Kolkata."""
    stamp: Literal["start", "end"] | None = None
    """Whether a bar's time is its first instant or the first one after it; default: what the times of day show, else
    the first."""
    clock: str | None = None
    """The bars' clock, such as ``5m`` or ``session``; default: what the times show."""
    of_several_files: bool = False
    """Whether other files are read by it too: then columns and a time format that are not this file's are left to
    them; see `require_used`."""

    def __post_init__(self) -> None:
        try:
            ZoneInfo(self.zone if self.zone is not None else "Asia/Kolkata")
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise MarketDataError(f"zone {self.zone!r} is unknown; write one such as Asia/Kolkata or UTC") from error
        if self.stamp not in (None, "start", "end"):
            raise MarketDataError(f"stamp {self.stamp!r} is unknown; bars are stamped at their 'start' or their 'end'")
        if self.clock is not None:
            try:
                kind = BarClock.parse(self.clock).kind
            except UnknownClock as error:
                raise MarketDataError(str(error)) from error
            if kind == "ticks":
                raise MarketDataError(f"clock {self.clock!r} counts ticks, which a file of bars does not show")

    @classmethod
    def stated(cls, columns: Mapping[str, str], time_format: str, timezone: str, stamp: str, *, files: int = 1) -> Self:
        """Give what settings state, where an empty text states nothing, of so many files; raises as the class."""
        return cls(columns, time_format or None, timezone or None, stamp or None, None, files > 1)  # type: ignore[arg-type]


def require_used(stated: ColumnMapping | None, layouts: Sequence[ColumnMapping]) -> None:
    """Refuse a mapping of several files of which a part fits none of them.

    Parameters
    ----------
    stated : ColumnMapping or None
        What was stated of all of them.
    layouts : sequence of ColumnMapping
        How each was read.

    Raises
    ------
    MarketDataError
        If a column, or the time format, was used for none.
    """
    if stated is None or not stated.of_several_files:
        return
    unused = [
        f"{ours}={theirs}" for ours, theirs in stated.columns.items() if not any(ours in x.columns for x in layouts)
    ]
    if unused:
        raise MarketDataError(
            f"no file has the columns that the mapping names: {', '.join(unused)}; correct --columns (setting "
            "market.columns)"
        )
    if stated.time_format is not None and all(x.time_format != stated.time_format for x in layouts):
        raise MarketDataError(
            f"the times of no file are written as {stated.time_format!r}; correct --time-format (setting "
            "market.time_format)"
        )
