"""Feature rows on their way to the online store: offered at once, written when Redis takes them, never waited for.

At most one block per schema and task waits; a newer one takes its place, and that is counted. A Redis that hangs or is
away costs rows in the online store, and nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, Self, cast

import structlog

from feature_store.features.schema import FeatureSchema
from feature_store.online.blocks import Block
from feature_store.online.store import WRITE_SCRIPT, write_arguments
from live_services.settings import Settings

if TYPE_CHECKING:
    from redis.asyncio import Redis

_log = structlog.get_logger("market_data")

Outcome = Literal["written", "replaced", "failed"]
"""written    it is in the online store.
replaced   a newer block took its place before Redis had taken it.
failed     Redis did not take it in time; it is tried again until a newer one takes its place."""

_TIMEOUT_SECONDS: Final = 2.0  # longer than any answer of a Redis that works, shorter than a bar
_RETRY_SECONDS: Final = 1.0
_LAST_SECONDS: Final = 1.0  # for what still waits when the service stops


class OnlinePublisher:
    """Writes blocks to the online store from a task of its own; an async context manager.

    Parameters
    ----------
    settings : Settings
        With the address of Redis; without one, offers are dropped.
    count : callable
        Called with the outcome of a block; must return at once.
    """

    def __init__(self, settings: Settings, count: Callable[[Outcome], None]) -> None:
        self._url = settings.redis.url.get_secret_value()
        self._count = count
        self._waiting: dict[tuple[str, int], tuple[FeatureSchema, Block]] = {}
        self._offered = asyncio.Event()
        self._writer: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._away = False

    def offer(self, schema: FeatureSchema, block: Block) -> None:
        """Have a block written, unless a newer one of the same task comes first; returns at once, in any thread."""
        if self._loop is None:
            return
        if (schema.hash, block.partition) in self._waiting:
            self._count("replaced")
        self._waiting[schema.hash, block.partition] = (schema, block)
        self._loop.call_soon_threadsafe(self._offered.set)  # a step of many proposals runs in a thread

    async def __aenter__(self) -> Self:
        if self._url:
            self._loop = asyncio.get_running_loop()
            self._writer = asyncio.create_task(self._write_forever(), name="online-features")
            self._writer.add_done_callback(_say_why)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.cancel()
            await asyncio.gather(self._writer, return_exceptions=True)

    async def _write_forever(self) -> None:
        from redis.asyncio import Redis

        client = Redis.from_url(self._url, socket_timeout=_TIMEOUT_SECONDS, socket_connect_timeout=_TIMEOUT_SECONDS)
        try:
            while True:
                await self._offered.wait()
                self._offered.clear()
                if not await self._write_waiting(client):
                    self._offered.set()
                    await asyncio.sleep(_RETRY_SECONDS)
        finally:
            try:
                async with asyncio.timeout(_LAST_SECONDS):
                    await self._write_waiting(client)
            except TimeoutError:
                _log.warning("online_rows_left", blocks=len(self._waiting), reason="Redis did not answer at the stop")
            finally:
                await client.aclose()

    async def _write_waiting(self, client: Redis) -> bool:
        """Write what waits; False if Redis did not take it."""
        from redis.exceptions import RedisError

        for key in list(self._waiting):
            schema, block = self._waiting.pop(key)  # the newest by now; one that comes while Redis answers waits again
            try:
                await _write(client, schema, block)
            except (RedisError, OSError, TimeoutError) as failure:
                self._count("failed")
                if self._waiting.setdefault(key, (schema, block))[1] is not block:
                    self._count("replaced")
                if not self._away:
                    _log.warning("online_store_is_away", failure=str(failure), consequence="no rows there; trading on")
                self._away = True
                return False
            except asyncio.CancelledError:
                self._waiting.setdefault(key, (schema, block))
                raise
            self._count("written")
            if self._away:
                _log.info("online_store_is_back")
            self._away = False
        return True


def _say_why(writer: asyncio.Task[None]) -> None:
    if not writer.cancelled() and (failure := writer.exception()) is not None:
        _log.error("online_store_writer_ended", failure=repr(failure), consequence="no rows there; trading goes on")


async def _write(client: Redis, schema: FeatureSchema, block: Block) -> None:
    described, script_arguments = write_arguments(schema, block)
    async with asyncio.timeout(_TIMEOUT_SECONDS):
        await cast("Any", client.hset(*described))
        await cast("Any", client.eval(WRITE_SCRIPT, 2, *script_arguments))
