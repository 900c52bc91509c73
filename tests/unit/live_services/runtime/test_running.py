from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable

from feature_store.market.types import MINUTE_NS, Session
from live_services.domain.clock import watermark
from live_services.domain.events import Event, headers_of, value_of
from live_services.domain.frames import encode_tick_frame
from live_services.domain.log import MarketSlice, Record, TaskId
from live_services.domain.topics import MARKET_TICKS
from live_services.runtime.chain import Chain
from live_services.runtime.merge import Source
from live_services.runtime.received import Received
from live_services.runtime.running import Running
from live_services.runtime.task import TaskRun
from tests.toy_chain import OPEN_NS, SESSION, UNIVERSE, ToyStrategy, frames_of, toy_ticks

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
