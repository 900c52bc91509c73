import datetime as dt

import numpy as np
import pytest

from feature_store.market.corporate_actions import KINDS, CorporateAction, CorporateActions, suspected_splits
from feature_store.market.types import MINUTE_NS, Bars, InvalidRows, MarketDataError, Session, Universe

UNIVERSE = Universe.from_symbols(["AAA", "BBB", "SYN INDEX"], frozenset({"SYN INDEX"}))
DAYS = [dt.date(2026, 1, 5), dt.date(2026, 1, 6), dt.date(2026, 1, 7)]
SPLIT = CorporateAction("BBB", DAYS[1], "split", 0.5)


def bars_of(prices: dict[str, list[float]]) -> Bars:
    """Two bars at each date's price for each symbol."""
    rows = [
        (Session.regular(day).open_ns + k * MINUTE_NS, UNIVERSE.index_of_symbol[symbol], series[d])
        for d, day in enumerate(DAYS)
        for k in range(2)
        for symbol, series in sorted(prices.items())
    ]
    start_ns = np.array([row[0] for row in rows], dtype=np.int64)
    price = np.array([row[2] for row in rows], dtype=np.float64)
    instrument = np.array([row[1] for row in rows], dtype=np.int32)
    volume = np.full(len(rows), 101, dtype=np.int64)
    ticks = np.ones(len(rows), dtype=np.int32)
    return Bars(instrument, start_ns, start_ns + MINUTE_NS, price, price, price, price, volume, ticks)


def close_of(bars: Bars, symbol: str) -> list[float]:
    return bars.close[bars.instrument == UNIVERSE.index_of_symbol[symbol]][::2].tolist()


def test_prices_before_the_ex_date_are_scaled_and_volumes_divided() -> None:
    bars = bars_of({"AAA": [50, 50, 50], "BBB": [100, 51, 52]})
    adjusted = CorporateActions((SPLIT,)).adjust(bars, UNIVERSE, DAYS[2])
    assert close_of(adjusted, "BBB") == [50, 51, 52]
    assert close_of(adjusted, "AAA") == [50, 50, 50]
    before = (bars.instrument == UNIVERSE.index_of_symbol["BBB"]) & (bars.start_ns < Session.regular(DAYS[1]).open_ns)
    assert set(adjusted.volume[before].tolist()) == {202}
    assert set(adjusted.volume[~before].tolist()) == {101}


def test_an_action_that_is_not_yet_known_does_nothing() -> None:
    bars = bars_of({"BBB": [100, 51, 52]})
    assert CorporateActions((SPLIT,)).adjust(bars, UNIVERSE, DAYS[0]).digest() == bars.digest()


def test_reading_changes_no_raw_bar() -> None:
    bars = bars_of({"BBB": [100, 51, 52]})
    before = bars.digest()
    CorporateActions((SPLIT,)).adjust(bars, UNIVERSE, DAYS[2])
    assert bars.digest() == before


def test_factors_of_one_instrument_multiply() -> None:
    bars = bars_of({"BBB": [100, 51, 10]})
    actions = CorporateActions((CorporateAction("BBB", DAYS[2], "bonus", 0.2), SPLIT))
    assert close_of(actions.adjust(bars, UNIVERSE, DAYS[2]), "BBB") == pytest.approx([10, 10.2, 10])


@pytest.mark.parametrize("kind", KINDS)
def test_only_what_changes_the_number_of_shares_changes_earlier_volumes(kind: str) -> None:
    factor = 2.0 if kind == "consolidation" else 0.5
    bars = bars_of({"BBB": [100, 51, 52]})
    adjusted = CorporateActions((CorporateAction("BBB", DAYS[1], kind, factor),)).adjust(bars, UNIVERSE, DAYS[2])
    mine = bars.instrument == UNIVERSE.index_of_symbol["BBB"]
    changed = kind in {"split", "bonus", "consolidation"}
    assert adjusted.close[mine][::2].tolist() == [100 * factor, 51, 52]
    before = np.rint(101 / factor) if changed else 101
    assert adjusted.volume[mine][::2].tolist() == [before, 101, 101]


