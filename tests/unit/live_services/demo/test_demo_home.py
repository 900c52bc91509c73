"""Which homes a demo wipes, and which it leaves to the person who has worked in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from live_services.demo.demo_home import fresh_home, note_own_promotions, require_demo_home
from live_services.failures import CommandFailed
from live_services.home import demo_mark, mark_demo
from live_services.machine.supervision import START_LOCK
from models_registry.ledger import PromotionLedger
from models_registry.ledger_entries import LedgerEntry


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = fresh_home(tmp_path / "demo")
    (home / "store").mkdir()
    return home


def _promoted(home: Path, by: str) -> None:
    entry = LedgerEntry(
        at_ns=1, model_name="momentum", alias="champion", from_version=None, to_version="1", action="promote", by=by,
        reason="a test", phase="noted", refers_to=0,
    )  # fmt: skip
    PromotionLedger(f"sqlite:///{home / 'ledger.sqlite'}").append(entry)


def test_a_home_that_only_a_demo_and_its_sensor_used_is_wiped(home: Path) -> None:
    _promoted(home, "Dagster sensor promote_champion")
    (home / START_LOCK).touch()
    assert fresh_home(home) == home
    assert sorted(path.name for path in home.iterdir()) == [".alpha-panda-demo", START_LOCK]
    assert demo_mark(home) == {}


def test_what_the_demo_itself_overruled_keeps_nobody_from_running_it_again(home: Path) -> None:
    _promoted(home, "asha")
    note_own_promotions(home)
    fresh_home(home)
    assert not (home / "store").exists()


def test_a_home_in_which_a_person_promoted_is_kept_and_the_way_out_is_named(home: Path) -> None:
    note_own_promotions(home)
    _promoted(home, "asha")
    with pytest.raises(CommandFailed, match=r"asha moved momentum@champion to version 1 in it.*--home DIR demo.*rm -r"):
        fresh_home(home)
    assert (home / "store").exists()


def test_a_home_on_which_up_was_said_is_kept(home: Path) -> None:
    note_own_promotions(home)
    mark_demo(home, kept="`up` was said on it")
    with pytest.raises(CommandFailed, match="is kept, because `up` was said on it"):
        fresh_home(home)
    assert (home / "store").exists()


def test_a_directory_that_no_demo_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "work").touch()
    with pytest.raises(CommandFailed, match="no demo made it"):
        require_demo_home(tmp_path)
