"""Every topic of the platform, defined once; its events name it (``live_services/domain/events.py``)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Final, Literal, get_args

from models_registry.specification import Broker

BROKERS: Final[tuple[Broker, ...]] = get_args(Broker)

Scope = Literal["shared", "paper", "zerodha"]
"""Whose world an event belongs to: one broker's, or ``shared`` (market data, strategies and models)."""


@dataclass(frozen=True, slots=True)
class Topic:
    """One Kafka topic."""

    name: str
    scope: Scope = "shared"
    per_market_partition: bool = False
    """Whether it has one partition per market partition; all others have exactly one."""
    watermarked: bool = False
    """Whether its producer forwards watermarks, for those who follow it by event time."""
    merged: bool = False
    """Whether a task downstream merges it by event time: each of its watermarks is waited for."""
    ingress: bool = False
    """Whether it comes from outside the log: its records are numbered by the one that brings them in."""
    writer: str = ""
    """Name under which its one writer numbers its records; empty for the market, whose session is told by name, and for
    topics that are not numbered."""

    def partitions(self, market_partitions: int) -> int:
        """Give the number of partitions for a market of so many partitions."""
        return market_partitions if self.per_market_partition else 1

    @property
    def is_numbered(self) -> bool:
        """Whether who reads it believes its one writer only, by the numbering that this one does under its fence."""
        return self.ingress or bool(self.writer)

    @property
    def dlq(self) -> str:
        """Name of the topic where records of this one go that cannot be handled."""
        return f"{self.name}.dlq"


MARKET_SESSIONS: Final = Topic("market.sessions", writer="market_feed")
MARKET_TICKS: Final = Topic("market.ticks", per_market_partition=True, watermarked=True, merged=True, ingress=True)
MARKET_BARS: Final = Topic("market.bars", per_market_partition=True, watermarked=True, merged=True, ingress=True)
STRATEGIES_CONTROL: Final = Topic("strategies.control", per_market_partition=True, writer="strategy_runner")
STRATEGIES_SUMMARY: Final = Topic("strategies.summary")
SIGNALS_SHADOW: Final = Topic("signals.shadow", per_market_partition=True)
FEATURES_SKEW: Final = Topic("features.skew", per_market_partition=True)
MODELS_PROMOTED: Final = Topic("models.promoted")
MODELS_LOADED: Final = Topic("models.loaded")
MODELS_REFUSED: Final = Topic("models.refused")
DLQ_DECISIONS: Final = Topic("dlq.decisions")
SHARED_TOPICS: Final = (
    MARKET_SESSIONS,
    MARKET_TICKS,
    MARKET_BARS,
    STRATEGIES_CONTROL,
    STRATEGIES_SUMMARY,
    SIGNALS_SHADOW,
    FEATURES_SKEW,
    MODELS_PROMOTED,
    MODELS_LOADED,
    MODELS_REFUSED,
    DLQ_DECISIONS,
)

PREFLIGHT_CLOCK: Final = Topic("preflight.clock")
"""Where preflight reads the broker's clock off a record; no event goes there, and nobody consumes it."""


def market_topic(feed: Literal["ticks", "bars"]) -> Topic:
    """Give the topic that the market comes on."""
    return MARKET_TICKS if feed == "ticks" else MARKET_BARS


class BrokerTopics:
    """The topics of one broker's world, each with the broker's name before it."""

    def __init__(self, broker: Broker) -> None:
        def stage(
            name: str,
            *,
            partitioned: bool = False,
            watermarked: bool = False,
            merged: bool = False,
            ingress: bool = False,
            writer: str = "",
        ) -> Topic:
            return Topic(f"{broker}.{name}", broker, partitioned, watermarked or merged, merged, ingress, writer)

        self.signals_raw: Final = stage("signals.raw", partitioned=True, merged=True, writer="strategy_runner")
        self.signals_validated: Final = stage("signals.validated")
        self.signals_rejected: Final = stage("signals.rejected")
        self.orders_submitted: Final = stage("orders.submitted")
        self.orders_filled: Final = stage("orders.filled")
        self.orders_rejected: Final = stage("orders.rejected")
        self.orders_cancelled: Final = stage("orders.cancelled")
        self.pnl_snapshots: Final = stage("pnl.snapshots", watermarked=True)
        self.control: Final = stage("control", writer="account")
        self.commands: Final = stage("commands")
        """What people ask of the broker's chain: read on arrival, and answered on `control`."""
        self.gateway_events: Final = stage("gateway.events", merged=True, ingress=True, writer="gateway")
        """What a broker's gateway answers; an input of the account while a gateway is enabled."""

    def __iter__(self) -> Iterator[Topic]:
        return iter(vars(self).values())


@cache
def broker_topics(broker: Broker) -> BrokerTopics:
    """Give the topics of a broker."""
    return BrokerTopics(broker)


def all_topics(brokers: tuple[Broker, ...] = BROKERS) -> tuple[Topic, ...]:
    """Give the shared topics and those of the brokers named, without the DLQs."""
    return SHARED_TOPICS + tuple(t for broker in brokers for t in broker_topics(broker))


def consumer_group(process: str, scope: Scope) -> str:
    """Name of the consumer group: unique for a process (a chain of services) and a broker."""
    return f"alpha-panda.{scope}.{process}"


def transactional_id(process: str, scope: Scope, partition: int) -> str:
    """Name of a task's producer: one for each (group, task), so that a successor fences its predecessor."""
    return f"{consumer_group(process, scope)}.{partition}"
