"""An account: its services as the one chain that a task hosts, live and in the engine."""

from __future__ import annotations

from typing import Any, Final

from live_services.domain.basis import Stamp
from live_services.domain.limits import AccountConfig
from live_services.domain.topics import Topic, broker_topics
from live_services.runtime.chain import Chain
from live_services.runtime.service import Service
from live_services.services.paper_trading import PaperTrading
from live_services.services.portfolio_manager import Alarm, PortfolioManager
from live_services.services.risk_manager import RiskManager
from models_registry.specification import Broker

ACCOUNT: Final = "account"
"""Name of the process and of its consumer group."""
NO_GATEWAY: Final = "there is no gateway to this broker yet: proposals are judged, and no order is given"
"""Why the trading stage of a real broker is off, enabled or not."""


def account_chain(
    broker: Broker,
    market: Topic,
    config: AccountConfig,
    stamp: Stamp,
    *,
    trading_off: str | None = None,
    alarm: Alarm | None = None,
) -> Chain:
    """Build the chain of a broker's account: risk, trading, portfolio.

    Parameters
    ----------
    broker : Broker
        Of a real one there is no gateway yet: its trading stage is missing.
    market : Topic
        That the market comes on.
    config : AccountConfig
        By which it enters a session.
    stamp : Stamp
        Configuration and code, for what it says.
    trading_off : str, optional
        Why the trading stage gives no orders: risk judges all the same. None: it does.
    alarm : callable, optional
        See `PortfolioManager`.
    """
    topics = broker_topics(broker)
    orders = (topics.orders_submitted, topics.orders_filled, topics.orders_rejected, topics.orders_cancelled)
    if broker != "paper":
        trading_off = trading_off or NO_GATEWAY
    risk = RiskManager(config, stamp, broker)
    portfolio = PortfolioManager(market, config, stamp, broker, trading_off=trading_off, alarm=alarm)
    if broker == "paper":
        services: tuple[Service[Any], ...] = (risk, PaperTrading(market, stamp, broker), portfolio)
        return Chain(ACCOUNT, services)
    return Chain(ACCOUNT, (risk, portfolio), silent=orders)
