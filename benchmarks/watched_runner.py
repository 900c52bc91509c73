"""The strategy runner's own process, with somebody in its loop who notes how long it stood still.

    python -m benchmarks.watched_runner FILE

A line for each time at which the loop came back to its timer a millisecond or more too late: when (seconds since the
epoch), how late (ms), how much of that it waited for a processor that others had, and how much it used one itself (ms;
both on Linux only). What is left it waited for threads of its own process.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from pathlib import Path
from typing import Final

from live_services.adapters.logs import configure_logging
from live_services.composition import keep_loopback_off_the_proxy, read_settings, run_process, runnable
from live_services.runtime.heap import keep_pandas_out
from live_services.runtime.watchdog import stop_on_signals

TICK_SECONDS: Final = 0.001
_NOTED_SECONDS: Final = 0.001


async def note_stalls(file: Path) -> None:
    """Sleep a millisecond at a time, and note what it was more."""
    schedule = Path(f"/proc/self/task/{threading.get_native_id()}/schedstat")
    with file.open("w", buffering=1) as out:
        used, waited = _used_and_waited(schedule)
        while True:
            begun, used_before, waited_before = time.perf_counter(), used, waited
            await asyncio.sleep(TICK_SECONDS)
            late = time.perf_counter() - begun - TICK_SECONDS
            used, waited = _used_and_waited(schedule)
            if late > _NOTED_SECONDS:
                spans = (late, waited - waited_before, used - used_before)
                out.write(" ".join([f"{time.time():.6f}", *(f"{span * 1e3:.3f}" for span in spans)]) + "\n")


def _used_and_waited(schedule: Path) -> tuple[float, float]:
    """Seconds that a thread had a processor, and that it was ready to run while others had them; 0 where nobody counts.

    https://docs.kernel.org/scheduler/sched-stats.html (``/proc/<pid>/schedstat``)
    """
    try:
        used_ns, waited_ns, *_ = schedule.read_bytes().split()
    except OSError:
        return 0.0, 0.0
    return int(used_ns) / 1e9, int(waited_ns) / 1e9


async def main(file: Path) -> None:
    """Run until SIGTERM."""
    keep_loopback_off_the_proxy()
    settings = read_settings()
    keep_pandas_out()
    configure_logging("strategy_runner", settings.alpha_panda_home, settings.logging)
    entry, broker = runnable("strategy_runner", "paper", settings)
    noting = asyncio.create_task(note_stalls(file))
    await run_process(entry, broker, settings, stop_on_signals())
    noting.cancel()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
