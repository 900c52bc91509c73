from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from feature_store.market.types import SECOND_NS, Bars, Instrument, Ticks, Universe
from live_services.domain.frames import (
    BadFrame,
    Frame,
    RefusedRow,
    decode_frame,
    encode_bar_frame,
    encode_tick_frame,
    rows_of,
    universe_digest_of,
)
from tests.live_world import SESSION, UNIVERSE

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


def spoiled(**columns: np.ndarray) -> Frame:  # type: ignore[type-arg]
    """Ticks with a quote, of which some columns are replaced."""
    encoded = encode_tick_frame(replace(quoted_ticks(), **columns), UNIVERSE, 0, CUT, SESSION)
    return decode_frame(*encoded, UNIVERSE)


def spoiled_bars(**columns: np.ndarray) -> Frame:  # type: ignore[type-arg]
    return decode_frame(*encode_bar_frame(replace(some_bars(), **columns), UNIVERSE, 0, OPEN + 61, SESSION), UNIVERSE)


def test_a_tick_frame_is_read_as_it_was_written() -> None:
    frame = decode_frame(*encode_tick_frame(some_ticks(), UNIVERSE, 4, CUT, SESSION), UNIVERSE)
    assert frame.table.digest() == some_ticks().digest()
    assert (frame.number, frame.watermark_ns, frame.session) == (4, CUT, SESSION)
    assert (frame.universe_digest, frame.refused) == (UNIVERSE.digest, ())


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
    ("column", "values", "row"),
    [
        ("last_price", np.array([1.0, np.nan, 1.0]), 1),
        ("last_price", np.array([1.0, 1.0, -3.0]), 2),
        ("last_price", np.array([np.inf, 1.0, 1.0]), 0),
        ("last_price", np.array([1.0, 1e308, 1.0]), 1),
        ("last_price", np.array([1.0, 1.0, 1.1e6]), 2),
        ("last_price", np.array([1.0, 1e-5, 1.0]), 1),
        ("day_volume", np.array([1, -1, 0]), 1),
        ("day_volume", np.array([1, 1, 2**62]), 2),
        ("bid_price", np.array([np.nan, 0.0, 1.0]), 1),
        ("ask_price", np.array([1.0, 2.0, -3.0]), 2),
        ("ask_price", np.array([np.inf, 2.0, 3.0]), 0),
        ("bid_quantity", np.array([0, 0, -1]), 2),
        ("ask_quantity", np.array([-9, 0, 1]), 0),
        ("event_time_ns", np.array([OPEN - 1, OPEN, OPEN]), 0),
    ],
)
def test_a_tick_that_cannot_be_trusted_is_told_and_its_frame_stays(column: str, values: np.ndarray, row: int) -> None:  # type: ignore[type-arg]
    frame = spoiled(**{column: values})
    (refused,) = frame.refused
    told = (refused.row, refused.column, refused.value)
    assert told == (row, column, str(values[row]))
    assert refused.instrument_token == UNIVERSE.tokens[quoted_ticks().instrument[row]]
    kept = [k for k in range(3) if k != row]
    assert frame.table.digest() == replace(quoted_ticks(), **{column: values})[np.array(kept)].digest()


def test_a_tick_at_the_close_belongs_to_no_session() -> None:
    end = SESSION.close_ns + SECOND_NS
    late = replace(some_ticks(), event_time_ns=np.array([OPEN, SESSION.close_ns - 1, SESSION.close_ns]))
    frame = decode_frame(*encode_tick_frame(late, UNIVERSE, 0, end, SESSION), UNIVERSE)
    assert [(r.row, r.column) for r in frame.refused] == [(2, "event_time_ns")]


@pytest.mark.parametrize(
    ("column", "values", "row"),
    [
        ("open", np.array([np.nan, 20.0]), 0),
        ("high", np.array([12.0, 1e9]), 1),
        ("low", np.array([11.5, 19.0]), 0),
        ("close", np.array([11.0, 23.0]), 1),
        ("volume", np.array([-1, 8]), 0),
        ("tick_count", np.array([1, -2], dtype=np.int32), 1),
        ("start_ns", np.array([OPEN + 60, OPEN]), 0),
        ("start_ns", np.array([OPEN, OPEN - 60]), 1),
        ("spread_bps", np.array([np.nan, -np.inf]), 1),
        ("imbalance", np.array([1.01, np.nan]), 0),
    ],
)
def test_a_bar_that_cannot_be_trusted_is_told_and_its_frame_stays(column: str, values: np.ndarray, row: int) -> None:  # type: ignore[type-arg]
    frame = spoiled_bars(**{column: values})
    assert [refused.row for refused in frame.refused] == [row]
    assert list(frame.table.instrument) == [some_bars().instrument[1 - row]]


