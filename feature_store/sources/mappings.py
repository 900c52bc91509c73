"""What a person says of a file whose columns, times and stamps are not those that we know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal
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

    columns: Mapping[str, str]
    """The file's name of each of our columns (``time``, ``symbol``, ``open`` …); others go by their usual names."""
    time_format: str | None = None
    """``epoch_s``, ``epoch_ms``, ``epoch_us``, ``epoch_ns``, or a format of `datetime.strptime`; default: ISO 8601."""
    zone: str = "Asia/Kolkata"
    """Zone of times that have none."""
    stamp: Literal["start", "end"] = "start"
    """Whether a bar's time is its first instant or the first one after it."""
    clock: str | None = None
    """The bars' clock, such as ``5m`` or ``session``; default: what the times show."""

    def __post_init__(self) -> None:
        try:
            ZoneInfo(self.zone)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise MarketDataError(f"zone {self.zone!r} is unknown; write one such as Asia/Kolkata or UTC") from error
        if self.stamp not in ("start", "end"):
            raise MarketDataError(f"stamp {self.stamp!r} is unknown; bars are stamped at their 'start' or their 'end'")
        if self.clock is not None:
            try:
                kind = BarClock.parse(self.clock).kind
            except UnknownClock as error:
                raise MarketDataError(str(error)) from error
            if kind == "ticks":
                raise MarketDataError(f"clock {self.clock!r} counts ticks, which a file of bars does not show")
