"""Which rows are used: in whatever order they stand, one for each bar, and what is an index and what is a share."""

import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from feature_store.market.types import (
    IST,
    MINUTE_NS,
    REGULAR_SESSION_NS,
    CollidingInstruments,
    Instrument,
    MissingColumn,
    Universe,
)
from feature_store.sources.reading import SourceBars, SourceTicks, read_bars, read_ticks

OPEN = pd.Timestamp("2026-01-05 09:15", tz=IST)
_BAR = {"open": 100.0, "high": 102.0, "low": 99.0, "close": 101.0, "volume": 10}


def bars_of(*rows: dict[str, Any]) -> pd.DataFrame:
    """Bars of AAA minute by minute, each with values of its own; ``minute`` says which minute."""
    made = [{"timestamp": OPEN + pd.Timedelta(minutes=k), "symbol": "AAA", **_BAR} | row for k, row in enumerate(rows)]
    for row in made:
        if "minute" in row:
            row["timestamp"] = OPEN + pd.Timedelta(minutes=row.pop("minute"))
    return pd.DataFrame(made)


def read(frame: pd.DataFrame, tmp_path: Path, **options: Any) -> SourceBars:
    frame.to_csv(tmp_path / "a.csv", index=False)
    return read_bars(tmp_path / "a.csv", **options)


def ticks_of(seconds: list[int], symbol: str = "AAA") -> pd.DataFrame:
    prices = 100.0 + np.arange(len(seconds))
    times = OPEN + pd.to_timedelta(seconds, unit="s")
    return pd.DataFrame({"timestamp": times, "symbol": symbol, "ltp": prices, "volume": 5})


def read_some_ticks(frame: pd.DataFrame, tmp_path: Path, **options: Any) -> SourceTicks:
    frame.to_csv(tmp_path / "a.csv", index=False)
    return read_ticks(tmp_path / "a.csv", **options)


def kinds(source: SourceBars | SourceTicks) -> dict[str, str]:
    return {i.symbol: "share" if i.tradable else "index" for i in source.universe.instruments}


# --- order ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [[4, 3, 2, 1, 0], [0, 3, 1, 4, 2], [1, 0, 2, 3, 4]])
def test_bars_in_any_order_are_sorted_and_that_is_counted(order: list[int], tmp_path: Path) -> None:
    rows = bars_of(*[{"open": 100 + k / 10} for k in range(5)])
    source = read(rows.iloc[order], tmp_path)
    assert source.quarantine.counts() == {}
    assert source.bars.open.tolist() == rows["open"].tolist()
    assert source.rows_out_of_order == sum(b < a for a, b in itertools.pairwise(order)) > 0


def test_ticks_in_any_order_are_sorted_and_those_of_one_second_stay_as_they_came(tmp_path: Path) -> None:
    source = read_some_ticks(ticks_of([5, 1, 1, 3, 1]), tmp_path)
    assert source.ticks.last_price.tolist() == [101, 102, 104, 103, 100]
    assert (source.rows_out_of_order, source.quarantine.counts()) == (2, {})


def test_ticks_that_stand_newest_first_are_read_backwards_within_a_second_too(tmp_path: Path) -> None:
    newest_first = pd.concat([ticks_of([3, 2, 2, 1]), ticks_of([1, 1, 2], "BBB")])
    source = read_some_ticks(newest_first, tmp_path)
    of = {i.symbol: source.ticks.last_price[source.ticks.instrument == k].tolist()
          for k, i in enumerate(source.universe.instruments)}  # fmt: skip
    assert of == {"AAA": [103, 102, 101, 100], "BBB": [100, 101, 102]}


# --- one row for each bar ------------------------------------------------------------------------------------------

MORE, OTHER = {"minute": 1, "volume": 25, "close": 100.5}, {"minute": 1, "close": 100.5}


@pytest.mark.parametrize(
    ("repeats", "closes", "counted"),
    [
        ([MORE], [101, 100.5, 101], {"superseded_bar": 1}),
        ([{"minute": 1}, {"minute": 1}], [101, 101, 101], {"duplicate_bar": 2}),
        ([OTHER], [101, 101], {"contradicting_bar": 2}),
        ([OTHER, MORE], [101, 100.5, 101], {"superseded_bar": 2}),
        ([MORE, MORE, OTHER], [101, 100.5, 101], {"duplicate_bar": 1, "superseded_bar": 2}),
        ([MORE, MORE | {"close": 99.5}], [101, 101], {"contradicting_bar": 2, "superseded_bar": 1}),
    ],
)
def test_of_several_rows_for_a_bar_the_larger_volume_wins(
    repeats: list[dict[str, Any]], closes: list[float], counted: dict[str, int], tmp_path: Path
) -> None:
    source = read(bars_of({}, {}, {"minute": 2}, *repeats), tmp_path)
    assert source.quarantine.counts() == counted
    assert source.bars.close.tolist() == closes
    assert len(source.bars) + len(source.quarantine) == 3 + len(repeats)


