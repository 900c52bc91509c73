"""What a bad record is, and the market that it is put into."""

from __future__ import annotations

import json
from typing import Any, Final, NamedTuple

from feature_store.market.types import Bars, Session, Ticks
from live_services.domain.clock import session_end_ns
from live_services.domain.events import Event
from live_services.domain.frames import encode_bar_frame, encode_tick_frame
from live_services.domain.topics import Topic, broker_topics
from tests.live_world import MINUTE
from tests.memory_desk import BAR_DAYS, TICK_DAYS, Day

DAYS: Final[dict[str, Day]] = {"ticks": TICK_DAYS[0], "bars": BAR_DAYS[0]}
DAY = TICK_DAYS[0]
SESSION, UNIVERSE = DAY.session, DAY.universe
END = session_end_ns(SESSION)
MINUTES = 20
BEFORE = 10  # minutes of the market that stand before the bad records
AT = SESSION.open_ns + (BEFORE + 1) * MINUTE + 500_000_000
"""Event time of a bad record whose time is not what is bad: later than every watermark before it, also the runner's."""
PAPER, ZERODHA = broker_topics("paper"), broker_topics("zerodha")
GARBAGE: Final[tuple[tuple[str, bytes], ...]] = (
    ("nothing", b""),
    ("bytes", b"\x00\xff\xfe garbage"),
    ("null", b"null"),
    ("a number", b"17"),
    ("an empty object", b"{}"),
    ("half a record", b'{"event_type": "signal.generated", "broker": "paper"'),
    ("an unknown type", b'{"event_type": "nobody.knows"}'),
    ("deep nesting", b"[" * 20_000),
)
LETTER, REJECTED, ALARM, PASSED_OVER = "letter", "rejected", "alarm", "passed over"


class Poison(NamedTuple):
    """A bad record and what it must get."""

    name: str
    topic: Topic
    value: bytes
    gets: str
    """letter       a dead letter on the topic's DLQ, for ``why``.
    rejected     a verdict of risk, by the rule ``why``.
    alarm        `foreign_record`: the account alone writes there, and never reads it.
    passed over  no task reads the topic; who looks at it for a person leaves it out."""
    why: str = ""
    headers: tuple[tuple[str, bytes], ...] = ()
    on: str = "ticks"
    """The desk that it is put before."""
    ours: bool = False
    """Whether the topic's own writer says it, numbered and under its fence; else a stranger does."""

    def __str__(self) -> str:
        return f"{self.topic.name}: {self.name}"


def changed(event: Event, **fields: Any) -> bytes:
    """Write an event with other values, whether they may be so or not; a key with ``__`` reaches into a part of it."""
    said = json.loads(event.model_dump_json())
    for name, value in fields.items():
        *into, last = name.split("__")
        part = said
        for step in into:
            part = part[step]
        if value is ...:
            del part[last]
        else:
            part[last] = value
    return json.dumps(said).encode()


def _market(kind: str) -> Ticks | Bars:
    market = DAYS[kind].market
    times = market.event_time_ns if isinstance(market, Ticks) else market.end_ns
    return market[times <= SESSION.open_ns + MINUTES * MINUTE]


def frame_of(market: Ticks | Bars, number: int, watermark_ns: int, session: Session = SESSION) -> Any:
    """Encode a frame of either kind."""
    encode: Any = encode_tick_frame if isinstance(market, Ticks) else encode_bar_frame
    return encode(market, UNIVERSE, number, watermark_ns, session)


def minute_of(kind: str, minute: int) -> Ticks | Bars:
    """Give what of the market lies in ``[minute, minute + 1)`` (of bars: what ends then)."""
    market = _market(kind)
    times = market.event_time_ns if isinstance(market, Ticks) else market.end_ns
    begin = SESSION.open_ns + minute * MINUTE
    return market[(times >= begin) & (times < begin + MINUTE)]
