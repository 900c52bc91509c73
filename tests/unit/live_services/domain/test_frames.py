from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from feature_store.market.types import SECOND_NS, Bars, Instrument, Ticks, Universe
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


def quoted_ticks() -> Ticks:
    return replace(
        some_ticks(),
        bid_price=np.array([9.95, np.nan, 30.0]),
        ask_price=np.array([10.05, 20.6, np.nan]),
        bid_quantity=np.array([5, 0, 7], dtype=np.int64),
        ask_quantity=np.array([6, 1, 0], dtype=np.int64),
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
        np.array([1.5, np.nan]),
        np.array([-0.25, np.nan]),
    )


def bare_bar_frame() -> bytes:
    """The body of a bar frame as it was written before bars had a quote."""
    with pa.ipc.open_stream(encode_bar_frame(some_bars(), UNIVERSE, 0, OPEN + 61, SESSION).value) as reader:
        table = reader.read_all().drop_columns(["spread_bps", "imbalance"])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_batch(table.to_batches()[0])
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]


def test_a_tick_frame_is_read_as_it_was_written() -> None:
    frame = decode_frame(*encode_tick_frame(some_ticks(), UNIVERSE, 4, CUT, SESSION), UNIVERSE)
    assert frame.table.digest() == some_ticks().digest()
    assert (frame.number, frame.watermark_ns, frame.session) == (4, CUT, SESSION)


def test_a_bar_frame_is_read_as_it_was_written() -> None:
    frame = decode_frame(*encode_bar_frame(some_bars(), UNIVERSE, 0, OPEN + 61, SESSION), UNIVERSE)
    assert frame.table.digest() == some_bars().digest()
    assert list(frame.times_ns) == [OPEN + 60] * 2


def test_the_best_quote_is_read_as_it_was_written() -> None:
    frame = decode_frame(*encode_tick_frame(quoted_ticks(), UNIVERSE, 4, CUT, SESSION), UNIVERSE)
    assert frame.table.digest() == quoted_ticks().digest()


def test_ticks_without_depth_carry_no_columns_for_it() -> None:
    plain = encode_tick_frame(some_ticks(), UNIVERSE, 4, CUT, SESSION)
    assert len(plain.value) < len(encode_tick_frame(quoted_ticks(), UNIVERSE, 4, CUT, SESSION).value)
    table = decode_frame(*plain, UNIVERSE).table
    assert isinstance(table, Ticks)
    assert not table.has_depth


def test_a_bar_frame_of_before_the_quote_is_still_read() -> None:
    _, headers = encode_bar_frame(some_bars(), UNIVERSE, 0, OPEN + 61, SESSION)
    table = decode_frame(bare_bar_frame(), headers, UNIVERSE).table
    assert isinstance(table, Bars)
    assert table.close.tolist() == some_bars().close.tolist()
    assert np.isnan(table.spread_bps).all()


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


@pytest.mark.parametrize(
    ("column", "values", "complaint"),
    [
        ("bid_price", np.array([np.nan, 0.0, 1.0]), r"bid_price 0.0 in row 1 is not finite and positive, or NaN"),
        ("ask_price", np.array([1.0, 2.0, -3.0]), r"ask_price -3.0 in row 2"),
        ("ask_price", np.array([np.inf, 2.0, 3.0]), r"ask_price inf in row 0"),
        ("bid_quantity", np.array([0, 0, -1]), r"bid_quantity -1 in row 2 is not 0 or more"),
        ("ask_quantity", np.array([-9, 0, 1]), r"ask_quantity -9 in row 0"),
    ],
)
def test_quotes_that_cannot_be_trusted_are_refused(column: str, values: np.ndarray, complaint: str) -> None:  # type: ignore[type-arg]
    encoded = encode_tick_frame(replace(quoted_ticks(), **{column: values}), UNIVERSE, 0, CUT, SESSION)
    with pytest.raises(BadFrame, match=complaint):
        decode_frame(*encoded, UNIVERSE)


@pytest.mark.parametrize(
    ("column", "values", "complaint"),
    [
        ("spread_bps", np.array([np.nan, -np.inf]), r"spread_bps -inf in row 1"),
        ("imbalance", np.array([1.01, np.nan]), r"imbalance 1.01 in row 0 is not between -1 and 1"),
    ],
)
def test_bars_with_an_impossible_quote_are_refused(column: str, values: np.ndarray, complaint: str) -> None:  # type: ignore[type-arg]
    encoded = encode_bar_frame(replace(some_bars(), **{column: values}), UNIVERSE, 0, OPEN + 61, SESSION)
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
