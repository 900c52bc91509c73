import datetime as dt
from dataclasses import replace

import numpy as np
import pytest

from feature_store.bars.builder import BarBuilder, aggregate_bars, bars_of_session
from feature_store.market.clocks import BarClock
from feature_store.market.types import SECOND_NS, Bars, MarketDataError, Session, Ticks, UnknownInstrument

SESSION = Session.regular(dt.date(2026, 1, 5))
NEXT = Session.regular(dt.date(2026, 1, 6))
MINUTE, HOUR, WHOLE = BarClock.minutes(1), BarClock.minutes(60), BarClock("session")
MINUTE_NS = MINUTE.size


def ticks(*rows: tuple[int, float, float, int], session: Session = SESSION) -> Ticks:
    """Rows of (instrument, seconds after the open, price, day volume)."""
    instrument, seconds, price, volume = zip(*rows, strict=True)
    return Ticks(
        np.array(instrument, dtype=np.int32),
        session.open_ns + (np.array(seconds) * SECOND_NS).astype(np.int64),
        np.array(price, dtype=np.float64),
        np.array(volume, dtype=np.int64),
    )


def quoted(table: Ticks, *quotes: tuple[float, float, int, int]) -> Ticks:
    """Give ticks their best (bid, ask, bid quantity, ask quantity)."""
    bid, ask, bids, asks = (np.array(column) for column in zip(*quotes, strict=True))
    return replace(table, bid_price=bid, ask_price=ask, bid_quantity=bids, ask_quantity=asks)


def seconds(times_ns: np.ndarray) -> list[float]:  # type: ignore[type-arg]
    return ((times_ns - SESSION.open_ns) / SECOND_NS).tolist()  # type: ignore[no-any-return]


# --- time bars ------------------------------------------------------------------------------------------------------


def test_a_tick_at_the_end_of_a_bar_belongs_to_the_next_bar() -> None:
    bars = bars_of_session(ticks((0, 0, 10, 5), (0, 60, 20, 9)), SESSION, 1, MINUTE)
    assert bars.close.tolist() == [10.0, 20.0]
    assert bars.volume.tolist() == [5, 4]
    assert (bars.end_ns - bars.start_ns).tolist() == [MINUTE_NS] * 2


def test_a_tick_of_any_instrument_closes_the_bars_of_all() -> None:
    builder = BarBuilder(3, MINUTE)
    assert len(builder.step(ticks((2, 1, 10, 1), (0, 2, 11, 1)), SESSION)) == 0
    assert builder.step(ticks((1, 60, 12, 1)), SESSION).instrument.tolist() == [0, 2]


def test_a_watermark_closes_a_bar_exactly_at_its_end() -> None:
    builder = BarBuilder(1, MINUTE)
    builder.step(ticks((0, 1, 10, 1)), SESSION)
    assert len(builder.advance(SESSION.open_ns + MINUTE_NS - 1)) == 0
    assert len(builder.advance(SESSION.open_ns + MINUTE_NS)) == 1
    assert len(builder.advance(SESSION.open_ns + MINUTE_NS)) == 0


@pytest.mark.parametrize("grace_ns", [0, SECOND_NS])
def test_a_tick_of_a_later_day_does_not_make_what_follows_late(grace_ns: int) -> None:
    rows = [(0, 1, 10, 1), (0, 2, 11, 2), (0, 70, 12, 3), (0, 130, 13, 4)]
    expected = bars_of_session(ticks(*rows), SESSION, 1, MINUTE)
    wrong = ticks(rows[0], (0, 30 * 86_400, 99, 9), *rows[1:])
    builder = BarBuilder(1, MINUTE, grace_ns=grace_ns)
    built = Bars.concatenate([builder.step(wrong, SESSION), builder.advance(SESSION.close_ns)])
    assert built.digest() == expected.digest()
    assert (builder.late_ticks, builder.ticks_outside_session) == (0, 1)


def test_the_last_bar_ends_at_the_close() -> None:
    bars = bars_of_session(ticks((0, 22_499, 10, 1)), SESSION, 1, HOUR)
    assert bars.start_ns.tolist() == [SESSION.open_ns + 360 * MINUTE_NS]
    assert bars.end_ns.tolist() == [SESSION.close_ns]


def test_a_session_bar_covers_its_session_whatever_its_length() -> None:
    short = replace(SESSION, close_ns=SESSION.open_ns + 3600 * SECOND_NS)
    for session in (SESSION, short):
        bars = bars_of_session(ticks((0, 30, 10, 5), (0, 3500, 12, 9)), session, 1, WHOLE)
        assert (bars.start_ns.tolist(), bars.end_ns.tolist()) == ([session.open_ns], [session.close_ns])
        assert (bars.open.tolist(), bars.close.tolist(), bars.volume.tolist()) == ([10.0], [12.0], [9])


