"""Market feed: plays stored sessions onto the market topic, one after another. It is the only clock behind it.

Not a `Service`: it has no inputs. A session is told once on ``market.sessions``, begins with an empty watermark at its
open on every partition, and ends with the watermark one second after its close. After a restart the feed goes on where
the log ends; a second feed fences the first.

    FeedError
    ├── NothingToReplay   the store has no such session
    ├── LogIsAhead        the log already holds a later session
    ├── JoinsTooLate      the feed is to join its session when that is over
    └── FeedTakenOver     another feed writes to this Kafka
"""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import structlog
from aiokafka.errors import InvalidProducerEpoch, KafkaError, ProducerFenced, UnknownError

from feature_store.market.types import Session, Ticks, Universe, ist_ns, ist_text
from live_services.adapters.feed_producer import FeedProducer
from live_services.adapters.market_log import last_watermarks
from live_services.adapters.progress_marks import ProgressMark
from live_services.adapters.sessions import MarketSessions
from live_services.adapters.spans import FeedSpans
from live_services.adapters.stored_market import Replay, StoredMarket
from live_services.domain.clock import market_gap, session_end_ns, session_of, session_opened, watermark
from live_services.domain.events import Event, MarketGap, SessionOpened, Watermark
from live_services.domain.frames import EncodedFrame, encode_bar_frame, encode_tick_frame
from live_services.domain.log import NOTHING, Reached, event_times
from live_services.domain.replay import Cut, cuts_of_session
from live_services.domain.topics import Topic, market_topic
from live_services.settings import MarketSettings, Settings

_log = structlog.get_logger("market_data")

_MAX_UNFLUSHED: Final = 32  # records said in one transaction; those behind the feed see none before its end
_SLEEP_SECONDS: Final = 0.25  # so that a stop is noticed
_YIELD_SECONDS: Final = 0.05  # at full speed the loop must still let others run
_LOOK_AGAIN_SECONDS: Final = 2.0  # for the next stored session


class FeedError(Exception):
    """The feed cannot go on; the message says what to do."""


class NothingToReplay(FeedError):
    """The store has no session to replay."""


class LogIsAhead(FeedError):
    """The market topic already holds a later session; event time does not run backwards."""


class JoinsTooLate(FeedError):
    """The feed is to join its session at a time when that is over."""


class FeedTakenOver(FeedError):
    """Another feed has begun to write to this Kafka."""


@dataclass(frozen=True, slots=True)
class FeedProgress:
    """How far the replay of a session is."""

    session: Session
    watermark_ns: int
    rows_sent: int
    rows_total: int
    finished: bool


class FeedPort(Protocol):
    """Where the feed speaks; `live_services.adapters.feed_producer.FeedProducer` has it."""

    def say(self, event: Event) -> None:
        """Say an event on the one topic it belongs to."""
        ...

    def say_on(self, topic: Topic, partition: int, event: Watermark | MarketGap) -> None:
        """Say how far a partition of the market is, or what of it was missed."""
        ...

    def say_frame(self, topic: Topic, partition: int, frame: EncodedFrame) -> None:
        """Say a frame of the market."""
        ...

    async def flush(self) -> None:
        """Wait until everything that was said is on the log, in that order in each partition."""
        ...


class SessionSource(Protocol):
    """Where sessions come from; `live_services.adapters.stored_market.StoredMarket` has it."""

    def sessions(self) -> tuple[Session, ...]:
        """Give the sessions that can be played now, in order."""
        ...

    def load(self, session: Session, told: Universe | None) -> Replay:
        """Read one of them, with the universe that it was told with if it was."""
        ...


class FrameTimes(Protocol):
    """Who hears how long frames take; `live_services.adapters.metrics.Metrics` does."""

    def frame_queued(self, delay_seconds: float, /) -> None:
        """Take the time from the moment that a frame was due to its being queued."""
        ...

    def frames_acknowledged(self, latencies_seconds: Sequence[float], /) -> None:
        """Take the times from frames' being queued to their being on the log; none if only watermarks went out."""
        ...


Progress = Callable[[FeedProgress], None]


