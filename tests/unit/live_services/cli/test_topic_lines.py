"""What a person sees of a topic: a line for each record."""

from __future__ import annotations

import json

from live_services.adapters.kafka import StoredRecord
from live_services.cli.topic_lines import line_of
from live_services.domain.clock import session_opened, watermark
from live_services.domain.events import Event, OrderFilled, OrderSubmitted, PnlSnapshot, headers_of, value_of
from live_services.domain.frames import encode_tick_frame
from live_services.domain.topics import MARKET_TICKS
from tests.account_log import two_sessions
from tests.live_world import OPEN, SECOND, SESSION, UNIVERSE, ticks

EVENTS = two_sessions()


def line(event: Event) -> dict[str, object]:
    shown: dict[str, object] = json.loads(
        line_of(StoredRecord("topic", 1, 7, 0, None, value_of(event), tuple(headers_of(event))))
    )
    return shown


def test_a_watermark_is_shown_by_all_its_fields() -> None:
    mark = watermark(MARKET_TICKS, 0, SESSION, OPEN + SECOND, UNIVERSE.digest)
    assert line(mark) == {"at": "topic[1]@7", **mark.model_dump()}


def test_amounts_are_shown_in_rupees_under_the_name_that_says_so() -> None:
    fill = next(event for event in EVENTS if isinstance(event, OrderFilled))
    shown = line(fill)
    assert shown["at"] == "topic[1]@7"
    assert shown["price_inr"] == fill.price_inr_e4 / 10_000
    assert shown["charges_inr"] == fill.charges_inr_e4 / 10_000
    assert not [name for name in shown if name.endswith("_e4")]
    assert shown["order_id"] == fill.order_id


def test_amounts_inside_of_lists_and_tables_are_shown_in_rupees_too_and_what_is_none_stays() -> None:
    snapshot = next(event for event in EVENTS if isinstance(event, PnlSnapshot) and event.positions)
    assert "_inr_e4" not in json.dumps(line(snapshot))
    stopped = (e for e in EVENTS if isinstance(e, OrderSubmitted) and e.exit and e.exit.stop_distance_inr_e4)
    entry = next(stopped)
    assert entry.exit is not None
    shown = line(entry)
    assert shown["stop_price_inr"] is None
    assert shown["exit"] == {
        "expiry_ns": entry.exit.expiry_ns,
        "stop_distance_inr": (entry.exit.stop_distance_inr_e4 or 0) / 10_000,
        "target_distance_inr": (entry.exit.target_distance_inr_e4 or 0) / 10_000,
    }


def test_the_instruments_of_a_session_are_counted() -> None:
    assert line(session_opened(SESSION, UNIVERSE))["instruments"] == len(UNIVERSE)


def test_a_frame_is_summed_up_by_its_headers() -> None:
    frame = encode_tick_frame(ticks((0, 1.0, 100.0), (1, 2.0, 50.0)), UNIVERSE, 3, OPEN + 3 * SECOND, SESSION)
    shown = json.loads(line_of(StoredRecord("market.ticks", 0, 5, 0, None, b"unread", tuple(frame.headers))))
    assert (shown["at"], shown["rows"], shown["frame_number"], shown["bytes"]) == ("market.ticks[0]@5", "2", "3", 6)


def test_bytes_that_are_no_json_are_shown_as_they_are() -> None:
    shown = json.loads(line_of(StoredRecord("topic", 0, 0, 0, None, b"\xff\x00", ())))
    assert shown == {"at": "topic[0]@0", "undecodable_bytes": "ff00"}
