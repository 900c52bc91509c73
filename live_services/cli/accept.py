"""``alpha-panda accept``: what a person types; `accepting` carries it out."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from live_services.cli.halts import ReasonOption
from live_services.composition import read_settings


def accept(
    process: Annotated[str, typer.Argument(help="As the message names it: strategy_runner, paper.account, …")],
    reason: ReasonOption,
    partition: Annotated[int, typer.Option("--partition", min=0, help="Of the strategy runner's task.")] = 0,
) -> None:
    """Let stand what a task said in its session, though running it again comes to something else.

    A process that finds such a difference ends, and ends again at every start, until its code and data are as they
    were. This is the other way out: its next start goes on from what it comes to now, behind what was said. It is kept
    on the log with who, when and why.

    Example: `alpha-panda accept paper.account --reason "the fix of the stop price is meant"`
    """
    from live_services.cli.accepting import accept_what_was_said

    asyncio.run(accept_what_was_said(read_settings(), process, reason, partition=partition))