# --- noise of rounding ---------------------------------------------------------------------------------------------


def test_an_open_or_close_beyond_the_range_by_the_rounding_of_adjusted_prices_is_moved_into_it(tmp_path: Path) -> None:
    rows = bars_of({"close": 102.0001}, {"open": 98.9999}, {"low": 102.0001, "open": 102, "close": 102})
    source = read(rows, tmp_path)
    assert source.quarantine.counts() == {}
    assert (source.bars.close[0], source.bars.open[1]) == (102, 99)
    assert source.bars.high[2] == source.bars.low[2] == source.bars.open[2] == 102.0001
    assert read(bars_of({"close": 102.0002}), tmp_path).quarantine.counts() == {"open_or_close_outside_range": 1}
    assert read(bars_of({"low": 102.0003}), tmp_path).quarantine.counts() == {"high_below_low": 1}


# --- what is an index ----------------------------------------------------------------------------------------------


INDICES = ("NIFTY 50", "Nifty Bank", "NIFTY50", "BANKNIFTY", "NSE:SOMETHING-INDEX", "^CNXIT", "NIFTY FIN SERVICE",
           "Nifty Financial Services", "INDIA VIX", "SENSEX", "NSE_INDEX|Nifty New Thing", "NIFTY_BANK", "India-Vix",
           "BSE:SENSEX", "NSEI", "CNXBAN", "NiftySmallcap100", "NIFTYMIDCAP")  # fmt: skip
SHARES = ("NIFTYBEES", "BANKBEES", "MY SHARE", "NIFTY 50 FUND", "AAA-INDEXED", "SETFNIF50", "NIFTY1", "NSE_BEES")


@pytest.mark.parametrize("volume", [0, 5000, 5_000_000_000_000, "", -1])
def test_an_index_is_told_by_its_exact_name_whatever_its_volume(volume: object, tmp_path: Path) -> None:
    source = read(bars_of(*({"symbol": name, "volume": volume} for name in INDICES)), tmp_path)
    assert list(kinds(source).values()) == ["index"] * len(INDICES)
    assert source.quarantine.counts() == {}
    assert set(source.bars.volume.tolist()) == {volume if isinstance(volume, int) and volume >= 0 else 0}
    assert source.without_volume == ()


def test_a_fund_and_a_name_with_a_space_trade_and_a_share_without_a_volume_does_too(tmp_path: Path) -> None:
    source = read(bars_of(*({"symbol": name, "volume": 0} for name in SHARES)), tmp_path)
    assert kinds(source) == dict.fromkeys(SHARES, "share")
    assert sorted(source.without_volume) == sorted(SHARES)
    missing = bars_of(*({"symbol": name, "volume": ""} for name in SHARES))
    assert read(missing, tmp_path).quarantine.counts() == {"not_a_number": len(SHARES)}


@pytest.mark.parametrize(
    ("column", "of_index", "of_share"),
    [("segment", "INDICES", "NSE"), ("exchange", "NSE_INDEX", "NSE_EQ"), ("instrument_type", "INDEX", "EQ"),
     ("Exchange_Segment", "idx_i", "NSE_EQ"), ("tradable", False, True)],
)  # fmt: skip
def test_a_column_of_the_file_says_what_is_an_index(
    column: str, of_index: object, of_share: object, tmp_path: Path
) -> None:
    frame = bars_of({"symbol": "NEWTHING", "volume": ""}, {"minute": 0}).assign(**{column: [of_index, of_share]})
    source = read(frame, tmp_path)
    assert kinds(source) == {"NEWTHING": "index", "AAA": "share"}
    assert source.stated == {"NEWTHING"}
    ticks = ticks_of([1, 2]).assign(symbol=["NEWTHING", "AAA"], volume=["", 5], **{column: [of_index, of_share]})
    assert kinds(read_some_ticks(ticks, tmp_path)) == {"NEWTHING": "index", "AAA": "share"}


def test_the_table_of_instruments_wins_over_the_file_and_the_name(tmp_path: Path) -> None:
    table = Universe.from_symbols(["NIFTY 50", "NEWTHING", "ELSEWHERE"], frozenset({"NEWTHING"}))
    frame = bars_of({}, {"symbol": "NIFTY 50"}, {"symbol": "NEWTHING", "volume": ""}).assign(segment="INDICES")
    frame.loc[0, "segment"] = "NSE"
    source = read(frame, tmp_path, instruments=table)
    assert kinds(source) == {"AAA": "share", "NIFTY 50": "share", "NEWTHING": "index"}
    assert source.stated == {"NIFTY 50", "NEWTHING"}


