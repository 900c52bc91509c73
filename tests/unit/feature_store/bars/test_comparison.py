import datetime as dt
from dataclasses import replace

import numpy as np
import pytest

from feature_store.bars.comparison import BarComparison, compare_bars, comparison_plot, stamp_shift
from feature_store.market.types import MINUTE_NS, Bars, MarketDataError, Session, Universe

SESSION = Session.regular(dt.date(2026, 1, 5))
UNIVERSE = Universe.from_symbols(["AAA", "BBB"])
MINUTES = 10


def some_bars() -> Bars:
    """Bars of two instruments over ten minutes."""
    start = SESSION.open_ns + np.repeat(np.arange(MINUTES), 2) * MINUTE_NS
    close = 100.0 + np.arange(2 * MINUTES)
    return Bars(
        instrument=np.tile(np.array([0, 1], dtype=np.int32), MINUTES),
        start_ns=start,
        end_ns=start + MINUTE_NS,
        open=close - 0.5,
        high=close + 1.0,
        low=close - 1.0,
        close=close,
        volume=np.arange(2 * MINUTES, dtype=np.int64) + 1,
        tick_count=np.full(2 * MINUTES, 3, dtype=np.int32),
    )


def changed(name: str, row: int, by: float) -> Bars:
    column = getattr(some_bars(), name).copy()
    column[row] += by
    return replace(some_bars(), **{name: column})


def compared(vendor: Bars, built: Bars | None = None) -> BarComparison:
    return compare_bars(built or some_bars(), vendor, UNIVERSE)


def test_equal_bars_pass_whatever_their_order() -> None:
    result = compared(some_bars()[np.arange(2 * MINUTES)[::-1]])
    assert result.passed
    assert result.summary() == "all 20 bars agree"
    assert (result.first, result.table().empty, result.shift_ns) == ((), True, 0)


def test_nothing_to_compare_does_not_pass() -> None:
    assert not compared(some_bars()[:0], some_bars()[:0]).passed


@pytest.mark.parametrize("name", ["open", "high", "low", "close"])
def test_a_price_that_differs_is_named_with_its_symbol_time_and_size(name: str) -> None:
    result = compared(changed(name, 5, 0.05))
    assert (result.passed, result.differing) == (False, {name: 1})
    assert result.largest_difference_inr == pytest.approx(0.05)
    assert result.largest_difference_bps == pytest.approx(0.05 / getattr(changed(name, 5, 0.05), name)[5] * 1e4)
    assert result.table()[["symbol", "start", "field"]].to_numpy().tolist() == [
        ["BBB", "2026-01-05 09:17:00 IST", name]
    ]
    assert (result.table().vendor - result.table().built).tolist() == pytest.approx([0.05])


def test_a_volume_that_differs_is_named_in_shares() -> None:
    result = compared(changed("volume", 0, -1))
    assert (result.differing, result.largest_difference_shares) == ({"volume": 1}, 1)
    assert result.largest_difference_inr == 0.0
    assert "volumes by up to 1 shares" in result.summary()


def test_bars_that_one_side_lacks_are_named_on_either_side() -> None:
    vendor = some_bars()[np.delete(np.arange(2 * MINUTES), [2, 3])]
    built = some_bars()[np.delete(np.arange(2 * MINUTES), [9])]
    result = compared(vendor, built)
    assert (result.only_built, result.only_vendor, result.compared_bars) == (2, 1, 17)
    assert [(d.symbol, d.field, d.built is None, d.vendor is None) for d in result.first] == [
        ("AAA", "bar", False, True),
        ("BBB", "bar", False, True),
        ("BBB", "bar", True, False),
    ]
    assert not result.passed


def test_bars_stamped_with_their_end_are_recognised() -> None:
    for shift in (MINUTE_NS, -MINUTE_NS):
        vendor = replace(some_bars(), start_ns=some_bars().start_ns + shift, end_ns=some_bars().end_ns + shift)
        result = compared(vendor)
        assert not result.passed
        assert result.shift_ns == shift
        assert f"stamped {shift / 1e9:+g} s off ours" in result.summary()


def test_a_shift_is_told_by_the_closes_alone() -> None:
    vendor = replace(
        some_bars(),
        start_ns=some_bars().start_ns + MINUTE_NS,
        end_ns=some_bars().end_ns + MINUTE_NS,
        volume=some_bars().volume * 2,
        high=some_bars().high + 0.05,
    )
    assert compared(vendor).shift_ns == MINUTE_NS
    assert stamp_shift(some_bars(), vendor) == MINUTE_NS
    assert stamp_shift(some_bars(), replace(some_bars(), volume=vendor.volume)) == 0
    assert stamp_shift(some_bars(), vendor, [5 * MINUTE_NS]) is None
    assert stamp_shift(some_bars(), some_bars()[:0]) is None


def test_bars_of_another_length_do_not_pass() -> None:
    result = compared(replace(some_bars(), end_ns=some_bars().end_ns + 1))
    assert (result.differing, result.shift_ns) == ({"end_ns": 20}, 0)


def test_ticks_are_compared_where_both_sides_count_them() -> None:
    assert compared(replace(some_bars(), tick_count=np.zeros(20, dtype=np.int32))).passed
    assert compared(changed("tick_count", 4, 1)).differing == {"tick_count": 1}


def test_only_the_first_differences_are_listed_but_all_are_counted() -> None:
    result = compare_bars(some_bars(), replace(some_bars(), close=some_bars().close + 0.5), UNIVERSE, examples=3)
    assert result.differing == {"close": 20}
    assert [(d.symbol, d.start_ns) for d in result.first] == [
        ("AAA", SESSION.open_ns),
        ("BBB", SESSION.open_ns),
        ("AAA", SESSION.open_ns + MINUTE_NS),
    ]
    np.testing.assert_array_equal(result.start_ns, some_bars().start_ns)
    assert (result.price_difference_bps < 0).all()


def test_two_bars_of_one_instrument_and_start_are_refused_by_row() -> None:
    with pytest.raises(MarketDataError, match="row 20 of the vendor's bars is a second bar of AAA at 2026-01-05 09:15"):
        compared(Bars.concatenate([some_bars(), some_bars()[:1]]))


@pytest.mark.parametrize("vendor", [some_bars(), changed("close", 3, 0.3), some_bars()[:0]])
def test_a_comparison_is_drawn_whatever_it_found(vendor: Bars) -> None:
    image = comparison_plot(compared(vendor))
    assert image.startswith(b"\x89PNG")
    assert image == comparison_plot(compared(vendor))
