import datetime as dt
import subprocess
import sys
from collections import Counter

import pytest
from pandas_market_calendars import get_calendar

from feature_store.market.calendar import (
    SPECIAL_SESSIONS,
    VERIFIED_FROM,
    VERIFIED_THROUGH,
    UnverifiedDate,
    nse_session,
    nse_sessions,
    previous_sessions,
)
from feature_store.market.types import Session, ist_text


def hours(date: str) -> str | None:
    session = nse_session(dt.date.fromisoformat(date))
    return session and f"{ist_text(session.open_ns)[11:16]}-{ist_text(session.close_ns)[11:16]}"


def test_a_weekday_is_a_regular_session_and_a_weekend_is_none() -> None:
    assert nse_session(dt.date(2026, 1, 5)) == Session.regular(dt.date(2026, 1, 5))
    assert hours("2026-01-10") is None
    assert hours("2026-01-11") is None


@pytest.mark.parametrize("date", ["2024-01-22", "2024-05-20", "2024-11-20", "2026-01-15", "2026-01-26", "2026-12-25"])
def test_a_holiday_has_no_session(date: str) -> None:
    assert hours(date) is None


@pytest.mark.parametrize(
    ("date", "expected"),
    [
        ("2020-02-01", "09:15-15:30"),
        ("2020-11-14", "18:15-19:15"),
        ("2021-02-24", "09:15-17:00"),
        ("2021-11-04", "18:15-19:15"),
        ("2022-10-24", "18:15-19:15"),
        ("2023-11-12", "18:15-19:15"),
        ("2024-01-20", "09:15-15:30"),
        ("2024-03-02", "09:15-12:30"),
        ("2024-05-18", "09:15-12:40"),
        ("2024-11-01", "18:00-19:00"),
        ("2025-02-01", "09:15-15:30"),
        ("2025-10-21", "13:45-14:45"),
        ("2026-02-01", "09:15-15:30"),
    ],
)
def test_a_special_session_has_its_own_hours(date: str, expected: str) -> None:
    assert hours(date) == expected


def test_every_special_session_is_dated_once_in_order_with_its_source() -> None:
    dates = [row.date for row in SPECIAL_SESSIONS]
    assert dates == sorted(set(dates))
    assert all(row.source and row.what for row in SPECIAL_SESSIONS)


def test_the_years_have_the_sessions_that_the_exchange_held() -> None:
    counts = Counter(session.date.year for session in nse_sessions(VERIFIED_FROM, VERIFIED_THROUGH))
    # 2026 without its Muhurat session, whose hours are not verified
    assert counts == {2020: 252, 2021: 248, 2022: 248, 2023: 246, 2024: 249, 2025: 249, 2026: 246}


def test_closed_days_are_those_of_the_library_but_for_the_overlay() -> None:
    weekdays = {day.date() for day in get_calendar("NSE").valid_days(VERIFIED_FROM, VERIFIED_THROUGH)}
    ours = {session.date for session in nse_sessions(VERIFIED_FROM, VERIFIED_THROUGH)}
    assert ours ^ weekdays <= {row.date for row in SPECIAL_SESSIONS}


def test_the_calendar_does_without_pandas() -> None:
    code = "import sys, datetime as dt; from feature_store.market.calendar import nse_session as of"
    code += "; of(dt.date(2026, 1, 5)); sys.exit('pandas' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_sessions_of_a_range_include_both_ends_in_order() -> None:
    sessions = nse_sessions(dt.date(2024, 5, 17), dt.date(2024, 5, 21))
    assert [s.date.day for s in sessions] == [17, 18, 21]


def test_previous_sessions_end_before_the_date() -> None:
    dates = [s.date.isoformat() for s in previous_sessions(dt.date(2026, 1, 27), 3)]
    assert dates == ["2026-01-21", "2026-01-22", "2026-01-23"]
    assert previous_sessions(dt.date(2026, 1, 27), 0) == ()


@pytest.mark.parametrize("date", [dt.date(2027, 1, 1), dt.date(2019, 12, 31)])
def test_a_date_outside_the_verified_years_is_refused_with_the_way_out(date: dt.date) -> None:
    with pytest.raises(UnverifiedDate, match=r"verify (earlier|later) years"):
        nse_session(date)
    with pytest.raises(UnverifiedDate, match=str(date)):
        nse_sessions(min(date, dt.date(2026, 1, 5)), max(date, dt.date(2026, 1, 5)))
    with pytest.raises(UnverifiedDate):
        previous_sessions(date, 1)


def test_more_previous_sessions_than_are_verified_are_refused() -> None:
    with pytest.raises(UnverifiedDate, match="only 1 sessions before 2020-01-02"):
        previous_sessions(dt.date(2020, 1, 2), 2)


def test_a_session_whose_hours_are_not_verified_is_refused_by_name() -> None:
    with pytest.raises(UnverifiedDate, match=r"Muhurat.*2026|2026.*Muhurat"):
        nse_session(dt.date(2026, 11, 8))
