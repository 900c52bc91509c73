"""``alpha-panda logs``: the channels' files of a home as one stream, in the order of time."""

from __future__ import annotations

import json
import os
import time
import tomllib
from collections import deque
from collections.abc import Collection, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from pydantic import ValidationError
from pydantic_settings import SettingsError

from live_services.adapters.log_lines import CHANNELS, readable
from live_services.adapters.redaction import secrets_of
from live_services.cli.errors import did_you_mean, err, out
from live_services.composition import SERVICES, read_settings
from live_services.failures import CommandFailed
from live_services.next_steps import of_home
from live_services.replaced_settings import ReplacedSetting
from live_services.settings import SettingsFileError, load_settings

Line = dict[str, Any]
_IDS: Final = ("correlation_id", "event_id", "causation_id", "signal_id", "order_id")
_SHORTEST_ID: Final = 6
_NEWEST: Final = 100
_POLL_SECONDS: Final = 0.25
_OTHERS: Final = ("cli", "dagster", "mlflow")
"""Who logs besides the services."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which lines are asked for."""

    channels: tuple[str, ...] = CHANNELS
    service: str | None = None
    correlation_id: str | None = None
    """The beginning of one, or all of it."""

    def matches(self, line: Line, channel: str) -> bool:
        """Whether a line of a channel's file is asked for; ``error.log`` repeats those of others, which stand there."""
        repeated = channel == "error" and line.get("channel") != "error" and len(self.channels) > 1
        return (
            not repeated
            and self.service in {None, line.get("service")}
            and (self.correlation_id is None or str(line.get("correlation_id", "")).startswith(self.correlation_id))
        )

    @property
    def needles(self) -> tuple[str, ...]:
        """What is in the text of each line that matches: a file is not decoded for what has it not."""
        service = () if self.service is None else (json.dumps(self.service),)
        return (*service, *(() if self.correlation_id is None else (self.correlation_id,)))


@dataclass(frozen=True, slots=True)
class Found:
    """Lines, oldest first."""

    lines: tuple[Line, ...]
    unreadable: int
    """Lines that are no JSON object: somebody else wrote into the files."""


def read_lines(home: Path, wanted: Wanted, newest: int | None) -> Found:
    """Read the lines asked for, of all files that are kept.

    Parameters
    ----------
    home
        State directory of the desk.
    wanted
        Which lines.
    newest
        So many at most, the last ones; None: all.

    Raises
    ------
    CommandFailed
        Nothing was ever logged there.
    """
    logs = home / "logs"
    if not any((logs / f"{channel}.log").exists() for channel in CHANNELS):
        raise CommandFailed(f"nothing was logged on {home} yet: `{of_home(home)} up` starts what logs")
    lines: list[Line] = []
    unreadable = 0
    for channel in wanted.channels:
        left = newest
        for path in _newest_first(logs, channel):
            if left == 0:
                break
            found, bad = _matching(path, channel, wanted, left)
            lines += found
            unreadable += bad
            left = None if left is None else left - len(found)
    lines.sort(key=_time)
    return Found(tuple(lines if newest is None else lines[-newest:]), unreadable)


def correlation_of(home: Path, asked: str) -> str:
    """Give the correlation id of what an id, or its beginning, stands for: a proposal, order, fill or other event.

    Raises
    ------
    CommandFailed
        Nothing is logged under it, or more than one life is.
    """
    if len(asked) < _SHORTEST_ID:
        raise CommandFailed(f"{asked!r} is too short for an id: give its first {_SHORTEST_ID} characters or more")
    known: set[str] = set()
    for line in read_lines(home, _Mentioning(asked), None).lines:
        if any(str(line.get(name, "")).startswith(asked) for name in _IDS):
            known.add(str(line["correlation_id"]))
    if not known:
        raise CommandFailed(
            f"no line of the logs has an id that begins with {asked!r}; "
            f"`{of_home(home)} logs --channel trading` shows those there are"
        )
    if len(known) > 1:
        raise CommandFailed(
            f"{asked!r} begins the ids of {len(known)} lives ({', '.join(sorted(known)[:3])}): give more"
        )
    return known.pop()


class _Mentioning(Wanted):
    """Lines that have a text anywhere and belong to a life."""

    def __init__(self, text: str) -> None:
        super().__init__(correlation_id=text)

    def matches(self, line: Line, channel: str) -> bool:
        return "correlation_id" in line


def _newest_first(logs: Path, channel: str) -> list[Path]:
    rotated = {int(path.suffix[1:]): path for path in logs.glob(f"{channel}.log.*") if path.suffix[1:].isdigit()}
    newest = logs / f"{channel}.log"
    return [*([newest] if newest.exists() else []), *(rotated[number] for number in sorted(rotated))]


def _matching(path: Path, channel: str, wanted: Wanted, newest: int | None) -> tuple[list[Line], int]:
    found: deque[Line] = deque(maxlen=newest)
    unreadable = 0
    with path.open(encoding="utf-8", errors="replace") as file:
        for text in file:
            if not all(needle in text for needle in wanted.needles):
                continue
            line = _line(text)
            if line is None:
                unreadable += 1
            elif wanted.matches(line, channel):
                found.append(line)
    return list(found), unreadable


