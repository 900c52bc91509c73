"""What the pipeline validator reads: where the market, its sessions and the consumers stand, and what stands in Redis.

Connections are kept between two looks, and every question has a finite budget.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from aiokafka import AIOKafkaConsumer, OffsetAndMetadata, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from live_services.adapters.kafka import NO_COORDINATOR_YET, KafkaSetupError, NoBroker, connection, read_committed
from live_services.adapters.look_back import records_between
from live_services.adapters.market_log import newest_end
from live_services.adapters.sessions import MarketSessions
from live_services.domain.events import SessionOpened
from live_services.domain.log import Reached
from live_services.domain.topics import MARKET_SESSIONS, Topic
from live_services.settings import KafkaSettings

if TYPE_CHECKING:
    from redis.asyncio import Redis

_LOOK_SECONDS: Final = 10.0
_ASK_AGAIN_SECONDS: Final = 0.25
_STOP_SECONDS: Final = 3.0
_REDIS_TIMEOUT_SECONDS: Final = 2.0
_NEWEST_RECORDS: Final = 4
"""Read of a market partition at a look; one is enough, unless the newest are no feed's or an aborted transaction's."""


class Unavailable(Exception):
    """A server could not be asked; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Committed:
    """What a consumer group has committed of a partition."""

    offset: int
    metadata: str
    end: int
    """Where the partition ends."""


@dataclass(frozen=True, slots=True)
class MarketView:
    """Where the market stands on the log."""

    session: SessionOpened | None
    """The newest that was told."""
    reached: Mapping[int, Reached]
    """By market partition; one without a record of a feed is absent."""
    groups: Mapping[str, Mapping[TopicPartition, Committed]]
    """By consumer group; a group that has not begun has none."""


class KafkaView:
    """Looks at a Kafka; an async context manager.

    Parameters
    ----------
    kafka
    market
        The topic that the market comes on.
    groups
        Consumer groups whose offsets are read.

    Raises
    ------
    KafkaSetupError
        On entering, if no broker answers.
    """

    def __init__(self, kafka: KafkaSettings, market: Topic, groups: Sequence[str]) -> None:
        self._kafka: Final = kafka
        self._groups: Final = groups
        self._partitions: Final = [
            TopicPartition(market.name, p) for p in range(market.partitions(kafka.market_partitions))
        ]
        self._told: Final = TopicPartition(MARKET_SESSIONS.name, 0)
        self._sessions: Final = MarketSessions(kafka)
        self._sessions_end = 0
        self._ends: dict[TopicPartition, int] = {}
        self._reached: dict[int, Reached] = {}
        self._consumer: AIOKafkaConsumer = None
        self._admin: AIOKafkaAdminClient = None

    async def __aenter__(self) -> Self:
        self._consumer, self._admin = read_committed(self._kafka), AIOKafkaAdminClient(**connection(self._kafka))
        try:
            await self._consumer.start()
            await self._admin.start()
        except BaseException as problem:
            await self.__aexit__(None, None, None)
            if isinstance(problem, KafkaError):
                raise NoBroker(f"no Kafka broker answers at {self._kafka.bootstrap_servers}: {problem}") from problem
            raise
        self._consumer.assign([self._told, *self._partitions])
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # aiokafka's own task may be waiting for a broker that is away; its CancelledError is not ours.
        with suppress(TimeoutError):
            async with asyncio.timeout(_STOP_SECONDS):
                await asyncio.gather(self._consumer.stop(), self._admin.close(), return_exceptions=True)

    async def look(self) -> MarketView:
        """Read where everything stands now.

        Raises
        ------
        Unavailable
            If Kafka does not say in time.
        """
        try:
            async with asyncio.timeout(_LOOK_SECONDS):
                return await self._look()
        except TimeoutError:
            raise Unavailable(f"Kafka did not answer within {_LOOK_SECONDS:.0f} s") from None
        except (KafkaError, KafkaSetupError, OSError) as problem:
            raise Unavailable(
                f"Kafka does not answer: {str(problem).rstrip('.') or type(problem).__name__}"
            ) from problem

    async def _look(self) -> MarketView:
        # First what consumers have committed: what they read ends no earlier.
        committed = {group: await self._offsets(group) for group in self._groups}
        asked = {self._told, *self._partitions, *(tp for offsets in committed.values() for tp in offsets)}
        ends = await self._consumer.end_offsets(list(asked))
        if ends[self._told] > self._sessions_end:
            await self._sessions.refresh()
            self._sessions_end = ends[self._told]
        for partition in self._partitions:
            await self._follow(partition, ends[partition])
        groups = {
            group: {
                tp: Committed(said.offset, said.metadata, ends[tp]) for tp, said in offsets.items() if said.offset >= 0
            }
            for group, offsets in committed.items()
        }
        return MarketView(self._sessions.newest(), dict(self._reached), groups)

    async def _offsets(self, group: str) -> Mapping[TopicPartition, OffsetAndMetadata]:
        """Read what a group has committed; a Kafka that is new, or has just restarted, is asked again."""
        while True:
            with suppress(*NO_COORDINATOR_YET):
                found: Mapping[TopicPartition, OffsetAndMetadata] = await self._admin.list_consumer_group_offsets(group)
                return found
            await asyncio.sleep(_ASK_AGAIN_SECONDS)

    async def _follow(self, partition: TopicPartition, end: int) -> None:
        begin = self._ends.get(partition)
        if begin is None or begin > end:  # the first look, or a topic that was made anew
            begin = (await self._consumer.beginning_offsets([partition]))[partition]
        read = partial(records_between, self._consumer, partition)
        found = await newest_end(begin, end, read, self._sessions, first_step=_NEWEST_RECORDS)
        if found is not None:
            self._reached[partition.partition] = found.reached
        self._ends[partition] = end


