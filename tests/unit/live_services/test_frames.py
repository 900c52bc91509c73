from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from feature_store.market import SECOND_NS, Bars, Instrument, Ticks, Universe
from live_services.domain.frames import BadFrame, decode_frame, encode_bar_frame, encode_tick_frame
from tests.toy_chain import SESSION, UNIVERSE

OPEN = SESSION.open_ns
CUT = OPEN + SECOND_NS


def some_ticks() -> Ticks:
    return Ticks(
        np.array([3, 0, 1], dtype=np.int32),
        np.array([OPEN, OPEN + 5, OPEN + 5], dtype=np.int64),
        np.array([10.0, 20.5, 30.25]),
        np.array([1, 2, 3], dtype=np.int64),
    )


def some_bars() -> Bars:
    whole = np.array([7, 8], dtype=np.int64)
    prices = [np.array(p) for p in ([10.0, 20.0], [12.0, 22.0], [9.0, 19.0], [11.0, 21.0])]
    return Bars(
        np.array([0, 2], dtype=np.int32),
        np.full(2, OPEN),
        np.full(2, OPEN + 60),
        *prices,
        whole,
        np.array([1, 2], dtype=np.int32),
    )


def test_a_tick_frame_is_read_as_it_was_written() -> None:
    frame = decode_frame(*encode_tick_frame(some_ticks(), UNIVERSE, 4, CUT, SESSION), UNIVERSE)
    assert frame.table.digest() == some_ticks().digest()
    assert (frame.number, frame.watermark_ns, frame.session) == (4, CUT, SESSION)


def with_depth(**changes: np.ndarray) -> Ticks:  # type: ignore[type-arg]
    depth = {
        "bid_price": np.array([9.9, np.nan, 30.2]),
        "ask_price": np.array([10.1, 20.6, 30.3]),
        "bid_quantity": np.array([5, 0, 7], dtype=np.int64),
        "ask_quantity": np.array([1, 2, 3], dtype=np.int64),
    }
    return replace(some_ticks(), **(depth | changes))


def test_ticks_with_the_best_quote_are_read_as_they_were_written() -> None:
    frame = decode_frame(*encode_tick_frame(with_depth(), UNIVERSE, 4, CUT, SESSION), UNIVERSE)
    assert isinstance(frame.table, Ticks)
    assert frame.table.has_depth
    assert frame.table.digest() == with_depth().digest()


@pytest.mark.parametrize(
    ("column", "values", "complaint"),
    [
        ("bid_price", np.array([1.0, 0.0, 1.0]), "bid_price 0.0 in row 1"),
        ("ask_price", np.array([1.0, 1.0, np.inf]), "ask_price inf in row 2"),
        ("bid_quantity", np.array([1, -1, 0]), "bid_quantity -1 in row 1"),
        ("ask_quantity", np.array([-2, 1, 0]), "ask_quantity -2 in row 0"),
    ],
)
def test_a_best_quote_that_cannot_be_trusted_is_refused(column: str, values: np.ndarray, complaint: str) -> None:  # type: ignore[type-arg]
    encoded = encode_tick_frame(with_depth(**{column: values}), UNIVERSE, 0, CUT, SESSION)
    with pytest.raises(BadFrame, match=complaint):
        decode_frame(*encoded, UNIVERSE)


def test_bars_carry_spread_and_imbalance() -> None:
    bars = replace(some_bars(), spread_bps=np.array([1.5, np.nan]), imbalance=np.array([-0.25, np.nan]))
    frame = decode_frame(*encode_bar_frame(bars, UNIVERSE, 0, OPEN + 61, SESSION), UNIVERSE)
    assert frame.table.digest() == bars.digest()


def test_a_bar_frame_is_read_as_it_was_written() -> None:
    frame = decode_frame(*encode_bar_frame(some_bars(), UNIVERSE, 0, OPEN + 61, SESSION), UNIVERSE)
    assert frame.table.digest() == some_bars().digest()
    assert list(frame.times_ns) == [OPEN + 60] * 2


