"""The calendar against the dates of real NSE files; the project holds none."""

import datetime as dt
import os
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from feature_store.market.calendar import nse_sessions

DATA = os.environ.get("ALPHA_PANDA_TEST_DATA")
pytestmark = pytest.mark.skipif(
    not DATA, reason="ALPHA_PANDA_TEST_DATA is not set; it names a directory of real NSE Parquet files"
)


def dates_of(name: str) -> list[dt.date]:
    times = pq.read_table(Path(DATA or "") / name, columns=["timestamp"])["timestamp"]
    return sorted(dt.date.fromisoformat(day) for day in pc.unique(pc.strftime(times, "%Y-%m-%d")).to_pylist())


@pytest.mark.parametrize(
    ("name", "sessions", "lost"),
    [
        ("nse_daily_2020-07_2025-08.parquet", 1_276, set()),
        ("nse_60minute_2024-12_2025-08.parquet", 182, {dt.date(2025, 1, 9)}),  # a gap of the vendor's, not a holiday
        ("nse_minute_2021-03-26_2021-06-03.parquet", 45, set()),
        ("nse_ticks_2021-05-31_2021-06-03.parquet", 4, set()),
    ],
)
def test_the_dates_of_a_real_file_are_the_sessions_of_the_calendar(
    name: str, sessions: int, lost: set[dt.date]
) -> None:
    dates = dates_of(name)
    assert len(dates) == sessions
    assert [s.date for s in nse_sessions(dates[0], dates[-1]) if s.date not in lost] == dates