def test_a_bar_that_ends_after_the_close_belongs_to_no_session() -> None:
    late = replace(some_bars(), end_ns=np.array([SESSION.close_ns, SESSION.close_ns + 1]))
    frame = decode_frame(*encode_bar_frame(late, UNIVERSE, 0, SESSION.close_ns + SECOND_NS, SESSION), UNIVERSE)
    assert [(r.row, r.column) for r in frame.refused] == [(1, "end_ns")]


def test_a_row_with_several_faults_is_told_once() -> None:
    frame = spoiled(last_price=np.array([np.nan, 1.0, np.nan]), day_volume=np.array([-1, 1, 1]))
    assert [(r.row, r.column) for r in frame.refused] == [(0, "last_price"), (2, "last_price")]
    assert len(frame.table) == 1


def test_a_frame_of_bad_rows_only_is_a_watermark() -> None:
    frame = spoiled(last_price=np.full(3, -1.0))
    assert (len(frame.table), len(frame.refused), frame.refused_rows, frame.watermark_ns) == (0, 3, 3, CUT)


def test_of_many_bad_rows_the_first_are_told_and_all_are_counted() -> None:
    n = 1000
    price, volume = np.full(n, 10.0), np.arange(n)
    price[1::2], volume[::100] = -1.0, -1
    ticks = Ticks(np.zeros(n, dtype=np.int32), np.full(n, OPEN), price, volume)
    frame = decode_frame(*encode_tick_frame(ticks, UNIVERSE, 0, CUT, SESSION), UNIVERSE)
    assert (len(frame.table), frame.refused_rows) == (490, 510)
    assert [r.row for r in frame.refused] == sorted({0, *range(1, n, 2), *range(0, n, 100)})[:20]
    assert {r.column for r in frame.refused} == {"day_volume", "last_price"}


def test_a_table_with_a_wrong_row_is_read_as_row_for_row_as_one_without() -> None:
    """One compiled pass looks at what is whole; what it leaves is looked at column by column, with the same limits."""
    lowest, highest = 1e-4, 1e6
    edges = {
        "last_price": np.array([lowest, highest, 1.0]),
        "day_volume": np.array([0, 10**15, 1]),
        "bid_price": np.array([lowest, highest, np.nan]),
        "ask_quantity": np.array([0, 10**15, 1]),
    }
    good = spoiled(**edges)
    assert (len(good.table), good.refused) == (3, ())
    one_more = Ticks.concatenate([replace(quoted_ticks(), **edges), quoted_ticks()[2:]])
    frame = decode_frame(
        *encode_tick_frame(
            replace(one_more, last_price=np.append(one_more.last_price[:3], -1.0)), UNIVERSE, 0, CUT, SESSION
        ),
        UNIVERSE,
    )
    assert [refused.row for refused in frame.refused] == [3]
    assert frame.table.digest() == good.table.digest()


def test_a_token_outside_the_universe_is_named() -> None:
    larger = Universe(instruments=(*UNIVERSE.instruments, Instrument(instrument_token=999, symbol="NEW")))
    alien = replace(some_ticks(), instrument=np.array([0, 4, 1], dtype=np.int32))
    frame = decode_frame(*encode_tick_frame(alien, larger, 0, CUT, SESSION), UNIVERSE)
    assert frame.refused == (RefusedRow(1, 999, "instrument_token", "999", "not in the universe of its session"),)
    assert "row 1 (instrument_token 999)" in str(frame.refused[0])
    assert frame.universe_digest == larger.digest


