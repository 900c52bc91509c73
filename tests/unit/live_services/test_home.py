"""A home that another version wrote is refused by name, with what to do; nothing in it is touched."""

from __future__ import annotations

from pathlib import Path

import pytest

from live_services import process
from live_services.home import LAYOUT, OtherLayout, mark_layout, require_layout
from live_services.machine.stack import Stack
from live_services.machine.up import start_everything
from live_services.settings import load_settings


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ALPHA_PANDA_CONFIG", raising=False)
    monkeypatch.setenv("ALPHA_PANDA_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def test_a_home_that_is_new_or_has_no_log_is_marked_once_and_taken_from_then_on(home: Path) -> None:
    (home / "store").mkdir()
    for _ in range(2):
        mark_layout(home)
        (home / "kafka").mkdir(exist_ok=True)
        require_layout(home)


@pytest.mark.parametrize("marker", [None, "", "layout = 1\n", "layout = 'x'\n", "layout ="])
def test_a_log_of_an_earlier_version_is_refused_with_what_may_stay(home: Path, marker: str | None) -> None:
    (home / "kafka").mkdir()
    if marker is not None:
        (home / "layout.toml").write_text(marker)
    before = sorted(home.rglob("*"))
    with pytest.raises(OtherLayout) as refused:
        mark_layout(home)
    said = str(refused.value)
    assert f"{home} was written by an earlier version" in said
    assert "--home DIR" in said
    assert f"delete {home / 'kafka'} and {home / 'valkey'}" in said
    assert sorted(home.rglob("*")) == before


def test_a_log_of_a_later_version_is_left_to_that_version(home: Path) -> None:
    (home / "kafka").mkdir()
    (home / "layout.toml").write_text(f"layout = {LAYOUT + 1}\n")
    with pytest.raises(OtherLayout, match=rf"a later .* \(layout {LAYOUT + 1}, this one knows {LAYOUT}\): use that"):
        require_layout(home)


def test_neither_up_nor_a_demo_nor_a_service_starts_on_such_a_home(home: Path, capsys) -> None:
    (home / "kafka").mkdir()
    with pytest.raises(OtherLayout):
        start_everything(load_settings(), tell=print)
    with pytest.raises(OtherLayout):
        Stack(load_settings()).start_servers(tell=print)
    assert process.main(["market_feed"]) == 1
    assert "error: " in (said := capsys.readouterr().err)
    assert "was written by an earlier version" in said
    assert list(home.iterdir()) == [home / "kafka"]
