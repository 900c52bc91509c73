import doctest

import numpy as np
import pytest

from feature_store.labels import barriers
from feature_store.labels.barriers import NO_TOUCH, STOP, TARGET, Touch, barrier_step, first_row, first_touch, rows_of
from feature_store.market.types import MINUTE_NS, SECOND_NS, Bars, Ticks, UnknownInstrument
from tests.live_world import OPEN, bars

NONE = float("nan")
LONG, SHORT = 1, -1


def ticks(*rows: tuple[int, int, float]) -> Ticks:
    """Ticks from ``(instrument, second after the open, price)``."""
    instrument, second, price = zip(*rows, strict=True)
    return Ticks(
        np.array(instrument, dtype=np.int32),
        OPEN + np.array(second, dtype=np.int64) * SECOND_NS,
        np.array(price, dtype=np.float64),
        np.zeros(len(rows), dtype=np.int64),
    )


def ended(market: Ticks | Bars, *trades: tuple[int, int, float, float, int], n: int = 2) -> list[Touch]:
    """Trades of ``(instrument, side, stop, target, from_row)``."""
    rows = rows_of(market, n)
    return [first_touch(rows, *trade) for trade in trades]


# A long trade with stop 98 and target 103, on one bar: open, high, low → how it ends and at what.
TRUTH = {
    "between the two": (100.0, 102.9, 98.1, NO_TOUCH, NONE),
    "the low reaches the stop": (100.0, 101.0, 98.0, STOP, 98.0),
    "the low passes the stop": (100.0, 101.0, 95.0, STOP, 98.0),
    "the high reaches the target": (100.0, 103.0, 99.0, TARGET, 103.0),
    "the high passes the target": (100.0, 109.0, 99.0, TARGET, 103.0),
    "both in one bar": (100.0, 103.5, 97.5, STOP, 98.0),
    "it opens at the stop": (98.0, 98.5, 97.0, STOP, 98.0),
    "a gap opens beyond the stop": (96.0, 97.0, 95.0, STOP, 96.0),
    "a gap opens beyond the stop and the bar recovers to the target": (96.0, 103.0, 96.0, STOP, 96.0),
    "it opens at the target": (103.0, 104.0, 102.0, TARGET, 103.0),
    "a gap opens beyond the target": (106.0, 107.0, 105.0, TARGET, 103.0),
    "a gap opens beyond the target and the bar falls to the stop": (106.0, 107.0, 97.0, STOP, 98.0),
    "a tick between the two": (100.0, 100.0, 100.0, NO_TOUCH, NONE),
    "a tick at the stop": (98.0, 98.0, 98.0, STOP, 98.0),
    "a tick beyond the stop": (97.5, 97.5, 97.5, STOP, 97.5),
    "a tick at the target": (103.0, 103.0, 103.0, TARGET, 103.0),
    "a tick beyond the target": (103.5, 103.5, 103.5, TARGET, 103.0),
}


@pytest.mark.parametrize("case", TRUTH)
def test_a_bar_or_tick_ends_a_long_trade_and_its_mirror_image_a_short_one(case: str) -> None:
    open_, high, low, outcome, price = TRUTH[case]
    assert barrier_step(LONG, 98.0, 103.0, open_, high, low) == (outcome, pytest.approx(price, abs=0, nan_ok=True))
    mirrored = (200.0 - value for value in (98.0, 103.0, open_, low, high))
    expected = (outcome, pytest.approx(200.0 - price, abs=0, nan_ok=True))
    assert barrier_step(SHORT, *mirrored) == expected


@pytest.mark.parametrize(("side", "stop", "target"), [(LONG, 98.0, 103.0), (SHORT, 103.0, 98.0)])
def test_a_barrier_that_is_not_there_is_never_touched(side: int, stop: float, target: float) -> None:
    everywhere = (100.0, 1e9, 1e-9)
    assert barrier_step(side, stop, NONE, *everywhere) == (STOP, stop)
    assert barrier_step(side, NONE, target, *everywhere) == (TARGET, target)
    assert barrier_step(side, NONE, NONE, *everywhere) == (NO_TOUCH, pytest.approx(NONE, nan_ok=True))


def test_the_example_holds() -> None:
    assert doctest.testmod(barriers) == (0, 1)


