"""The demo, whole, on a small synthetic market: every part real, and nothing left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.strangers_file import TIME_FORMAT, write_strangers_file

BUILT_IN = {"momentum", "mean_reversion", "breakout"}

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


def _left_behind(home: Path) -> list[str]:
    """Processes that still name the demo's home."""
    left = []
    for process in psutil.process_iter():
        try:
            words = [*process.cmdline(), process.environ().get("ALPHA_PANDA_HOME", "")]
        except psutil.Error:
            continue
        if process.pid != os.getpid() and any(str(home) in word for word in words):
            left.append(f"{process.pid} {' '.join(words)}")
    return left


def _demo(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "live_services", "demo", "--home", str(home), *arguments],
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
    )


def test_the_demo_goes_from_a_market_to_an_explained_order_and_leaves_nothing_behind(tmp_path: Path) -> None:
    home, summary_file = tmp_path / "demo", tmp_path / "summary.json"
    done = _demo(home, "--summary", str(summary_file))
    assert done.returncode == 0, done.stdout + done.stderr
    assert _left_behind(home) == []
    summary = json.loads(summary_file.read_text())
    assert summary["market"].startswith("SYNTHETIC")
    assert summary["models"].keys() == BUILT_IN
    for model in summary["models"].values():
        assert (model["version"], model["promotion"]) == ("1", {"promoted_by": "sensor", "override": None})
    totals = summary["totals"]
    assert totals["ticks"] > 0
    assert totals["fills"] >= 2
    assert totals["fills"] == totals["orders"] - totals["orders_cancelled"]
    assert totals["trades"] == sum(summary["exits_by_reason"].values()) >= 1
    assert totals["signals"] == totals["entries"] + totals["already_open"] + totals["signals_rejected"]
    assert (totals["unrealized_inr"], totals["positions_left_open"]) == (0.0, 0)
    assert totals["charges_inr"] > 0
    assert totals["net_inr"] == pytest.approx(totals["realized_inr"] - totals["charges_inr"], abs=0.02)
    assert summary["strategies"].keys() == BUILT_IN
    for strategy in summary["strategies"].values():
        assert strategy["trades"] == sum(strategy["exits_by_reason"].values()) >= 1
    assert {"stop", "target", "time"} <= summary["exits_by_reason"].keys()
    assert sum(of["net_inr"] for of in summary["strategies"].values()) == pytest.approx(totals["net_inr"], abs=0.05)
    assert f"Strategies on one account, market {summary['market']}" in done.stdout
    explanation = summary["explanation"]
    model = summary["models"][explanation["signal"]["strategy"]]
    assert explanation["signal"]["model_version"] == model["version"]
    assert explanation["order"]["feature_schema_hash"] == model["feature_schema_hash"]
    assert explanation["sidecar"]["training_data_digest"] == model["training_data_digest"]
    assert explanation["signal"]["features"]
    assert explanation["signal"]["basis"]["input_positions"]
    assert "Next:" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_a_strangers_file_goes_to_paper_orders_by_the_gate_or_by_a_persons_word(tmp_path: Path) -> None:
    file = write_strangers_file(tmp_path / "MINUTES.CSV", instruments=16, sessions=18, edge_bps=15.0)
    home, summary_file = tmp_path / "demo", tmp_path / "summary.json"
    options = ("--time-format", TIME_FORMAT, "--override-gate", "the test's reason")
    done = _demo(home, "--bars", str(file), *options, "--summary", str(summary_file))
    assert done.returncode == 0, done.stdout + done.stderr
    assert _left_behind(home) == []
    summary = json.loads(summary_file.read_text())
    assert summary["market"] == "NSE"
    assert summary["models"].keys() == BUILT_IN
    for model in summary["models"].values():
        assert model["promotion"]["override"] == (None if model["gate_passed"] else "the test's reason")
    assert summary["totals"]["fills"] >= 2
    assert summary["explanation"]["order"]["symbol"].startswith("STK")


def test_a_strangers_file_without_an_edge_ends_in_a_refusal_that_names_the_override(tmp_path: Path) -> None:
    file = write_strangers_file(tmp_path / "MINUTES.CSV", instruments=10, sessions=12, edge_bps=0.0)
    summary_file = tmp_path / "summary.json"
    done = _demo(tmp_path / "demo", "--bars", str(file), "--time-format", TIME_FORMAT, "--summary", str(summary_file))
    assert done.returncode == 0, done.stdout + done.stderr
    assert _left_behind(tmp_path / "demo") == []
    models = json.loads(summary_file.read_text())["models"]
    assert models.keys() == BUILT_IN
    assert all((model["gate_passed"], model["promotion"]) == (False, None) for model in models.values())
    assert '--override-gate "REASON"' in done.stdout


@pytest.mark.skipif(
    "ALPHA_PANDA_TEST_DATA" not in os.environ, reason="ALPHA_PANDA_TEST_DATA does not name the directory of real files"
)
def test_the_demo_trades_real_files(tmp_path: Path) -> None:
    home, summary_file = tmp_path / "demo", tmp_path / "summary.json"
    data = Path(os.environ["ALPHA_PANDA_TEST_DATA"])
    files = (
        "--bars",
        str(data / "nse_minute_2021-03-26_2021-06-03.parquet"),
        "--ticks",
        str(data / "nse_ticks_2021-05-31_2021-06-03.parquet"),
    )
    done = _demo(home, *files, "--override-gate", "the test's reason", "--summary", str(summary_file))
    assert done.returncode == 0, done.stdout + done.stderr
    assert _left_behind(home) == []
    summary = json.loads(summary_file.read_text())
    assert "SYNTHETIC" not in summary["market"]
    for model in summary["models"].values():  # what the gate says of real data is not the test's to know
        assert model["promotion"]["override"] == (None if model["gate_passed"] else "the test's reason")
    totals = summary["totals"]
    assert totals["ticks"] == 930_887
    assert totals["fills"] >= 2
    assert totals["signals"] == totals["entries"] + totals["already_open"] + totals["signals_rejected"]
