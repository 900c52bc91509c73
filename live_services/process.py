"""One process of the live side, as the supervisor starts it: ``python -m live_services.process SERVICE [BROKER]``.

No CLI library is loaded here: a service lives for weeks, and starts in as little time and memory as can be.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Sequence
from typing import Final

from live_services.composition import (
    SERVICES,
    ServiceEntry,
    keep_loopback_off_the_proxy,
    read_settings,
    runnable,
)
from live_services.domain.topics import BROKERS
from live_services.home import require_layout
from live_services.messages import expected_failures, message_of
from live_services.runtime.watchdog import call_off, stop_on_signals, watched
from live_services.settings import Settings
from models_registry.specification import Broker

_STOPPED: Final = 128 + signal.SIGTERM


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the process that the command line names; gives its exit code.

    0: it is over. 1: it failed, one line says why. 143: it was asked to stop before it was over.

    Parameters
    ----------
    arguments
        SERVICE and BROKER; default: those of this process.
    """
    parser = argparse.ArgumentParser(prog="python -m live_services.process", description=__doc__)
    parser.add_argument("service", help=", ".join(entry.name for entry in SERVICES))
    parser.add_argument("broker", nargs="?", default="paper", help=f"{' or '.join(BROKERS)}; what is shared has none")
    asked = parser.parse_args(arguments)
    try:
        keep_loopback_off_the_proxy()
        stopped = run(asked.service, asked.broker, read_settings())
    except expected_failures() as problem:
        print(f"error: {message_of(problem)}", file=sys.stderr)  # noqa: T201 (the log of a process begins or ends so)
        return 1
    return _STOPPED if stopped else 0


def run(service: str, broker: str, settings: Settings) -> bool:
    """Run one process of the table in the foreground until SIGINT or SIGTERM; whether one of them ended it.

    It ends within five seconds of them, and by itself when its loop has not turned for ``processes.stall_seconds``.

    Raises
    ------
    CommandFailed
        There is no such process or broker, or the broker is not to run, or another version wrote what is in the home.
    """
    from live_services.adapters.logs import configure_logging

    entry, chosen = runnable(service, broker, settings)
    require_layout(settings.alpha_panda_home)
    configure_logging(entry.name)
    try:
        return asyncio.run(_until_stopped(entry, chosen, settings))
    finally:
        call_off()


async def _until_stopped(entry: ServiceEntry, broker: Broker, settings: Settings) -> bool:
    stop = stop_on_signals()
    async with watched(settings.processes.stall_seconds, stop):
        await entry.run(settings, broker, stop)
    return stop.is_set()


if __name__ == "__main__":
    sys.exit(main())
