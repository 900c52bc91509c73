"""One process of the live side, as the supervisor starts it: ``python -m live_services.process SERVICE [BROKER]``.

No CLI library is loaded here: a service lives for weeks, and starts in as little time and memory as can be.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence

from live_services.composition import (
    SERVICES,
    ServiceEntry,
    keep_loopback_off_the_proxy,
    read_settings,
    runnable,
)
from live_services.domain.topics import BROKERS
from live_services.messages import expected_failures, message_of
from live_services.settings import Settings
from models_registry.specification import Broker


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the process that the command line names; gives its exit code: 0 it is over, 1 it failed (one line says why).

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
        run(asked.service, asked.broker, read_settings())
    except expected_failures() as problem:
        print(f"error: {message_of(problem)}", file=sys.stderr)  # noqa: T201 (the log of a process begins or ends so)
        return 1
    return 0


def run(service: str, broker: str, settings: Settings) -> None:
    """Run one process of the table in the foreground until SIGINT or SIGTERM.

    Raises
    ------
    CommandFailed
        There is no such process or broker, or the broker is not to run, or the process lacks what it cannot do without.
    """
    from live_services.adapters.logs import configure_logging
    from live_services.preflight.own_needs import require_own_needs

    entry, chosen = runnable(service, broker, settings)
    require_own_needs(entry, settings)
    configure_logging(entry.name)
    asyncio.run(_until_stopped(entry, chosen, settings))


async def _until_stopped(entry: ServiceEntry, broker: Broker, settings: Settings) -> None:
    from live_services.runtime.loop import stop_on_signals

    await entry.run(settings, broker, stop_on_signals())


if __name__ == "__main__":
    sys.exit(main())
