"""A real day, as fast as it goes, through the platform's own feed, strategy runner and account on a real Kafka.

    ALPHA_PANDA_TEST_DATA=FOLDER python -m benchmarks.live_day

The day is the last of the ticks in that folder, 930,887 of 62 instruments; the model is trained on real minutes before
it. Measured is from the first record of the session until the account has said that it is over, by the times that
producers put on those records, and what the processes take of the processor meanwhile. Everything shares this machine's
cores, Kafka included.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import psutil
from aiokafka import TopicPartition

from benchmarks.live_desk import BenchDesk, Check, all_of, bench_desk, end
from benchmarks.live_processes import reached_by
from benchmarks.measuring import Figure, at_most, report
from feature_store.market.types import Session
from feature_store.sources.reading import by_session, read_bars, read_ticks
from live_services.adapters.kafka import read_committed
from live_services.chaos.made_desk import MODEL
from live_services.domain.topics import MARKET_TICKS, broker_topics

BARS: Final = "nse_minute_2021-03-26_2021-06-03.parquet"
TICKS: Final = "nse_ticks_2021-05-31_2021-06-03.parquet"
STRATEGIES: Final[tuple[Mapping[str, Any], ...]] = (
    {"name": "momentum", "model": MODEL},
    {"name": "bracketed", "model": MODEL, "priority": 1, "stop_bps": 25, "target_bps": 30},
)
"""Two on one model of a hundred trees, which open on the 2 % of the highest and of the lowest scores."""
TARGET_SECONDS: Final = 12.0
TRAINED_ON: Final = 10
"""Sessions before the day; the features of the live day go on from them too."""
CHAINS: Final = ("strategy_runner", "account", "skew_monitor")
_LONGEST_SECONDS: Final = 300.0
HOW_TO_ADD_DATA: Final = (
    "the real day is left out: ALPHA_PANDA_TEST_DATA names no folder with "
    f"{BARS} and {TICKS}, which the project does not hold"
)


def real_data() -> Path | None:
    """Give the folder of the real files, if it is there."""
    folder = Path(os.environ.get("ALPHA_PANDA_TEST_DATA") or ".")
    return folder if (folder / TICKS).exists() and (folder / BARS).exists() else None


def measure(tell: Callable[[str], None]) -> list[Figure]:
    """Play the day once; nothing without the files."""
    data = real_data()
    if data is None:
        tell(HOW_TO_ADD_DATA)
        return []
    with bench_desk(tell, STRATEGIES) as desk:
        tell("a real day: its market and its model")
        session, ticks = store_real_day(desk, data)
        desk.configure([session], speed=0.0)
        return asyncio.run(_played(desk, session, ticks, tell))


def store_real_day(desk: BenchDesk, data: Path) -> tuple[Session, int]:
    """Put the minutes before the day and the day's ticks into the store, and train; gives the day and its ticks."""
    bars, ticks = read_bars(data / BARS), read_ticks(data / TICKS)
    *_, (session, day) = by_session(ticks.ticks)
    before = [(one, part) for one, part in by_session(bars.bars) if one.date < session.date]
    store = desk.store
    store.write_universe(bars.universe, "NSE")
    for one, part in before:
        store.write_bars(one, bars.universe, part, BARS)
    store.write_ticks(session, ticks.universe, day, TICKS)
    desk.register([one for one, _ in before[-TRAINED_ON:]])
    return session, len(day)


async def _played(desk: BenchDesk, session: Session, ticks: int, tell: Callable[[str], None]) -> list[Figure]:
    tell("a real day: the services start")
    with desk.running({name: desk.argv(name) for name in CHAINS}) as (chains, alive):
        await desk.chains_begin(alive)
        await end(chains.pop("skew_monitor"))  # the feed wants it there once; it is no part of what is measured
        pids = {name: process.pid for name, process in chains.items()} | desk.server_pids()
        before = {name: _spent(pid) for name, pid in pids.items()}
        tell("a real day")
        with desk.running({"market_feed": desk.argv("market_feed")}) as (feeds, fed):
            begun, ended, fills = await _span(desk, session, all_of(alive, fed))
            spent = {name: _spent(pid) - before[name] for name, pid in pids.items()}
            spent["market_feed"] = _spent(feeds["market_feed"].pid) if feeds["market_feed"].poll() is None else 0.0
    whole = ended["account"] - begun
    return [
        at_most(f"a real day of {ticks:,} ticks, feed to books", whole, "s", TARGET_SECONDS),
        Figure("  ticks by second", ticks / whole, "ticks/s"),
        Figure("  fills seen by then", fills, "fills"),
        Figure("  the feed has said it", ended["market_feed"] - begun, "s"),
        Figure("  the strategy runner is through it", ended["strategy_runner"] - begun, "s"),
        *(
            Figure(f"  processor time, {name.replace('_', ' ')}", spent[name], "s")
            for name in ("market_feed", "strategy_runner", "account", "kafka")
            if spent[name]
        ),
    ]


async def _span(desk: BenchDesk, session: Session, check: Check) -> tuple[float, dict[str, float], int]:
    """Give when the session's first record was said, when who had said its last (seconds since the epoch), and how many
    orders were filled meanwhile.
    """
    paper = broker_topics("paper")
    last = {MARKET_TICKS.name: "market_feed", paper.signals_raw.name: "strategy_runner"}
    last |= {paper.pnl_snapshots.name: "account"}
    filled, fills = paper.orders_filled.name, 0
    begun, ended, started = 0.0, dict[str, float](), time.monotonic()
    async with read_committed(desk.settings.kafka) as consumer:
        partitions = [TopicPartition(topic, 0) for topic in (filled, *last)]
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        while len(ended) < len(last):
            check()
            if time.monotonic() - started > _LONGEST_SECONDS:
                raise RuntimeError(f"the day was not over in {_LONGEST_SECONDS:.0f} s; at its end: {list(ended)}")
            for (topic, _), records in (await consumer.getmany(timeout_ms=100)).items():
                if topic == filled:
                    fills += len(records)
                    continue
                if topic == MARKET_TICKS.name:
                    begun = begun or records[0].timestamp / 1e3
                for record in records:
                    if reached_by(record) > session.close_ns:
                        ended.setdefault(last[topic], record.timestamp / 1e3)
    return begun, ended, fills


def _spent(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


if __name__ == "__main__":
    report("live_day", measure, ["aiokafka", "numpy", "numba", "pyarrow", "pydantic"])