def test_arrays_for_a_universe_leave_out_foreign_symbols_and_ascend() -> None:
    actions = CorporateActions(
        (
            CorporateAction("ZZZ", DAYS[0], "split", 0.1),
            CorporateAction("BBB", DAYS[2], "bonus", 0.25),
            SPLIT,
            CorporateAction("AAA", DAYS[0], "dividend", 0.98),
        )
    )
    offsets, ex_ns, factors = actions.for_universe(UNIVERSE)
    assert offsets.tolist() == [0, 0, 1, 3]  # the index first
    assert factors.tolist() == [[0.98, 1.0], [0.5, 2.0], [0.25, 4.0]]
    assert ex_ns[1] == Session.regular(DAYS[1]).open_ns - (9 * 60 + 15) * MINUTE_NS
    assert (offsets.dtype, ex_ns.dtype, factors.dtype) == (np.int64, np.int64, np.float64)


def test_no_actions_give_empty_arrays_of_the_same_types() -> None:
    offsets, ex_ns, factors = CorporateActions.none().for_universe(UNIVERSE)
    assert (offsets.tolist(), len(ex_ns), factors.shape) == ([0, 0, 0, 0], 0, (0, 2))
    assert (offsets.dtype, ex_ns.dtype, factors.dtype) == (np.int64, np.int64, np.float64)


def test_the_digest_follows_the_actions_and_not_their_order() -> None:
    other = CorporateAction("AAA", DAYS[0], "dividend", 0.98)
    assert CorporateActions((SPLIT, other)).digest == CorporateActions((other, SPLIT)).digest
    assert CorporateActions((SPLIT,)).digest != CorporateActions.none().digest


def test_a_wrong_action_cannot_be_built_into_actions() -> None:
    with pytest.raises(InvalidRows, match=r"row 1: factor 2 of a split is not below 1.*perhaps 0\.5"):
        CorporateActions((CorporateAction("BBB", DAYS[1], "split", 2.0),))


@pytest.mark.parametrize(
    ("after", "simple"),
    [(50.4, "1:2"), (19.7, "1:5"), (10.2, "1:10"), (79.0, "4:5"), (66.0, "2:3"), (1004.0, "10:1")],
)
def test_an_unadjusted_split_is_flagged_with_its_ratio(after: float, simple: str) -> None:
    flagged = suspected_splits(bars_of({"AAA": [50, 50, 50], "BBB": [100, after, after]}), UNIVERSE)
    assert flagged[
        ["symbol", "date", "previous_date", "previous_close", "open", "simple_ratio"]
    ].to_numpy().tolist() == [["BBB", DAYS[1], DAYS[0], 100, after, simple]]


@pytest.mark.parametrize(("before", "after"), [(660.75, 399.0), (660.75, 400.0), (100.0, 125.0), (100.0, 45.0)])
def test_a_jump_that_is_no_plain_ratio_of_a_split_is_flagged_without_one(before: float, after: float) -> None:
    flagged = suspected_splits(bars_of({"AAA": [50, 50, 50], "BBB": [before, after, after]}), UNIVERSE)
    assert flagged["symbol"].tolist() == ["BBB"]
    assert flagged["simple_ratio"].tolist() == [""]
    assert flagged["off"].isna().all()


def test_a_split_that_an_action_explains_is_not_flagged() -> None:
    bars = bars_of({"BBB": [100, 51, 52]})
    assert len(suspected_splits(bars, UNIVERSE)) == 1
    assert len(suspected_splits(bars, UNIVERSE, CorporateActions((SPLIT,)))) == 0


def test_an_action_whose_prices_are_adjusted_already_is_flagged() -> None:
    flagged = suspected_splits(bars_of({"BBB": [50, 51, 52]}), UNIVERSE, CorporateActions((SPLIT,)))
    assert flagged[["symbol", "date", "factor"]].to_numpy().tolist() == [["BBB", DAYS[1], 0.5]]


def test_a_jump_inside_a_session_and_a_gap_of_ten_per_cent_are_not_flagged() -> None:
    assert len(suspected_splits(bars_of({"BBB": [100, 90, 99]}), UNIVERSE)) == 0


def test_a_jump_that_is_no_share_of_a_price_is_refused() -> None:
    with pytest.raises(MarketDataError, match="jump is 0"):
        suspected_splits(bars_of({"BBB": [100, 90, 99]}), UNIVERSE, jump=0)
