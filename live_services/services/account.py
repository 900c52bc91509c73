"""An account: its services as the one chain that a task hosts, live and in the engine."""

from __future__ import annotations

from typing import Any, Final

from live_services.domain.basis import Stamp
from live_services.domain.limits import AccountConfig
from live_services.domain.topics import Topic, broker_topics
from live_services.runtime.chain import Chain
from live_services.runtime.service import Service
from live_services.services.paper_trading import PaperTrading
from live_services.services.portfolio_manager import PortfolioManager
from live_services.services.risk_manager import RiskManager
from models_registry.specification import Broker

ACCOUNT: Final = "account"
"""Name of the process and of its consumer group."""


def account_chain(broker: Broker, market: Topic, config: AccountConfig, stamp: Stamp) -> Chain:
    """Build the chain of a broker's account: risk, trading, portfolio.

    Without a gateway a real broker's trading stage is skipped: risk judges, and no order is given.
    """
    topics = broker_topics(broker)
    orders = (topics.orders_submitted, topics.orders_filled, topics.orders_rejected, topics.orders_cancelled)
    risk, portfolio = RiskManager(config, stamp, broker), PortfolioManager(market, config, broker)
    if broker == "paper":
        services: tuple[Service[Any], ...] = (risk, PaperTrading(market, stamp, broker), portfolio)
        return Chain(ACCOUNT, services)
    return Chain(ACCOUNT, (risk, portfolio), silent=orders)
