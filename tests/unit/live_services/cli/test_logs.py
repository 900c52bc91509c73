from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from typer.testing import CliRunner

from live_services.cli.logs import Wanted, follow
from live_services.cli.main import app

LIFE = "517ce0ab-1111-5222-8333-444455556666"
OTHER = "99aa88bb-1111-5222-8333-444455556666"


def write(home: Path, file: str, minute: int, event: str, **fields: object) -> None:
    logs = home / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    line = {
        "time": f"2026-01-05T09:{minute:02}:00.000+05:30",
        "level": "info",
        "channel": file,
        "service": "account",
        "event": event,
    }
    with (logs / f"{file}.log").open("a") as log:
        log.write(json.dumps(line | fields) + "\n")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    write(home, "trading", 16, "signal.generated", service="strategy_runner", correlation_id=LIFE, event_id=LIFE)
    (home / "logs" / "trading.log").rename(home / "logs" / "trading.log.1")
    write(home, "trading", 18, "order.filled", correlation_id=LIFE, order_id="abcdef01-2")
    write(home, "trading", 19, "signal.rejected", correlation_id=OTHER)
    write(home, "application", 17, "record_failed", level="error", correlation_id=LIFE)
    write(home, "error", 17, "record_failed", level="error", correlation_id=LIFE, channel="application")
    write(home, "monitoring", 20, "redis_is_away", failure="[markup]", service="skew_monitor")
    return home


def run(home: Path, *words: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["--home", str(home), "logs", *words])
    return done.exit_code, done.output


def events(home: Path, *words: str) -> list[str]:
    code, said = run(home, *words, "--json")
    assert code == 0, said
    return [json.loads(line)["event"] for line in said.splitlines()]


@pytest.mark.parametrize("asked", [LIFE, "517ce0", "abcdef"])
def test_any_id_of_a_proposal_shows_its_life_across_services_channels_and_rotated_files(home, asked) -> None:
    assert events(home, "--correlation", asked) == ["signal.generated", "record_failed", "order.filled"]


def test_all_channels_stand_in_the_order_of_time_and_an_error_stands_once(home) -> None:
    assert events(home) == ["signal.generated", "record_failed", "order.filled", "signal.rejected", "redis_is_away"]
    assert events(home, "-n", "2") == ["signal.rejected", "redis_is_away"]


def test_a_channel_or_a_service_is_shown_alone(home) -> None:
    assert events(home, "--channel", "error") == ["record_failed"]
    assert events(home, "--channel", "trading", "--channel", "monitoring", "-n", "2") == [
        "signal.rejected",
        "redis_is_away",
    ]
    assert events(home, "--service", "strategy_runner") == ["signal.generated"]
    assert events(home, "--service", "mlflow") == []


def test_a_person_reads_time_event_and_fields(home) -> None:
    code, said = run(home, "--channel", "monitoring")
    assert code == 0
    assert said.startswith("2026-01-05T09:20:00.000+05:30 [info     ] redis_is_away")
    assert "failure=[markup]" in said


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--correlation", "51"], "too short for an id"),
        (["--correlation", "000000"], "no line of the logs has an id that begins with '000000'"),
        (["--channel", "tradnig"], "there is no channel 'tradnig'; did you mean trading?"),
        (["--service", "acount"], "no line of a service 'acount'; there are market_feed"),
    ],
)
def test_what_is_not_there_is_said_in_one_sentence(home, words, told) -> None:
    code, said = run(home, *words)
    assert code == 1
    assert told in " ".join(said.split())


def test_a_home_without_logs_says_so_and_is_not_made(tmp_path) -> None:
    code, said = run(tmp_path / "none")
    assert (code, (tmp_path / "none").exists()) == (1, False)
    assert "nothing was logged" in said


def test_a_line_that_somebody_else_wrote_is_counted_and_not_shown(home) -> None:
    with (home / "logs" / "audit.log").open("w") as file:
        file.write("by hand\n")
    code, said = run(home, "--channel", "audit")
    assert code == 0
    assert "1 lines are no JSON" in said


def test_what_comes_is_followed_across_a_rotation(home) -> None:
    followed = follow(home, Wanted(channels=("trading",)))
    writer = threading.Timer(0.5, write, (home, "trading", 21, "first"))
    writer.start()
    assert next(followed)["event"] == "first"
    (home / "logs" / "trading.log").rename(home / "logs" / "trading.log.1")
    write(home, "trading", 22, "second")
    assert next(followed)["event"] == "second"
    writer.join()
    followed.close()
