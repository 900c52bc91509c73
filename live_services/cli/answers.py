"""What every command to a chain has in common: a reason that is kept with it, and the wait for the chain's answer."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from live_services.cli.log_view import LogBackwards, newest
from live_services.domain.events import LONGEST_REASON, AnswersCommands, Command
from live_services.domain.topics import broker_topics
from live_services.failures import CommandFailed

ANSWER_SECONDS: Final = 5.0
"""So long a command waits for its answer."""
_LOOK_SECONDS: Final = 0.2


def checked_reason(reason: str) -> str:
    """Give a reason as it is kept.

    Raises
    ------
    CommandFailed
        It is empty, or longer than what an event keeps.
    """
    kept = reason.strip()
    if not kept:
        raise CommandFailed("--reason is empty: say why, it is kept with who and when")
    if len(kept) > LONGEST_REASON:
        raise CommandFailed(f"--reason has {len(kept):,} characters; say it in at most {LONGEST_REASON:,}")
    return kept


async def answer_to(log: LogBackwards, command: Command) -> AnswersCommands | None:
    """Wait until the account answers a command; None if it has not in time."""
    control, until = broker_topics(command.broker).control, time.monotonic() + ANSWER_SECONDS
    while True:
        answer = await newest(
            log,
            control,
            AnswersCommands,
            lambda event: event.causation_id == command.event_id,
            containing=command.event_id,
        )
        if answer is not None or time.monotonic() > until:
            return answer
        await asyncio.sleep(_LOOK_SECONDS)
