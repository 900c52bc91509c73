"""What a person reads of dead letters."""

from __future__ import annotations

import base64
from typing import Any, get_args

import pytest
from rich.console import Console

from live_services.cli.dead_letters import (
    MEANING,
    LetterView,
    counts_of,
    letter_facts,
    letters_table,
    replay_text,
)
from live_services.domain.events import DeadLetter, DeadLetterDecided, LetterReason, event_or_none, self_caused
from live_services.domain.topics import all_topics
from tests.live_world import OPEN


def letter(value: bytes = b"garbage", **changes: Any) -> DeadLetter:
    place = {"topic": "paper.signals.raw", "partition": 0, "offset": 3, "service": "risk_manager"}
    said = {"reason": "no_event", "failure": "ValidationError: not JSON,\n  at all"}
    content = {"key_base64": None, "value_base64": base64.b64encode(value).decode()}
    fields = {"event_type": "dead_letter", "broker": "paper", "event_time_ns": OPEN}
    return DeadLetter.model_validate(self_caused("letter", str(changes)) | fields | place | said | content | changes)


def dropped(one: DeadLetter) -> DeadLetterDecided:
    fields = self_caused("decided") | {"event_time_ns": OPEN, "decided_at_ns": OPEN, "decided_by": "desk"}
    said = {"letter_id": one.event_id, "letter_topic": one.topic, "action": "dropped", "reason": "a test"}
    return DeadLetterDecided.model_validate(fields | said)


def shown(*views: LetterView) -> str:
    console = Console(width=200, record=True)
    with console.capture() as captured:
        console.print(letters_table(views))
    return captured.get()


def test_every_reason_is_explained_with_what_to_do() -> None:
    assert set(MEANING) == set(get_args(LetterReason))


def test_a_list_names_the_letter_its_record_and_its_failure_in_one_line_or_what_was_decided() -> None:
    open_one, decided = letter(), letter(offset=4)
    lines = shown(LetterView(open_one, None), LetterView(decided, dropped(decided)))
    assert open_one.event_id[:8] in lines
    assert "paper.signals.raw[0]@3" in lines
    assert "ValidationError: not JSON, at all" in lines
    assert "dropped by desk at 2026-01-05 09:15:00" in lines


def test_open_letters_are_counted_by_topic_and_reason_the_most_first() -> None:
    views = [LetterView(letter(offset=k), None) for k in range(3)]
    views += [LetterView(letter(offset=9, reason="late"), None), LetterView(letter(offset=8), dropped(letter()))]
    assert [(count["reason"], count["open"]) for count in counts_of(views)] == [("no_event", 3), ("late", 1)]


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (b'{"a": [1]}', '{\n  "a": [\n    1\n  ]\n}'),
        (b"halt, please!", "halt, please!"),
        (b"\x00\x01\x02\x03\xff", "00 010203ff"),
        (b"\xff" * 5000, " … and 904 bytes more"),
    ],
)
def test_bytes_are_shown_as_json_or_text_where_they_are_and_else_as_digits(value: bytes, told: str) -> None:
    said = dict(letter_facts(LetterView(letter(value), None)))["bytes"]
    assert said == told or (len(value) > 4096 and said.endswith(told))


def test_only_commands_are_handed_in_and_what_belongs_to_the_past_goes_to_the_record_of_the_day() -> None:
    handed_in = [
        topic.name for topic in all_topics() if "handed in" in replay_text(letter(topic=topic.name, broker=topic.scope))
    ]
    assert handed_in == ["paper.commands", "zerodha.commands"]


def test_a_letter_of_an_older_version_is_readable() -> None:
    document = letter().model_dump_json(exclude={"reason", "headers_base64"})
    older = event_or_none(document.encode())
    assert isinstance(older, DeadLetter)
    facts = dict(letter_facts(LetterView(older, None)))
    assert facts["failure"].startswith("unsorted: ValidationError")
    assert facts["headers"] == "none kept"
