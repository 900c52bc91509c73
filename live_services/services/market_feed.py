"""Market feed: replays a recorded session onto the market topic, frame by frame. It is the only clock behind it.

Not a `Service`: it has no inputs. It goes on after a restart where the log ends.

    FeedError
    ├── NothingToReplay   the store has no such session
    └── LogIsAhead        the log already holds a later session
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition

from feature_store.market.types import Bars, Session, Ticks, Universe, ist_text
from feature_store.offline.store import OfflineStore
from live_services.adapters.kafka import EventProducer, connection
from live_services.domain.clock import session_end_ns
from live_services.domain.events import Watermark, decode_event
from live_services.domain.frames import FRAME_TOPICS, EncodedFrame, encode_bar_frame, encode_tick_frame
from live_services.domain.log import event_times
from live_services.domain.replay import Cut, cuts_of_session
from live_services.domain.topics import Topic, market_topic
from live_services.settings import KafkaSettings, Settings

_log = structlog.get_logger(__name__)

_MAX_IN_FLIGHT: Final = 256  # records sent and not yet acknowledged; more only fills memory
_LAST_RECORD_SECONDS: Final = 10.0
_LAST_RECORDS: Final = 64  # looked at for a watermark; garbage behind it must not end the feed
_SLEEP_SECONDS: Final = 0.25  # so that a stop is noticed
_YIELD_SECONDS: Final = 0.05  # at full speed the loop must still let others run


class FeedError(Exception):
    """The feed cannot replay; the message says what to do."""


class NothingToReplay(FeedError):
    """The store has no session to replay."""


class LogIsAhead(FeedError):
    """The market topic already holds a later session; event time does not run backwards."""


@dataclass(frozen=True, slots=True)
class Replay:
    """One recorded session."""

    session: Session
    universe: Universe
    market: Ticks | Bars


@dataclass(frozen=True, slots=True)
class FeedProgress:
    """How far a replay is."""

    session: Session
    watermark_ns: int
    rows_sent: int
    rows_total: int
    finished: bool


class FramePort(Protocol):
    """What the feed needs of a producer; `live_services.adapters.kafka.EventProducer` has it."""

    async def produce_watermark(self, topic: Topic, partition: int, session: Session, watermark_ns: int) -> None:
        """Send a watermark behind what was sent before."""
        ...

    async def produce_frame(self, topic: Topic, partition: int, frame: EncodedFrame) -> None:
        """Send a frame behind what was sent before."""
        ...

    async def flush(self) -> None:
        """Wait until everything sent has arrived."""
        ...


def load_replay(settings: Settings) -> Replay:
    """Read the session to replay from the offline store.

    Raises
    ------
    NothingToReplay
        If the store has no ticks (or bars) of that session; lists what it has.
    """
    store = OfflineStore(settings.store_root)
    kind = settings.market.feed
    sessions = {session.date.isoformat(): session for session in store.sessions(kind)}
    wanted = settings.market.replay_session or max(sessions, default="")
    if wanted not in sessions:
        there = f"it has {', '.join(sorted(sessions))}" if sessions else f"it has no {kind}"
        raise NothingToReplay(
            f"the store {settings.store_root} has no {kind} of session {wanted or '(any)'}; {there}. Load market data "
            "first, or set market.replay_session to one of these"
        )
    session = sessions[wanted]
    market = store.read_ticks(session) if kind == "ticks" else store.read_bars([session])
    return Replay(session, store.universe(), market)


async def replay_session(
    replay: Replay,
    settings: Settings,
    producer: FramePort,
    *,
    reached: Mapping[int, tuple[int, int]],
    stop: asyncio.Event,
    progress: Callable[[FeedProgress], None] | None = None,
) -> bool:
    """Send a session, at ``market.speed`` or as fast as the brokers take it.

    Parameters
    ----------
    reached
        By partition: the open and the watermark (nanoseconds) that the log ends with; only what is later is sent.
    stop
        Ends the replay after the current frame.
    progress
        Called after every frame.

    Returns
    -------
    bool
        Whether the session's end was sent.

    Raises
    ------
    LogIsAhead
        If the log already holds a later session.
    """
    session, speed = replay.session, settings.market.speed
    done_until = _done_until(session, reached, settings.kafka.market_partitions)
    started, sent, in_flight, yielded = time.monotonic(), 0, 0, time.monotonic()
    first_ns: int | None = None
    for cut in _cuts(replay, settings):
        due = [p for p, until in enumerate(done_until) if cut.watermark_ns > until]
        sent += cut.rows
        if not due:
            continue
        first_ns = cut.watermark_ns if first_ns is None else first_ns
        if speed > 0:
            await _wait_until(started + (cut.watermark_ns - first_ns) / 1e9 / speed, stop)
        if stop.is_set():
            break
        for partition in due:
            await _send(producer, replay, partition, cut, done_until[partition])
        in_flight += len(due)
        if speed > 0 or in_flight >= _MAX_IN_FLIGHT:
            await producer.flush()
            in_flight = 0
        if time.monotonic() - yielded > _YIELD_SECONDS:
            await asyncio.sleep(0)
            yielded = time.monotonic()
        if progress is not None:
            finished = cut.watermark_ns == session_end_ns(session)
            progress(FeedProgress(session, cut.watermark_ns, sent, len(replay.market), finished))
    await producer.flush()
    return not stop.is_set()


async def run_market_feed(
    settings: Settings,
    stop: asyncio.Event,
    progress: Callable[[FeedProgress], None] | None = None,
    replay: Replay | None = None,
) -> bool:
    """Replay the configured session onto Kafka, from where the log ends; give whether its end was sent.

    Raises
    ------
    FeedError
        If there is nothing to replay or the log is ahead.
    """
    if replay is None:
        replay = await asyncio.to_thread(load_replay, settings)
    topic = market_topic(settings.market.feed)
    reached = await last_watermarks(settings.kafka, topic)
    _log.info("replay_starts", session=str(replay.session.date), rows=len(replay.market), speed=settings.market.speed)
    async with EventProducer(settings.kafka) as producer:
        ended = await replay_session(replay, settings, producer, reached=reached, stop=stop, progress=progress)
    _log.info("replay_ends", session=str(replay.session.date), complete=ended)
    return ended


async def last_watermarks(kafka: KafkaSettings, topic: Topic) -> dict[int, tuple[int, int]]:
    """Read what each partition of a market topic ends with: session open and watermark; empty partitions are absent.

    Raises
    ------
    FeedError
        If Kafka does not give the records, or none of the last ones is a feed's.
    """
    consumer = AIOKafkaConsumer(**connection(kafka), enable_auto_commit=False)
    await consumer.start()
    try:
        partitions = [TopicPartition(topic.name, p) for p in range(topic.partitions(kafka.market_partitions))]
        consumer.assign(partitions)
        begins, ends = await consumer.beginning_offsets(partitions), await consumer.end_offsets(partitions)
        found = {}
        for partition in partitions:
            if ends[partition] > begins[partition]:
                first = max(begins[partition], ends[partition] - _LAST_RECORDS)
                records = await _records(consumer, partition, first, ends[partition])
                found[partition.partition] = _last_watermark(partition, records)
        return found
    finally:
        await consumer.stop()


async def _records(consumer: AIOKafkaConsumer, partition: TopicPartition, first: int, end: int) -> list[Any]:
    consumer.seek(partition, first)
    records: list[Any] = []
    deadline = time.monotonic() + _LAST_RECORD_SECONDS
    while time.monotonic() < deadline:
        records += (await consumer.getmany(partition, timeout_ms=500)).get(partition, ())
        if records and records[-1].offset >= end - 1:  # a feed at work sends more meanwhile
            return records
    raise FeedError(
        f"Kafka did not give offset {end - 1} of {partition.topic}[{partition.partition}] in time; try again"
    )


def _last_watermark(partition: TopicPartition, records: Sequence[Any]) -> tuple[int, int]:
    """Session open and watermark of the last record that is a feed's; the stages bury the others in the DLQ."""
    for record in reversed(records):
        headers = dict(record.headers)
        try:
            if headers.get("event_type", b"").decode() in FRAME_TOPICS:
                return int(headers["session_open_ns"]), int(headers["watermark_ns"])
            event = decode_event(record.value)
        except (ValueError, KeyError):
            continue
        if isinstance(event, Watermark):
            return event.session_open_ns, event.event_time_ns
    raise FeedError(
        f"none of the last {len(records)} records of {partition.topic}[{partition.partition}] is a feed's: only a feed "
        "may write there. Start with an empty Kafka, or remove what does not belong"
    )


