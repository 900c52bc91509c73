from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterable, Iterator

import pytest

from feature_store.market.types import MINUTE_NS, SECOND_NS, Session
from live_services.domain.clock import watermark
from live_services.domain.events import Event, SignalValidated, headers_of, value_of
from live_services.domain.frames import encode_tick_frame
from live_services.domain.log import MarketSlice, Record, TaskId
from live_services.domain.sequence import Stamp
from live_services.domain.topics import MARKET_TICKS
from live_services.runtime import running as running_module
from live_services.runtime.chain import Chain
from live_services.runtime.failures import SlowStep
from live_services.runtime.merge import Source
from live_services.runtime.received import Received
from live_services.runtime.running import Running
from live_services.runtime.task import TaskRun
from tests.toy_chain import (
    OPEN_NS,
    PAPER,
    SESSION,
    UNIVERSE,
    RiskState,
    ToyPortfolio,
    ToyRisk,
    ToyStrategy,
    frames_of,
    toy_signal,
    toy_ticks,
)

MINUTES = 6
DAY = Session(SESSION.date, OPEN_NS, OPEN_NS + MINUTES * MINUTE_NS)


class Slow(ToyStrategy):
    """Computes longer for a minute of the market than a step may without a pause."""

    def handle(self, record: Record, state: object, now_ns: int) -> Iterable[Event]:
        if isinstance(record, MarketSlice):
            ends = time.thread_time() + 0.003
            while time.thread_time() < ends:
                pass
        return super().handle(record, state, now_ns)  # type: ignore[arg-type]


async def test_other_work_has_its_turn_while_a_backlog_of_minutes_is_released() -> None:
    """One partition is whole, the other one silent until its watermark releases everything at once."""
    sources = [Source(MARKET_TICKS.name, partition, 0) for partition in (0, 1)]
    starts = {(MARKET_TICKS.name, partition): 0 for partition in (0, 1)}
    run = TaskRun(
        Chain("toy_strategy", (Slow(),)),
        TaskId("toy_strategy", "shared", 0),
        sources,
        {UNIVERSE.digest: UNIVERSE}.get,
        starts=starts,
    )

    def mark(partition: int, offset: int, at_ns: int) -> None:
        said = watermark(MARKET_TICKS, partition, DAY, at_ns, UNIVERSE.digest)
        run.receive(Received(MARKET_TICKS.name, partition, offset, None, value_of(said), tuple(headers_of(said))))

    running = Running(run, None, None, None, 0, {}, {})  # type: ignore[arg-type]  # no IO in a step
    for partition in (0, 1):
        mark(partition, 0, DAY.open_ns)
    for number, (part, cut_ns) in enumerate(frames_of(toy_ticks(DAY), MINUTE_NS, DAY)):
        frame = encode_tick_frame(part, UNIVERSE, number, cut_ns, DAY)
        run.receive(Received(MARKET_TICKS.name, 0, 1 + number, None, frame.value, tuple(frame.headers)))
    await running.step()
    assert run.now_ns == DAY.open_ns
    mark(1, 1, DAY.close_ns)
    turns = 0

    async def heartbeat() -> None:
        nonlocal turns
        while run.now_ns < DAY.close_ns:
            turns += 1
            await asyncio.sleep(0)

    await asyncio.gather(running.step(), heartbeat())
    assert run.now_ns == DAY.close_ns
    assert turns >= MINUTES - 1


class Where(ToyRisk):
    """Keeps in which thread it works."""

    def __init__(self) -> None:
        self.threads: set[int] = set()

    def handle(self, record: Record, state: RiskState, now_ns: int) -> Iterator[Event]:
        self.threads.add(threading.get_ident())
        return super().handle(record, state, now_ns)


@pytest.mark.parametrize(("proposals", "leaves"), [(10, False), (300, True)])
async def test_an_instant_of_many_proposals_leaves_the_loop_and_comes_to_the_same(proposals: int, leaves: bool) -> None:
    risk, raw = Where(), PAPER.signals_raw
    chain = Chain("toy_account", (risk, ToyPortfolio()))
    task = TaskId("toy_account", "paper", 0)
    sources, starts = [Source(raw.name, 0, 0)], {(raw.name, 0): 0}
    run = TaskRun(chain, task, sources, {UNIVERSE.digest: UNIVERSE}.get, starts=starts)
    running = Running(run, None, None, None, 0, {}, {})  # type: ignore[arg-type]  # no IO in a step
    at_ns = SESSION.open_ns + SECOND_NS
    said = [watermark(raw, 0, SESSION, SESSION.open_ns, UNIVERSE.digest)]
    said += [toy_signal(k % 4, at_ns, k / 1000, 100.0) for k in range(proposals)]
    said += [watermark(raw, 0, SESSION, at_ns + 1, UNIVERSE.digest)]
    for offset, event in enumerate(said):
        headers = (*headers_of(event), Stamp(raw.writer, SESSION.open_ns, offset).header)
        run.receive(Received(raw.name, 0, offset, None, value_of(event), headers))
    await running.step()
    validated = [o.event for o in run.take_outputs() if isinstance(o.event, SignalValidated)]
    assert [one.quantity for one in validated] == list(range(1, proposals + 1))
    assert (risk.threads != {threading.get_ident()}) == leaves


class Asking:
    """Asks once, behind work that is longer than a turn, whether it may go on; it is done the second time."""

    opening, is_crowded = None, True

    def __init__(self) -> None:
        self.answers: list[bool] = []

    def step(self, go_on: Callable[[], bool]) -> bool:
        ends = time.thread_time() + 0.003
        while time.thread_time() < ends:
            pass
        self.answers.append(go_on())
        return len(self.answers) == 2


async def test_a_turn_in_a_thread_ends_by_the_clock_of_that_thread() -> None:
    run = Asking()
    await Running(run, None, None, None, 0, {}, {}).step()  # type: ignore[arg-type]
    assert run.answers == [False, False], "the loop's thread has had more of the processor than the other one"


class Hanging:
    """Never comes to an end by itself."""

    opening, is_crowded, task = None, True, TaskId("account", "paper", 0)

    def __init__(self) -> None:
        self.let_go = threading.Event()

    def step(self, _go_on: Callable[[], bool]) -> bool:
        return self.let_go.wait(30)


async def test_a_step_that_hangs_in_a_thread_ends_the_process_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running_module, "_STEP_SECONDS", 0.05)
    run = Hanging()
    try:
        with pytest.raises(SlowStep, match=r"paper\.account\[0\]"):
            await Running(run, None, None, None, 0, {}, {}).step()  # type: ignore[arg-type]
    finally:
        run.let_go.set()
