"""What a feed is to play, and whether this market is its to play on."""

from __future__ import annotations

import platform
from collections.abc import Mapping

from feature_store.market.calendar import exchange_in_words
from feature_store.market.types import Session
from live_services.adapters.stored_market import StoredMarket, market_name
from live_services.domain.clock import session_end_ns, session_of
from live_services.domain.events import FeedStarted, SessionOpened
from live_services.domain.feeds import check_claim, feed_started
from live_services.domain.sequence import LogEnd
from live_services.settings import MarketSettings, Settings


class FeedError(Exception):
    """The feed cannot go on; the message says what to do."""


class NothingToReplay(FeedError):
    """The store has no session to replay."""


class AnotherFeed(FeedError):
    """The market is another feed's, which has not ended."""


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


def refuse_another(
    ours: FeedStarted, former: FeedStarted, newest: SessionOpened | None, ends: Mapping[int, LogEnd], take_over: str
) -> None:
    """Raise `AnotherFeed` if this feed may not write the market; ``ends`` are those of the former's topic."""
    whole = newest is None or all(
        ends.get(partition, LogEnd()).reached >= (newest.session_open_ns, session_end_ns(session_of(newest)))
        for partition in range(former.partitions)
    )
    if refusal := check_claim(ours, former, None if whole else newest, newest, take_over):
        raise AnotherFeed(refusal)


def who_feeds(settings: Settings, stored: tuple[Session, ...], at_ns: int = 0, took_over: str = "") -> FeedStarted:
    """Say who the feed of these settings is, and what it plays."""
    market = settings.market
    first = market.replay_session or "the last session stored"
    through = market.replay_through if market.replay_through != market.replay_session else ""
    plays = first + (f" through {through}" if through else "") + (", and what comes after" if market.follow else "")
    chosen = () if market.follow else chosen_sessions(stored, market)
    return feed_started(
        name=market.feed_name or platform.node(),
        home=str(settings.alpha_panda_home.resolve()),
        store=str(settings.store_root.resolve()),
        feed=market.feed,
        frame_ms=market.frame_ms,
        partitions=settings.kafka.market_partitions,
        plays=plays + (f", joined at {market.join_at}" if market.join_at else ""),
        last_session=chosen[-1].date.isoformat() if chosen else "",
        market=market_name(settings),
        calendar=exchange_in_words(),
        at_ns=at_ns,
        took_over=took_over,
    )