def test_a_new_session_closes_the_old_one_and_counts_volume_from_zero() -> None:
    builder = BarBuilder(1, MINUTE)
    builder.step(ticks((0, 22_499, 10, 100)), SESSION)
    closed = builder.step(ticks((0, 1, 20, 7), (0, 60, 20, 7), session=NEXT), NEXT)
    assert closed.close.tolist() == [10.0, 20.0]
    assert closed.volume.tolist() == [100, 7]
    assert closed.end_ns.tolist() == [SESSION.close_ns, NEXT.open_ns + MINUTE_NS]


# --- ticks that are not as they should be ---------------------------------------------------------------------------


def test_a_tick_below_the_watermark_is_late_and_counted() -> None:
    builder = BarBuilder(1, MINUTE)
    builder.step(ticks((0, 1, 10, 1)), SESSION)
    builder.advance(SESSION.open_ns + 2 * MINUTE_NS)
    builder.step(ticks((0, 90, 10, 1)), SESSION)
    assert builder.late_ticks == 1
    assert len(builder.advance(SESSION.close_ns)) == 0


def test_without_a_grace_a_tick_behind_any_other_is_late() -> None:
    builder = BarBuilder(2, MINUTE)
    builder.step(ticks((0, 10, 10, 1), (1, 9, 50, 1), (0, 11, 12, 2)), SESSION)
    assert (builder.late_ticks, builder.reordered_ticks) == (1, 0)
    assert builder.advance(SESSION.close_ns).instrument.tolist() == [0]


def test_ticks_outside_the_session_make_no_bar_and_are_counted() -> None:
    builder = BarBuilder(1, MINUTE)
    closed = builder.step(ticks((0, -1, 10, 1), (0, 22_499, 11, 2), (0, 22_500, 12, 3)), SESSION)
    assert closed.close.tolist() == [11.0]
    assert builder.ticks_outside_session == 2


def test_a_decrease_of_day_volume_is_counted_and_no_volume_is_negative() -> None:
    builder = BarBuilder(1, MINUTE)
    first = builder.step(ticks((0, 1, 10, 100), (0, 2, 10, 90), (0, 61, 10, 95), (0, 121, 10, 130)), SESSION)
    assert (builder.volume_decreases, builder.volume_resets) == (2, 0)
    assert first.volume.tolist() == [100, 0]
    assert builder.advance(SESSION.close_ns).volume.tolist() == [30]


def test_a_volume_that_is_zero_for_some_ticks_is_no_reset() -> None:
    builder = BarBuilder(1, MINUTE)
    builder.step(ticks((0, 1, 10, 1000), (0, 2, 10, 0), (0, 3, 10, 0), (0, 4, 10, 1100), (0, 5, 10, 3)), SESSION)
    assert (builder.volume_decreases, builder.volume_resets) == (3, 0)
    assert builder.advance(SESSION.close_ns).volume.tolist() == [1100]


def test_a_source_that_counts_the_day_volume_anew_is_followed() -> None:
    builder = BarBuilder(1, MINUTE)
    table = ticks((0, 1, 10, 1000), (0, 2, 10, 20), (0, 3, 10, 50), (0, 61, 10, 80))
    assert builder.step(table, SESSION).volume.tolist() == [1050]
    assert builder.advance(SESSION.close_ns).volume.tolist() == [30]
    assert (builder.volume_decreases, builder.volume_resets) == (2, 1)


def test_a_repeat_adds_to_the_count_only_and_is_counted() -> None:
    builder = BarBuilder(2, MINUTE)
    builder.step(ticks((0, 1, 10, 5), (0, 1, 10, 5), (1, 1, 10, 5), (0, 1, 11, 5), (0, 2, 11, 5)), SESSION)
    bars = builder.advance(SESSION.close_ns)
    assert builder.repeated_ticks == 1
    assert (bars.tick_count.tolist(), bars.volume.tolist()) == ([4, 1], [5, 5])


def test_an_instrument_outside_the_universe_is_refused_before_any_tick_is_taken() -> None:
    for grace_ns in (0, SECOND_NS):
        builder = BarBuilder(1, MINUTE, grace_ns=grace_ns)
        for stranger in (1, -1):
            with pytest.raises(UnknownInstrument, match="same universe"):
                builder.step(ticks((0, 1, 10, 1), (stranger, 1, 10, 1)), SESSION)
        assert len(builder.advance(SESSION.close_ns)) == 0


