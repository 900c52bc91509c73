"""The sessions of the NSE cash market: those of `pandas_market_calendars`, corrected by a dated overlay.

What that library says of the verified years stands here as dates, so that a service process, which asks once a session,
need not load it and pandas (60 MB, 0.6 s of a core). The overlay holds what it misses or cannot know: sessions on
weekends, Muhurat (Diwali) hours, days with other hours. It was compared with real NSE files: the 1,276 dates of
2020-07-14 to 2025-08-29 are exactly these sessions. Dates outside the verified years are refused, because an unlisted
holiday would look like an outage.

From 2026-08-03 stocks with derivatives close in an auction from 15:15 to 15:35 IST (from summaries of the circular).
A session here still ends at 15:30: what trades later is outside the session, and the bar builder counts it.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from functools import cache
from typing import Final

from feature_store.market.types import REGULAR_CLOSE, REGULAR_OPEN, MarketDataError, Session, ist_ns

VERIFIED_FROM: Final = dt.date(2020, 1, 1)
"""First date that this calendar answers for."""
VERIFIED_THROUGH: Final = dt.date(2026, 12, 31)
"""Last date that this calendar answers for: the exchange announces holidays by the year."""
_FRIDAY: Final = 5


def exchange_in_words() -> str:
    """Say which exchange this is, its hours, and for which dates its sessions are verified."""
    return (
        f"The exchange is NSE, its cash market: sessions from {REGULAR_OPEN:%H:%M} to {REGULAR_CLOSE:%H:%M} IST, "
        f"verified from {VERIFIED_FROM} to {VERIFIED_THROUGH}"
    )


class UnverifiedDate(MarketDataError):
    """A date whose session nobody has verified."""


@dataclass(frozen=True, slots=True)
class SpecialSession:
    """One day that `pandas_market_calendars` does not know, or not with these hours."""

    date: dt.date
    open: dt.time | None
    """IST; None when the hours are not verified yet: the day is then refused by name and left out of ranges."""
    close: dt.time | None
    """IST, the first instant after the session. A break inside the session is part of it: no tick, no bar."""
    what: str
    source: str


def _muhurat(date: str, hours: str, source: str) -> SpecialSession:
    open_, close = (dt.time.fromisoformat(part) for part in hours.split("-"))
    return SpecialSession(dt.date.fromisoformat(date), open_, close, "Muhurat (Diwali) session", source)


def _special(date: str, close: str, what: str, source: str) -> SpecialSession:
    return SpecialSession(dt.date.fromisoformat(date), REGULAR_OPEN, dt.time.fromisoformat(close), what, source)


_BUDGET, _SWITCH = "Union Budget", "drill of the disaster recovery site"
SPECIAL_SESSIONS: Final[tuple[SpecialSession, ...]] = (
    _special("2020-02-01", "15:30", f"Saturday, {_BUDGET}", "NSE circular of January 2020: standard timings"),
    _muhurat("2020-11-14", "18:15-19:15", "NSE circular of November 2020 (a Saturday)"),
    _special("2021-02-24", "17:00", "halt 11:40 to 15:45 after an outage", "NSE press release of 2021-02-24"),
    _muhurat("2021-11-04", "18:15-19:15", "NSE circular of October 2021"),
    _muhurat("2022-10-24", "18:15-19:15", "NSE circular of October 2022"),
    _muhurat("2023-11-12", "18:15-19:15", "NSE circular of October 2023 (a Sunday)"),
    _special("2024-01-20", "15:30", "Saturday in place of Monday 2024-01-22", "NSE circular of 2024-01-19"),
    _special("2024-03-02", "12:30", f"Saturday, {_SWITCH}, break 10:00 to 11:30", "NSE circular of 2024-02-14"),
    # the press gives 11:45 to 12:40 and 11:30 to 12:30 for its second half: the later close holds both
    _special("2024-05-18", "12:40", f"Saturday, {_SWITCH}, break 10:00 to 11:45", "NSE circular of 2024-05-07"),
    _muhurat("2024-11-01", "18:00-19:00", "NSE circular of 2024-10-19"),
    _special("2025-02-01", "15:30", f"Saturday, {_BUDGET}", "NSE circular of December 2024: standard timings"),
    _muhurat("2025-10-21", "13:45-14:45", "NSE circular of 2025-09-22"),
    _special("2026-02-01", "15:30", f"Sunday, {_BUDGET}", "NSE circular of 2026-01-16: standard timings"),
    SpecialSession(
        dt.date(2026, 11, 8), None, None, "Muhurat (Diwali) session on a Sunday", "NSE holiday list of 2026: no hours"
    ),
)
"""Days that the overlay adds or whose hours it sets, by date."""


_CLOSED: Final = {
    2020: "02-21 03-10 04-02 04-06 04-10 04-14 05-01 05-25 10-02 11-16 11-30 12-25",
    2021: "01-26 03-11 03-29 04-02 04-14 04-21 05-13 07-21 08-19 09-10 10-15 11-05 11-19",
    2022: "01-26 03-01 03-18 04-14 04-15 05-03 08-09 08-15 08-31 10-05 10-26 11-08",
    2023: "01-26 03-07 03-30 04-04 04-07 04-14 05-01 06-29 08-15 09-19 10-02 10-24 11-14 11-27 12-25",
    2024: "01-22 01-26 03-08 03-25 03-29 04-11 04-17 05-01 05-20 06-17 07-17 08-15 10-02 11-15 11-20 12-25",
    2025: "02-26 03-14 03-31 04-10 04-14 04-18 05-01 08-15 08-27 10-02 10-22 11-05 12-25",
    2026: "01-15 01-26 03-03 03-26 03-31 04-03 04-14 05-01 05-28 06-26 09-14 10-02 10-20 11-10 11-24 12-25",
}
"""Weekdays without a session by year, month and day, as `pandas_market_calendars` has them; a test compares the two."""


def nse_session(date: dt.date) -> Session | None:
    """Give the session of a date; None on a day without trading.

    Raises
    ------
    UnverifiedDate
        If the date is outside `VERIFIED_FROM` … `VERIFIED_THROUGH`, or its hours are not verified.
    """
    _require_verified(date)
    if date in _without_hours():
        raise UnverifiedDate(
            f"{date} is a session of NSE ({_without_hours()[date]}) whose hours are not verified: look them up in the "
            "exchange's circular and set them in SPECIAL_SESSIONS of feature_store/market/calendar.py"
        )
    return _sessions().get(date)


def nse_sessions(start: dt.date, end: dt.date) -> tuple[Session, ...]:
    """Give the sessions from ``start`` to ``end``, both included, in order.

    A special day whose hours are not verified is left out; `nse_session` refuses it.

    Raises
    ------
    UnverifiedDate
        If either date is outside the verified years.
    """
    _require_verified(start)
    _require_verified(end)
    return tuple(session for date, session in _sessions().items() if start <= date <= end)


def previous_sessions(date: dt.date, count: int) -> tuple[Session, ...]:
    """Give the last ``count`` sessions before a date, in order, the date itself excluded.

    Raises
    ------
    UnverifiedDate
        If the date, or the first of these sessions, is outside the verified years.
    """
    _require_verified(date)
    before = [session for day, session in _sessions().items() if day < date]
    if count > len(before):
        raise UnverifiedDate(
            f"only {len(before)} sessions before {date} are verified, {count} are wanted. {exchange_in_words()}: "
            f"{_way_out('earlier')}"
        )
    return tuple(before[len(before) - count :])


def _require_verified(date: dt.date) -> None:
    if date > VERIFIED_THROUGH:
        raise UnverifiedDate(f"{date} is after the last verified date. {exchange_in_words()}: {_way_out('later')}")
    if date < VERIFIED_FROM:
        raise UnverifiedDate(f"{date} is before the first verified date. {exchange_in_words()}: {_way_out('earlier')}")


def _way_out(years: str) -> str:
    return (
        f"use other dates, or verify {years} years against the exchange's holiday list, move the bounds and add "
        "the closed days in feature_store/market/calendar.py (from a pandas-market-calendars that knows those years)"
    )


@cache
def _without_hours() -> dict[dt.date, str]:
    return {row.date: row.what for row in SPECIAL_SESSIONS if row.open is None}


@cache
def _sessions() -> dict[dt.date, Session]:
    """Every session of the verified years by date, ascending."""
    closed = {dt.date.fromisoformat(f"{year}-{day}") for year, days in _CLOSED.items() for day in days.split()}
    dates = (VERIFIED_FROM + dt.timedelta(days) for days in range((VERIFIED_THROUGH - VERIFIED_FROM).days + 1))
    weekdays = (date for date in dates if date.isoweekday() <= _FRIDAY and date not in closed)
    hours = dict.fromkeys(weekdays, (REGULAR_OPEN, REGULAR_CLOSE))
    for row in SPECIAL_SESSIONS:
        hours.pop(row.date, None)
        if row.open is not None and row.close is not None:
            hours[row.date] = (row.open, row.close)
    return {date: Session(date, ist_ns(date, hours[date][0]), ist_ns(date, hours[date][1])) for date in sorted(hours)}
