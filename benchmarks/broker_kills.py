"""Kafka killed in the middle of commits: how long readers wait once it is back, and whether a record is lost or twice.

``python -m benchmarks.broker_kills --kills 30``. A writer commits numbers and the next number in transactions without
a pause, as a task commits outputs and positions, and is started again as its process would be; a reader that sees what
is committed notes when each number came. A broker that dies with a transaction open holds the readers of its partitions
back until somebody ends that transaction: the writer's successor, or the broker itself when the transaction times out.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from aiokafka import OffsetAndMetadata, TopicPartition
from aiokafka.errors import KafkaError

from live_services.adapters.kafka import (
    KafkaSetupError,
    commit_together,
    committed_offsets,
    create_topics,
    read_committed,
    transactional_producer,
)
from live_services.domain.topics import MARKET_TICKS
from live_services.machine.embedded import kafka_spec, start, stop, wait_ready
from live_services.runtime.running import within
from live_services.settings import KafkaSettings, Settings

TIMEOUT_MS: Final = 10_000
"""Of a transaction, as ``runtime.transaction_timeout_ms`` has it by default."""
_PLACE: Final = TopicPartition(MARKET_TICKS.name, 0)
Record = tuple[str, int, bytes, list[tuple[str, bytes]]]
_GROUP: Final = "broker-kills"
_TOGETHER: Final = 20
_WAIT_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Kill:
    """One kill of the broker."""

    down_seconds: float
    """Until it answered again."""
    stall_seconds: float
    """From then on until a reader saw the next record."""
    numbers: int
    """Seen by then."""


@dataclass(slots=True)
class Outcome:
    """What readers saw."""

    kills: list[Kill] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)

    @property
    def longest_stall_seconds(self) -> float:
        """The longest wait of a reader for a broker that was back."""
        return max((kill.stall_seconds for kill in self.kills), default=0.0)

    @property
    def lost(self) -> int:
        """How many numbers up to the last one nobody saw."""
        return max(self.numbers, default=-1) + 1 - len(set(self.numbers))

    @property
    def twice(self) -> int:
        """How many were seen again."""
        return len(self.numbers) - len(set(self.numbers))


async def kill_in_mid_commit(
    directory: Path, kills: int, *, seed: int = 0, tell: Callable[[Kill], None] = lambda _: None
) -> Outcome:
    """Kill an embedded Kafka so many times while a writer commits.

    Parameters
    ----------
    directory : Path
        For its log.
    kills, seed : int
        How often, and of the moments.
    tell : callable
        Hears of each kill.
    """
    spec, outcome, moments = kafka_spec(directory), Outcome(), random.Random(seed)
    kafka, process = KafkaSettings(bootstrap_servers=spec.endpoint), start(spec)
    try:
        await asyncio.to_thread(wait_ready, spec, process)
        await create_topics(Settings(kafka=kafka), (MARKET_TICKS,))
        async with _working(kafka, outcome):
            for _ in range(kills):
                await _next_record(outcome)
                await asyncio.sleep(moments.uniform(0.2, 1.2))
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                begun, process = time.monotonic(), start(spec)
                await asyncio.to_thread(wait_ready, spec, process)
                back = time.monotonic()
                await _next_record(outcome)
                outcome.kills.append(Kill(back - begun, time.monotonic() - back, len(outcome.numbers)))
                tell(outcome.kills[-1])
    finally:
        stop(process, spec.stop_seconds)
    return outcome


async def _next_record(outcome: Outcome) -> None:
    seen = len(outcome.numbers)
    async with asyncio.timeout(_WAIT_SECONDS):
        while len(outcome.numbers) == seen:
            await asyncio.sleep(0.005)


@asynccontextmanager
async def _working(kafka: KafkaSettings, outcome: Outcome) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        work = [group.create_task(_write(kafka)), group.create_task(_read(kafka, outcome))]
        yield
        for one in work:
            one.cancel()


async def _write(kafka: KafkaSettings) -> None:
    """Commit numbers for ever; a writer that fails is followed by one that goes on from what is committed."""
    while True:
        producer = transactional_producer(kafka, _GROUP, TIMEOUT_MS)
        try:
            async with asyncio.timeout(_WAIT_SECONDS):
                await producer.start()
                committed = await committed_offsets(kafka, _GROUP, [_PLACE])
            number = committed[_PLACE][0] if _PLACE in committed else 0
            while True:
                numbers = range(number, number + _TOGETHER)
                records: list[Record] = [(_PLACE.topic, _PLACE.partition, str(n).encode(), []) for n in numbers]
                async with asyncio.timeout(TIMEOUT_MS / 1000):
                    offsets = {_PLACE: OffsetAndMetadata(numbers.stop, "")}
                    await commit_together(producer, records, offsets, _GROUP)
                number = numbers.stop
        except (KafkaError, KafkaSetupError, TimeoutError):
            await asyncio.sleep(0.2)
        finally:
            await within(5.0, producer.stop())


async def _read(kafka: KafkaSettings, outcome: Outcome) -> None:
    async with read_committed(kafka) as consumer:
        consumer.assign([_PLACE])
        while True:
            for records in (await consumer.getmany(timeout_ms=100)).values():
                outcome.numbers += [int(record.value) for record in records]


def main() -> int:
    """Kill as often as asked, say each, and end with 1 if a reader stalled too long or a record is lost or twice."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.broker_kills", description=__doc__)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    for library in ("aiokafka", "asyncio"):  # which say of every kill what is meant to happen
        logging.getLogger(library).setLevel(logging.CRITICAL)

    def tell(kill: Kill) -> None:
        sys.stdout.write(f"back in {kill.down_seconds:5.2f} s, readers went on {kill.stall_seconds:5.2f} s later\n")
        sys.stdout.flush()

    with tempfile.TemporaryDirectory(prefix="broker-kills-") as directory:
        outcome = asyncio.run(kill_in_mid_commit(Path(directory), asked.kills, seed=asked.seed, tell=tell))
    sys.stdout.write(
        f"{len(outcome.kills)} kills, {len(outcome.numbers)} records, {outcome.lost} lost, {outcome.twice} twice; "
        f"longest stall {outcome.longest_stall_seconds:.2f} s of {TIMEOUT_MS / 1000:.0f} s\n"
    )
    return int(outcome.longest_stall_seconds > TIMEOUT_MS / 1000 or outcome.lost > 0 or outcome.twice > 0)


if __name__ == "__main__":
    sys.exit(main())
