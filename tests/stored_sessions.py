"""Sessions to be played, and a log in memory that a feed speaks on: it dies where a test says, and starts again."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import numpy as np

from feature_store.market.types import Bars, Instrument, Session, Ticks, Universe
from live_services.adapters.kafka import StoredRecord
from live_services.adapters.market_log import newest_end
from live_services.adapters.sessions import MarketSessions
from live_services.adapters.stored_market import Replay
from live_services.domain.events import Event, SessionOpened, Watermark, decode_event, headers_of, topic_of, value_of
from live_services.domain.frames import FRAME_TOPICS, EncodedFrame, Frame, decode_frame, universe_digest_of
from live_services.domain.sequence import LogEnd, Stamp
from live_services.domain.topics import MARKET_SESSIONS, MARKET_TICKS, Topic, market_topic
from live_services.runtime.ingress import Ingress
from live_services.runtime.local import MemoryLog
from live_services.runtime.received import Received
from live_services.services.feed_plan import refuse_another, who_feeds
from live_services.services.market_feed import Feed, FrameTimes, Progress
from live_services.settings import KafkaSettings, MarketSettings, Settings
from tests.live_world import OPEN, random_walk, session_bars

FIRST_DAY = dt.date(2026, 1, 5)


def universe_of_day(day: int) -> Universe:
    """Three instruments and an index; from the second day on a listing whose symbol comes before all others."""
    listed = [] if day == 0 else [Instrument(instrument_token=9, symbol="AAB")]
    held = [Instrument(instrument_token=256 * k + 1, symbol=f"S{k}") for k in range(3)]
    return Universe.ordered([*held, *listed, Instrument(instrument_token=7, symbol="NIFTY 50", tradable=False)])


def day_of_ticks(day: int, minutes: int = 3) -> Replay:
    session, universe = Session.regular(FIRST_DAY + dt.timedelta(days=day)), universe_of_day(day)
    walk = random_walk(len(universe), minutes=minutes, per_minute=20, seed=31 + day)
    return Replay(session, universe, replace(walk, event_time_ns=walk.event_time_ns + session.open_ns - OPEN))


def day_of_bars(day: int) -> Replay:
    session, universe = Session.regular(FIRST_DAY + dt.timedelta(days=day)), universe_of_day(day)
    return Replay(session, universe, session_bars(session, len(universe), minutes=20, seed=3))


class GivenMarket:
    """Sessions from memory; a test may add to ``days`` what comes later."""

    def __init__(self, days: Sequence[Replay]) -> None:
        self.days = list(days)

    def sessions(self) -> tuple[Session, ...]:
        return tuple(day.session for day in self.days)

    def load(self, session: Session, told: Universe | None) -> Replay:
        (day,) = (one for one in self.days if one.session.date == session.date)
        if told is None:
            return day
        index = told.indices_of(day.universe.tokens)[day.market.instrument]
        return Replay(session, told, replace(day.market, instrument=index))


class Died(Exception):
    """The feed's process ended."""


class MemoryFeed:
    """Where a feed speaks: what it has not flushed dies with it."""

    def __init__(self, log: MemoryLog, lives: int | None = None) -> None:
        self.log = log
        self.unflushed: list[tuple[str, int, bytes, list[tuple[str, bytes]]]] = []
        self.most_unflushed = 0
        self._lives = lives

    def say(self, event: Event, stamp: Stamp | None = None) -> None:
        self._say(topic_of(event), 0, value_of(event), headers_of(event), stamp)

    def say_on(self, topic: Topic, partition: int, event: Event, stamp: Stamp | None = None) -> None:
        self._say(topic, partition, value_of(event), headers_of(event), stamp)

    def say_frame(self, topic: Topic, partition: int, frame: EncodedFrame, stamp: Stamp | None = None) -> None:
        self._say(topic, partition, frame.value, frame.headers, stamp)

    async def flush(self) -> None:
        self.most_unflushed = max(self.most_unflushed, len(self.unflushed))
        for topic, partition, value, headers in self.unflushed:
            self.log.append(topic, partition, value, headers)
        self.unflushed = []

    def _say(
        self,
        topic: Topic,
        partition: int,
        value: bytes,
        headers: list[tuple[str, bytes]],
        stamp: Stamp | None = None,
    ) -> None:
        if self._lives is not None:
            self._lives -= 1
            if self._lives < 0:
                raise Died
        stamped = [] if stamp is None else [stamp.header]
        self.unflushed.append((topic.name, partition, value, [*headers, *stamped]))