def test_arrays_that_are_read_only_or_strided_are_taken() -> None:
    table = ticks(*((0, k, 10 + k, k) for k in range(200)))
    table.last_price.flags.writeable = False
    every_second = bars_of_session(table[::2], SESSION, 1, MINUTE)
    assert every_second.tick_count.tolist() == [30, 30, 30, 10]


@pytest.mark.parametrize("clock", [BarClock("time", 0), BarClock("ticks", 0), BarClock("time", -1)])
def test_a_clock_without_length_is_refused(clock: BarClock) -> None:
    with pytest.raises(ValueError, match="positive"):
        BarBuilder(1, clock)


def test_a_negative_grace_is_refused() -> None:
    with pytest.raises(ValueError, match="0 or more"):
        BarBuilder(1, MINUTE, grace_ns=-1)


# --- grace ----------------------------------------------------------------------------------------------------------


def test_within_the_grace_a_tick_is_put_back_in_its_place() -> None:
    builder = BarBuilder(2, MINUTE, grace_ns=2 * SECOND_NS)
    builder.step(ticks((0, 60.5, 12, 3), (0, 59, 11, 2), (0, 61, 13, 4)), SESSION)
    bars = builder.advance(SESSION.close_ns)
    assert (builder.reordered_ticks, builder.late_ticks) == (1, 0)
    assert (bars.close.tolist(), bars.volume.tolist()) == ([11.0, 13.0], [2, 2])


def test_beyond_the_grace_a_tick_is_late() -> None:
    builder = BarBuilder(1, MINUTE, grace_ns=2 * SECOND_NS)
    builder.step(ticks((0, 10, 12, 3), (0, 8, 11, 2), (0, 7.9, 99, 2)), SESSION)
    assert (builder.reordered_ticks, builder.late_ticks) == (1, 1)


def test_an_illiquid_instruments_bar_closes_when_the_market_has_passed_its_end_by_the_grace() -> None:
    builder = BarBuilder(2, MINUTE, grace_ns=2 * SECOND_NS)
    builder.step(ticks((0, 1, 10, 1)), SESSION)
    assert len(builder.step(ticks((1, 61.9, 20, 1)), SESSION)) == 0
    assert builder.step(ticks((1, 62, 20, 1)), SESSION).instrument.tolist() == [0]


def test_a_watermark_is_a_promise_that_needs_no_grace() -> None:
    builder = BarBuilder(1, MINUTE, grace_ns=5 * SECOND_NS)
    builder.step(ticks((0, 59, 10, 1), (0, 60, 11, 2)), SESSION)
    assert builder.advance(SESSION.open_ns + MINUTE_NS).close.tolist() == [10.0]
    assert len(builder.step(ticks((0, 59.5, 99, 2)), SESSION)) == 0
    assert builder.late_ticks == 1


def test_ticks_outside_the_session_are_counted_with_a_grace_too() -> None:
    builder = BarBuilder(1, MINUTE, grace_ns=SECOND_NS)
    closed = builder.step(ticks((0, -1, 10, 1), (0, 22_499, 11, 2), (0, 22_501, 12, 3)), SESSION)
    assert closed.close.tolist() == [11.0]
    assert builder.ticks_outside_session == 2


# --- tick bars ------------------------------------------------------------------------------------------------------


def test_a_tick_bar_holds_as_many_ticks_of_its_instrument_and_the_rest_ends_at_the_close() -> None:
    table = ticks((0, 1, 10, 1), (1, 2, 50, 5), (0, 3, 12, 2), (0, 5, 11, 4), (1, 6, 51, 6), (1, 7, 52, 9))
    bars = bars_of_session(table, SESSION, 2, BarClock("ticks", 2))
    assert bars.instrument.tolist() == [0, 1, 0, 1]
    assert bars.tick_count.tolist() == [2, 2, 1, 1]
    assert bars.volume.tolist() == [2, 6, 2, 3]
    assert seconds(bars.start_ns) == [1, 2, 5, 7]
    assert (bars.end_ns - SESSION.open_ns).tolist() == [
        3 * SECOND_NS + 1,
        6 * SECOND_NS + 1,
        22_500 * SECOND_NS,
        22_500 * SECOND_NS,
    ]


def test_tick_bars_of_one_instant_follow_one_another_without_overlap() -> None:
    bars = bars_of_session(ticks(*((0, 4, 10 + k, k) for k in range(4))), SESSION, 1, BarClock("ticks", 1))
    at = SESSION.open_ns + 4 * SECOND_NS
    assert (bars.start_ns - at).tolist() == [0, 1, 2, 3]
    assert (bars.end_ns - at).tolist() == [1, 2, 3, 4]


