"""Whose market a log is: one feed writes it, and another is told who does and how to go on. Pure."""

from __future__ import annotations

from typing import Final, Literal

from live_services.domain.events import FeedStarted, SessionOpened, event_id

_WHO: Final = {"name": "feed_name", "home": "home", "store": "store"}
_HOW: Final = {
    "feed": "market.feed",
    "frame_ms": "market.frame_ms",
    "partitions": "kafka.market_partitions",
}
_WHAT: Final = {"plays": "sessions"}
_ID: Final = 8  # characters of an id that a person types


def feed_started(
    *,
    name: str,
    home: str,
    store: str,
    feed: Literal["ticks", "bars"],
    frame_ms: int,
    partitions: int,
    plays: str,
    last_session: str,
    market: str = "",
    calendar: str = "",
    at_ns: int = 0,
    took_over: str = "",
) -> FeedStarted:
    """Say who a feed is and what it plays; ``at_ns`` is how far the market is, 0 if it has not begun."""
    own = event_id("feed_started", name, home, store, feed, frame_ms, partitions, plays, took_over, at_ns)
    return FeedStarted(
        event_id=own,
        correlation_id=own,
        causation_id=own,
        event_time_ns=at_ns,
        name=name,
        home=home,
        store=store,
        feed=feed,
        frame_ms=frame_ms,
        partitions=partitions,
        plays=plays,
        last_session=last_session,
        market=market,
        calendar=calendar,
        took_over=took_over,
    )


def says_the_same(ours: FeedStarted, former: FeedStarted | None) -> bool:
    """Whether a feed is the one that said this last: it goes on without a word."""
    return former is not None and not _differences(ours, former, {**_WHO, **_HOW, **_WHAT})


def takes_over(ours: str, former: FeedStarted | None) -> bool:
    """Whether ``market.take_over`` names this feed."""
    return former is not None and len(ours) >= _ID and former.event_id.startswith(ours)


def check_claim(
    ours: FeedStarted,
    former: FeedStarted | None,
    under_way: SessionOpened | None,
    newest: SessionOpened | None,
    take_over: str,
) -> str:
    """Say why a feed may not write this market, and what to do; empty if it may.

    The feed that wrote last keeps the market until it has played all that it said it would. Its own successor may go on
    to other sessions at any time, and cut otherwise between two sessions; what is another's it may not touch.

    Parameters
    ----------
    under_way
        The session that was told and not ended on every partition, if there is one.
    newest
        The latest session that was told.
    take_over
        ``market.take_over``: what a person decided.
    """
    if former is None or says_the_same(ours, former) or takes_over(take_over, former):
        return ""
    has_ended = bool(former.last_session) and newest is not None and newest.session_date >= former.last_session
    strange, otherwise = _differences(ours, former, _WHO), _differences(ours, former, _HOW)
    if (under_way is None and has_ended) or not strange + (otherwise if under_way is not None else []):
        return ""
    differing = "; ".join(strange + otherwise + _differences(ours, former, _WHAT))
    holds = f"has the session of {under_way.session_date} under way" if under_way is not None else "has not ended"
    return (
        f"the market of this Kafka is that of another feed: {former.name} (home {former.home}) plays {former.plays} "
        f"and {holds}. This one differs in {differing}. Start that one again, give this one a Kafka of its own, or, if "
        f'that one is gone for good, set market.take_over = "{former.event_id[:_ID]}": this one goes on where it ended'
    )


def _differences(ours: FeedStarted, former: FeedStarted, named: dict[str, str]) -> list[str]:
    pairs = [(words, getattr(ours, name), getattr(former, name)) for name, words in named.items()]
    return [f"{words}: {own}, not {other}" for words, own, other in pairs if own != other]
