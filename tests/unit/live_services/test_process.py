"""The process that the supervisor starts: the same refusals as the command line, without its library."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from typer.testing import CliRunner

from live_services import process
from live_services.__main__ import app
from live_services.composition import SERVICES, processes, run_process, skipped, trading_off
from live_services.settings import load_settings


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ALPHA_PANDA_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("ALPHA_PANDA_CONFIG", raising=False)


@pytest.mark.parametrize(
    ("variable", "value", "words", "told"),
    [
        ("MARKET__SPEED", "0", ["strategist"], "there is no service 'strategist'; choose one of market_feed, "),
        ("MARKET__SPEED", "0", ["account", "bitcoin"], "there is no broker 'bitcoin'; choose one of paper, "),
        ("MARKET__SPEED", "0", ["account", "zerodha"], "zerodha is not to run: it is not in ACTIVE_BROKERS: paper"),
        ("ACTIVE_BROKERS", "[]", ["account", "paper"], "paper is not to run: it is not in ACTIVE_BROKERS"),
        ("ACTIVE_BROKERS", "paper", ["market_feed"], "Lists are written as JSON"),
        ("KAFKA__MARKET_PARTITIONS", "0", ["market_feed"], "kafka.market_partitions (from environment"),
    ],
)
def test_what_cannot_run_ends_with_1_and_the_message_of_the_command_line(
    monkeypatch, capsys, variable, value, words, told
):
    monkeypatch.setenv(variable, value)
    assert process.main(words) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert told in said
    service, *broker = words
    typed = CliRunner().invoke(app, ["run", service, *(("--broker", *broker) if broker else ())])
    assert typed.exit_code == 1
    assert " ".join(typed.output.split()) == " ".join(said.split())


def test_a_process_that_is_stopped_before_it_is_over_ends_with_143():
    command = [sys.executable, "-m", "live_services.process", "market_feed"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as feed:
        assert feed.stderr is not None
        assert any("no market data yet" in line for line in iter(feed.stderr.readline, ""))
        feed.send_signal(signal.SIGTERM)
        feed.communicate(timeout=30)
    assert feed.returncode == 143


def test_a_wrong_command_line_ends_with_2(capsys):
    for words in ([], ["market_feed", "paper", "more"], ["--broker", "paper"]):
        with pytest.raises(SystemExit) as ended:
            process.main(words)
        assert ended.value.code == 2
    assert "usage: python -m live_services.process" in capsys.readouterr().err


def test_every_process_of_the_table_is_offered_by_run_and_hosts_its_services_alone():
    offered = CliRunner().invoke(app, ["run", "--help"], env={"COLUMNS": "300"}).output
    assert f"SERVICE is one of {', '.join(entry.name for entry in SERVICES)}." in " ".join(offered.split())
    hosted = [name for entry in SERVICES for name in entry.hosts("paper")]
    assert len(set(hosted)) == len(hosted)


def test_a_real_brokers_account_judges_and_gives_no_order_without_a_gateway():
    both = load_settings(active_brokers=("paper", "zerodha"), trading={"zerodha": {"enabled": True}})
    hosts = {scope: entry.hosts(scope) for entry, scope in processes(both) if entry.name == "account"}
    assert hosts == {
        "paper": ("risk_manager", "paper_trading", "portfolio_manager"),
        "zerodha": ("risk_manager", "portfolio_manager"),
    }
    assert skipped(both) == (
        "skipping zerodha_trading (TRADING__ZERODHA__ENABLED is true, but there is no gateway to this broker yet: "
        "proposals are judged, and no order is given)",
    )


@pytest.mark.parametrize("paper", [False, True])
@pytest.mark.parametrize("zerodha", [False, True])
def test_active_brokers_gates_accounts_and_enabled_gates_what_they_order(paper, zerodha):
    enabled = {"paper": {"enabled": paper}, "zerodha": {"enabled": zerodha}}
    both = load_settings(active_brokers=("paper", "zerodha"), trading=enabled)
    accounts = [scope for entry, scope in processes(both) if entry.name == "account"]
    assert accounts == ["paper", "zerodha"]
    assert (trading_off(both, "paper") is None) == paper
    zerodha_line = f"skipping zerodha_trading (TRADING__ZERODHA__ENABLED is {'true, but' if zerodha else 'false: '}"
    off = [line.partition(": ")[0] for line in skipped(both) if line.startswith("skipping paper")]
    assert off == ([] if paper else ["skipping paper_trading (TRADING__PAPER__ENABLED is false"])
    assert [line.startswith(zerodha_line) for line in skipped(both)][-1:] == [True]
    assert len(skipped(both)) == 2 - paper
    inactive = load_settings(active_brokers=(), trading=enabled)
    assert skipped(inactive) == tuple(
        f"skipping {broker}.account (it is not in ACTIVE_BROKERS: none is)" for broker in ("paper", "zerodha")
    )


def test_a_process_says_what_starts_and_what_is_skipped():
    async def nothing(_settings, _broker, _stop):
        return

    account = replace(next(entry for entry in SERVICES if entry.name == "account"), run=nothing)
    off = load_settings(trading={"paper": {"enabled": False}})
    with capture_logs() as lines:
        asyncio.run(run_process(account, "paper", off, asyncio.Event()))
    assert [line["event"] for line in lines] == [*skipped(off)[:1], "starting", "starting", "starting"]
    assert [line["service"] for line in lines[1:]] == ["risk_manager", "paper_trading", "portfolio_manager"]


def test_what_is_shared_runs_once_whatever_the_brokers_and_a_broker_that_is_off_brings_nothing():
    shared = [entry.name for entry in SERVICES if entry.scope == "shared"]
    assert [(entry.name, scope) for entry, scope in processes(load_settings(active_brokers=()))] == [
        (name, "shared") for name in shared
    ]
    running = processes(load_settings())
    assert {scope for _, scope in running} == {"shared", "paper"}
    assert len(running) == len(SERVICES)
