from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from live_services.domain.clock import market_gap, watermark
from live_services.domain.events import Event, NoEvent, decode_event, event_id, headers_of, topic_of, value_of
from live_services.domain.topics import MARKET_TICKS, broker_topics
from tests.live_world import OPEN, SECOND, SESSION, UNIVERSE, filled, signal, submitted, token, validated

NAMESPACE = uuid.UUID("6f2d1c52-8a5e-5e0a-9a52-0d4f2a1f6c11")


@given(st.lists(st.text() | st.integers(), min_size=1))
def test_an_id_is_the_name_based_uuid_of_its_parts(parts: list[str | int]) -> None:
    named = "|".join(str(part) for part in parts)
    try:
        named.encode()
    except UnicodeEncodeError:
        return
    assert event_id(*parts) == str(uuid.uuid5(NAMESPACE, named))


def test_an_event_goes_to_its_brokers_topic_and_one_of_nobody_to_none() -> None:
    assert topic_of(signal()) == broker_topics("paper").signals_raw
    assert topic_of(signal().model_copy(update={"broker": "zerodha"})) == broker_topics("zerodha").signals_raw
    with pytest.raises(KeyError, match="has no topic of its own"):
        topic_of(signal().model_copy(update={"broker": "shared"}))


@pytest.mark.parametrize(
    ("event", "said", "absurd"),
    [
        (
            market_gap(MARKET_TICKS, 0, OPEN, OPEN + SECOND, "lost"),
            f'"until_ns":{OPEN + SECOND}',
            f'"until_ns":{10**30}',
        ),
        (signal(), '"quantity":10', f'"quantity":{"9" * 4_300}'),
        (signal(expiry_ns=OPEN), f'"expiry_ns":{OPEN}', f'"expiry_ns":{10**30}'),
        (signal(), f'"end_ns":{OPEN + 60 * SECOND}', f'"end_ns":{10**30}'),
        (signal(), f'"event_time_ns":{OPEN + 60 * SECOND}', f'"event_time_ns":{10**25}'),
        (signal(), f'"instrument_token":{token(0)}', f'"instrument_token":{2**63}'),
        (signal(), '"reference_price":100.0', '"reference_price":1e308'),
        (signal(), '"close":100.0', '"close":1e308'),
        (filled(submitted(validated()), 61, 100.0), '"price_inr_e4":1000000', f'"price_inr_e4":{10**18}'),
        (filled(submitted(validated()), 61, 100.0), '"charges_inr_e4":0', f'"charges_inr_e4":{10**18}'),
    ],
    ids=[
        "until_ns",
        "quantity",
        "expiry_ns",
        "end_ns",
        "event_time_ns",
        "instrument_token",
        "reference_price",
        "close",
        "price_inr_e4",
        "charges_inr_e4",
    ],
)
def test_a_number_that_nobody_could_work_with_is_no_event(event: Event, said: str, absurd: str) -> None:
    value = event.model_dump_json()
    assert decode_event(value.encode()) == event
    assert said in value
    with pytest.raises(NoEvent, match="less than"):
        decode_event(value.replace(said, absurd).encode())


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (b"\x00\xff", "Invalid JSON: expected value at line 1 column 1"),
        (b'{"garbage": 1}', "it has no event_type"),
        (b'{"event_type": "nope"}', "there is no event_type 'nope'"),
        (b"[]", "the whole: Input should be an object"),
        (signal().model_dump_json().replace('"BUY"', '"HOLD"').encode(), "signal.generated.side: Input should be "),
    ],
)
def test_what_is_no_event_is_said_in_one_short_line(value: bytes, said: str) -> None:
    with pytest.raises(NoEvent) as caught:
        decode_event(value)
    assert str(caught.value).startswith(said)
    assert len(str(caught.value)) < 120
    assert "\n" not in str(caught.value)


MARK = watermark(MARKET_TICKS, 0, SESSION, OPEN + SECOND, UNIVERSE.digest)


def test_a_watermark_is_read_from_its_headers_and_has_no_value() -> None:
    caused = MARK.model_copy(update={"causation_id": "another"})
    for event in (MARK, caused):
        assert value_of(event) == b""
        assert decode_event(b"", [*headers_of(event), ("traceparent", b"00-1-1-01")]) == event
    assert sum(len(name) + len(value) for name, value in headers_of(MARK)) < 300


def test_other_events_are_read_from_their_value_whatever_stands_in_the_headers() -> None:
    event = signal()
    assert decode_event(value_of(event), headers_of(event)) == decode_event(value_of(event)) == event


@pytest.mark.parametrize(
    ("value", "header", "content", "said"),
    [
        (b"{}", "broker", b"shared", "a watermark has no value, and this one has 2 bytes"),
        (b"", "broker", b"nobody", "broker: Input should be"),
        (b"", "event_time_ns", b"soon", "event_time_ns: Input should be a valid integer"),
        (b"", "event_time_ns", b"\xff", "event_time_ns: Input should be a valid integer"),
        (b"", "event_time_ns", b"9" * 5_000, "event_time_ns: Unable to parse input string as an integer"),
        (b"", "schema_version", b"1", "schema_version: Input should be 2"),
    ],
)
def test_headers_that_say_no_watermark_are_named(value: bytes, header: str, content: bytes, said: str) -> None:
    with pytest.raises(NoEvent) as caught:
        decode_event(value, [*headers_of(MARK), (header, content)])
    assert str(caught.value).startswith(said)


def test_a_watermark_without_one_of_its_headers_or_as_json_is_no_event() -> None:
    for missing in ("broker", "event_id", "event_time_ns", "session_open_ns", "universe_digest"):
        with pytest.raises(NoEvent, match=f"{missing}: Field required"):
            decode_event(b"", [(name, content) for name, content in headers_of(MARK) if name != missing])
    with pytest.raises(NoEvent, match="there is no event_type 'watermark'"):
        decode_event(MARK.model_dump_json().encode())
