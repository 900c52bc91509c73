"""Whatever bytes come: a decoder says in its own words that they are none, and a task goes on.

``ALPHA_PANDA_FUZZ=20000 pytest tests/property/live_services/test_fuzz.py`` looks longer.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import cache
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from live_services.domain.basis import Stamp
from live_services.domain.clock import session_end_ns, watermark
from live_services.domain.events import TASK_HEADER, Event, NoEvent, decode_event, event_or_none
from live_services.domain.frames import (
    BadFrame,
    Frame,
    decode_frame,
    encode_bar_frame,
    encode_tick_frame,
    rows_of,
    session_of_frame,
    universe_digest_of,
)
from live_services.domain.log import EventRecord, TaskId
from live_services.domain.topics import MARKET_SESSIONS, MARKET_TICKS, broker_topics
from live_services.operations_settings import DeadLettersSettings
from live_services.runtime.control import control_of
from live_services.runtime.inbox import command_of
from live_services.runtime.letters import NotUnderstood
from live_services.runtime.local import MemoryLog, MemoryTask
from live_services.runtime.received import Received
from live_services.services.account import account_chain
from tests.account_world import limits
from tests.live_world import (
    MINUTE,
    OPEN,
    SECOND,
    SESSION,
    UNIVERSE,
    bars,
    filled,
    random_walk,
    signal,
    submitted,
    validated,
)
from tests.poison_table import commanded
from tests.toy_chain import session_opened

EXAMPLES = int(os.environ.get("ALPHA_PANDA_FUZZ", "60"))
fuzz = settings(max_examples=EXAMPLES, deadline=None)
PAPER = broker_topics("paper")
END = session_end_ns(SESSION)
ORDER = submitted(validated())
GOOD: tuple[Event, ...] = (
    signal(),
    signal(1, 90, "SELL", stop_inr=1.0),
    validated(),
    ORDER,
    filled(ORDER, 61, 100.0),
    commanded(),
    watermark(MARKET_TICKS, 0, SESSION, OPEN + SECOND, UNIVERSE.digest),
    session_opened(SESSION, UNIVERSE),
)
FRAMES = (
    encode_tick_frame(random_walk(3, 1, 10, 4), UNIVERSE, 0, OPEN + MINUTE, SESSION),
    encode_bar_frame(bars((0, 0, 100.0, 101.0), (1, 0, 200.0, 199.0)), UNIVERSE, 0, OPEN + 2 * MINUTE, SESSION),
)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(10**40), 10**40)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from([-1, 0, 2**62, 2**63, 10**400, 1e308, OPEN, END, "paper", "zerodha", "shared"])
)
ANYTHING = st.recursive(
    LEAVES, lambda parts: st.lists(parts, max_size=3) | st.dictionaries(st.text(max_size=8), parts, max_size=3)
)


def paths_in(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Name every place in a JSON value."""
    found = [path] if path else []
    if isinstance(value, dict):
        return found + [one for name, part in value.items() for one in paths_in(part, (*path, name))]
    if isinstance(value, list):
        return found + [one for k, part in enumerate(value[:3]) for one in paths_in(part, (*path, k))]
    return found


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """Write a good event with something else in up to three of its places, or with bytes turned over."""
    value = json.loads(draw(st.sampled_from(GOOD)).model_dump_json())
    for _ in range(draw(st.integers(0, 3))):
        *into, last = draw(st.sampled_from(paths_in(value)))
        part = value
        for step in into:
            part = part[step]
        if isinstance(part, dict) and draw(st.booleans()) and draw(st.booleans()):
            del part[last]
        else:
            part[last] = draw(ANYTHING)
    return damaged(draw, json.dumps(value).encode()) if draw(st.integers(0, 3)) == 0 else json.dumps(value).encode()


def damaged(draw: st.DrawFn, value: bytes) -> bytes:
    """Cut bytes off, or write others over some of them."""
    broken = bytearray(value[: draw(st.integers(0, len(value)))] if draw(st.booleans()) else value)
    for _ in range(draw(st.integers(0, 8))):
        if broken:
            broken[draw(st.integers(0, len(broken) - 1))] = draw(st.integers(0, 255))
    return bytes(broken)


NAMES = st.sampled_from([name for name, _ in FRAMES[0].headers]) | st.text(max_size=8)
NUMBERS = st.integers(-(10**30), 10**30).map(lambda n: str(n).encode()) | st.just(b"9" * 5_000)
HEADERS = st.lists(st.tuples(NAMES, st.binary(max_size=12) | NUMBERS), max_size=4)


@st.composite
def frames(draw: st.DrawFn) -> tuple[bytes, tuple[tuple[str, bytes], ...]]:
    """Write a good frame with other headers, other bytes, or both."""
    frame = draw(st.sampled_from(FRAMES))
    value = damaged(draw, frame.value) if draw(st.booleans()) else frame.value
    headers = dict(frame.headers) | dict(draw(HEADERS))
    return value, tuple(headers.items())