def test_a_tick_bar_is_given_out_once_the_market_has_passed_its_end() -> None:
    builder = BarBuilder(2, BarClock("ticks", 1))
    assert len(builder.step(ticks((1, 1, 10, 1)), SESSION)) == 0
    assert len(builder.step(ticks((0, 1, 20, 1)), SESSION)) == 0
    assert builder.step(ticks((1, 2, 11, 1)), SESSION).instrument.tolist() == [0, 1]
    assert len(builder.advance(SESSION.open_ns + 2 * SECOND_NS)) == 0
    assert builder.advance(SESSION.open_ns + 2 * SECOND_NS + 1).close.tolist() == [11.0]


def test_tick_bars_at_the_last_instant_of_a_session_are_not_lost() -> None:
    last = 22_500 - 1e-9
    table = ticks((0, last, 10, 1), (0, last, 11, 2), (0, last, 12, 3))
    builder = BarBuilder(1, BarClock("ticks", 1))
    builder.step(table, SESSION)
    assert builder.advance(SESSION.close_ns).close.tolist() == [10.0, 11.0, 12.0]
    assert len(builder.step(ticks((0, 1, 20, 1), session=NEXT), NEXT)) == 0


# --- best quote -----------------------------------------------------------------------------------------------------


def test_a_bar_has_the_quote_of_its_last_tick_with_both_sides() -> None:
    table = quoted(
        ticks((0, 1, 10, 1), (0, 2, 10, 2), (0, 3, 10, 3), (0, 61, 10, 4)),
        (99.0, 101.0, 10, 30),
        (99.5, 100.5, 30, 10),
        (np.nan, 100.0, 0, 10),
        (99.0, np.nan, 5, 0),
    )
    bars = bars_of_session(table, SESSION, 1, MINUTE)
    np.testing.assert_array_equal(bars.spread_bps, [1.0 / 100.0 * 1e4, np.nan])
    np.testing.assert_array_equal(bars.imbalance, [0.5, np.nan])


def test_bars_of_ticks_without_depth_have_no_quote() -> None:
    bars = bars_of_session(ticks((0, 1, 10, 1)), SESSION, 1, MINUTE)
    assert np.isnan(bars.spread_bps).all()
    assert np.isnan(bars.imbalance).all()


# --- bars of bars ---------------------------------------------------------------------------------------------------


def test_bars_that_do_not_add_up_to_the_longer_clock_are_refused() -> None:
    bars = bars_of_session(ticks((0, 65, 10, 1), (0, 130, 10, 1)), SESSION, 1, BarClock.minutes(2))
    with pytest.raises(MarketDataError, match="divides 3m"):
        aggregate_bars(bars, SESSION, 1, BarClock.minutes(3))


def test_bars_of_another_session_are_refused() -> None:
    bars = bars_of_session(ticks((0, 65, 10, 1)), SESSION, 1, MINUTE)
    with pytest.raises(MarketDataError, match="session 2026-01-06"):
        aggregate_bars(bars, NEXT, 1, HOUR)


def test_tick_bars_are_not_made_of_bars() -> None:
    bars = bars_of_session(ticks((0, 65, 10, 1)), SESSION, 1, MINUTE)
    with pytest.raises(MarketDataError, match="build them from ticks"):
        aggregate_bars(bars, SESSION, 1, BarClock("ticks", 5))


# --- snapshots ------------------------------------------------------------------------------------------------------


def test_a_snapshot_does_not_change_with_its_builder() -> None:
    builder = BarBuilder(1, MINUTE, grace_ns=SECOND_NS)
    builder.step(ticks((0, 1, 10, 1)), SESSION)
    taken = builder.snapshot()
    builder.step(ticks((0, 30, 99, 50)), SESSION)
    again = BarBuilder(1, MINUTE, grace_ns=SECOND_NS)
    again.restore(taken)
    assert again.advance(SESSION.close_ns).close.tolist() == [10.0]


@pytest.mark.parametrize(
    "other",
    [BarBuilder(2, MINUTE), BarBuilder(1, HOUR), BarBuilder(1, WHOLE), BarBuilder(1, MINUTE, grace_ns=1)],
)
def test_a_snapshot_of_another_builder_is_refused(other: BarBuilder) -> None:
    with pytest.raises(ValueError, match="this builder is of"):
        other.restore(BarBuilder(1, MINUTE).snapshot())