def _done_until(session: Session, reached: Mapping[int, tuple[int, int]], partitions: int) -> list[int]:
    for partition, (open_ns, _) in reached.items():
        if open_ns > session.open_ns:
            raise LogIsAhead(
                f"partition {partition} of the market topic already holds the session of {ist_text(open_ns)}, later "
                f"than {session.date}. Event time does not run backwards: replay a later session, or start with an "
                "empty Kafka"
            )
    return [reached[p][1] if p in reached and reached[p][0] == session.open_ns else -1 for p in range(partitions)]


def _cuts(replay: Replay, settings: Settings) -> Iterator[Cut]:
    return cuts_of_session(
        replay.market,
        replay.session,
        replay.universe,
        settings.kafka.market_partitions,
        frame_ms=settings.market.frame_ms,
        paced=settings.market.speed > 0,
    )


async def _send(producer: FramePort, replay: Replay, partition: int, cut: Cut, done_until_ns: int) -> None:
    topic, part = market_topic("ticks" if isinstance(replay.market, Ticks) else "bars"), cut.parts[partition]
    if len(part) and int(event_times(part)[0]) < done_until_ns:  # frames were shorter before a restart
        part = part[event_times(part) >= done_until_ns]
    if not len(part):
        await producer.produce_watermark(topic, partition, replay.session, cut.watermark_ns)
    else:
        arguments = (replay.universe, cut.number, cut.watermark_ns, replay.session)
        frame = encode_tick_frame(part, *arguments) if isinstance(part, Ticks) else encode_bar_frame(part, *arguments)
        await producer.produce_frame(topic, partition, frame)


async def _wait_until(wall: float, stop: asyncio.Event) -> None:
    while not stop.is_set() and (left := wall - time.monotonic()) > 0:
        await asyncio.sleep(min(left, _SLEEP_SECONDS))
