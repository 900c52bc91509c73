"""Commands, a trading stage that is switched off and on, and kills, anywhere in three sessions: who comes back has the
very account that was there, every command is in force once, and nothing is ordered that a halt holds back.
"""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store.market.types import Session, Ticks
from live_services.domain.account.trading_states import TradingStates
from live_services.domain.basis import Stamp
from live_services.domain.clock import session_end_ns, watermark
from live_services.domain.events import (
    OrderSubmitted,
    PnlSnapshot,
    TradingState,
    TradingStateChanged,
    TradingStateCommanded,
    self_caused,
)
from live_services.domain.frames import encode_tick_frame
from live_services.domain.topics import MARKET_SESSIONS, MARKET_TICKS, broker_topics
from live_services.runtime.chain import Chain
from live_services.runtime.local import MemoryLog, MemoryTask
from live_services.runtime.task import TaskRun
from live_services.services.account import account_chain
from tests.account_world import assert_identity, limits
from tests.live_world import MINUTE, OPEN, SECOND, UNIVERSE, random_walk, signal
from tests.toy_chain import frames_of, session_opened

PAPER = broker_topics("paper")
MINUTES = 20
DAY = 86_400 * SECOND
SESSIONS = [
    Session(dt.date(2026, 1, 5 + day), OPEN + day * DAY, OPEN + day * DAY + MINUTES * MINUTE) for day in range(3)
]
COMMANDS: tuple[tuple[TradingState, bool], ...] = (
    ("HALTED", False),
    ("REDUCING", False),
    ("REDUCING", True),
    ("ACTIVE", False),
)
Append = Callable[[MemoryLog], None]


@cache
def frames(day: int) -> list[tuple[Ticks, int]]:
    walk = random_walk(3, minutes=MINUTES, per_minute=6, seed=day)
    return frames_of(replace(walk, event_time_ns=walk.event_time_ns + day * DAY), MINUTE, SESSIONS[day])


def mark(log: MemoryLog, session: Session, at_ns: int) -> None:
    for topic in (MARKET_TICKS, PAPER.signals_raw):
        log.append_event(topic, 0, watermark(topic, 0, session, at_ns, UNIVERSE.digest))


def proposals(log: MemoryLog, choose: random.Random, seconds: float) -> None:
    for instrument in range(3):
        if choose.random() < 0.3:
            terms: dict[str, Any] = {"stop_inr": 0.4, "target_inr": 0.6} if choose.random() < 0.7 else {}
            terms["expiry_ns"] = OPEN + round(seconds * SECOND) + choose.choice([3, 10, 2_000]) * MINUTE
            terms |= {"strategy": choose.choice("ab"), "product": choose.choice(["MIS", "CNC"])}
            proposed = signal(instrument, seconds, choose.choice(["BUY", "SELL"]), **terms)
            log.append_event(PAPER.signals_raw, 0, proposed)


def minutes_of(choose: random.Random) -> list[Append]:
    """Give what feed and strategies say, a step at a time."""

    def opens(log: MemoryLog, session: Session) -> None:
        log.append_event(MARKET_SESSIONS, 0, session_opened(session, UNIVERSE))
        mark(log, session, session.open_ns)

    def goes_on(log: MemoryLog, day: int, number: int) -> None:
        session, (part, cut) = SESSIONS[day], frames(day)[number]
        log.append(MARKET_TICKS.name, 0, *encode_tick_frame(part, UNIVERSE, number, cut, session))
        if number < MINUTES - 1:
            proposals(log, choose, (cut - OPEN) / SECOND)
            log.append_event(PAPER.signals_raw, 0, watermark(PAPER.signals_raw, 0, session, cut, UNIVERSE.digest))

    steps: list[Append] = []
    for day, session in enumerate(SESSIONS):
        steps.append(partial(opens, session=session))
        steps += [partial(goes_on, day=day, number=number) for number in range(MINUTES)]
        steps.append(partial(mark, session=session, at_ns=session_end_ns(session)))
    return steps


