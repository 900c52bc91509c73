from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from feature_store.market.types import Session
from live_services.domain.frames import EncodedFrame, decode_frame
from live_services.domain.topics import MARKET_TICKS, Topic
from live_services.services.market_feed import (
    FeedProgress,
    LogIsAhead,
    NothingToReplay,
    Replay,
    load_replay,
    replay_session,
)
from live_services.settings import KafkaSettings, MarketSettings, Settings
from tests.live_world import OPEN, SECOND, SESSION, UNIVERSE, random_walk

END = SESSION.close_ns + SECOND
REPLAY = Replay(SESSION, UNIVERSE, random_walk(4, minutes=3, per_minute=30, seed=9))


class Recorded:
    def __init__(self) -> None:
        self.sent: list[tuple[int, int, int]] = []  # partition, watermark, rows
        self.waiting = self.most_waiting = 0

    async def produce_watermark(self, topic: Topic, partition: int, session: Session, watermark_ns: int) -> None:
        assert topic is MARKET_TICKS
        self._note(partition, watermark_ns, 0)

    async def produce_frame(self, topic: Topic, partition: int, frame: EncodedFrame) -> None:
        decoded = decode_frame(frame.value, frame.headers, UNIVERSE)
        self._note(partition, decoded.watermark_ns, len(decoded.table))

    async def flush(self) -> None:
        self.waiting = 0

    def _note(self, partition: int, watermark_ns: int, rows: int) -> None:
        self.sent.append((partition, watermark_ns, rows))
        self.waiting += 1
        self.most_waiting = max(self.most_waiting, self.waiting)


def settings(partitions: int = 2, **market: object) -> Settings:
    return Settings(kafka=KafkaSettings(market_partitions=partitions), market=MarketSettings.model_validate(market))


async def run(reached: dict[int, tuple[int, int]] | None = None, stop: asyncio.Event | None = None) -> Recorded:
    sink = Recorded()
    await replay_session(REPLAY, settings(), sink, reached=reached or {}, stop=stop or asyncio.Event())
    return sink


async def test_every_partition_goes_from_open_to_end_with_rising_watermarks() -> None:
    sink = await run()
    assert sum(rows for _, _, rows in sink.sent) == len(REPLAY.market)
    for partition in range(2):
        watermarks = [watermark for p, watermark, _ in sink.sent if p == partition]
        assert (watermarks[0], watermarks[-1]) == (OPEN, END)
        assert watermarks == sorted(set(watermarks))


async def test_a_restart_sends_only_what_each_partition_lacks() -> None:
    whole = await run()
    reached = {0: (OPEN, OPEN + 60 * SECOND), 1: (OPEN, OPEN + 90 * SECOND)}
    rest = await run(reached)
    assert rest.sent == [record for record in whole.sent if record[1] > reached[record[0]][1]]


async def test_a_restart_with_longer_frames_sends_only_the_rows_that_are_missing() -> None:
    reached = OPEN + 61 * SECOND
    sink = Recorded()
    await replay_session(REPLAY, settings(1, frame_ms=10_000), sink, reached={0: (OPEN, reached)}, stop=asyncio.Event())
    assert sum(rows for *_, rows in sink.sent) == (REPLAY.market.event_time_ns >= reached).sum()


async def test_a_session_that_is_on_the_log_is_not_sent_again() -> None:
    assert (await run({0: (OPEN, END), 1: (OPEN, END)})).sent == []


async def test_an_earlier_session_on_the_log_does_not_hide_this_one() -> None:
    assert (await run({0: (OPEN - 86_400 * SECOND, END - 86_400 * SECOND)})).sent == (await run()).sent


async def test_event_time_does_not_run_backwards() -> None:
    with pytest.raises(LogIsAhead, match="later session"):
        await run({0: (OPEN + 86_400 * SECOND, END + 86_400 * SECOND)})


async def test_no_more_than_a_bounded_number_of_records_wait_for_the_brokers() -> None:
    assert (await run()).most_waiting <= 257


async def test_progress_tells_rows_and_the_end() -> None:
    seen: list[FeedProgress] = []
    await replay_session(REPLAY, settings(), Recorded(), reached={}, stop=asyncio.Event(), progress=seen.append)
    assert (seen[-1].rows_sent, seen[-1].rows_total, seen[-1].finished) == (
        len(REPLAY.market),
        len(REPLAY.market),
        True,
    )
    assert not any(step.finished for step in seen[:-1])


async def test_a_stop_ends_the_replay_and_says_that_it_is_incomplete() -> None:
    stop, sink = asyncio.Event(), Recorded()

    def after_ten(step: FeedProgress) -> None:
        if len(sink.sent) > 10:
            stop.set()

    done = await replay_session(REPLAY, settings(), sink, reached={}, stop=stop, progress=after_ten)
    assert not done
    assert len(sink.sent) < 20


def test_an_empty_store_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NothingToReplay, match="Load market data"):
        load_replay(Settings(alpha_panda_home=tmp_path))