def chosen_sessions(stored: tuple[Session, ...], market: MarketSettings) -> tuple[Session, ...]:
    """Give the sessions of the range ``market.replay_session`` to ``replay_through``, by default the last one stored.

    Raises
    ------
    NothingToReplay
        If none of them is stored, and the feed is not to wait for one (``market.follow``).
    """
    first = market.replay_session or (stored[-1].date.isoformat() if stored else "")
    through = market.replay_through or first
    chosen = tuple(one for one in stored if first <= one.date.isoformat() <= through)
    if not chosen and not market.follow:
        wanted = f"session {first or '(any)'}" if through == first else f"sessions {first} to {through}"
        there = f"it has {', '.join(str(one.date) for one in stored)}" if stored else f"it has no {market.feed}"
        raise NothingToReplay(
            f"the store has no {market.feed} of {wanted}; {there}. Load market data first, or set "
            "market.replay_session to one of these"
        )
    return chosen


def replayed_sessions(settings: Settings) -> tuple[Session, ...]:
    """Give the stored sessions that the feed is to play, in order; raises as `chosen_sessions`."""
    return chosen_sessions(StoredMarket(settings).sessions(), settings.market)


async def run_market_feed(
    settings: Settings,
    stop: asyncio.Event,
    progress: Progress | None = None,
    source: SessionSource | None = None,
    *,
    times: FrameTimes | None = None,
    spans: FeedSpans | None = None,
) -> bool:
    """Play the configured sessions onto Kafka, from where the log ends; give whether the end of the last was said.

    Parameters
    ----------
    source
        Default: the offline store.
    times
        Who hears how long frames take; default: nobody.
    spans
        Who traces them; default: nobody.

    Raises
    ------
    FeedError
        If there is nothing to replay, the log is ahead, or another feed took over.
    """
    sessions, topic = MarketSessions(settings.kafka), market_topic(settings.market.feed)
    try:
        # Entering it fences whoever wrote before, so what is read afterwards is where the log ends.
        async with FeedProducer(settings.kafka, settings.runtime.transaction_timeout_ms, spans) as producer:
            await sessions.refresh()
            reached = await last_watermarks(settings.kafka, topic, sessions.universe)
            feed = Feed(source or StoredMarket(settings), settings, producer, sessions.opened, reached, times=times)
            return await feed.run(stop, progress)
    except KafkaError as cause:
        if not _was_fenced(cause):
            raise
        raise FeedTakenOver(
            "another market feed has begun to write to this Kafka (or a transaction took longer than "
            "runtime.transaction_timeout_ms); one Kafka has one feed: stop one of them, or give it another Kafka"
        ) from cause


def _was_fenced(failure: KafkaError) -> bool:
    """Whether a transaction ended because its id was taken over.

    At its end the brokers may say so by a code that the client does not know (90, PRODUCER_FENCED).
    """
    fenced = ProducerFenced | InvalidProducerEpoch
    return isinstance(failure, fenced | UnknownError) or isinstance(failure.__cause__, fenced | UnknownError)


