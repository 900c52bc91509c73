"""The strategy runner's own process, with somebody in its loop who notes how long it stood still.

    python -m benchmarks.watched_runner FILE

A line for each time at which the loop came back to its timer a millisecond or more too late: when (seconds since the
epoch), how late (ms), and how much of that the process waited for a processor that others had (ms; Linux only).
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
        waited = _waited(schedule)
        while True:
            begun = time.perf_counter()
            await asyncio.sleep(TICK_SECONDS)
            late, before, waited = time.perf_counter() - begun - TICK_SECONDS, waited, _waited(schedule)
            if late > _NOTED_SECONDS:
                out.write(f"{time.time():.6f} {late * 1e3:.3f} {(waited - before) * 1e3:.3f}\n")


def _waited(schedule: Path) -> float:
    """Seconds that a thread was ready to run and did not, as others had the processors; 0 where nobody counts it."""
    try:
        return int(schedule.read_bytes().split()[1]) / 1e9
    except OSError:
        return 0.0


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
