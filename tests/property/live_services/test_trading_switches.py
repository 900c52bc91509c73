"""A trading stage that restarts switch off and on anywhere in a day orders what it was on for, and nothing else."""

from __future__ import annotations

import random
from functools import cache

from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store.market.types import Ticks
from live_services.domain.basis import Stamp
from live_services.domain.clock import session_end_ns, watermark
from live_services.domain.events import OrderFilled, OrderSubmitted, SignalValidated, TradingSwitched
from live_services.domain.frames import encode_tick_frame
from live_services.domain.topics import MARKET_SESSIONS, MARKET_TICKS, broker_topics
from live_services.runtime.chain import Chain
from live_services.runtime.local import MemoryLog, MemoryTask, run_by_chance
from live_services.services.account import account_chain
from tests.account_world import limits
from tests.live_world import MINUTE, OPEN, SESSION, UNIVERSE, random_walk, signal
from tests.toy_chain import frames_of, session_opened

PAPER = broker_topics("paper")
FRAME = MINUTE


@cache
def frames() -> list[tuple[Ticks, int]]:
    return frames_of(random_walk(3, minutes=40, per_minute=10, seed=2), FRAME, SESSION)


def day() -> MemoryLog:
    log = MemoryLog()
    log.append_event(MARKET_SESSIONS, 0, session_opened(SESSION, UNIVERSE))
    for topic in (MARKET_TICKS, PAPER.signals_raw):
        log.append_event(topic, 0, watermark(topic, 0, SESSION, OPEN, UNIVERSE.digest))
    for number, (part, cut) in enumerate(frames()):
        log.append(MARKET_TICKS.name, 0, *encode_tick_frame(part, UNIVERSE, number, cut, SESSION))
    for minute in range(1, 40):
        if minute < 28:  # each holds ten minutes at most, and the last tick comes at forty
            log.append_event(PAPER.signals_raw, 0, signal(minute % 3, 60 * minute, stop_inr=0.4, target_inr=0.6))
        at_ns = OPEN + minute * MINUTE
        log.append_event(PAPER.signals_raw, 0, watermark(PAPER.signals_raw, 0, SESSION, at_ns, UNIVERSE.digest))
    for topic in (MARKET_TICKS, PAPER.signals_raw):
        log.append_event(topic, 0, watermark(topic, 0, SESSION, session_end_ns(SESSION), UNIVERSE.digest))
    return log


def live_through(seed: int, restarts: int) -> tuple[MemoryLog, MemoryTask]:
    choose, log, off = random.Random(seed), day(), [None, "a test"]

    def account() -> Chain:
        return account_chain("paper", MARKET_TICKS, limits(), Stamp(), trading_off=choose.choice(off))

    task = MemoryTask(account, log)
    run_by_chance([task], choose, kills=restarts, kill_share=0.3)
    return log, task


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 8))
def test_what_was_validated_while_it_was_off_is_never_ordered(seed: int, restarts: int) -> None:
    log, task = live_through(seed, restarts)
    switches = [e for e in log.events(PAPER.control) if isinstance(e, TradingSwitched)]
    assert [e.enabled for e in switches[1:]] == [not e.enabled for e in switches[:-1]]
    assert switches[0].event_time_ns == OPEN

    def was_on(at_ns: int) -> bool:
        return [e.enabled for e in switches if e.event_time_ns <= at_ns][-1]

    validated = [e for e in log.events(PAPER.signals_validated) if isinstance(e, SignalValidated)]
    orders = [e for e in log.events(PAPER.orders_submitted) if isinstance(e, OrderSubmitted)]
    assert [e.causation_id for e in orders] == [e.event_id for e in validated if was_on(e.event_time_ns)]
    fills = [e for e in log.events(PAPER.orders_filled) if isinstance(e, OrderFilled)]
    assert len({e.event_id for e in fills}) == len(fills)
    assert not log.events(f"{PAPER.signals_raw.name}.dlq")
    held = task.run._state.of[-1].books  # type: ignore[union-attr]
    left_open = {fill.instrument_token for fill in fills}
    assert {token for _, token in held.positions} <= left_open
    if all(e.enabled for e in switches):
        assert not held.positions
