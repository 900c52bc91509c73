"""Every topic of the platform, defined once; producers, consumers, ``topics tail`` and tests read this module only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Final, Literal

Broker = Literal["paper", "zerodha"]
BROKERS: Final[tuple[Broker, ...]] = ("paper", "zerodha")

Scope = Literal["shared", "paper", "zerodha"]
"""Whose world an event belongs to: one broker's, or ``shared`` (market data and models)."""


@dataclass(frozen=True, slots=True)
class Topic:
    """One Kafka topic."""

    name: str
    scope: Scope
    per_market_partition: bool
    """Whether it has one partition per market partition; all others have exactly one."""
    watermarked: bool
    """Whether a stage downstream merges it by event time, so that its producer forwards watermarks."""

    def partitions(self, market_partitions: int) -> int:
        """Give the number of partitions for a market of so many partitions."""
        return market_partitions if self.per_market_partition else 1

    @property
    def dlq(self) -> str:
        """Name of the topic where records of this one go that cannot be handled."""
        return f"{self.name}.dlq"


MARKET_TICKS: Final = Topic("market.ticks", "shared", per_market_partition=True, watermarked=True)
MARKET_BARS: Final = Topic("market.bars", "shared", per_market_partition=True, watermarked=True)
MODELS_PROMOTED: Final = Topic("models.promoted", "shared", per_market_partition=False, watermarked=False)
MODELS_LOADED: Final = Topic("models.loaded", "shared", per_market_partition=False, watermarked=False)
MODELS_REFUSED: Final = Topic("models.refused", "shared", per_market_partition=False, watermarked=False)


def market_topic(feed: Literal["ticks", "bars"]) -> Topic:
    """Give the topic that the market comes on."""
    return MARKET_TICKS if feed == "ticks" else MARKET_BARS


@dataclass(frozen=True, slots=True)
class BrokerTopics:
    """The topics of one broker's world."""

    signals_raw: Topic
    signals_validated: Topic
    signals_rejected: Topic
    orders_submitted: Topic
    orders_filled: Topic
    orders_rejected: Topic
    orders_cancelled: Topic
    pnl_snapshots: Topic
    control: Topic
    feature_skew: Topic

    def __iter__(self) -> Iterator[Topic]:
        return (getattr(self, f.name) for f in fields(self))


def broker_topics(broker: Broker) -> BrokerTopics:
    """Give the topics of a broker."""

    def topic(stage: str, *, per_market_partition: bool = False, watermarked: bool = False) -> Topic:
        return Topic(f"{broker}.{stage}", broker, per_market_partition, watermarked)

    return BrokerTopics(
        signals_raw=topic("signals.raw", per_market_partition=True, watermarked=True),
        signals_validated=topic("signals.validated", watermarked=True),
        signals_rejected=topic("signals.rejected"),
        orders_submitted=topic("orders.submitted"),
        orders_filled=topic("orders.filled", watermarked=True),
        orders_rejected=topic("orders.rejected", watermarked=True),
        orders_cancelled=topic("orders.cancelled", watermarked=True),
        pnl_snapshots=topic("pnl.snapshots", watermarked=True),
        control=topic("control", per_market_partition=True),
        feature_skew=topic("features.skew", per_market_partition=True),
    )


SHARED_TOPICS: Final = (MARKET_TICKS, MARKET_BARS, MODELS_PROMOTED, MODELS_LOADED, MODELS_REFUSED)


def all_topics(brokers: tuple[Broker, ...] = BROKERS) -> tuple[Topic, ...]:
    """Give the shared topics and those of the brokers named, without the DLQs."""
    return SHARED_TOPICS + tuple(t for broker in brokers for t in broker_topics(broker))


def consumer_group(service: str, scope: Scope) -> str:
    """Name of the consumer group: unique for a service and a broker."""
    return f"alpha-panda.{scope}.{service}"


def transactional_id(service: str, scope: Scope, partition: int) -> str:
    """Name of a task's producer: one for each (group, task), so that a successor fences its predecessor."""
    return f"{consumer_group(service, scope)}.{partition}"
