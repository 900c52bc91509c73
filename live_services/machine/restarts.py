"""How often each process of a home died, why, and whether it is started again: ``{home}/run/restarts.json``.

The keeper (`live_services.machine.keeper`) writes it; ``up`` on a home begins it anew.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

from pydantic import TypeAdapter, ValidationError

from live_services.operations_settings import ProcessesSettings

State = Literal["running", "waiting", "stopped", "gave up", "over"]
"""waiting  it died and is started again at ``next_try``
stopped  it was down when a person stopped its group
gave up  it died too often in a row; `up` starts it again
over     it did all it had to do"""


@dataclass(frozen=True, slots=True)
class Restarts:
    """What became of one process since ``up``."""

    name: str
    count: int = 0
    """Deaths in a row that count toward the limit."""
    in_a_row: int = 0
    """All deaths since it last got on; the pause before the next start grows with them."""
    restarts: int = 0
    """How often the keeper started it again."""
    state: State = "running"
    last_error: str = ""
    """Why it died last: the last error line of its log, or its exit code or signal; empty if it never did."""
    died_at: float = 0.0
    """When it died last; seconds since 1970, 0 if never."""
    next_try: float = 0.0
    """When it is started again; seconds since 1970, 0 unless it waits."""
    in_the_way: str = ""
    """What keeps it from being started although its time has come; empty if nothing does."""


@dataclass(frozen=True, slots=True)
class Death:
    """The end of a process that nobody had asked for."""

    at: float
    """Seconds since 1970."""
    reason: str
    got_on: bool
    """Whether it had committed something since its last death (a server: had run for a minute)."""
    server_away: str = ""
    """Server without which it could not work when it died; empty if all were there."""


_READ: Final = TypeAdapter(tuple[Restarts, ...])


def restarts_file(home: Path) -> Path:
    """Give where the restarts of a home are written."""
    return home / "run" / "restarts.json"


def read_restarts(home: Path) -> tuple[Restarts, ...]:
    """Read what the keeper wrote, by name; empty if nothing died there since ``up``, or nothing runs."""
    try:
        return _READ.validate_json(restarts_file(home).read_bytes())
    except (FileNotFoundError, ValidationError):  # of another version: the keeper that comes writes its own
        return ()


def restarts_json(restarts: tuple[Restarts, ...]) -> str:
    """Give the text of the file."""
    return _READ.dump_json(tuple(sorted(restarts, key=lambda one: one.name)), indent=1).decode()


def after_death(before: Restarts, death: Death, settings: ProcessesSettings) -> Restarts:
    """Decide what becomes of a process that died.

    It counts only a death before which nothing was committed and while every server was there; one restart more than
    ``restart_limit`` is not tried. The pause is ``backoff_seconds``, doubled with each death in a row, at most
    ``backoff_max_seconds``.
    """
    count = 0 if death.got_on else before.count
    in_a_row = 1 if death.got_on else before.in_a_row + 1
    reason = death.reason
    if death.server_away:
        reason = f"{reason} ({death.server_away} was away)"
    elif not death.got_on:
        count += 1
    died = replace(
        before, count=count, in_a_row=in_a_row, last_error=reason, died_at=death.at, next_try=0.0, in_the_way=""
    )
    if count > settings.restart_limit:
        return replace(died, state="gave up")
    return replace(died, state="waiting", next_try=death.at + pause_seconds(in_a_row, settings))


def pause_seconds(in_a_row: int, settings: ProcessesSettings) -> float:
    """Give how long a process rests after so many deaths in a row."""
    doublings = min(in_a_row - 1, 30)  # a float has its limits, the backoff reached its own long before
    return min(settings.backoff_seconds * 2.0**doublings, settings.backoff_max_seconds)


def started_again(before: Restarts) -> Restarts:
    """Note that the keeper started a process again."""
    return replace(before, state="running", restarts=before.restarts + 1, next_try=0.0, in_the_way="")


def news(before: tuple[Restarts, ...], after: tuple[Restarts, ...], now: float) -> list[str]:
    """Say, one line each, which processes died, were started again or stay down since one reading of the file."""
    known = {one.name: one for one in before}
    lines = []
    for one in after:
        earlier = known.get(one.name, Restarts(one.name))
        if one.died_at > earlier.died_at and (said := told(one, now)):
            lines.append(f"{one.name} died; it {said}")
        elif one.in_the_way and one.in_the_way != earlier.in_the_way:
            lines.append(f"{one.name} {told(one, now)}")
        elif one.restarts > earlier.restarts and one.state == "running":
            lines.append(f"{one.name} was started again")
    return lines


def told(one: Restarts, now: float) -> str:
    """Say in one line why a process does not run and what comes; empty for one that runs or is over."""
    if one.state == "waiting" and one.in_the_way:
        return f"cannot be started: {one.in_the_way}. It ended before: {one.last_error}"
    if one.state == "waiting":
        return f"starts again in {max(0.0, one.next_try - now):.0f} s: {one.last_error}"
    if one.state == "gave up":
        times = "once" if one.count == 1 else f"{one.count} times in a row"
        return f"ended {times} and stays down until `up`: {one.last_error}"
    return ""
