"""Options that say how a person's own market files are to be read, and the settings under ``market`` that they are."""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

import typer

from live_services.failures import CommandFailed

ColumnsOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--columns",
        metavar="OURS=THEIRS,…",
        help='Which columns your files have for ours: time=Date,open=O,volume="Total Qty".',
    ),
]
TimeFormatOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--time-format",
        metavar="FORMAT",
        help='How times are written: "%d-%m-%Y %H:%M", or epoch_s, epoch_ms, epoch_us, epoch_ns.',
    ),
]
TimezoneOption: TypeAlias = Annotated[
    str | None,
    typer.Option("--timezone", metavar="ZONE", help="Zone of times that name none: Asia/Kolkata, UTC."),
]
StampOption: TypeAlias = Annotated[
    str | None,
    typer.Option("--stamp", metavar="start|end", help="Whether a bar's time is its start or its end."),
]


def market_settings(
    columns: str | None = None, time_format: str | None = None, timezone: str | None = None, stamp: str | None = None
) -> dict[str, Any]:
    """Turn the options into settings under ``market``; what was not given is not there.

    Parameters
    ----------
    columns : str, optional
        ``OURS=THEIRS``, several with commas between them.
    time_format, timezone, stamp : str, optional
        As `live_services.settings.MarketSettings` takes them.

    Raises
    ------
    CommandFailed
        If one of them cannot be read; the message names the option and what to write.
    """
    from pydantic import ValidationError

    from live_services.settings import MarketSettings

    given: dict[str, Any] = {"columns": _columns(columns)} if columns is not None else {}
    given |= {
        name: value.strip()
        for name, value in (("time_format", time_format), ("timezone", timezone), ("stamp", stamp))
        if value is not None
    }
    if given.get("stamp") not in (None, "start", "end"):
        raise CommandFailed(f"--stamp: bars are not stamped at {stamp!r}; choose start or end")
    try:
        MarketSettings.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        option = str(first["loc"][0]).replace("_", "-")
        raise CommandFailed(f"--{option}: {first['msg'].removeprefix('Value error, ')}") from error
    return given


def _columns(text: str) -> dict[str, str]:
    columns: dict[str, str] = {}
    for part in text.split(","):
        ours, equals, theirs = (piece.strip() for piece in part.partition("="))
        if not (equals and ours and theirs):
            raise CommandFailed(
                f"--columns: {part.strip()!r} is no pair; write OURS=THEIRS, several with commas between them, for "
                "example time=Date,open=O"
            )
        if ours in columns:
            raise CommandFailed(f"--columns: {ours} is there twice, as {columns[ours]!r} and as {theirs!r}")
        columns[ours] = theirs
    return columns
