"""The command line: exit codes, and one clear message instead of a traceback."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator

import click
import pytest
import requests
from typer.main import get_command
from typer.testing import CliRunner

from live_services.__main__ import app
from live_services.cli import models as cli_models
from live_services.home import mark_demo, owned_home
from models_registry.refusals import GateNotPassed

runner = CliRunner()


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ALPHA_PANDA_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("ALPHA_PANDA_CONFIG", raising=False)


def _fails(*arguments: str) -> str:
    result = runner.invoke(app, arguments)
    assert result.exit_code == 1, result.output
    assert "Traceback" not in result.output
    assert "error:" in result.output
    return result.output


def test_help_of_every_command_explains_itself():
    result = runner.invoke(app, ["--help"])
    assert result.exit_code == 0
    commands = ("demo", "up", "down", "status", "run", "topics", "config", "models", "trades", "explain", "features")
    for command in commands:
        assert command in result.output
        assert runner.invoke(app, [command, "--help"]).exit_code == 0


def _commands(group: click.Group) -> Iterator[click.Command]:
    for command in group.commands.values():
        if isinstance(command, click.Group):
            yield from _commands(command)
        else:
            yield command


def test_help_of_every_command_says_what_each_argument_and_option_is_for():
    every = list(_commands(get_command(app)))
    assert len(every) > 15
    assert [(c.name, p.name) for c in every for p in c.params if not getattr(p, "help", None)] == []
    assert "Model name, for example momentum." in runner.invoke(app, ["models", "promote", "--help"]).output


def test_a_wrong_command_line_exits_with_2():
    assert runner.invoke(app, ["demo", "--no-such-option"]).exit_code == 2
    assert runner.invoke(app, ["no-such-command"]).exit_code == 2


def test_config_show_says_where_a_value_came_from(monkeypatch):
    monkeypatch.setenv("MARKET__SPEED", "5")
    result = runner.invoke(app, ["config", "show", "--json"])
    assert result.exit_code == 0
    lines = {line["key"]: line for line in json.loads(result.output)}
    assert lines["market.speed"] == {"key": "market.speed", "value": "5.0", "origin": "environment MARKET__SPEED"}


def test_config_show_cuts_nothing_off_on_a_narrow_terminal(monkeypatch):
    address = "http://" + "mlflow-of-the-whole-desk." * 4 + "example"
    monkeypatch.setenv("MLFLOW__TRACKING_URI", address)
    shown = runner.invoke(app, ["config", "show"], env={"COLUMNS": "80"}).output
    assert "…" not in shown
    assert address in "".join(line.split("│")[2].strip() for line in shown.splitlines() if line.count("│") == 4)


def test_a_wrong_setting_is_one_message_with_its_key(monkeypatch):
    monkeypatch.setenv("KAFKA__MARKET_PARTITIONS", "0")
    assert "kafka.market_partitions" in _fails("config", "show")


def test_a_list_that_is_not_json_says_how_to_write_it(monkeypatch):
    monkeypatch.setenv("ACTIVE_BROKERS", "paper")
    assert "ACTIVE_BROKERS='[\"paper\"]'" in _fails("config", "show").replace("\n", " ")


def test_a_settings_file_that_is_not_toml_says_so(tmp_path):
    (tmp_path / "alpha-panda.toml").write_text("market = [")
    assert "is not TOML" in _fails("config", "show")


def test_an_account_that_is_not_to_run_names_the_setting_that_says_so(monkeypatch):
    monkeypatch.setenv("ACTIVE_BROKERS", "[]")
    assert "paper is not to run: it is not in ACTIVE_BROKERS: none is" in _fails("run", "account")


def test_an_unknown_service_names_those_there_are():
    assert "strategy_runner" in _fails("run", "strategist")


def test_an_unknown_topic_names_those_there_are(monkeypatch):
    assert "paper.signals.raw" in _fails("topics", "tail", "signals.raw")
    assert "there is no topic 'qqqq'; `" in _fails("topics", "tail", "qqqq")


def test_the_history_of_an_empty_ledger_names_nobody_else():
    assert _fails("models", "history", "momentum") == "error: the ledger has no promotion of 'momentum'\n"


def test_trades_and_explain_without_a_kafka_say_how_to_get_one():
    for command in ("trades", "explain"):
        assert "no Kafka is known: start one with" in " ".join(_fails(command).split())
    assert runner.invoke(app, ["trades", "--date", "yesterday"]).exit_code == 2


def test_down_and_status_without_a_stack_say_how_to_start_one():
    assert "nothing is running" in _fails("down")
    assert "start it with" in (said := _fails("status"))
    assert "up`" in said


def test_models_without_a_registry_say_how_to_get_one():
    assert "MLFLOW__TRACKING_URI" in _fails("models", "list")


def test_a_refused_promotion_shows_the_command_that_overrules_it(monkeypatch, tmp_path):
    def refuse(*_: object, **__: object) -> None:
        raise GateNotPassed("momentum v3 did not pass the live gate.")

    monkeypatch.setenv("MLFLOW__TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setattr(cli_models, "promote_as_person", refuse)
    said = " ".join(_fails("models", "promote", "momentum", "3", "--alias", "live").split())
    assert '--home home models promote momentum 3 --alias live --override "REASON"`' in said


def test_a_registry_that_does_not_answer_is_named(monkeypatch):
    monkeypatch.setenv("MLFLOW__TRACKING_URI", "http://127.0.0.1:9")
    assert "127.0.0.1:9" in _fails("models", "list")


def test_the_demo_refuses_files_that_are_not_there_and_homes_that_are_not_its_own(tmp_path):
    assert "no file" in _fails("demo", "--bars", "nowhere.parquet")
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "work.txt").write_text("mine")
    assert "no demo made it" in _fails("demo", "--home", str(tmp_path / "precious"))
    (tmp_path / "mine.csv").write_text("no bars")
    assert "no demo made it" in _fails("demo", "--home", "precious", "--bars", "mine.csv")  # before the file is read
    assert (tmp_path / "precious" / "work.txt").read_text() == "mine"


def test_a_home_means_the_same_wherever_it_is_named_and_two_are_refused(tmp_path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "work.txt").write_text("mine")
    for line in ("--home precious demo", "demo --home precious", "demo --home=precious --keep"):
        assert f"{tmp_path / 'precious'} is not empty" in _fails(*line.split()).replace("\n", "")
    for line in ("--home precious status", "status --home precious", "models --home precious list"):
        said = _fails(*line.split())
        assert "--home precious" in said, said
    twice = runner.invoke(app, ["--home", "a", "demo", "--home", "b"])
    assert (twice.exit_code, "give it once" in twice.output) == (2, True)
    assert runner.invoke(app, ["status", "--home"]).exit_code == 2


def test_a_demo_does_not_take_the_home_that_the_environment_names(tmp_path, monkeypatch):
    (tmp_path / "desk").mkdir()
    (tmp_path / "desk" / "work.txt").touch()
    (tmp_path / ".alpha-panda" / "demo").mkdir(parents=True)
    (tmp_path / ".alpha-panda" / "demo" / "other.txt").touch()
    monkeypatch.setenv("ALPHA_PANDA_HOME", str(tmp_path / "desk"))
    assert ".alpha-panda/demo is not empty" in _fails("demo").replace("\n", "")


def test_up_makes_the_home_of_a_demo_a_persons(tmp_path, monkeypatch):
    mark_demo(owned_home(tmp_path / "home"))
    (tmp_path / "home" / "run").touch()  # so that nothing can start
    assert "is not a folder" in _fails("up").replace("\n", " ")
    assert "is kept, because `up` was said on it" in _fails("demo", "--home", "home").replace("\n", " ")


def test_version_says_version_and_commit():
    shown = runner.invoke(app, ["--version"])
    assert shown.exit_code == 0
    assert re.fullmatch(r"alpha-panda \d+\.\d+\.\d+, commit \w+(-dirty)?\n", shown.output)


def test_topics_are_listed_as_json_for_scripts_and_without_a_cut_word_for_people():
    topics = {topic["topic"]: topic for topic in json.loads(runner.invoke(app, ["topics", "list", "--json"]).output)}
    assert topics["market.ticks"]["dead_letters"] == "market.ticks.dlq"
    shown = runner.invoke(app, ["topics", "list"], env={"COLUMNS": "60"}).output
    assert set(topics) <= set(shown.split())
    assert "left out for want of room: dead letters" in shown


def test_brokers_that_are_left_out_say_why_in_one_line():
    from live_services.machine.stack import desk, program_name
    from live_services.settings import load_settings

    plan = desk(load_settings())
    assert [program_name(*process) for process in plan.processes] == [
        "market_feed",
        "strategy_runner",
        "skew_monitor",
        "pipeline_validator",
        "paper.account",
    ]
    assert plan.skipped == ("skipping zerodha.account (it is not in ACTIVE_BROKERS: paper)",)
    both = desk(load_settings(active_brokers=("paper", "zerodha"), trading={"zerodha": {"enabled": True}}))
    assert "zerodha.account" in [program_name(*process) for process in both.processes]
    assert both.skipped[0].startswith(
        "skipping zerodha_trading (TRADING__ZERODHA__ENABLED is true, but there is no gateway"
    )


@pytest.fixture
def _no_proxies(monkeypatch):
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    for name in ("no_proxy", "NO_PROXY"):  # so that they are put back as they were
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@pytest.mark.usefixtures("_no_proxies")
def test_loopback_does_not_go_through_a_proxy_and_other_exceptions_stay(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.corp:3128")
    monkeypatch.setenv("http_proxy", "http://proxy.corp:3128")
    monkeypatch.setenv("NO_PROXY", "git.corp, localhost")
    assert runner.invoke(app, ["config", "show"]).exit_code == 0
    assert os.environ["NO_PROXY"] == os.environ["no_proxy"] == "git.corp,localhost,127.0.0.1,::1"
    for host in ("127.0.0.1:5000", "localhost:5000", "git.corp"):
        assert requests.utils.get_environ_proxies(f"http://{host}/health") == {}
    assert requests.utils.get_environ_proxies("http://repo.example/")["http"] == "http://proxy.corp:3128"


@pytest.mark.usefixtures("_no_proxies")
def test_without_a_proxy_or_with_none_for_anybody_nothing_is_changed(monkeypatch):
    assert runner.invoke(app, ["config", "show"]).exit_code == 0
    assert "no_proxy" not in os.environ
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.corp:3128")
    monkeypatch.setenv("NO_PROXY", "*")
    assert runner.invoke(app, ["config", "show"]).exit_code == 0
    assert os.environ["NO_PROXY"] == "*"
    assert "no_proxy" not in os.environ