def command(log: MemoryLog, choose: random.Random) -> None:
    state, flatten = choose.choice(COMMANDS)
    commanded = TradingStateCommanded(
        **self_caused("command", str(len(log.partitions[PAPER.commands.name, 0]))),
        broker="paper",
        event_time_ns=1,
        commanded_at_ns=1,
        state=state,
        flatten=flatten,
        strategy=choose.choice([None, "a", "b"]),
        reason="the desk said so",
        commanded_by="asha",
    )
    log.append_event(PAPER.commands, 0, commanded)


def account(run: TaskRun) -> dict[str, Any]:
    """Give all that decides what an account says next."""
    assert run._state is not None
    risk, exchange, portfolio = run._state.of
    books = portfolio.books
    return {
        "at": (run.now_ns, run._answered, run._promised_ns),
        "risk": (sorted(risk._exits), risk._held_back, sorted(risk._proposals), risk.context.config),
        "exchange": (
            exchange.is_on,
            exchange._submitted,
            {k: (n, o.remaining) for k, (n, o) in exchange._live.items()},
        ),
        "orders": {order_id: (order.remaining, order.submitted) for order_id, order in books.orders.items()},
        "books": (books.cash_inr_e4, books.positions, books.strategy_totals(), books.charges_inr_e4, books._gross),
        "keys": (books._taken, books._closing, books._opening),
        "states": (run.trading_states, books.command_offset, portfolio.trading, portfolio.config),
        "marks": [price for price in books.marks.tolist() if price == price],
        "clock": (portfolio.clock._next_ns, portfolio.clock._changed_ns, portfolio.clock._end_ns),
    }


def successor(task: MemoryTask, make: Callable[[], Chain]) -> TaskRun:
    """Run again up to what is committed, and stop there."""
    other = MemoryTask(make, task.log)
    other.committed = dict(task.committed)
    other.kill()
    other.run._issue_commands = lambda: None  # type: ignore[method-assign]  # what it would say next is another matter
    for key, until in task.next.items():
        other.fetch(key, until - other.next[key])
    other.run.step()
    assert other.run.live
    assert [output for output in other.run.take_outputs() if output.event.event_type != "watermark"] == []
    return other.run


def live_through(seed: int) -> MemoryLog:
    choose, log, off = random.Random(seed), MemoryLog(), list[str | None]([None])

    def make() -> Chain:
        return account_chain("paper", MARKET_TICKS, limits(), Stamp(), trading_off=off[0])

    task, steps = MemoryTask(make, log), minutes_of(choose)
    while steps or task.is_behind:
        for _ in range(choose.choice([0, 1, 1, 3])):
            if steps:
                steps.pop(0)(log)
        if steps and choose.random() < 0.3:
            command(log, choose)
        for key in task.next:
            task.fetch(key, choose.randint(0, 5))
        task.step()
        if choose.random() < 0.15:
            off[0] = choose.choice([None, None, "a test"])
            task.kill()
        elif choose.random() < 0.8:
            task.commit()
            if task.run.live and task.committed and choose.random() < 0.2:
                assert account(successor(task, make)) == account(task.run)
    task.step()
    task.commit()
    return log


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 100_000))
def test_whoever_comes_back_has_the_account_that_was_there_and_a_halt_is_a_halt(seed: int) -> None:
    log = live_through(seed)
    changes = [e for e in log.events(PAPER.control) if isinstance(e, TradingStateChanged)]
    assert [e.command_offset for e in changes] == list(range(len(log.partitions[PAPER.commands.name, 0])))
    assert not [topic for topic in log.topics if topic.endswith(".dlq")]
    for snapshot in log.events(PAPER.pnl_snapshots):
        assert isinstance(snapshot, PnlSnapshot)
        assert_identity(snapshot)

    def in_force(before_ns: int) -> TradingStates:
        states = TradingStates()
        for change in changes:
            states = states.after(change.in_force) if change.event_time_ns < before_ns else states
        return states

    orders = [order for order in log.events(PAPER.orders_submitted) if isinstance(order, OrderSubmitted)]
    assert len({order.order_id for order in orders}) == len(orders)
    changed_ns = {change.event_time_ns for change in changes}
    for order in orders:
        if order.event_time_ns not in changed_ns:  # what was in force in that very instant depends on what came first
            strictest = in_force(order.event_time_ns).strictest(order.strategy)
            assert strictest is None or order.reason != "entry"
            halted = strictest is not None and strictest.state == "HALTED"
            assert not halted or order.reason == "bracket"