def test_an_entry_bar_counts_from_its_open_and_rows_before_the_first_that_counts_do_not() -> None:
    table = bars((0, 0, 90.0, 100.0), (0, 1, 100.0, 97.0), (0, 2, 97.0, 105.0))
    assert ended(table, (0, LONG, 98.0, 104.0, 1)) == [(1, STOP, 98.0)]
    assert ended(table, (0, LONG, 98.0, 104.0, 2)) == [(2, STOP, 97.0)]
    assert ended(table, (0, SHORT, 106.0, 95.0, 1)) == [(-1, NO_TOUCH, pytest.approx(NONE, nan_ok=True))]
    assert ended(table, (0, LONG, 98.0, 104.0, 3)) == [(-1, NO_TOUCH, pytest.approx(NONE, nan_ok=True))]


def test_many_trades_of_one_instrument_end_each_by_its_own_prices_and_in_the_order_asked() -> None:
    market = ticks((0, 1, 100.0), (1, 1, 50.0), (0, 2, 103.0), (1, 2, 90.0), (0, 3, 97.0), (0, 4, 80.0))
    found = ended(
        market,
        (0, LONG, 99.0, 110.0, 1),
        (0, SHORT, 102.0, 79.0, 1),
        (0, LONG, NONE, 103.0, 0),
        (0, LONG, 81.0, NONE, 5),
        (1, LONG, NONE, 80.0, 0),
        (0, SHORT, 200.0, 97.0, 0),
    )
    assert found == [
        (4, STOP, 97.0),
        (2, STOP, 103.0),
        (2, TARGET, 103.0),
        (5, STOP, 80.0),
        (3, TARGET, 80.0),
        (4, TARGET, 97.0),
    ]


def test_no_row_ends_nothing() -> None:
    nothing = (-1, NO_TOUCH, pytest.approx(NONE, nan_ok=True))
    assert ended(ticks((0, 1, 100.0))[:0], (0, LONG, 98.0, 103.0, 0)) == [nothing]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ((0, 0, 98.0, 103.0, 0), "side 0 of a trade is neither 1 (long) nor -1 (short)"),
        ((0, LONG, 98.0, 103.0, -1), "from_row -1 lies before the first row, 0"),
        ((0, LONG, 103.0, 98.0, 0), "stop 103.0 is not on the losing side of its target, 98.0"),
        ((0, SHORT, 98.0, 103.0, 0), "stop 98.0 is not on the losing side of its target, 103.0"),
    ],
)
def test_a_trade_that_makes_no_sense_is_refused(row: tuple[int, int, float, float, int], said: str) -> None:
    with pytest.raises(ValueError) as error:
        ended(ticks((0, 1, 100.0)), row)
    assert str(error.value) == said


def test_an_instrument_outside_the_universe_is_named_with_its_place() -> None:
    market = ticks((0, 1, 100.0), (1, 1, 100.0))
    with pytest.raises(UnknownInstrument, match="the trade names instrument 2; the universe has 0…1"):
        ended(market, (2, LONG, 98.0, 103.0, 0))
    with pytest.raises(UnknownInstrument, match="the order names instrument -1; the universe has 0…1"):
        first_row(rows_of(market, 2), -1, OPEN)
    with pytest.raises(UnknownInstrument, match="row 1 names instrument 1; the universe has 0…0"):
        rows_of(market, 1)


def filling(market: Ticks | Bars, *orders: tuple[int, int]) -> list[int]:
    """Rows for orders of ``(instrument, nanoseconds after the open)``."""
    rows = rows_of(market, 2)
    return [first_row(rows, instrument, OPEN + after) for instrument, after in orders]


def test_an_order_fills_at_a_tick_strictly_later_than_itself() -> None:
    market = ticks((0, 1, 100.0), (1, 1, 50.0), (0, 1, 101.0), (0, 3, 102.0), (1, 5, 51.0))
    asked = [(0, 1), (0, 0), (0, 3), (1, 1), (1, 0), (0, 1)]
    assert filling(market, *((i, s * SECOND_NS) for i, s in asked)) == [3, 0, -1, 4, 1, 3]


def test_an_order_fills_at_a_bar_that_starts_at_its_time_or_later() -> None:
    market = bars((0, 0, 100.0, 100.0), (1, 0, 50.0, 50.0), (0, 1, 100.0, 100.0), (1, 3, 50.0, 50.0))
    asked = [(0, 0), (0, MINUTE_NS), (0, 1), (0, MINUTE_NS + 1), (1, 1), (1, 3 * MINUTE_NS)]
    assert filling(market, *asked) == [0, 2, 2, -1, 3, 3]