RECORDS = st.binary(max_size=60) | ANYTHING.map(lambda value: json.dumps(value).encode()) | mutated()


@fuzz
@given(RECORDS)
@example(b"[" * 100_000)
@example(b'{"event_type":"watermark","event_time_ns":' + b"9" * 5_000 + b"}")
def test_bytes_are_an_event_or_none_and_an_event_can_be_written_again(value: bytes) -> None:
    try:
        event = decode_event(value)
    except NoEvent as failure:
        assert "\n" not in str(failure)
        assert event_or_none(value) is None
        return
    assert decode_event(event.model_dump_json().encode()) == event


@fuzz
@given(frames())
def test_a_frame_is_one_or_a_bad_one(record: tuple[bytes, tuple[tuple[str, bytes], ...]]) -> None:
    value, headers = record
    assert rows_of(headers) >= 0
    assert isinstance(universe_digest_of(headers), str)
    _only_bad(lambda: session_of_frame(headers))
    frame = _only_bad(lambda: decode_frame(value, headers, UNIVERSE))
    if isinstance(frame, Frame):
        assert len(frame.times_ns) == 0 or frame.times_ns[-1] < frame.watermark_ns <= END


def _only_bad(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except BadFrame:
        return None


@fuzz
@given(RECORDS, HEADERS, st.booleans())
def test_a_command_and_a_control_record_are_one_or_not_understood(value: bytes, headers: Any, ours: bool) -> None:
    named = [*headers, *([(TASK_HEADER, b"paper.account[0]")] if ours else [])]
    command = command_of(Received(PAPER.commands.name, 0, 0, None, value, named), PAPER.commands)
    assert isinstance(command, EventRecord | NotUnderstood)
    control = control_of(
        TaskId("account", "paper", 0), PAPER.control, Received(PAPER.control.name, 0, 0, None, value, named)
    )
    assert control is None or isinstance(control, Event | NotUnderstood)


# --- a task -----------------------------------------------------------------------------------------------------------


@cache
def _second() -> list[tuple[bytes, Any]]:
    """Give the market of the first seconds, a frame a second."""
    walk, made = random_walk(3, 1, 40, 5), []
    for k in range(6):
        begin = OPEN + 10 * k * SECOND
        part = walk[(walk.event_time_ns >= begin) & (walk.event_time_ns < begin + 10 * SECOND)]
        made.append(encode_tick_frame(part, UNIVERSE, k, begin + 10 * SECOND, SESSION))
    return made


PLACES = st.sampled_from([MARKET_TICKS, PAPER.signals_raw, PAPER.signals_raw, PAPER.commands, PAPER.control])
STRANGE = st.tuples(PLACES, st.integers(0, 5), RECORDS | frames(), st.booleans())


@settings(max_examples=max(EXAMPLES // 3, 5), deadline=None)
@given(st.lists(STRANGE, max_size=12), st.sets(st.integers(0, 5), max_size=2))
def test_a_task_goes_on_whatever_stands_among_its_records_and_comes_back(strange: list[Any], kills: set[int]) -> None:
    log = MemoryLog()
    log.append_event(MARKET_SESSIONS, 0, session_opened(SESSION, UNIVERSE))
    for topic in (MARKET_TICKS, PAPER.signals_raw):
        log.append_event(topic, 0, watermark(topic, 0, SESSION, OPEN, UNIVERSE.digest))
    with capture_logs():
        task = MemoryTask(
            lambda: account_chain("paper", MARKET_TICKS, limits(), Stamp()),
            log,
            dead_letters=DeadLettersSettings(flood_letters=10**6),
        )
        _work(task)
        for k, frame in enumerate(_second()):
            for topic, when, record, ours in strange:
                if when == k:
                    value, headers = record if isinstance(record, tuple) else (record, ())
                    named = ((TASK_HEADER, b"paper.account[0]"),) if ours and topic == PAPER.control else ()
                    log.append(topic.name, 0, value, (*headers, *named))
            log.append(MARKET_TICKS.name, 0, *frame)
            log.append_event(PAPER.signals_raw, 0, signal(k % 3, 10 * k + 5, strategy=f"number {k}"))
            mark = OPEN + 10 * (k + 1) * SECOND
            log.append_event(PAPER.signals_raw, 0, watermark(PAPER.signals_raw, 0, SESSION, mark, UNIVERSE.digest))
            _work(task)
            if k in kills:
                task.kill()
                _work(task)
        for topic in (MARKET_TICKS, PAPER.signals_raw):
            log.append_event(topic, 0, watermark(topic, 0, SESSION, END, UNIVERSE.digest))
        _work(task)
        task.kill()
        _work(task)
    assert task.run.live
    assert task.run.now_ns == END


def _work(task: MemoryTask) -> None:
    for _ in range(3):
        for key in task.next:
            task.fetch(key, 10_000)
        task.step()
        task.commit()
