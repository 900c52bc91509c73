"""The home of a demo: wiped at each start, but never one that a person has taken for their own."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from live_services.failures import CommandFailed
from live_services.home import DEMO_MARKER, demo_mark, mark_demo, owned_home
from live_services.machine.supervision import START_LOCK
from live_services.next_steps import of_home, program

if TYPE_CHECKING:
    from models_registry.ledger_entries import LedgerEntry

DEMO_HOME: Final = Path(".alpha-panda/demo")
"""Where a demo keeps its state if nobody says where."""
_SENSOR: Final = "Dagster sensor"
_LEDGER: Final = "ledger.sqlite"
_OWN_ENTRIES: Final = "own_ledger_entries"


def require_demo_home(home: Path) -> None:
    """Refuse a directory that holds something which no demo made, or that a person has worked in since.

    Raises
    ------
    CommandFailed
        It does; the message names the way out.
    models_registry.ledger.LedgerError
        Its ledger cannot be read, so nobody can say who promoted.
    """
    if not _contents(home):
        return
    mark = demo_mark(home)
    if mark is None:
        raise CommandFailed(f"{home.absolute()} is not empty and no demo made it; choose another with --home")
    why = mark.get("kept") or _promoted_by_a_person(home, mark)
    if why:
        raise CommandFailed(
            f"{home.absolute()} is kept, because {why}; a demo would wipe it. Give the demo another home "
            f"(`{program()} --home DIR demo`), or remove this one first: `{of_home(home)} down; "
            f"rm -r {shlex.quote(str(home))}`"
        )


def fresh_home(home: Path) -> Path:
    """Give an empty demo home; wipes one only if a demo made it and no person has worked in it.

    Call it with the home's start lock held.

    Raises
    ------
    CommandFailed
        The directory holds something else, or a demo is running in it.
    """
    from live_services.machine.orphans import stop_orphans
    from live_services.machine.supervision import Supervisor

    home = home.absolute()
    require_demo_home(home)
    if contents := _contents(home):
        if Supervisor(home).running:
            raise CommandFailed(f"a demo is running on {home}; stop it with `{of_home(home)} down`")
        stop_orphans(Supervisor(home).socket_path)  # of a demo whose supervisor was killed
        # the marker last: what is left stays a demo's
        for path in sorted(contents, key=lambda p: p.name == DEMO_MARKER):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
    owned_home(home)
    mark_demo(home)
    return home


def note_own_promotions(home: Path) -> None:
    """Write into the home that the ledger's entries up to now are the demo's doing, not that of a person after it."""
    mark_demo(home, **{_OWN_ENTRIES: max((entry.number for entry in _ledger_entries(home)), default=0)})


def _promoted_by_a_person(home: Path, mark: dict[str, Any]) -> str | None:
    own = int(mark.get(_OWN_ENTRIES, 0))
    theirs = [
        e for e in _ledger_entries(home) if e.number > own and e.phase != "observed" and not e.by.startswith(_SENSOR)
    ]
    if not theirs:
        return None
    newest = max(theirs, key=lambda entry: entry.number)
    return f"{newest.by} moved {newest.model_name}@{newest.alias} to version {newest.to_version} in it"


def _ledger_entries(home: Path) -> list[LedgerEntry]:
    from models_registry.ledger import PromotionLedger

    file = home.absolute() / _LEDGER
    if not file.exists():
        return []
    ledger = PromotionLedger(f"sqlite:///{file}")
    return [entry for name in ledger.names() for entry in ledger.history(name)]


def _contents(home: Path) -> tuple[Path, ...]:
    return tuple(path for path in home.iterdir() if path.name != START_LOCK) if home.exists() else ()
