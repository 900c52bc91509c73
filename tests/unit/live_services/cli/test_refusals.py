"""Every command with a wrong id, without a stack, and without the right to its home: one sentence and an exit code."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from typer.main import get_command
from typer.testing import CliRunner

from live_services.__main__ import app

NOBODY = "127.0.0.1:1"
NOTHING_TO_REFUSE = {
    "config show": "it shows defaults",
    "preflight": "it lists what is wrong itself",
    "topics list": "it lists what the code declares",
}
"""Commands that need neither an id, nor a server, nor the home."""

WRONG_ID = {
    "demo --bars nowhere.csv": "there is no file nowhere.csv",
    "dlq list --broker nosuch": "there is no broker 'nosuch'",
    "dlq list --topic nosuch": "there is no topic 'nosuch'",
    "dlq show abc": "'abc' is too short for a dead letter's id",
    "dlq replay abc --reason why": "'abc' is too short for a dead letter's id",
    "dlq drop --topic nosuch --reason why": "there is no topic 'nosuch'",
    "dlq drop --reason why": "name one letter by its id, or with --topic all that are open of one topic",
    "dlq drop abc --reason why": "'abc' is too short for a dead letter's id",
    "accept nosuch --reason why": "there is no process 'nosuch' whose outputs are compared",
    "explain --broker nosuch": "there is no broker 'nosuch'",
    "features show RELIANCE --broker nosuch": "there is no broker 'nosuch'",
    "features show NOSUCH": "universe.json does not exist",
    "features verify --broker nosuch": "there is no broker 'nosuch'",
    "flatten --broker nosuch --reason why": "there is no broker 'nosuch'",
    "halt --broker nosuch --reason why": "there is no broker 'nosuch'",
    "reduce --broker nosuch --reason why": "there is no broker 'nosuch'",
    "resume --broker nosuch --reason why": "there is no broker 'nosuch'",
    "logs --channel nosuch": "there is no channel 'nosuch'",
    "models at nosuch --time 2026-01-01": "the ledger has no promotion of 'nosuch'",
    "models at momentum --time yesterday": "'yesterday' is no date and time",
    "models history nosuch": "the ledger has no promotion of 'nosuch'",
    "models promote momentum first": "a version is a number, not 'first'",
    "audit nosuch": "no strategy is named 'nosuch'",
    "backtest nosuch": "no strategy is named 'nosuch'",
    "models promote momentum 1 --alias nosuch": "there is no alias 'nosuch'",
    "models rollback nosuch --reason why": "did not answer",
    "models sample nosuch": "no strategy has a model 'nosuch'",
    "models show momentum first": "a version is a number, not 'first'",
    "run nosuch": "there is no service 'nosuch'",
    "run account --broker nosuch": "there is no broker 'nosuch'",
    "topics tail nosuch": "there is no topic 'nosuch'",
    "trades --broker nosuch": "there is no broker 'nosuch'",
    "train nosuch": "no strategy has a model 'nosuch'",
}
WITHOUT_A_STACK = {
    "dlq list": "no Kafka is known: start one with ",
    "dlq show abcdef": "no Kafka is known: start one with ",
    "dlq replay abcdef --reason why": "no Kafka is known: start one with ",
    "dlq drop abcdef --reason why": "no Kafka is known: start one with ",
    "accept paper.account --reason why": "kafka.bootstrap_servers is empty",
    "down": "nothing is running on ",
    "explain": "no Kafka is known: start one with ",
    "features verify": "no Kafka is known: start one with ",
    "flatten --reason why": "no Kafka is known: start one with ",
    "halt --reason why": "no Kafka is known: start one with ",
    "reduce --reason why": "no Kafka is known: start one with ",
    "resume --reason why": "no Kafka is known: start one with ",
    "models list": "no model registry is known: start one with ",
    "models promote momentum 1": "no model registry is known: start one with ",
    "models rollback momentum --reason why": "no model registry is known: start one with ",
    "audit momentum": "no market is stored in ",
    "backtest momentum": "no model registry is known: start one with ",
    "models sample momentum": "no model registry is known: start one with ",
    "models show momentum": "no model registry is known: start one with ",
    "models verify": "no model registry is known: start one with ",
    "status": "nothing is running on ",
    "status --json": "nothing is running on ",
    "status --watch": "nothing is running on ",
    "topics tail paper.signals.raw": "kafka.bootstrap_servers is empty",
    "trades": "no Kafka is known: start one with ",
    "train momentum": "",
}
SERVERS_AWAY = {
    "dlq list": "no Kafka broker answers at",
    "dlq show abcdef": "no Kafka broker answers at",
    "accept paper.account --reason why": "no Kafka broker answers at",
    "explain": "no Kafka broker answers at",
    "features verify": "no Kafka broker answers at",
    "flatten --reason why": "no Kafka broker answers at",
    "halt --reason why": "no Kafka broker answers at",
    "backtest momentum": f"http://{NOBODY} did not answer",
    "models list": f"http://{NOBODY} did not answer",
    "models sample momentum": f"http://{NOBODY} did not answer",
    "models show momentum": f"http://{NOBODY} did not answer",
    "models verify": f"http://{NOBODY} did not answer",
    "topics tail paper.signals.raw": "no Kafka broker answers at",
    "trades": "no Kafka broker answers at",
}
USES_THE_HOME = ("chaos --home home", "demo --home home", "models at m --time 2026-01-01", "models history m", "up")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ALPHA_PANDA_HOME", "home")
    monkeypatch.delenv("ALPHA_PANDA_CONFIG", raising=False)


@pytest.fixture
def _away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA__BOOTSTRAP_SERVERS", NOBODY)
    monkeypatch.setenv("MLFLOW__TRACKING_URI", f"http://{NOBODY}")


def refusal(line: str) -> str:
    """Run a command that cannot do what it is asked, and give the one sentence that it says."""
    done = CliRunner().invoke(app, line.split(), env={"COLUMNS": "500"})
    assert done.exit_code == 1, done.output
    assert "Traceback" not in done.output
    (said,) = [one for one in done.output.splitlines() if one.startswith("error: ")]
    assert done.output.strip().endswith(said)
    return said.removeprefix("error: ")


@pytest.mark.usefixtures("_away")
@pytest.mark.parametrize("line", WRONG_ID)
def test_a_wrong_id_is_named(line: str) -> None:
    assert WRONG_ID[line] in refusal(line)


@pytest.mark.parametrize("line", WITHOUT_A_STACK)
def test_without_a_stack_it_says_what_is_missing(line: str) -> None:
    assert WITHOUT_A_STACK[line] in refusal(line)


@pytest.mark.usefixtures("_away")
@pytest.mark.parametrize("line", SERVERS_AWAY)
def test_a_server_that_is_away_is_named_with_its_address(line: str) -> None:
    said = refusal(line)
    assert SERVERS_AWAY[line] in said
    assert NOBODY in said


@pytest.mark.usefixtures("_away")
@pytest.mark.parametrize("command", ["halt", "flatten", "dlq drop abcdef", "dlq replay abcdef"])
def test_a_reason_that_cannot_be_kept_is_refused_before_anything_is_asked(command: str) -> None:
    assert refusal(f"{command} --reason {'x' * 1500}") == "--reason has 1,500 characters; say it in at most 1,000"
    assert refusal(f"{command} --reason=") == "--reason is empty: say why, it is kept with who and when"


@pytest.mark.parametrize("line", USES_THE_HOME)
def test_a_home_that_cannot_be_used_is_named(line: str, tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file stands where the home is to be")  # also the superuser cannot use it
    assert "home" in refusal(line)


@pytest.mark.parametrize("line", USES_THE_HOME)
def test_a_home_of_somebody_else_is_named(line: str, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    home.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        (home / "probe").touch()
    except PermissionError:
        assert "home" in refusal(line)
    else:
        pytest.skip("the superuser may write everywhere")
    finally:
        home.chmod(stat.S_IRWXU)


def _commands(group: click.Group, before: str = "") -> Iterator[str]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from _commands(command, f"{before}{name} ")
        else:
            yield f"{before}{name}"


def test_every_command_is_tried() -> None:
    tried = [*WRONG_ID, *WITHOUT_A_STACK, *SERVERS_AWAY, *USES_THE_HOME, *NOTHING_TO_REFUSE]
    every = set(_commands(get_command(app)))  # type: ignore[arg-type]
    assert {command for command in every if not any(f"{line} ".startswith(f"{command} ") for line in tried)} == set()
