"""Where what comes from outside is written: by one writer a topic, in transactions, and by nobody else."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

from live_services.adapters.kafka import commit_together, start_producer, transactional_producer
from live_services.adapters.spans import FeedSpans, NoSpans, trace_headers
from live_services.domain.events import Event, Watermark, headers_of, topic_of, value_of
from live_services.domain.frames import EncodedFrame
from live_services.domain.sequence import Stamp
from live_services.domain.topics import Topic, transactional_id
from live_services.settings import KafkaSettings

_THE_FEED: Final = transactional_id("market_feed", "shared", 0)
_STOP_SECONDS: Final = 5.0
_FLUSH_SECONDS: Final = 60.0
"""Longer than a broker takes to restart; a feed that waits longer is better ended and started again."""


class FeedProducer:
    """The one writer of an ingress: an async context manager that fences every other one when it is entered.

    What was said since the last :meth:`flush` goes out in one transaction, so it stands on all partitions or on none.

    Parameters
    ----------
    kafka
    transaction_timeout_ms
    spans
        Who hears of each cut of the market; default: nobody.
    identity
        Transactional id of whoever writes; default: the feed's.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        transaction_timeout_ms: int,
        spans: FeedSpans | None = None,
        *,
        identity: str = _THE_FEED,
    ) -> None:
        self._producer = transactional_producer(kafka, identity, transaction_timeout_ms)
        self._spans: Final = spans or NoSpans()
        self._said: list[tuple[str, int, bytes, list[tuple[str, bytes]]]] = []

    async def __aenter__(self) -> Self:
        await start_producer(self._producer)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(TimeoutError):  # brokers that do not answer must not hold a process that ends
            async with asyncio.timeout(_STOP_SECONDS):
                await self._producer.stop()

    def say(self, event: Event, stamp: Stamp | None = None) -> None:
        """Say an event on the one topic it belongs to."""
        self._said.append((topic_of(event).name, 0, value_of(event), [*headers_of(event), *_stamped(stamp)]))

    def say_on(self, topic: Topic, partition: int, event: Event, stamp: Stamp | None = None) -> None:
        """Say an event on a partition: how far it is, what of it was missed, what came from outside."""
        headers = [*headers_of(event), *_stamped(stamp)]
        if isinstance(event, Watermark):
            headers += trace_headers(self._spans.queued(topic.name, partition, headers))
        self._said.append((topic.name, partition, value_of(event), headers))

    def say_frame(self, topic: Topic, partition: int, frame: EncodedFrame, stamp: Stamp | None = None) -> None:
        """Say a frame of the market."""
        headers = [*frame.headers, *_stamped(stamp)]
        headers += trace_headers(self._spans.queued(topic.name, partition, headers))
        self._said.append((topic.name, partition, frame.value, headers))

    async def flush(self) -> None:
        """Wait until the brokers have everything that was said, in one transaction.

        Raises
        ------
        ProducerFenced, InvalidProducerEpoch
            If another feed was started after this one.
        aiokafka.errors.KafkaError
            If it could not be delivered.
        TimeoutError
            If the brokers do not answer.
        """
        said, self._said = self._said, []
        if said:
            async with asyncio.timeout(_FLUSH_SECONDS):
                await commit_together(self._producer, said, {}, "")
            self._spans.acknowledged()


def _stamped(stamp: Stamp | None) -> list[tuple[str, bytes]]:
    return [] if stamp is None else [stamp.header]