def test_a_file_of_indices_alone_needs_no_volume_and_one_with_a_share_does(tmp_path: Path) -> None:
    indices = bars_of({"symbol": "NIFTY 50"}).drop(columns="volume")
    assert read(indices, tmp_path).bars.volume.tolist() == [0]
    assert read_some_ticks(ticks_of([1], "NIFTY 50").drop(columns="volume"), tmp_path).ticks.day_volume.tolist() == [0]
    with pytest.raises(MissingColumn, match=r"no column 'volume'.*--columns volume="):
        read(pd.concat([indices, bars_of({}).drop(columns="volume")]), tmp_path)


# --- identity ------------------------------------------------------------------------------------------------------


def test_two_symbols_of_one_token_are_refused_by_name_unless_a_table_gives_them_tokens(tmp_path: Path) -> None:
    plumless, buckeroo = "PLUMLESS", "BUCKEROO".lower()  # a known collision of CRC-32, in lower case
    frame = bars_of({"symbol": plumless.lower()}, {"symbol": buckeroo})
    with pytest.raises(CollidingInstruments, match=r"'buckeroo' and 'plumless'.*market\.universe"):
        read(frame, tmp_path)
    table = Universe.ordered(
        Instrument(instrument_token=k, symbol=s) for k, s in enumerate(["plumless", "buckeroo"], start=1)
    )
    assert read(frame, tmp_path, instruments=table).universe == table


def test_a_symbol_that_stands_for_several_instruments_is_not_made_one_of_the_larger_volumes(tmp_path: Path) -> None:
    of_one = [{"minute": k, "volume": 10 + k % 3} for k in range(12)]
    series = [{"minute": k, "open": 100.5, "close": 100.6, "volume": 11, "series": "BE"} for k in range(2, 12)]
    single = [{"minute": k, "symbol": "BBB"} for k in range(12)]
    source = read(bars_of(*of_one, *series, *single), tmp_path)
    assert source.quarantine.counts() == {"several_instruments": 22}
    assert [i.symbol for i in source.universe.instruments] == ["BBB"]
    later_looks = [{"minute": k, "close": 100.6, "volume": 20} for k in range(12)]
    assert read(bars_of(*of_one, *later_looks), tmp_path).quarantine.counts() == {"superseded_bar": 12}


# --- how long a bar is ---------------------------------------------------------------------------------------------


def stamped(times: Iterable[pd.Timestamp]) -> pd.DataFrame:
    return bars_of(*({"timestamp": time.strftime("%Y-%m-%d %H:%M:%S")} for time in times))


@pytest.mark.parametrize("time_of_day", ["00:00", "09:15", "15:30"])
def test_one_bar_a_session_is_the_sessions_and_not_its_first_minute(time_of_day: str, tmp_path: Path) -> None:
    days = pd.bdate_range("2026-01-05", "2026-01-09")
    path = tmp_path / "bars.csv"
    stamped(days + pd.Timedelta(f"{time_of_day}:00")).to_csv(path, index=False)
    for sessions in (None, [days[0].date()]):
        source = read_bars(path, sessions)
        assert (str(source.clock), source.quarantine.counts()) == ("session", {})
        assert set(source.bars.end_ns - source.bars.start_ns) == {REGULAR_SESSION_NS}


def test_bars_of_weeks_are_not_read_as_those_of_their_first_session(tmp_path: Path) -> None:
    source = read(stamped(pd.date_range("2026-02-02", periods=5, freq="7D")), tmp_path)
    assert (len(source.bars), source.quarantine.counts()) == (0, {"longer_than_a_session": 5})


def test_bars_of_a_thinly_traded_share_keep_their_length_though_most_steps_are_longer(tmp_path: Path) -> None:
    minutes = np.cumsum([3, 2, 3, 1, 4, 3, 2] * 3).tolist()
    source = read(bars_of(*({"minute": minute} for minute in minutes)), tmp_path)
    assert (len(source.bars), source.quarantine.counts()) == (len(minutes), {})
    assert set(source.bars.end_ns - source.bars.start_ns) == {MINUTE_NS}


def test_bars_of_five_minutes_are_not_read_as_minutes_because_another_share_has_those(tmp_path: Path) -> None:
    minutes, fives = [{"minute": k} for k in range(60)], [{"minute": 5 * k, "symbol": "BBB"} for k in range(12)]
    source = read(bars_of(*minutes, *fives), tmp_path)
    assert source.quarantine.counts() == {"other_bar_length": 12}
    thin = [{"minute": int(k), "symbol": "BBB"} for k in np.cumsum([5, 5, 5, 5, 5, 5, 5, 6, 4, 3, 5, 2])]
    assert read(bars_of(*minutes, *thin), tmp_path).quarantine.counts() == {}


def test_prices_that_are_all_infinite_are_no_numbers(tmp_path: Path) -> None:
    source = read(bars_of({}, dict.fromkeys(("open", "high", "low", "close"), "inf")), tmp_path)
    assert source.quarantine.counts() == {"not_a_number": 1}
