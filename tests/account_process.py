"""``python -m tests.account_process BOOTSTRAP_SERVERS HOME`` runs the paper account as a process of its own."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from live_services.adapters.logs import configure_logging
from live_services.adapters.sessions import MarketSessions
from live_services.adapters.telemetry import LiveTelemetry
from live_services.domain.basis import Stamp
from live_services.domain.topics import MARKET_TICKS
from live_services.runtime.loop import run_chain
from live_services.runtime.watchdog import stop_on_signals
from live_services.services.account import account_chain
from tests.toy_chain import toy_settings


async def run_account(bootstrap_servers: str, home: Path) -> None:
    settings = toy_settings(bootstrap_servers, home)
    chain = account_chain("paper", MARKET_TICKS, settings.trading.paper, Stamp())
    async with LiveTelemetry(settings, "account", "paper") as telemetry:
        await run_chain(chain, settings, MarketSessions(settings.kafka), telemetry, stop_on_signals())


if __name__ == "__main__":
    configure_logging("account")
    asyncio.run(run_account(sys.argv[1], Path(sys.argv[2])))
