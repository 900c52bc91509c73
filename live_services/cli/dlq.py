"""``alpha-panda dlq list | show | replay | drop``: what a person types about records that could not be handled."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from live_services.cli.errors import ClearGroup, out, wide_enough
from live_services.cli.output import JsonOption, facts_table, tell_json
from live_services.composition import read_settings
from live_services.failures import CommandFailed

app = typer.Typer(
    cls=ClearGroup,
    no_args_is_help=True,
    help="Look at records that could not be handled (dead letters), and decide on them.",
)

LetterArgument = Annotated[str, typer.Argument(metavar="ID", help="A letter's id, or its first 6 characters or more.")]
LetterReasonOption = Annotated[str, typer.Option("--reason", help="Why; it is kept with who and when.")]


@app.command("list")
def list_letters(
    topic: Annotated[str | None, typer.Option("--topic", help="Only of records on this topic.")] = None,
    broker: Annotated[str | None, typer.Option("--broker", help="Only of paper, zerodha or shared.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Also those that were decided on.")] = False,
    limit: Annotated[int, typer.Option("--limit", min=1, help="So many at most, the newest.")] = 50,
    as_json: JsonOption = False,
) -> None:
    """List the letters that nobody has decided on, and count them by topic and reason.

    Example: `alpha-panda dlq list --topic paper.signals.raw`
    """
    from live_services.cli.dead_letters import counts_of, letter_record, letters_table, read_letters

    views = asyncio.run(read_letters(read_settings(), topic=topic, broker=broker, decided=everything))
    counts = counts_of(views)
    if as_json:
        tell_json({"counts": counts, "letters": [letter_record(view, with_bytes=False) for view in views[-limit:]]})
        return
    if not views:
        out.print("no dead letter" if everything else "no open dead letter")
        return
    wide_enough(out).print(letters_table(views[-limit:]))
    if len(views) > limit:
        out.print(f"… and {len(views) - limit:,} older ones: --limit {len(views)}")
    for count in counts:
        out.print(f"{count['open']:,} open on {count['topic']}: {count['reason']}", soft_wrap=True)


@app.command()
def show(letter: LetterArgument, as_json: JsonOption = False) -> None:
    """Show a letter: the record's bytes, key, headers and place, why it failed, and what can be done.

    Example: `alpha-panda dlq show 3f9a1c`
    """
    from live_services.cli.dead_letters import find_letter, letter_facts, letter_record

    view = asyncio.run(find_letter(read_settings(), letter))
    if as_json:
        tell_json(letter_record(view))
        return
    from rich.text import Text

    wide_enough(out).print(facts_table((name, Text(said)) for name, said in letter_facts(view)))


@app.command()
def replay(
    letter: LetterArgument,
    reason: LetterReasonOption,
    value: Annotated[
        Path | None, typer.Option("--value", exists=True, dir_okay=False, help="File with the mended record.")
    ] = None,
) -> None:
    """Hand a letter's record in, mended, as a new one at the present watermark; once.

    Only commands can be handed in. A signal, a frame or a fill belongs to a moment that is over: it goes to the record
    of the day, and nothing trades on it.

    Example: `alpha-panda dlq replay 3f9a1c --value mended.json --reason "strategy was misspelt"`
    """
    from live_services.cli.letter_decisions import replay_letter

    mended = value.read_bytes() if value is not None else None
    _tell(asyncio.run(replay_letter(read_settings(), letter, reason, mended)))


@app.command()
def drop(
    reason: LetterReasonOption,
    letter: Annotated[
        str | None, typer.Argument(metavar="ID", help="A letter's id, or its first 6 characters or more.")
    ] = None,
    topic: Annotated[str | None, typer.Option("--topic", help="Every open letter of records on this topic.")] = None,
) -> None:
    """Put a letter aside for good, or after a flood all of a topic; the bytes stay on the log.

    Example: `alpha-panda dlq drop 3f9a1c --reason "a test of the feed"`

    Example: `alpha-panda dlq drop --topic paper.signals.raw --reason "a script wrote there"`
    """
    from live_services.cli.letter_decisions import drop_letter, drop_topic

    if letter is not None and topic is None:
        _tell(asyncio.run(drop_letter(read_settings(), letter, reason)))
    elif topic is not None and letter is None:
        _tell(asyncio.run(drop_topic(read_settings(), topic, reason)))
    else:
        raise CommandFailed("name one letter by its id, or with --topic all that are open of one topic")


def _tell(line: str) -> None:
    out.print(line, soft_wrap=True, markup=False)
