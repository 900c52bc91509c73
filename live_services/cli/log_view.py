"""What commands read of the log: backwards, and no further than the question asks."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVar

from live_services.domain.events import AccountOpened, Event, OrderFilled, PnlSnapshot, event_or_none
from live_services.domain.money import paise_text
from live_services.domain.topics import Topic, broker_topics
from live_services.failures import CommandFailed
from live_services.home import require_layout
from live_services.next_steps import to_type
from live_services.settings import Settings
from models_registry.specification import Broker

if TYPE_CHECKING:
    from live_services.adapters.kafka import StoredRecord

_Found = TypeVar("_Found", bound=Event)


class LogBackwards(Protocol):
    """Gives the committed records of a topic, newest first; `newest_first` of `adapters.look_back` on Kafka."""

    def __call__(self, topic: str, /, *, before_ms: int | None = None) -> AsyncGenerator[StoredRecord, None]:
        """Begin at the end, or with what was written up to a time (Kafka's own, wall clock)."""
        ...


def log_backwards(settings: Settings) -> LogBackwards:
    """Give the log of the Kafka that the settings name.

    Raises
    ------
    CommandFailed
        No Kafka is known, or another version wrote what is in the home.
    """
    from live_services.adapters.look_back import newest_first

    require_layout(settings.alpha_panda_home)
    if not settings.kafka.bootstrap_servers:
        raise CommandFailed(f"no Kafka is known: start one with {to_type('up')}, or set KAFKA__BOOTSTRAP_SERVERS")
    return partial(newest_first, settings.kafka)


async def events_backwards(
    log: LogBackwards, topic: Topic, kind: type[_Found], *, containing: str = "", before_ms: int | None = None
) -> AsyncGenerator[tuple[_Found, StoredRecord], None]:
    """Give the events of one kind on a topic, newest first, each with its record; close it if you stop before its end.

    Parameters
    ----------
    containing
        Only records with this text in them are read as events; whatever is no event is left to the dead letters.
    """
    text = containing.encode()
    async with aclosing(log(topic.name, before_ms=before_ms)) as records:
        async for record in records:
            if text not in record.value or ("event_type", b"watermark") in record.headers:
                continue
            event = event_or_none(record.value)
            if isinstance(event, kind):
                yield event, record


async def newest(
    log: LogBackwards,
    topic: Topic,
    kind: type[_Found],
    wanted: Callable[[_Found], bool] = lambda _: True,
    *,
    containing: str = "",
    before_ms: int | None = None,
) -> _Found | None:
    """Give the newest event of a kind, on a topic with one partition, that is wanted; None if there is none."""
    async with aclosing(events_backwards(log, topic, kind, containing=containing, before_ms=before_ms)) as events:
        async for event, _ in events:
            if wanted(event):
                return event
    return None


async def since(log: LogBackwards, topic: Topic, kind: type[_Found], since_ns: int) -> AsyncIterator[_Found]:
    """Give the events of a kind from an event time on, newest first, on a topic with one partition."""
    async with aclosing(events_backwards(log, topic, kind)) as events:
        async for event, _ in events:
            if event.event_time_ns < since_ns:
                return
            yield event


async def all_of(log: LogBackwards, topic: Topic, kind: type[_Found], containing: str = "") -> list[_Found]:
    """Give every event of a kind on a topic, in order of event time."""
    found = [event async for event, _ in events_backwards(log, topic, kind, containing=containing)]
    found.reverse()  # at one time in the order of the log
    return sorted(found, key=lambda event: event.event_time_ns)


@dataclass(frozen=True, slots=True)
class AccountHistory:
    """What an account's trades are made of."""

    events: tuple[Event, ...]
    """Fills and what sessions were opened with, in order of event time, from the first session of which the log still
    has fills; an exit whose entry was dropped with its retention is left out."""
    snapshot: PnlSnapshot | None
    """The newest one."""
    disagreement: str = ""
    """How the fills on the log differ from the account's books; empty if they do not."""


async def account_history(log: LogBackwards, broker: Broker) -> AccountHistory:
    """Read an account's fills, what its sessions were opened with, and its newest snapshot."""
    topics = broker_topics(broker)
    fills = await all_of(log, topics.orders_filled, OrderFilled)
    snapshot = await newest(log, topics.pnl_snapshots, PnlSnapshot)
    if not fills:
        return AccountHistory((), snapshot)
    opened = await all_of(log, topics.control, AccountOpened)
    first = [event for event in opened if event.event_time_ns <= fills[0].event_time_ns][-1:]
    events = sorted(
        [*first, *(e for e in opened if e.event_time_ns > fills[0].event_time_ns), *fills],
        key=lambda event: event.event_time_ns,  # stable: a session is opened before its first fill
    )
    return AccountHistory(tuple(_whole_trades(events)), snapshot, _disagreement(fills, snapshot))


def _disagreement(fills: Sequence[OrderFilled], snapshot: PnlSnapshot | None) -> str:
    """Hold the fills against the books: a snapshot has every fill with an earlier event time in it, and no other."""
    if snapshot is None:
        return ""
    told = [fill for fill in fills if fill.event_time_ns < snapshot.event_time_ns]
    booked, charges = sum(total.fills for total in snapshot.strategies), sum(fill.charges_inr_e4 for fill in told)
    if len(told) == booked and charges == snapshot.charges_inr_e4:
        return ""
    topic = broker_topics(snapshot.broker).orders_filled.name
    if len(told) < booked:
        return f"{topic} holds {len(told):,} of the account's {booked:,} fills: retention has dropped earlier ones"
    return (
        f"ALARM: {topic} holds {len(told):,} fills with charges of {paise_text(charges)}, and the account's books "
        f"{booked:,} with {paise_text(snapshot.charges_inr_e4)}: somebody else wrote there; "
        f"{to_type('status')} says how many records are foreign"
    )


def _whole_trades(events: Sequence[Event]) -> list[Event]:
    """Leave out closing fills of what nothing on the log opened."""
    begun: set[tuple[str, int]] = set()
    whole: list[Event] = []
    for event in events:
        if isinstance(event, AccountOpened):
            begun |= {position.key for position in event.positions}
        elif isinstance(event, OrderFilled):
            key = (event.strategy, event.instrument_token)
            if event.intent == "open":
                begun.add(key)
            elif key not in begun:
                continue
        whole.append(event)
    return whole
