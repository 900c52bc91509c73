"""One process of the live side, as the supervisor starts it: ``python -m live_services.process SERVICE [BROKER]``.

No CLI library is loaded here: a service lives for weeks, and starts in as little time and memory as can be.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from typing import Final, NoReturn

from live_services.adapters.redaction import redaction, secrets_of
from live_services.composition import (
    SERVICES,
    ServiceEntry,
    keep_loopback_off_the_proxy,
    read_settings,
    run_process,
    runnable,
)
from live_services.domain.topics import BROKERS
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
    secrets: tuple[str, ...] = ()
    try:
        keep_loopback_off_the_proxy()
        settings = read_settings()
        secrets = secrets_of(settings)
        stopped = run(asked.service, asked.broker, settings)
    except expected_failures() as problem:
        said = redaction(secrets)(message_of(problem))
        sys.stderr.write(f"error: {said}\n")  # at once: print's line end comes after it, and the log's thread between
        return 1
    return _STOPPED if stopped else 0


def run(service: str, broker: str, settings: Settings) -> bool:
    """Run one process of the table in the foreground until SIGINT or SIGTERM; whether one of them ended it.

    It ends within five seconds of them, and by itself when its loop has not turned for ``processes.stall_seconds``.

    Raises
    ------
    CommandFailed
        There is no such process or broker, or the broker is not to run, or the process lacks what it cannot do without.
    """
    import structlog

    from live_services.adapters.logs import configure_logging
    from live_services.preflight.own_needs import require_folders, require_own_needs
    from live_services.runtime.heap import keep_pandas_out, prepare_heap

    prepare_heap()
    keep_pandas_out()
    entry, chosen = runnable(service, broker, settings)
    require_folders(settings)
    scope = chosen if entry.scope == "broker" else ""
    configure_logging(
        entry.name, settings.alpha_panda_home, settings.logging, scope=scope, secrets=secrets_of(settings)
    )
    try:
        require_own_needs(entry, settings)
        return asyncio.run(_until_stopped(entry, chosen, settings))
    except expected_failures() as problem:
        structlog.get_logger("error").error("process_failed", reason=message_of(problem))
        raise
    except Exception:
        structlog.get_logger("error").exception("process_crashed")
        raise
    finally:
        call_off()


async def _until_stopped(entry: ServiceEntry, broker: Broker, settings: Settings) -> bool:
    stop = stop_on_signals()
    async with watched(settings.processes.stall_seconds, stop):
        await run_process(entry, broker, settings, stop)
    return stop.is_set()


def _end(code: int) -> NoReturn:
    """End this process; if the disk of its log hangs, without waiting for the thread that writes there."""
    from live_services.adapters.logs import stop_logging

    if not stop_logging():
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    _end(main())
