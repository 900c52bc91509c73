"""What a soak was to say and what it said: ticks as they were played, events as the engine says them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from feature_store.market.types import Session, Ticks
from live_services.adapters.history import StoredHistory
from live_services.adapters.kafka import read_topic
from live_services.adapters.sessions import MarketSessions
from live_services.adapters.stored_market import StoredMarket
from live_services.backtest.engine import Engine, MarketDay, assignments_at_open
from live_services.chaos.log import until_settled
from live_services.chaos.made_desk import MODEL
from live_services.composition import build_registry, engine_config
from live_services.domain.events import Event, Watermark, decode_event, topic_of
from live_services.domain.frames import FRAME_TOPICS, decode_frame, universe_digest_of
from live_services.domain.strategy.loaded_model import LoadedModel
from live_services.domain.topics import MARKET_TICKS, broker_topics
from live_services.services.model_loading import prove
from live_services.settings import Settings


@dataclass(frozen=True, slots=True)
class Compared:
    """A topic's records, or the market's ticks."""

    topic: str
    expected: int
    said: int
    missing: int
    """Expected, and not said so: lost, or said with another content."""
    strange: int
    """Said, and not expected so: twice, or with another content."""


async def compared_with_the_engine(settings: Settings, sessions: Sequence[Session]) -> list[Compared]:
    """Compare what stands on the log with what the same sessions come to without Kafka."""
    paper = broker_topics("paper")
    await until_settled(settings, (MARKET_TICKS, *paper))
    found = [await _ticks(settings, sessions)]
    expected = await asyncio.to_thread(_expected, settings, sessions)
    for topic in paper:
        said = Counter[int]()
        async for record in read_topic(settings.kafka, topic.name):
            event = decode_event(record.value, record.headers)
            if not isinstance(event, Watermark):
                said[_print(event)] += 1
        wanted = expected.get(topic.name, Counter())
        if said or wanted:
            found.append(_compared(topic.name, wanted, said))
    return found


def _expected(settings: Settings, sessions: Sequence[Session]) -> dict[str, Counter[int]]:
    """Run the sessions through the engine; prints of its events by topic."""
    source, history, engine = StoredMarket(settings), StoredHistory(settings), Engine(engine_config(settings))
    models = {strategy.name: _model(settings) for strategy in settings.strategies}
    found: dict[str, Counter[int]] = {}
    for session in sessions:
        replay = source.load(session)
        day = MarketDay(
            session,
            replay.universe,
            replay.market,
            assignments_at_open(session, models),
            history.of(session, replay.universe),
        )
        for event in engine.run(day):
            found.setdefault(topic_of(event).name, Counter())[_print(event)] += 1
    return found


def _model(settings: Settings) -> LoadedModel:
    sidecar, files = build_registry(settings).fetch(MODEL, "1")
    return prove(sidecar, files, "1", settings.market.bar_minutes)


def _print(event: Event) -> int:
    """Stand for an event's id and content, the basis left out, which names the offsets that a decision stood on."""
    return hash(event.model_dump_json(exclude={"basis"}))


def _compared(topic: str, expected: Counter[int], said: Counter[int]) -> Compared:
    missing, strange = (expected - said).total(), (said - expected).total()
    return Compared(topic, expected.total(), said.total(), missing, strange)


async def _ticks(settings: Settings, sessions: Iterable[Session]) -> Compared:
    """Compare the rows on the log, in order, with those that were played."""
    source, told = StoredMarket(settings), MarketSessions(settings.kafka)
    await told.refresh()
    coming = iter(sessions)
    played, at, expected, said, wrong = None, 0, 0, 0, 0
    async for record in read_topic(settings.kafka, MARKET_TICKS.name):
        if dict(record.headers)["event_type"].decode() not in FRAME_TOPICS:
            continue
        universe = told.universe(universe_digest_of(record.headers))
        assert universe is not None, "a frame of a session that was never told"
        table = decode_frame(record.value, record.headers, universe).table
        said += len(table)
        if played is None or at == len(played):
            session = next(coming, None)
            if session is None:
                continue
            market = source.load(session).market
            assert isinstance(market, Ticks)
            played, at, expected = market, 0, expected + len(market)
        wrong += _different(played[at : at + len(table)], table)
        at += len(table)
    rest = [len(source.load(session).market) for session in coming]
    expected += sum(rest)
    missing = max(expected - said, 0) + wrong
    return Compared(MARKET_TICKS.name, expected, said, missing, max(said - expected, 0) + wrong)


def _different(one: Ticks, other: object) -> int:
    assert isinstance(other, Ticks)
    if len(one) != len(other):
        return len(other)
    same = (
        (one.instrument == other.instrument)
        & (one.event_time_ns == other.event_time_ns)
        & (one.last_price == other.last_price)
        & (one.day_volume == other.day_volume)
    )
    return int(np.count_nonzero(~same))