class Feed:
    """One life of the feed.

    Parameters
    ----------
    source
        Where the sessions come from; each is loaded when it is due and dropped after it.
    settings
    log
        Where it speaks; nobody else does.
    opened
        By its open: what was told of each session.
    reached
        By partition: the open of the session and the watermark that the log ends with; absent for an empty one.
    times
        Who hears how long frames take; default: nobody.
    """

    def __init__(
        self,
        source: SessionSource,
        settings: Settings,
        log: FeedPort,
        opened: Mapping[int, SessionOpened],
        reached: Mapping[int, Reached],
        *,
        times: FrameTimes | None = None,
    ) -> None:
        self._source = source
        self._market: Final = settings.market
        self._topic: Final = market_topic(settings.market.feed)
        self._log = log
        self._opened = dict(opened)
        self._times = times
        self._queued: list[float] = []
        """When each frame since the last flush was queued, monotonic seconds."""
        self._progress = ProgressMark(settings.alpha_panda_home, "market_feed")
        self._reached = [reached.get(p, NOTHING) for p in range(settings.kafka.market_partitions)]

    async def run(self, stop: asyncio.Event, progress: Progress | None = None) -> bool:
        """Play the range, and what comes after it if the feed is to follow; False if ``stop`` came first."""
        stored = await asyncio.to_thread(self._source.sessions)
        goes_on = self._market.follow and not self._market.replay_session and max(self._reached) > NOTHING
        chosen = () if goes_on else chosen_sessions(stored, self._market)
        joined = chosen[0] if chosen and self._market.join_at else None
        for session in self._to_play(stored, chosen):
            join_ns = self._join_ns(session) if session == joined else 0
            if not await self._play(session, join_ns, stop, progress):
                return False
        while self._market.follow and not stop.is_set():
            upcoming = await self._next_stored()
            if upcoming is None:
                await _sleep(_LOOK_AGAIN_SECONDS, stop)
            elif not await self._play(upcoming, 0, stop, progress):
                return False
        return not stop.is_set()

    # --- which sessions -------------------------------------------------------------------------------------------

    def _is_whole(self, session: Session) -> bool:
        """Whether nothing of a session can be added to the log: its end is there, or a later session."""
        return all(reached >= (session.open_ns, session_end_ns(session)) for reached in self._reached)

    def _to_play(self, stored: tuple[Session, ...], chosen: tuple[Session, ...]) -> tuple[Session, ...]:
        """Leave out what the log already holds or is past, and begin with the session in whose middle it ends."""
        begun_ns = max(self._reached)[0]
        left = tuple(one for one in chosen if not self._is_whole(one))
        past = [one for one in chosen if self._is_whole(one) and one.open_ns not in self._opened]
        if past and not left and not self._market.follow:
            raise LogIsAhead(
                f"the market topic already holds the session of {ist_text(begun_ns)}, later than {past[0].date}. Event "
                "time does not run backwards: replay a later session, or start with an empty Kafka"
            )
        if past:
            _log.warning("sessions_left_out", sessions=[str(one.date) for one in past], reason="the log is later")
        if not left and not self._market.follow:
            return ()
        begun = tuple(one for one in stored if one.open_ns == begun_ns and one not in left and not self._is_whole(one))
        return (*begun, *left)

    async def _next_stored(self) -> Session | None:
        """Give the earliest stored session later than all that the log holds, from the first of the range on."""
        begun_ns = max(self._reached)[0]
        for session in await asyncio.to_thread(self._source.sessions):
            if session.open_ns > begun_ns and session.date.isoformat() >= self._market.replay_session:
                return session
        return None

    def _join_ns(self, session: Session) -> int:
        join_ns = ist_ns(session.date, dt.time.fromisoformat(self._market.join_at))
        if join_ns >= session.close_ns:
            raise JoinsTooLate(
                f"market.join_at is {self._market.join_at}, but the session of {session.date} closes at "
                f"{ist_text(session.close_ns)}: set it to a time before that, or leave it out"
            )
        return join_ns

    # --- one session ----------------------------------------------------------------------------------------------

    async def _play(self, session: Session, join_ns: int, stop: asyncio.Event, progress: Progress | None) -> bool:
        told = self._opened.get(session.open_ns)
        if told is not None:
            session = session_of(told)
        universe = None if told is None else Universe.model_construct(instruments=told.instruments)
        replay = await asyncio.to_thread(self._source.load, session, universe)
        _log.info("session_begins", session=str(session.date), rows=len(replay.market), speed=self._market.speed)
        if told is None:
            opening = session_opened(session, replay.universe)
            self._log.say(opening)
            await self._flush()
            self._opened[session.open_ns] = opening
        self._join(replay, join_ns)
        ended = await self._say_cuts(replay, stop, progress)
        _log.info("session_ends", session=str(session.date), complete=ended)
        return ended

    def _join(self, replay: Replay, join_ns: int) -> None:
        """Say what a feed that starts so late has missed; what it says of a partition stands there whole or not."""
        session = replay.session
        for partition, (open_ns, reached_ns) in enumerate(self._reached):
            begin_ns = reached_ns if open_ns == session.open_ns else session.open_ns
            if open_ns > session.open_ns or begin_ns >= join_ns:
                continue
            if open_ns < session.open_ns:
                self._mark(replay, partition, session.open_ns)
            gap = market_gap(self._topic, partition, begin_ns, join_ns, f"the feed joined at {ist_text(join_ns)}")
            self._log.say_on(self._topic, partition, gap)
            self._mark(replay, partition, join_ns)

    async def _say_cuts(self, replay: Replay, stop: asyncio.Event, progress: Progress | None) -> bool:
        """Say what each partition lacks of a session, at ``market.speed`` or as fast as the brokers take it."""
        session, pace, yielded = replay.session, _Pace(self._market.speed), time.monotonic()
        sent = unflushed = 0
        for cut in self._cuts(replay):
            due = [p for p, reached in enumerate(self._reached) if (session.open_ns, cut.watermark_ns) > reached]
            sent += cut.rows
            if not due:
                continue
            due_at = pace.due_at(cut.watermark_ns)
            if due_at > time.monotonic():
                await self._flush()
                unflushed = 0
                await _sleep_until(due_at, stop)
            if stop.is_set():
                break
            for partition in due:
                self._say_cut(replay, partition, cut, due_at)
            unflushed += len(due)
            if unflushed >= _MAX_UNFLUSHED:
                await self._flush()
                unflushed = 0
            if time.monotonic() - yielded > _YIELD_SECONDS:
                await asyncio.sleep(0)
                yielded = time.monotonic()
            if progress is not None:
                finished = cut.watermark_ns == session_end_ns(session)
                progress(FeedProgress(session, cut.watermark_ns, sent, len(replay.market), finished))
        await self._flush()
        return not stop.is_set()

    async def _flush(self) -> None:
        await self._log.flush()
        self._progress.got_on()
        if self._times is not None:
            now, queued, self._queued = time.monotonic(), self._queued, []
            self._times.frames_acknowledged([now - at for at in queued])

    def _cuts(self, replay: Replay) -> Iterator[Cut]:
        return cuts_of_session(
            replay.market,
            replay.session,
            replay.universe,
            len(self._reached),
            frame_ms=self._market.frame_ms,
            paced=self._market.speed > 0,
        )

    def _say_cut(self, replay: Replay, partition: int, cut: Cut, due_at: float) -> None:
        part, (open_ns, reached_ns) = cut.parts[partition], self._reached[partition]
        if len(part) and open_ns == replay.session.open_ns and int(event_times(part)[0]) < reached_ns:
            part = part[event_times(part) >= reached_ns]  # frames were shorter before a restart, or the feed joins late
        if not len(part):
            self._mark(replay, partition, cut.watermark_ns)
            return
        place = (replay.universe, cut.number, cut.watermark_ns, replay.session)
        frame = encode_tick_frame(part, *place) if isinstance(part, Ticks) else encode_bar_frame(part, *place)
        self._log.say_frame(self._topic, partition, frame)
        if self._times is not None:
            now = time.monotonic()
            self._queued.append(now)
            self._times.frame_queued(now - due_at)
        self._reached[partition] = (replay.session.open_ns, cut.watermark_ns)

    def _mark(self, replay: Replay, partition: int, watermark_ns: int) -> None:
        event = watermark(self._topic, partition, replay.session, watermark_ns, replay.universe.digest)
        self._log.say_on(self._topic, partition, event)
        self._reached[partition] = (replay.session.open_ns, watermark_ns)


class _Pace:
    """Event time against the clock on the wall, from the first cut that is said."""

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._begun: tuple[int, float] | None = None

    def due_at(self, watermark_ns: int) -> float:
        """Monotonic seconds at which a cut is due; at full speed, now."""
        if self._speed == 0:
            return time.monotonic()
        if self._begun is None:
            self._begun = (watermark_ns, time.monotonic())
        first_ns, begun = self._begun
        return begun + (watermark_ns - first_ns) / 1e9 / self._speed


async def _sleep(seconds: float, stop: asyncio.Event) -> None:
    await _sleep_until(time.monotonic() + seconds, stop)


async def _sleep_until(due_at: float, stop: asyncio.Event) -> None:
    while not stop.is_set() and (left := due_at - time.monotonic()) > 0:
        await asyncio.sleep(min(left, _SLEEP_SECONDS))
