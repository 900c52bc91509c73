"""Dead letters on a real Kafka: from garbage to a decision, which is made once whoever decides at the same time."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.producer import message_accumulator, producer
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy

from live_services.adapters.feed_producer import FeedProducer
from live_services.adapters.groups import groups_begin
from live_services.adapters.kafka import connection, read_topic
from live_services.adapters.letters import LetterDecisions, count_open
from live_services.cli.dead_letters import counts_of, find_letter, letter_facts, read_letters
from live_services.cli.letter_decisions import drop_letter, drop_topic, replay_letter
from live_services.domain.clock import watermark
from live_services.domain.events import (
    DeadLetterDecided,
    RecordHandedIn,
    TradingStateChanged,
    TradingStateCommanded,
    decode_event,
    self_caused,
    value_of,
)
from live_services.domain.topics import DLQ_DECISIONS, MARKET_TICKS, Topic, broker_topics, consumer_group
from live_services.failures import CommandFailed
from live_services.settings import Settings
from tests.kafka_desk import Runner, account, empty_desk, said
from tests.live_world import OPEN, SECOND, SESSION, UNIVERSE, signal
from tests.strange_headers import BadName
from tests.toy_chain import session_opened

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]
PAPER = broker_topics("paper")


@pytest.fixture
async def desk(kafka_servers: str, tmp_path: Path) -> Settings:
    return await empty_desk(kafka_servers, tmp_path)


async def put(desk: Settings, topic: Topic, *values: bytes, key: bytes | None = None) -> None:
    """Put records on a topic as a stranger would."""
    producer = AIOKafkaProducer(**connection(desk.kafka))
    await producer.start()
    try:
        for value in values:
            await producer.send_and_wait(topic.name, value, key=key, partition=0, headers=[("who", b"a stranger")])
    finally:
        await producer.stop()


async def mark(producer: FeedProducer, runner: Runner, seconds: float) -> None:
    at_ns = OPEN + round(seconds * SECOND)
    producer.say_on(MARKET_TICKS, 0, watermark(MARKET_TICKS, 0, SESSION, at_ns, UNIVERSE.digest))
    runner.say(watermark(PAPER.signals_raw, 0, SESSION, at_ns, UNIVERSE.digest))
    await producer.flush()


async def letters_of(desk: Settings, topic: Topic, count: int) -> list[str]:
    async with asyncio.timeout(40):
        while len(views := await read_letters(desk, topic=topic.name)) < count:
            await asyncio.sleep(0.1)
    return [view.letter.event_id for view in views]


async def decisions(desk: Settings) -> list[tuple[str, str]]:
    return [(e.letter_id, e.action) for e in await said(desk, DLQ_DECISIONS) if isinstance(e, DeadLetterDecided)]


def halt() -> TradingStateCommanded:
    return TradingStateCommanded(
        **self_caused("mended"),
        broker="paper",
        event_time_ns=1,
        commanded_at_ns=1,
        commanded_by="a person",
        reason="fills look wrong",
        state="HALTED",
    )


async def test_letters_are_listed_shown_and_decided_on_once_by_whoever_is_first_also_over_a_restart(
    desk: Settings,
) -> None:
    async with FeedProducer(desk.kafka, 10_000) as producer:
        runner = Runner(producer, OPEN)
        async with account(desk):
            await groups_begin(desk.kafka, MARKET_TICKS, [consumer_group("account", "paper")], asyncio.Event())
            producer.say(session_opened(SESSION, UNIVERSE))
            await mark(producer, runner, 0)
            await put(desk, PAPER.commands, b"halt, please!")
            await put(desk, PAPER.signals_raw, b'{"no": "signal"}', key=b"k")
            runner.say(signal(0, -10))
            await mark(producer, runner, 10)
            (asked,) = await letters_of(desk, PAPER.commands, 1)
            first, second = await letters_of(desk, PAPER.signals_raw, 2)
            await _shows(desk, first)
            await _replays_once_of_two_at_once(desk, asked)
        async with account(desk):
            await mark(producer, runner, 20)
            for again in (replay_letter(desk, asked, "again", value_of(halt())), drop_letter(desk, asked, "away")):
                with pytest.raises(CommandFailed, match=f"the dead letter {asked[:8]} was replayed by .*: mended"):
                    await again
            assert "so nothing is decided or traded on it" in await replay_letter(desk, second, "for the record")
            assert "is dropped" in await drop_letter(desk, first[:6], "nobody knows who wrote it")
            await put(desk, PAPER.signals_raw, b"flood", b"flood")
            await mark(producer, runner, 25)
            two = await letters_of(desk, PAPER.signals_raw, 2)
            assert (await drop_topic(desk, PAPER.signals_raw.name, "a script")).startswith("2 letters of ")
            await mark(producer, runner, 30)
    assert await decisions(desk) == [
        (asked, "replayed"),
        (second, "recorded"),
        (first, "dropped"),
        *((one, "dropped") for one in two),
    ]
    assert await read_letters(desk) == []
    assert await count_open(desk.kafka, 10) == 0
    assert {view.letter.event_id for view in await read_letters(desk, decided=True)} == {asked, first, second, *two}
    changes = [event for event in await said(desk, PAPER.control) if isinstance(event, TradingStateChanged)]
    assert [(one.in_force.state, one.in_force.reason) for one in changes] == [("HALTED", "fills look wrong")]
    async with LetterDecisions(desk.kafka) as slow:
        async with LetterDecisions(desk.kafka):
            pass
        any_decision, *_ = [e for e in await said(desk, DLQ_DECISIONS) if getattr(e, "action", "") == "dropped"]
        assert isinstance(any_decision, DeadLetterDecided)
        with pytest.raises(CommandFailed, match="somebody else decided on dead letters at the same moment"):
            await slow.decide([any_decision])


async def _shows(desk: Settings, letter_id: str) -> None:
    counts = {(count["topic"], count["reason"]): count["open"] for count in counts_of(await read_letters(desk))}
    assert counts == {
        ("paper.commands", "no_command"): 1,
        ("paper.signals.raw", "no_event"): 1,
        ("paper.signals.raw", "late"): 1,
    }
    facts = dict(letter_facts(await find_letter(desk, letter_id[:6])))
    assert '"no": "signal"' in facts["bytes"]
    assert (facts["key"], facts["headers"]) == ("k", "who: a stranger")
    assert facts["record"].startswith("paper.signals.raw[0]@")
    stored = [record async for record in read_topic(desk.kafka, PAPER.signals_raw.dlq)]
    assert all(("dlq", b"true") in record.headers for record in stored)


async def _replays_once_of_two_at_once(desk: Settings, letter_id: str) -> None:
    with pytest.raises(CommandFailed, match="the letter's bytes are still no event"):
        await replay_letter(desk, letter_id, "as it is")
    assert (await count_open(desk.kafka, 10), await count_open(desk.kafka, 2)) == (3, 2)
    with pytest.raises(CommandFailed, match="there is no strategy 'momentun' at paper; did you mean momentum"):
        await replay_letter(desk, letter_id, "misspelt", value_of(halt().model_copy(update={"strategy": "momentun"})))
    with pytest.raises(CommandFailed, match=r"paper\.commands takes trading\.state_commanded of paper"):
        await replay_letter(desk, letter_id, "a signal", value_of(signal()))
    both = [replay_letter(desk, letter_id, "mended", value_of(halt())) for _ in range(2)]
    done = await asyncio.gather(*both, return_exceptions=True)
    (won,) = [one for one in done if isinstance(one, str)]
    assert "counts as a new record from the watermark" in won
    (lost,) = [one for one in done if not isinstance(one, str)]
    assert isinstance(lost, CommandFailed)
    commands = [record async for record in read_topic(desk.kafka, PAPER.commands.name)]
    assert len([one for one in commands[1:] if isinstance(decode_event(one.value), RecordHandedIn)]) == 1


async def test_a_header_name_that_is_no_utf_8_ends_no_reader(desk: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    for writing in (message_accumulator, producer):  # the fast encoder takes no such name
        monkeypatch.setattr(writing, "DefaultRecordBatchBuilder", _DefaultRecordBatchBuilderPy)
    named = ("who", BadName(b"\xff\xfe"), "who")
    topics = (MARKET_TICKS, PAPER.signals_raw, PAPER.commands)
    async with AIOKafkaProducer(**connection(desk.kafka)) as stranger:
        for topic in topics:
            for number, name in enumerate(named):
                value, headers = b"garbage %d" % number, [(name, b"a stranger")]
                await stranger.send_and_wait(topic.name, value, partition=0, headers=headers)
    async with account(desk), FeedProducer(desk.kafka, 10_000) as feed:
        runner = Runner(feed, OPEN)
        await groups_begin(desk.kafka, MARKET_TICKS, [consumer_group("account", "paper")], asyncio.Event())
        feed.say(session_opened(SESSION, UNIVERSE))
        await mark(feed, runner, 0)
        await mark(feed, runner, 10)
        for topic in topics:
            await letters_of(desk, topic, len(named))
            views = await read_letters(desk, topic=topic.name)
            found = [dict(letter_facts(view))["headers"] for view in views]
            assert found == ["who: a stranger", r"\xff\xfe: a stranger", "who: a stranger"]