def _line(text: str) -> Line | None:
    try:
        line = json.loads(text)
    except ValueError:
        return None
    return line if isinstance(line, dict) else None


def _time(line: Line) -> str:
    return str(line.get("time", ""))  # all in IST, so that their texts are ordered as they are


class _Follower:
    """Gives what is added to a channel's file, also across its rotation."""

    def __init__(self, logs: Path, channel: str) -> None:
        self.channel = channel
        self._path = logs / f"{channel}.log"
        self._file: TextIOWrapper | None = self._opened()
        self._rest = ""
        if self._file is not None:
            self._file.seek(0, os.SEEK_END)

    def _opened(self) -> TextIOWrapper | None:
        try:
            return self._path.open(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return None

    def close(self) -> None:
        """Let the file go."""
        if self._file is not None:
            self._file.close()

    def texts(self) -> Iterator[str]:
        """Give the whole lines that came since the last call."""
        if self._file is None:
            self._file = self._opened()
        while self._file is not None:
            *whole, self._rest = (self._rest + self._file.read()).split("\n")
            yield from whole
            if self._path.exists() and os.fstat(self._file.fileno()).st_ino == self._path.stat().st_ino:
                return
            self._file.close()
            self._file = self._opened()


def follow(home: Path, wanted: Wanted) -> Generator[Line, None, None]:
    """Give the lines asked for that come from this call on, without end; those of one look in the order of time."""
    return _followed([_Follower(home / "logs", channel) for channel in wanted.channels], wanted)


def _followed(followers: Sequence[_Follower], wanted: Wanted) -> Generator[Line, None, None]:
    try:
        while True:
            came = [(_line(text), one.channel) for one in followers for text in one.texts() if text]
            yield from sorted((line for line, channel in came if line and wanted.matches(line, channel)), key=_time)
            time.sleep(_POLL_SECONDS)
    finally:
        for one in followers:
            one.close()


def log_the_command(context: typer.Context) -> None:
    """Send what a command logs to the channels' files, until it ends; with settings that are wrong, nowhere."""
    from live_services.adapters.logs import log_beside, stop_logging

    try:
        settings = load_settings()
    except (ValidationError, SettingsError, SettingsFileError, ReplacedSetting, tomllib.TOMLDecodeError, OSError):
        log_beside("cli")  # the command says what is wrong
    else:
        log_beside("cli", settings.alpha_panda_home, settings.logging, secrets=secrets_of(settings))
    context.call_on_close(stop_logging)


def logs(  # noqa: PLR0917 (typer fills options in by name)
    channel: Annotated[
        list[str] | None, typer.Option("--channel", help=f"One of {', '.join(CHANNELS)}; may be given again.")
    ] = None,
    correlation: Annotated[
        str | None,
        typer.Option(
            "--correlation", metavar="ID", help="The life of one proposal: any id of it, or its first six characters."
        ),
    ] = None,
    service: Annotated[str | None, typer.Option("--service", help="Only what this service wrote.")] = None,
    follow_: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes; Ctrl-C ends it.")] = False,
    limit: Annotated[
        int | None, typer.Option("--limit", "-n", min=1, help=f"The last so many [{_NEWEST}; of --correlation all].")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, one object per line.")] = False,
) -> None:
    """Show what the processes of this home logged, all channels in the order of time. Times are IST.

    Example: `alpha-panda logs --channel trading --follow`

    Example: `alpha-panda logs --correlation 517ce0ab`
    """
    settings = read_settings()
    home = settings.alpha_panda_home
    life = None if correlation is None else correlation_of(home, correlation)
    wanted = Wanted(_channels(channel), service, life)
    newest = limit if limit is not None or life is not None else _NEWEST
    new = follow(home, wanted) if follow_ else None
    found = read_lines(home, wanted, newest)
    if service is not None and not found.lines:
        _require_known(service, [entry.name for entry in SERVICES])
    _show(found.lines, as_json=as_json)
    if found.unreadable:
        err.print(f"[yellow]note:[/] {found.unreadable} lines are no JSON and are not shown", soft_wrap=True)
    if new is not None:
        with closing(new):
            try:
                _show((line for line in new if line not in found.lines), as_json=as_json)
            except KeyboardInterrupt:
                err.print("ended")


def _show(lines: Iterable[Line], *, as_json: bool) -> None:
    for line in lines:
        text = json.dumps(line, ensure_ascii=False) if as_json else readable(line)
        out.print(text, markup=False, soft_wrap=True)


def _channels(asked: Sequence[str] | None) -> tuple[str, ...]:
    for name in asked or ():
        if name not in CHANNELS:
            raise CommandFailed(f"there is no channel {name!r}; {did_you_mean(name, CHANNELS)}")
    return tuple(dict.fromkeys(asked)) if asked else CHANNELS


def _require_known(service: str, services: Collection[str]) -> None:
    known = (*services, *_OTHERS)
    if service not in known:
        raise CommandFailed(f"no line of a service {service!r}; there are {', '.join(known)}")