def settings_of(partitions: int = 2, **market: object) -> Settings:
    return Settings(kafka=KafkaSettings(market_partitions=partitions), market=MarketSettings.model_validate(market))


def days_of(replays: Sequence[Replay]) -> dict[str, str]:
    """The settings that play these sessions."""
    return {
        "replay_session": replays[0].session.date.isoformat(),
        "replay_through": replays[-1].session.date.isoformat(),
    }


def stored(records: Sequence[Received], kept: slice = slice(None)) -> list[StoredRecord]:
    return [StoredRecord(r.topic, r.partition, r.offset, 0, r.key, r.value, tuple(r.headers)) for r in records[kept]]


def told_on(log: MemoryLog) -> MarketSessions:
    sessions = MarketSessions(KafkaSettings())
    for record in stored(log.partitions[MARKET_SESSIONS.name, 0]):
        sessions.take(record)
    return sessions


async def ends_on(log: MemoryLog, topic: Topic, sessions: MarketSessions) -> dict[int, LogEnd]:
    found = {}
    for partition in range(log.market_partitions):
        records = log.partitions[topic.name, partition]

        async def read(first: int, end: int, records: Sequence[Received] = records) -> AsyncIterator[StoredRecord]:
            for record in stored(records, slice(first, end)):
                yield record

        end = await newest_end(0, len(records), read, sessions)
        if end is not None:
            found[partition] = end
    return found


async def live(
    market: GivenMarket,
    settings: Settings,
    log: MemoryLog,
    *,
    lives: int | None = None,
    stop: asyncio.Event | None = None,
    progress: Progress | None = None,
    times: FrameTimes | None = None,
) -> bool:
    """One life of the feed: it finds where the log ends and goes on; ``lives`` is how many records it can say."""
    sessions, topic = told_on(log), market_topic(settings.market.feed)
    if (former := sessions.feed) is not None:
        ends = await ends_on(log, market_topic(former.feed), sessions)
        ours = who_feeds(settings, market.sessions())
        refuse_another(ours, former, sessions.newest(), ends, settings.market.take_over)
    ingress = Ingress(
        topic,
        MemoryFeed(log, lives),
        await ends_on(log, topic, sessions),
        settings.kafka.market_partitions,
        sessions.next_number,
    )
    feed = Feed(market, settings, ingress, sessions.opened, former=sessions.feed, times=times)
    return await feed.run(stop or asyncio.Event(), progress)


def said(log: MemoryLog, topic: Topic, partition: int) -> list[Frame | Event]:
    """Frames and events of a partition, in order."""
    found: list[Frame | Event] = []
    for record in log.partitions[topic.name, partition]:
        if dict(record.headers)["event_type"].decode() in FRAME_TOPICS:
            universe = log.universe(universe_digest_of(record.headers))
            assert universe is not None
            found.append(decode_frame(record.value, record.headers, universe))
        else:
            found.append(decode_event(record.value, record.headers))
    return found


def rows_of(market: Ticks | Bars, universe: Universe) -> list[tuple[int, int]]:
    """Token and event time of each row."""
    times = market.event_time_ns if isinstance(market, Ticks) else market.end_ns
    return list(zip(universe.tokens[market.instrument].tolist(), np.asarray(times).tolist(), strict=True))


def market_on(log: MemoryLog) -> tuple[dict[tuple[str, int], list[Received]], list[Event]]:
    """What was said of the market and its sessions, whoever played it as part of whatever range."""
    rows = {key: records for key, records in log.partitions.items() if key[0] != MARKET_SESSIONS.name and records}
    return rows, [event for event in log.events(MARKET_SESSIONS) if isinstance(event, SessionOpened)]


SECOND = 1_000_000_000
DAYS = tuple(day_of_ticks(day) for day in range(3))
SHORT = {"frame_ms": 60_000}


async def played(days: Sequence[Replay] = DAYS[:1], partitions: int = 2, **market: object) -> MemoryLog:
    log = MemoryLog(partitions)
    assert await live(GivenMarket(days), settings_of(partitions, **(days_of(days) | market)), log)
    return log


def id_of_feed(log: MemoryLog) -> str:
    """The id by which a person lets another feed go on with this market."""
    feed = told_on(log).feed
    assert feed is not None
    return feed.event_id[:8]


def watermarks(log: MemoryLog, partition: int) -> list[int]:
    return [
        event.watermark_ns if isinstance(event, Frame) else event.event_time_ns
        for event in said(log, MARKET_TICKS, partition)
        if isinstance(event, Frame | Watermark)
    ]