def test_nothing_is_known_in_an_empty_universe() -> None:
    encoded = encode_tick_frame(some_ticks(), UNIVERSE, 0, CUT, SESSION)
    assert len(decode_frame(*encoded, Universe(instruments=())).refused) == 3


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        (np.array([OPEN + 5, OPEN, OPEN + 6]), "out of order"),
        (np.array([OPEN, OPEN + 5, CUT]), "not before the frame's watermark"),
    ],
)
def test_times_that_break_the_clock_cost_the_frame(values: np.ndarray, complaint: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(BadFrame, match=complaint):
        spoiled(event_time_ns=values)


@pytest.mark.parametrize(
    ("header", "content", "complaint"),
    [
        ("event_type", b"news", "event_type"),
        ("schema_version", b"1", "schema_version"),
        ("frame_number", b"first", "frame_number"),
        ("watermark_ns", b"soon", "watermark_ns"),
        ("watermark_ns", str(2**63 - 1).encode(), "outside the session"),
        ("watermark_ns", str(2**62).encode(), "outside the session"),
        ("watermark_ns", str(OPEN - 1).encode(), "outside the session"),
        ("watermark_ns", str(SESSION.close_ns + SECOND_NS + 1).encode(), "outside the session"),
        ("session_date", b"\xff", "session"),
        ("session_date", b"2026-01-06", "another day"),
        ("session_open_ns", b"", "session_open_ns"),
        ("session_close_ns", str(2**62).encode(), "no session's hours"),
        ("universe_digest", b"", "universe_digest"),
        (
            "columns",
            b"event_time_ns last_price",
            "header columns is 'event_time_ns last_price', not 'instrument_token ",
        ),
        ("columns", b"\xff", "header columns"),
        ("rows", b"2", "the body has more bytes instead of 64: 2 rows of 4 numbers"),
        ("rows", b"4", "the body has 96 bytes instead of 128: 4 rows of 4 numbers"),
        ("rows", b"-1", "header rows is '-1', not a number up to 1,000,000"),
        ("rows", b"9" * 5_000, "header rows"),
        ("rows", b"1000001", "header rows"),
    ],
)
def test_headers_that_say_nothing_usable_are_named(header: str, content: bytes, complaint: str) -> None:
    value, headers = encode_tick_frame(some_ticks(), UNIVERSE, 0, CUT, SESSION)
    with pytest.raises(BadFrame, match=complaint):
        decode_frame(value, [*headers, (header, content)], UNIVERSE)


WHOLE = encode_tick_frame(some_ticks(), UNIVERSE, 0, CUT, SESSION).value


@pytest.mark.parametrize(
    "value", [b"", b"garbage", WHOLE[:-8], WHOLE[:20], b"\x04\x22\x4d\x18" + 8 * b"\xff", WHOLE + b"x"]
)
def test_bytes_that_are_no_body_of_these_rows_are_refused(value: bytes) -> None:
    _, headers = encode_tick_frame(some_ticks(), UNIVERSE, 0, CUT, SESSION)
    with pytest.raises(BadFrame, match="the body"):
        decode_frame(value, headers, UNIVERSE)


def test_a_frame_names_its_universe_without_being_read() -> None:
    assert universe_digest_of(encode_tick_frame(some_ticks(), UNIVERSE, 0, CUT, SESSION).headers) == UNIVERSE.digest
    assert universe_digest_of([("event_type", b"watermark")]) == ""


def test_how_many_rows_a_frame_has_stands_in_its_headers() -> None:
    assert rows_of(encode_tick_frame(some_ticks(), UNIVERSE, 0, CUT, SESSION).headers) == len(some_ticks())
    assert rows_of([]) == rows_of([("rows", b"many")]) == 0


def test_a_bar_that_is_there_twice_counts_once() -> None:
    one = some_bars()
    again = Bars.concatenate([one, replace(one, close=np.array([11.5, 20.5]))])
    frame = decode_frame(*encode_bar_frame(again, UNIVERSE, 0, OPEN + 61, SESSION), UNIVERSE)
    assert [(refused.row, refused.column) for refused in frame.refused] == [(2, "end_ns"), (3, "end_ns")]
    assert frame.table.digest() == one.digest()


def test_every_token_is_found_and_no_other_in_a_whole_market() -> None:
    tokens = 256 * np.arange(1, 3001) + 1  # as the tokens of NSE shares are
    universe = Universe(
        instruments=tuple(Instrument(instrument_token=t, symbol=f"S{t}") for t in (*tokens.tolist(), 0, -1, 2**63 - 1))
    )
    n = len(universe)
    ticks = Ticks(np.arange(n, dtype=np.int32), np.full(n, OPEN), np.ones(n), np.ones(n, dtype=np.int64))
    encoded = encode_tick_frame(ticks, universe, 0, CUT, SESSION)
    assert decode_frame(*encoded, universe).table.digest() == ticks.digest()
    fewer = Universe(instruments=universe.instruments[:-2])
    frame = decode_frame(*encoded, fewer)
    assert [refused.instrument_token for refused in frame.refused] == [-1, 2**63 - 1]
    assert frame.table.digest() == ticks[: n - 2].digest()
