"""Restart: how long a task that dies at the end of a session takes to be where it was, with a snapshot and without.

    make bench NAME=restart OUT=restart.json

The session has 50 instruments and 1.2 million ticks in frames of 200, more than the 930,887 of a real NSE day that the
platform was measured on. The runner has features and one model of 100 boosted trees. The chains are the platform's own
on a log in memory, and die behind the last frame. What is measured is building the chain, opening the session, and
running it again or restoring it, in seconds of one core (`time.process_time`). A process' start (imports, joining its
group) and what Kafka takes to hand the records over come on top: `benchmarks.restart_day` measures them on a
real day.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from benchmarks.live_processes import (
    FRAME_MS,
    BarsBefore,
    GeneratedTicks,
    OneModel,
    settings_on,
    trained_model,
)
from benchmarks.measuring import Figure, at_most, report
from feature_store.market.types import Ticks
from live_services.domain.basis import Stamp
from live_services.domain.clock import watermark
from live_services.domain.events import SessionOpened, self_caused
from live_services.domain.frames import encode_tick_frame
from live_services.domain.replay import cuts_of_session
from live_services.domain.topics import MARKET_SESSIONS, MARKET_TICKS
from live_services.runtime.chain import Chain
from live_services.runtime.local import MemoryLog, MemoryTask, run_to_the_end
from live_services.services.account import account_chain
from live_services.services.strategy_runner import StrategyRunner

WITHOUT_SECONDS: Final = 15.0
WITH_SECONDS: Final = 5.0
_RECORDS: Final = 50  # taken at a time, as the runtime's loop does


def day() -> tuple[MemoryLog, int]:
    """Put the session on a log, to its last frame; give the number of ticks too."""
    source, log = GeneratedTicks(), MemoryLog()
    (session,) = source.sessions()
    replay = source.load(session)
    universe = replay.universe
    opened = SessionOpened(
        **self_caused("session", session.date.isoformat(), universe.digest),
        event_time_ns=session.open_ns,
        session_date=session.date.isoformat(),
        session_open_ns=session.open_ns,
        session_close_ns=session.close_ns,
        universe_digest=universe.digest,
        instruments=universe.instruments,
    )
    log.append_event(MARKET_SESSIONS, 0, opened)
    log.append_event(MARKET_TICKS, 0, watermark(MARKET_TICKS, 0, session, session.open_ns, universe.digest))
    for cut in cuts_of_session(replay.market, session, universe, 1, frame_ms=FRAME_MS, paced=False):
        part = cut.parts[0]
        if isinstance(part, Ticks) and len(part):
            log.append(MARKET_TICKS.name, 0, *encode_tick_frame(part, universe, cut.number, cut.watermark_ns, session))
    return log, len(replay.market)


def back_in(task: MemoryTask) -> float:
    """Kill a task and give the seconds of a core until it is live and has read all that there is."""
    started = time.process_time()
    task.kill()
    while task.is_behind or not task.run.live:
        for key in task.next:
            task.fetch(key, _RECORDS)
        task.step()
    return time.process_time() - started


def measure(tell: Callable[[str], None]) -> list[Figure]:
    """Let the day happen once, and each task die at its end twice."""
    settings = settings_on("127.0.0.1:9")  # nobody is asked
    tell("a day on a log in memory")
    log, ticks = day()
    model = trained_model()

    def runner() -> Chain:
        service = StrategyRunner(settings, OneModel(model, settings), Stamp(), history=BarsBefore())
        return Chain("strategy_runner", (service,))

    def account() -> Chain:
        return account_chain("paper", MARKET_TICKS, settings.trading.paper, Stamp())

    tasks = {"strategy runner": MemoryTask(runner, log), "account": MemoryTask(account, log)}
    run_to_the_end(list(tasks.values()), _RECORDS)
    figures = []
    for name, task in tasks.items():
        tell(f"the {name} comes back")
        figures.append(at_most(f"{name}, {ticks:,} ticks run again", back_in(task), "s", WITHOUT_SECONDS))
        if not task.keep():
            continue  # it keeps no state yet
        figures.append(at_most(f"{name}, from its snapshot", back_in(task), "s", WITH_SECONDS))
    return figures


if __name__ == "__main__":
    report("restart", measure, ["numpy", "numba", "pyarrow", "pydantic"])
