"""Market feed: plays stored sessions onto the market topic, one after another. It is the only clock behind it.

Not a `Service`: it has no inputs. It says who it is before its first record, and a session once, on
``market.sessions``; a session begins with an empty watermark at its open on every partition, and ends with the
watermark one second after its close. After a restart the feed goes on where the log ends. Another feed is refused
before it fences this one; the same feed, started again, fences it.

    FeedError
    ├── NothingToReplay   the store has no such session
    ├── LogIsAhead        the log already holds a later session
    ├── SessionLost       the log ends in the middle of a session that the store does not have
    ├── JoinsTooLate      the feed is to join its session when that is over
    ├── AnotherFeed       this market is another feed's
    └── FeedTakenOver     a feed that was started later writes to this Kafka
"""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from feature_store.market.types import Session, Universe, ist_ns, ist_text
from live_services.adapters.feed_producer import FeedProducer
from live_services.adapters.market_log import log_ends
from live_services.adapters.progress_marks import ProgressMark
from live_services.adapters.sessions import MarketSessions
from live_services.adapters.spans import FeedSpans
from live_services.adapters.stored_market import Replay, StoredMarket
from live_services.domain.clock import session_end_ns, session_of, session_opened
from live_services.domain.events import FeedStarted, SessionOpened
from live_services.domain.feeds import says_the_same, takes_over
from live_services.domain.log import NOTHING, Reached
from live_services.domain.replay import Cut, cuts_of_session
from live_services.domain.topics import market_topic
from live_services.runtime.heap import give_back
from live_services.runtime.ingress import Ingress, IngressTakenOver, fenced_ingress
from live_services.services.feed_plan import FeedError, chosen_sessions, refuse_another, who_feeds
from live_services.settings import Settings

_log = structlog.get_logger("market_data")

_MAX_UNFLUSHED: Final = 32  # records said in one transaction; those behind the feed see none before its end
_SLEEP_SECONDS: Final = 0.25  # so that a stop is noticed
_YIELD_SECONDS: Final = 0.05  # at full speed the loop must still let others run
_LOOK_AGAIN_SECONDS: Final = 2.0  # for the next stored session


class LogIsAhead(FeedError):
    """The market topic already holds a later session; event time does not run backwards."""


class SessionLost(FeedError):
    """The log ends in the middle of a session that the store does not have."""


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
    kafka, topic = settings.kafka, market_topic(settings.market.feed)
    chosen_source = source or StoredMarket(settings)
    stored = await asyncio.to_thread(chosen_source.sessions)
    former = await _check_claim(settings, stored)
    sessions = MarketSessions(kafka)
    producer = FeedProducer(kafka, settings.runtime.transaction_timeout_ms, spans)
    try:
        async with fenced_ingress(kafka, topic, producer, sessions) as ingress:
            if sessions.feed != former:  # another began between the look and the fence
                await _check_claim(settings, stored)
            feed = Feed(chosen_source, settings, ingress, sessions.opened, former=sessions.feed, times=times)
            return await feed.run(stop, progress)
    except IngressTakenOver as cause:
        raise FeedTakenOver(
            "another market feed has begun to write to this Kafka (or a transaction took longer than "
            "runtime.transaction_timeout_ms); one Kafka has one feed: stop one of them, or give it another Kafka"
        ) from cause


async def _check_claim(settings: Settings, stored: tuple[Session, ...]) -> FeedStarted | None:
    """Give the feed that said last who it is, if this one may write after it.

    Raises
    ------
    AnotherFeed
        If it may not; nothing was fenced and nothing written.
    """
    sessions = MarketSessions(settings.kafka)
    await sessions.refresh()
    former = sessions.feed
    if former is not None:
        ends = await log_ends(settings.kafka, market_topic(former.feed), sessions)
        refuse_another(who_feeds(settings, stored), former, sessions.newest(), ends, settings.market.take_over)
    return former


