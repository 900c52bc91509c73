"""Ends a process that hangs, so that its successor can go on: nothing is lost, for a commit is whole or is not.

faulthandler waits in a thread of its own that needs no interpreter lock, so it fires whatever the process hangs in: a
loop that spins, a call into C, a server that does not answer. It writes the stacks of all threads before.
"""

from __future__ import annotations

import asyncio
import faulthandler
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

STOP_SECONDS: Final = 4.5
"""From SIGTERM to the end, whatever hangs; under the five that are promised."""
_TURN_SECONDS: Final = 1.0


def stop_on_signals(stop_seconds: float = STOP_SECONDS) -> asyncio.Event:
    """Give an event that SIGINT and SIGTERM set, so long before the process ends; call it inside the running loop.

    The handlers are Python's own, not the loop's: they run also while the loop does not turn.
    """
    stop, loop = asyncio.Event(), asyncio.get_running_loop()

    def asked(*_: object) -> None:
        end_within(stop_seconds)
        loop.call_soon_threadsafe(begin_to_stop)

    def begin_to_stop() -> None:
        end_within(stop_seconds)  # once more: a turn of the loop in between would have put it off
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, asked)
    return stop


def end_within(seconds: float) -> None:
    """Let this process write its stacks and end with 1 after so long, unless it is put off or called off before."""
    faulthandler.dump_traceback_later(seconds, exit=True)


def call_off() -> None:
    """Let this process live."""
    faulthandler.cancel_dump_traceback_later()


@asynccontextmanager
async def watched(stall_seconds: float, stop: asyncio.Event) -> AsyncIterator[None]:
    """End this process when its loop has not turned for so long, as long as the block lasts; `call_off` it afterwards.

    A task that waits for an input turns. Once ``stop`` is set nothing is put off any more; the end of the block does
    not call it off, for the loop's threads are still to end.
    """
    end_within(stall_seconds)
    turning = asyncio.create_task(_turn(stall_seconds, stop), name="watchdog")
    try:
        yield
    finally:
        turning.cancel()
        await asyncio.gather(turning, return_exceptions=True)


async def _turn(stall_seconds: float, stop: asyncio.Event) -> None:
    while not stop.is_set():
        await asyncio.sleep(min(_TURN_SECONDS, stall_seconds / 4))
        if not stop.is_set():
            end_within(stall_seconds)
