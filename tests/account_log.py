"""A small account's two sessions on a log that is read backwards, as commands read it."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import AsyncGenerator, Iterable
from functools import cache

from feature_store.market.types import Session
from live_services.adapters.kafka import StoredRecord
from live_services.backtest.engine import Engine, EngineConfig, MarketDay, assignments_at_open
from live_services.cli.log_view import LogBackwards
from live_services.domain.basis import Stamp
from live_services.domain.events import Event, headers_of, topic_of, value_of
from live_services.domain.frames import Headers
from models_registry.specification import StrategySpec
from tests.live_world import OPEN, UNIVERSE, loaded_model, random_walk

SESSIONS = (Session.regular(dt.date(2026, 1, 5)), Session.regular(dt.date(2026, 1, 6)))
STRATEGIES = (
    StrategySpec(name="momentum", stop_bps=30, target_bps=40),
    StrategySpec(name="patient", model="momentum", holding_bars=10),
)
"""One that ends by its stop or target, and one that ends by time; both ask one model."""
MODEL = loaded_model()


@cache
def two_sessions() -> tuple[Event, ...]:
    """Trade 25 minutes of each session; no tick comes after them, so what is open then is carried into the next one."""
    engine, events = Engine(EngineConfig(STRATEGIES, stamp=Stamp("digest", "c0ffee"))), []
    for seed, session in enumerate(SESSIONS, start=4):
        market = random_walk(3, minutes=25, per_minute=20, seed=seed)
        market = dataclasses.replace(market, event_time_ns=market.event_time_ns + (session.open_ns - OPEN))
        runs = assignments_at_open(session, {strategy.name: MODEL for strategy in STRATEGIES})
        events += engine.run(MarketDay(session, UNIVERSE, market, runs))
    return tuple(events)


class Backwards:
    """Events as a Kafka would have them, each with these headers too; ``read`` counts what of each topic was read."""

    def __init__(self, events: Iterable[Event], headers: Headers = ()) -> None:
        self._headers = tuple(headers)
        self._topics: dict[str, list[Event]] = {}
        self.read: dict[str, int] = {}
        for event in events:
            self._topics.setdefault(topic_of(event).name, []).append(event)

    async def __call__(self, topic: str, /, *, before_ms: int | None = None) -> AsyncGenerator[StoredRecord, None]:
        self.read.setdefault(topic, 0)
        for offset, event in reversed([*enumerate(self._topics.get(topic, ()))]):
            written_ms = event.event_time_ns // 1_000_000
            if before_ms is not None and written_ms > before_ms:
                continue
            self.read[topic] += 1
            yield StoredRecord(
                topic, 0, offset, written_ms, None, value_of(event), (*headers_of(event), *self._headers)
            )


def log_of(events: Iterable[Event], headers: Headers = ()) -> LogBackwards:
    return Backwards(events, headers)
