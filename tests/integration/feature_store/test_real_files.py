"""What the real files hold, as the readers see it; they are test material and never part of the project."""

import os
from pathlib import Path

import numpy as np
import pytest

from feature_store.market.clocks import BarClock
from feature_store.market.corporate_actions import suspected_splits
from feature_store.market.types import Bars, Universe
from feature_store.sources.reading import SourceBars, known_sessions, read_bars

DATA = os.environ.get("ALPHA_PANDA_TEST_DATA")
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not DATA, reason="ALPHA_PANDA_TEST_DATA names no directory with real NSE files"),
]
FILES = {
    "nse_minute_2021-03-26_2021-06-03": (BarClock.minutes(1), 588_399, 45),
    "nse_60minute_2024-12_2025-08": (BarClock.minutes(60), 61_152, 182),
    "nse_daily_2020-07_2025-08": (BarClock("session"), 61_248, 1276),
}


def read(name: str) -> SourceBars:
    return read_bars(Path(DATA or "") / f"{name}.parquet")


@pytest.mark.parametrize("name", FILES)
def test_every_row_is_read_on_its_clock(name: str) -> None:
    clock, rows, sessions = FILES[name]
    source = read(name)
    assert (source.clock, len(source.bars), len(source.quarantine)) == (clock, rows, 0)
    assert len(known_sessions(source.bars)) == sessions


@pytest.mark.parametrize("name", FILES)
def test_no_file_has_an_unadjusted_split_inside(name: str) -> None:
    source = read(name)
    assert len(suspected_splits(source.bars, source.universe)) == 0


def test_gaps_of_ten_per_cent_are_news_and_not_splits() -> None:
    source = read("nse_daily_2020-07_2025-08")
    gaps = suspected_splits(source.bars, source.universe, jump=0.1)
    assert len(gaps) == 11
    assert {"INFY", "KOTAKBANK", "INDUSINDBK"} <= set(gaps["symbol"])  # results, an order of the regulator, accounts
    assert ((gaps["ratio"] > 0.88) & (gaps["ratio"] < 1.12)).all()


def test_raw_minutes_of_2021_followed_by_adjusted_days_show_every_later_split() -> None:
    minutes, days = read("nse_minute_2021-03-26_2021-06-03"), read("nse_daily_2020-07_2025-08")
    symbols = {i.symbol for source in (minutes, days) for i in source.universe.instruments}
    universe = Universe.from_symbols(sorted(symbols))
    end = minutes.bars.end_ns.max()
    joined = Bars.concatenate([reindexed(minutes, universe), reindexed(days, universe)[days.bars.start_ns > end]])
    flagged = suspected_splits(joined, universe).set_index("symbol")
    assert flagged["simple_ratio"].loc[
        ["BAJAJFINSV", "BAJFINANCE", "DRREDDY", "HDFCBANK", "NESTLEIND", "TATASTEEL", "WIPRO"]
    ].tolist() == ["1:10", "1:10", "1:5", "1:2", "1:20", "1:10", "1:2"]
    # and the changes of worth that are no simple ratio: bonuses with special dividends, demergers
    assert {"BPCL", "POWERGRID", "RELIANCE", "TATAMOTORS"} < set(flagged.index)


def reindexed(source: SourceBars, universe: Universe) -> Bars:
    place = np.array([universe.index_of_symbol[i.symbol] for i in source.universe.instruments], dtype=np.int32)
    bars = source.bars
    return Bars(place[bars.instrument], *(getattr(bars, f) for f in list(Bars.__dataclass_fields__)[1:]))