def test_an_empty_frame_is_a_watermark() -> None:
    frame = decode_frame(*encode_tick_frame(some_ticks()[0:0], UNIVERSE, 0, CUT, SESSION), UNIVERSE)
    assert len(frame.table) == 0
    assert frame.watermark_ns == CUT


def test_instruments_are_found_by_token_in_a_universe_of_another_order() -> None:
    other = Universe(instruments=tuple(reversed(UNIVERSE.instruments)))
    frame = decode_frame(*encode_tick_frame(some_ticks(), UNIVERSE, 0, CUT, SESSION), other)
    assert isinstance(frame.table, Ticks)
    assert list(frame.table.instrument) == [0, 3, 2]


@pytest.mark.parametrize(
    ("column", "values", "complaint"),
    [
        ("last_price", np.array([1.0, np.nan, 1.0]), r"last_price nan in row 1"),
        ("last_price", np.array([1.0, 1.0, -3.0]), r"last_price -3.0 in row 2"),
        ("last_price", np.array([np.inf, 1.0, 1.0]), r"last_price inf in row 0"),
        ("day_volume", np.array([1, -1, 0]), r"day_volume -1 in row 1"),
        ("event_time_ns", np.array([OPEN + 5, OPEN, OPEN + 6]), "out of order at row 1"),
        ("event_time_ns", np.array([OPEN, OPEN + 5, CUT]), "not before the frame's watermark"),
        ("event_time_ns", np.array([OPEN - 1, OPEN, OPEN]), "before the session's open"),
    ],
)
def test_ticks_that_cannot_be_trusted_are_refused(column: str, values: np.ndarray, complaint: str) -> None:  # type: ignore[type-arg]
    encoded = encode_tick_frame(replace(some_ticks(), **{column: values}), UNIVERSE, 0, CUT, SESSION)
    with pytest.raises(BadFrame, match=complaint):
        decode_frame(*encoded, UNIVERSE)


def test_a_token_outside_the_universe_is_named() -> None:
    larger = Universe(instruments=(*UNIVERSE.instruments, Instrument(instrument_token=999, symbol="NEW")))
    alien = replace(some_ticks(), instrument=np.array([0, 4, 1], dtype=np.int32))
    with pytest.raises(BadFrame, match="999"):
        decode_frame(*encode_tick_frame(alien, larger, 0, CUT, SESSION), UNIVERSE)


@pytest.mark.parametrize(
    ("header", "content", "complaint"),
    [
        ("event_type", b"news", "event_type"),
        ("schema_version", b"2", "schema_version"),
        ("watermark_ns", b"soon", "watermark_ns"),
        ("session_date", b"\xff", "session_date"),
    ],
)
def test_headers_that_say_nothing_usable_are_named(header: str, content: bytes, complaint: str) -> None:
    value, headers = encode_tick_frame(some_ticks(), UNIVERSE, 0, CUT, SESSION)
    with pytest.raises(BadFrame, match=complaint):
        decode_frame(value, [*headers, (header, content)], UNIVERSE)


@pytest.mark.parametrize("value", [b"", b"garbage", b"\xff\xff\xff\xff\x08\x00\x00\x00garbage!"])
def test_bytes_that_are_no_arrow_stream_are_refused(value: bytes) -> None:
    _, headers = encode_tick_frame(some_ticks(), UNIVERSE, 0, CUT, SESSION)
    with pytest.raises(BadFrame):
        decode_frame(value, headers, UNIVERSE)


def test_bars_whose_low_is_above_their_close_are_refused() -> None:
    wrong = replace(some_bars(), low=np.array([11.5, 19.0]))
    with pytest.raises(BadFrame, match=r"low 11\.5 in row 0"):
        decode_frame(*encode_bar_frame(wrong, UNIVERSE, 0, OPEN + 61, SESSION), UNIVERSE)
