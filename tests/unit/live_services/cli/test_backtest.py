from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import live_services.backtest.run
from live_services.backtest.changes import read_changes
from live_services.backtest.versions import BacktestRefused
from live_services.cli.main import app
from tests.backtest_world import HELD_OUT, BacktestWorld


@pytest.fixture
def world(backtest_market: BacktestWorld) -> BacktestWorld:
    return backtest_market


@pytest.fixture
def desk(world: BacktestWorld, monkeypatch: pytest.MonkeyPatch) -> BacktestWorld:
    """The world's settings, registry and ledger where the command looks for its own."""
    monkeypatch.setattr("live_services.cli.backtest.read_settings", lambda: world.settings)
    monkeypatch.setattr(live_services.backtest.run, "_registry", lambda _settings: world.registry)
    return world


def asked(*words: str) -> tuple[int, str, str]:
    found = CliRunner().invoke(app, ["backtest", *words])
    return found.exit_code, found.stdout, found.stderr


def test_the_command_writes_report_and_tables_and_says_the_figures(desk: BacktestWorld, tmp_path: Path) -> None:
    code, said, aside = asked("momentum", "--model", "momentum@1", "--out", str(tmp_path))
    assert code == 0, aside
    assert {path.name for path in tmp_path.iterdir()} == {"report.html", "trades.csv", "sessions.csv"}
    assert "Sharpe ratio" in said
    assert "SYNTHETIC MARKET" in aside
    assert "trading momentum" in aside


def test_as_json_it_prints_one_document(desk: BacktestWorld, tmp_path: Path) -> None:
    after = desk.dates[-HELD_OUT]
    code, said, aside = asked(
        "momentum", "guarded", "--model", "momentum@1", "--from", after, "--set", "guarded.stop_bps=20", "--json",
        "--out", str(tmp_path),
    )  # fmt: skip
    assert code == 0, aside
    record = json.loads(said)
    assert [one["name"] for one in record["strategies"]] == ["momentum", "guarded"]
    assert record["changes"] == {"guarded.stop_bps": 20}
    assert Path(record["report"]).is_file()


def test_a_refusal_is_one_sentence_and_nothing_is_written(desk: BacktestWorld, tmp_path: Path) -> None:
    code, said, aside = asked("momentun", "--out", str(tmp_path / "none"))
    assert (code, said) == (1, "")
    assert "did you mean 'momentum'?" in aside
    assert not (tmp_path / "none").exists()


def test_ctrl_c_leaves_no_report(desk: BacktestWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(live_services.backtest.run, "trade", interrupted)
    code, _, aside = asked("momentum", "--model", "momentum@1", "--out", str(tmp_path / "none"))
    assert code == 1
    assert "stopped; no report was written" in aside
    assert not (tmp_path / "none").exists()


def test_changes_are_read_as_json_or_else_as_text() -> None:
    assert read_changes(["stop_bps=30", "product=CNC", "target_bps=none"]) == {
        "stop_bps": 30, "product": "CNC", "target_bps": None,
    }  # fmt: skip
    with pytest.raises(BacktestRefused, match="write FIELD=VALUE"):
        read_changes(["stop_bps"])