class RedisView:
    """Reads and writes keys of Redis, until it is closed.

    Parameters
    ----------
    url
        Address; where it is empty there is nothing to ask.
    """

    def __init__(self, url: str) -> None:
        from redis.asyncio import Redis

        wait_s = _REDIS_TIMEOUT_SECONDS
        self._client: Final[Redis | None] = (
            Redis.from_url(url, socket_timeout=wait_s, socket_connect_timeout=wait_s) if url else None
        )

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.aclose()

    @property
    def is_set(self) -> bool:
        """Whether there is a Redis to ask."""
        return self._client is not None

    async def contents(self, keys: Sequence[str]) -> dict[str, bytes | str | None]:
        """Give what stands under each key; None for nothing, and for what is no string.

        Raises
        ------
        Unavailable
            If Redis does not answer in time, or refuses.
        """
        from redis.exceptions import RedisError

        if self._client is None or not keys:
            return {}
        try:
            async with asyncio.timeout(_LOOK_SECONDS):
                return dict(zip(keys, await self._client.mget(keys), strict=True))
        except (RedisError, OSError, TimeoutError) as problem:
            raise Unavailable(f"Redis does not answer: {str(problem).rstrip('.') or 'in time'}") from problem

    async def write(self, values: Mapping[str, str], seconds: int) -> None:
        """Write values that stand for so many seconds.

        Raises
        ------
        Unavailable
            If Redis does not take them in time, or refuses.
        """
        from redis.exceptions import RedisError

        if self._client is None:
            return
        try:
            async with asyncio.timeout(_LOOK_SECONDS), self._client.pipeline(transaction=False) as pipe:
                for key, value in values.items():
                    pipe.set(key, value, ex=seconds)
                await pipe.execute()
        except (RedisError, OSError, TimeoutError) as problem:
            raise Unavailable(
                f"Redis does not take what was found: {str(problem).rstrip('.') or 'in time'}"
            ) from problem