class Feed:
    """One life of the feed.

    Parameters
    ----------
    source
        Where the sessions come from; each is loaded when it is due and dropped after it.
    settings
    ingress
        Its way in; nobody else writes there.
    opened
        By its open: what was told of each session.
    former
        The feed that said last who it is; None if none did.
    times
        Who hears how long frames take; default: nobody.
    """

    def __init__(
        self,
        source: SessionSource,
        settings: Settings,
        ingress: Ingress,
        opened: Mapping[int, SessionOpened],
        *,
        former: FeedStarted | None = None,
        times: FrameTimes | None = None,
    ) -> None:
        self._source = source
        self._settings: Final = settings
        self._market: Final = settings.market
        self._ingress: Final = ingress
        self._partitions: Final = range(len(ingress.ends))
        self._opened = dict(opened)
        self._former: Final = former
        self._stamp_as = ""
        self._times = times
        self._queued: list[float] = []
        """When each frame since the last flush was queued, monotonic seconds."""
        self._progress = ProgressMark(settings.alpha_panda_home, "market_feed")

    async def run(self, stop: asyncio.Event, progress: Progress | None = None) -> bool:
        """Play the range, and what comes after it if the feed is to follow; False if ``stop`` came first."""
        stored = await asyncio.to_thread(self._source.sessions)
        goes_on = self._market.follow and not self._market.replay_session and max(self._reached) > NOTHING
        chosen = () if goes_on else chosen_sessions(stored, self._market)
        joined = chosen[0] if chosen and self._market.join_at else None
        to_play = self._to_play(stored, chosen)
        if to_play or self._market.follow:
            await self._introduce(stored)
        for session in to_play:
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

    async def _introduce(self, stored: tuple[Session, ...]) -> None:
        """Say who this is, if the log does not end with it; a session that the store does not have is ended first."""
        former, at_ns = self._former, max(0, *(watermark_ns for _, watermark_ns in self._reached))
        taken = former.event_id if former is not None and takes_over(self._market.take_over, former) else ""
        us = who_feeds(self._settings, stored, at_ns, taken)
        self._stamp_as = us.source
        if not says_the_same(us, former):
            _log.info("feed_started", name=us.name, plays=us.plays, took_over=us.took_over)
            self._ingress.tell(us)
        self._end_lost(stored, us, taken)
        await self._flush()

    def _end_lost(self, stored: tuple[Session, ...], us: FeedStarted, taken: str) -> None:
        begun = [end for end in self._ingress.ends if not end.is_over]
        told = self._opened.get(max((end.open_ns for end in begun), default=-1))
        if told is None or any(one.open_ns == told.session_open_ns for one in stored):
            return
        if not taken:
            former = f' = "{self._former.event_id[:8]}"' if self._former is not None else ""
            raise SessionLost(
                f"the market topic ends in the middle of the session of {told.session_date}, and {us.store} does not "
                f"have it. Bring it in again, or set market.take_over{former}: the rest of it is told as a gap then, "
                "and the session is ended"
            )
        self._ingress.begin(told)
        for partition in self._partitions:
            end_ns = session_end_ns(session_of(told))
            self._ingress.gap(partition, end_ns, f"{us.name} took over, and its store does not have this session")

    # --- which sessions -------------------------------------------------------------------------------------------

    @property
    def _reached(self) -> tuple[Reached, ...]:
        return tuple(end.reached for end in self._ingress.ends)

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
        replay = await asyncio.to_thread(self._loaded, session, universe)
        _log.info("session_begins", session=str(session.date), rows=len(replay.market), speed=self._market.speed)
        if told is None:
            told = self._opened[session.open_ns] = session_opened(session, replay.universe, self._stamp_as)
            self._ingress.tell(told)
            await self._flush()
        self._ingress.begin(told)
        if join_ns:  # what it says of a partition stands there whole or not: nothing is flushed in between
            for partition in self._partitions:
                self._ingress.gap(partition, join_ns, f"the feed joined at {ist_text(join_ns)}")
        ended = await self._say_cuts(replay, stop, progress)
        _log.info("session_ends", session=str(session.date), complete=ended)
        return ended

    def _loaded(self, session: Session, told: Universe | None) -> Replay:
        """Read a session, and return what reading it took, and the session before, to the system."""
        replay = self._source.load(session, told)
        give_back()
        return replay

    async def _say_cuts(self, replay: Replay, stop: asyncio.Event, progress: Progress | None) -> bool:
        """Say what each partition lacks of a session, at ``market.speed`` or as fast as the brokers take it."""
        session, pace, yielded = replay.session, _Pace(self._market.speed), time.monotonic()
        sent = unflushed = 0
        for cut in self._cuts(replay):
            due = [partition for partition in self._partitions if self._ingress.lacks(partition, cut.watermark_ns)]
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
        await self._ingress.flush()
        self._progress.got_on()
        if self._times is not None:
            now, queued, self._queued = time.monotonic(), self._queued, []
            self._times.frames_acknowledged([now - at for at in queued])

    def _cuts(self, replay: Replay) -> Iterator[Cut]:
        return cuts_of_session(
            replay.market,
            replay.session,
            replay.universe,
            len(self._partitions),
            frame_ms=self._market.frame_ms,
            paced=self._market.speed > 0,
        )

    def _say_cut(self, replay: Replay, partition: int, cut: Cut, due_at: float) -> None:
        part = cut.parts[partition]
        said = self._ingress.rows(partition, part, replay.universe, cut.number, cut.watermark_ns)
        if said and self._times is not None:
            now = time.monotonic()
            self._queued.append(now)
            self._times.frame_queued(now - due_at)


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
