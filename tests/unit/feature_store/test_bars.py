import datetime as dt

import numpy as np
import pytest

from feature_store.bars import BarBuilder, bars_of_session
from feature_store.market import MINUTE_NS, SECOND_NS, Session, Ticks, UnknownInstrument

SESSION = Session.regular(dt.date(2026, 1, 5))
NEXT = Session.regular(dt.date(2026, 1, 6))


def ticks(*rows: tuple[int, float, float, int], session: Session = SESSION) -> Ticks:
    """Rows of (instrument, seconds after the open, price, day volume)."""
    instrument, seconds, price, volume = zip(*rows, strict=True)
    return Ticks(
        np.array(instrument, dtype=np.int32),
        session.open_ns + (np.array(seconds) * SECOND_NS).astype(np.int64),
        np.array(price, dtype=np.float64),
        np.array(volume, dtype=np.int64),
    )


def test_a_tick_at_the_end_of_a_bar_belongs_to_the_next_bar() -> None:
    bars = bars_of_session(ticks((0, 0, 10, 5), (0, 60, 20, 9)), SESSION, 1, MINUTE_NS)
    assert bars.close.tolist() == [10.0, 20.0]
    assert bars.volume.tolist() == [5, 4]
    assert (bars.end_ns - bars.start_ns).tolist() == [MINUTE_NS] * 2


def test_a_tick_of_any_instrument_closes_the_bars_of_all() -> None:
    builder = BarBuilder(3, MINUTE_NS)
    assert len(builder.step(ticks((2, 1, 10, 1), (0, 2, 11, 1)), SESSION)) == 0
    assert builder.step(ticks((1, 60, 12, 1)), SESSION).instrument.tolist() == [0, 2]


def test_a_watermark_closes_a_bar_exactly_at_its_end() -> None:
    builder = BarBuilder(1, MINUTE_NS)
    builder.step(ticks((0, 1, 10, 1)), SESSION)
    assert len(builder.advance(SESSION.open_ns + MINUTE_NS - 1)) == 0
    assert len(builder.advance(SESSION.open_ns + MINUTE_NS)) == 1
    assert len(builder.advance(SESSION.open_ns + MINUTE_NS)) == 0


def test_a_tick_below_the_watermark_is_late_and_counted() -> None:
    builder = BarBuilder(1, MINUTE_NS)
    builder.step(ticks((0, 1, 10, 1)), SESSION)
    builder.advance(SESSION.open_ns + 2 * MINUTE_NS)
    builder.step(ticks((0, 90, 10, 1)), SESSION)
    assert builder.late_ticks == 1
    assert len(builder.advance(SESSION.close_ns)) == 0


def test_ticks_outside_the_session_make_no_bar_and_are_counted() -> None:
    builder = BarBuilder(1, MINUTE_NS)
    closed = builder.step(ticks((0, -1, 10, 1), (0, 22_499, 11, 2), (0, 22_500, 12, 3)), SESSION)
    assert closed.close.tolist() == [11.0]
    assert builder.ticks_outside_session == 2


def test_a_decrease_of_day_volume_is_counted_and_no_volume_is_negative() -> None:
    builder = BarBuilder(1, MINUTE_NS)
    first = builder.step(ticks((0, 1, 10, 100), (0, 2, 10, 90), (0, 61, 10, 95), (0, 121, 10, 130)), SESSION)
    assert builder.volume_decreases == 2
    assert first.volume.tolist() == [100, 0]
    assert builder.advance(SESSION.close_ns).volume.tolist() == [30]


def test_the_last_bar_ends_at_the_close() -> None:
    bars = bars_of_session(ticks((0, 22_499, 10, 1)), SESSION, 1, 60 * MINUTE_NS)
    assert bars.start_ns.tolist() == [SESSION.open_ns + 360 * MINUTE_NS]
    assert bars.end_ns.tolist() == [SESSION.close_ns]


def test_a_new_session_closes_the_old_one_and_counts_volume_from_zero() -> None:
    builder = BarBuilder(1, MINUTE_NS)
    builder.step(ticks((0, 22_499, 10, 100)), SESSION)
    closed = builder.step(ticks((0, 1, 20, 7), (0, 60, 20, 7), session=NEXT), NEXT)
    assert closed.close.tolist() == [10.0, 20.0]
    assert closed.volume.tolist() == [100, 7]
    assert closed.end_ns.tolist() == [SESSION.close_ns, NEXT.open_ns + MINUTE_NS]


def test_an_instrument_outside_the_universe_is_refused() -> None:
    with pytest.raises(UnknownInstrument, match="same universe"):
        BarBuilder(1, MINUTE_NS).step(ticks((1, 1, 10, 1)), SESSION)


def test_arrays_that_are_read_only_or_strided_are_taken() -> None:
    table = ticks(*((0, k, 10 + k, k) for k in range(200)))
    table.last_price.flags.writeable = False
    every_second = bars_of_session(table[::2], SESSION, 1, MINUTE_NS)
    assert every_second.tick_count.tolist() == [30, 30, 30, 10]


def test_a_bar_without_length_is_refused() -> None:
    with pytest.raises(ValueError, match="positive"):
        BarBuilder(1, 0)
