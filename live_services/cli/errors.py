"""What commands print to; and failures as one clear message and an exit code: 0 done, 1 it failed, 2 wrong command
line.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any, Final

import click
import typer
from rich.console import Console
from typer.core import TyperGroup

from live_services.messages import expected_failures, message_of

_FEW: Final = 8
_SUGGESTIONS: Final = 3
_TABLE_WIDTH: Final = 100
out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def wide_enough(console: Console) -> Console:
    """Give a console on which a table of 100 columns cuts no word: a file or a pipe has no width of its own."""
    if console.is_terminal or "COLUMNS" in os.environ or console.width >= _TABLE_WIDTH:
        return console
    return Console(file=console.file, highlight=False, width=_TABLE_WIDTH)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Say which known names are near one that is not known; else all if they are few, else nothing."""
    names = {known_name.lower(): known_name for known_name in known}
    asked = name.lower()
    near = get_close_matches(asked, names, n=_SUGGESTIONS) or [n for n in names if asked in n][:_SUGGESTIONS]
    if near:
        return f"did you mean {' or '.join(names[n] for n in near)}?"
    if not names or len(names) > _FEW:
        return ""
    return f"there {'is' if len(names) == 1 else 'are'} {', '.join(names.values())}"


class ClearGroup(TyperGroup):
    """A command group that says expected failures in words instead of a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; an expected failure becomes a message and exit code 1."""
        try:
            return super().invoke(ctx)
        except (BrokenPipeError, click.ClickException, click.Abort, click.exceptions.Exit):
            raise  # these click ends by itself, with its own exit codes
        except expected_failures() as problem:
            err.print(f"[bold red]error:[/] {_escape(message_of(problem))}", soft_wrap=True)
            raise typer.Exit(1) from problem


class RootGroup(ClearGroup):
    """The group of all commands, in which ``--home DIR`` means the same wherever on the line it stands."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take every ``--home`` to the front; two that differ are refused."""
        homes, rest, words = [], list[str](), iter(args)
        for word in words:
            if word == "--":
                rest += [word, *words]
            elif word == "--home":
                homes += [next(words, None)]
            elif word.startswith("--home="):
                homes += [word.removeprefix("--home=")]
            else:
                rest.append(word)
        named = {home for home in homes if home}
        if len(named) < len(set(homes)):
            raise click.UsageError("--home: name the directory after it")
        if len(named) > 1:
            raise click.UsageError(f"--home is given as {' and as '.join(sorted(named))}; give it once")
        return super().parse_args(ctx, [*(f"--home={home}" for home in named), *rest])


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)
