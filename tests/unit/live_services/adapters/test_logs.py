from __future__ import annotations

import datetime as dt
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaConnectionError

from live_services.adapters.log_queue import Brake, Queued
from live_services.adapters.logs import CHANNELS, Routed, configure_logging, log_beside, stop_logging, wiring
from live_services.adapters.metrics import Metrics
from live_services.operations_settings import LoggingSettings

ROOT = Path(__file__).resolve().parents[4]


@pytest.fixture(autouse=True)
def _let_go() -> Iterator[None]:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    yield
    stop_logging()
    root.handlers[:] = before
    root.setLevel(level)


def lines(home: Path, channel: str) -> list[dict[str, Any]]:
    path = home / "logs" / f"{channel}.log"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def run(code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_a_line_on_each_channel_is_in_the_file_of_each_channel_and_on_the_console(tmp_path, capsys) -> None:
    configure_logging("account", tmp_path, scope="paper")
    for channel in CHANNELS:
        structlog.get_logger(channel).info("smoke", about=channel)
    assert stop_logging()
    for channel in CHANNELS:
        (line,) = lines(tmp_path, channel)
        assert {k: line[k] for k in ("level", "channel", "service", "scope", "event", "about")} == {
            "level": "info",
            "channel": channel,
            "service": "account",
            "scope": "paper",
            "event": "smoke",
            "about": channel,
        }
        assert dt.datetime.fromisoformat(line["time"]).utcoffset() == dt.timedelta(hours=5, minutes=30)
        assert (tmp_path / "logs" / f"{channel}.log").stat().st_mode & 0o777 == 0o600
    assert capsys.readouterr().err.count("smoke") == len(CHANNELS)


def test_the_wiring_of_a_process_is_written_down_at_its_start(tmp_path) -> None:
    configure_logging("account", tmp_path)
    (line,) = lines(tmp_path, "alpha_panda")
    assert set(line["channels"]) == set(CHANNELS)
    assert line["service"] == "account"
    assert set(wiring().files) == set(CHANNELS)


def test_an_error_of_any_channel_is_in_error_log_too_with_its_traceback(tmp_path) -> None:
    configure_logging("account", tmp_path)
    try:
        raise ValueError("no such bar")
    except ValueError:
        structlog.get_logger("trading").exception("record_failed")
        logging.getLogger("some.library").exception("it broke")
    stop_logging()
    ours, theirs = lines(tmp_path, "error")
    assert (ours["channel"], theirs["channel"]) == ("trading", "application")
    assert "ValueError: no such bar" in ours["exception"]
    assert "ValueError: no such bar" in theirs["exception"]
    assert [line["event"] for line in lines(tmp_path, "trading")] == ["record_failed"]


def test_web_servers_log_on_api_and_other_libraries_on_application(tmp_path, monkeypatch) -> None:
    configure_logging("mlflow", tmp_path)
    monkeypatch.setattr(logging.getLogger("mlflow"), "propagate", True)  # as its server does
    for name in ("uvicorn.error", "fastapi", "aiokafka.conn", "dagster", "mlflow.tracking"):
        monkeypatch.setattr(logging.getLogger(name), "disabled", False)  # a migration disables them
        logging.getLogger(name).warning("from %s", name)
    stop_logging()
    assert [line["logger"] for line in lines(tmp_path, "api")] == ["uvicorn.error", "fastapi"]
    assert [line["logger"] for line in lines(tmp_path, "application")] == [
        "aiokafka.conn",
        "dagster",
        "mlflow.tracking",
    ]


def test_a_secret_is_in_no_file_and_not_on_the_console(tmp_path, capsys) -> None:
    configure_logging("account", tmp_path, secrets=["rosebud-7"])
    structlog.get_logger("application").error("refused", said="rosebud-7", sasl_password="s3cr3t!x")
    logging.getLogger("library").error("no login with %s", "redis://:s3cr3t!x@cache")
    stop_logging()
    written = "".join(path.read_text() for path in (tmp_path / "logs").glob("*.log")) + capsys.readouterr().err
    assert "refused" in written
    assert "rosebud" not in written
    assert "s3cr3t" not in written


def test_a_library_repeats_a_line_once_a_second_and_what_was_held_back_is_counted() -> None:
    now = [100.0]
    brake = Brake(1.0, lambda: now[0])

    def passes(name: str, text: str, *args: object) -> int | None:
        record = logging.LogRecord(name, logging.ERROR, "", 0, text, args, None)
        return record.held_back if brake.passes(record) else None

    told = []
    for _ in range(3000):
        told.append(passes("aiokafka", "Unable connect to node with id %s", len(told)))
        now[0] += 0.001
    assert [held for held in told if held is not None] == [0, 999, 999]
    assert passes("aiokafka", "another line") == 0
    assert passes("library", "port 4711 is closed") == 0
    assert passes("library", "port 4712 is closed") is None
    assert brake.held_back == 2997 + 1


async def test_a_broker_that_is_away_is_one_line_of_aiokafka_and_a_count(tmp_path) -> None:
    wired = configure_logging("account", tmp_path, LoggingSettings(third_party_seconds=3600))
    for _ in range(20):
        consumer = AIOKafkaConsumer(bootstrap_servers="127.0.0.1:9")
        with pytest.raises(KafkaConnectionError):
            await consumer.start()
        await consumer.stop()
    stop_logging()
    *theirs, ours = lines(tmp_path, "application")
    assert len(theirs) == len({line["event"] for line in theirs}) >= 1
    assert wired.held_back == 19 * len(theirs)
    assert (ours["event"], ours["lines"]) == ("library_lines_held_back", wired.held_back)


def test_a_channels_lines_are_never_held_back(tmp_path) -> None:
    configure_logging("account", tmp_path)
    for _ in range(50):
        structlog.get_logger("trading").info("again")
    stop_logging()
    assert len(lines(tmp_path, "trading")) == 50


def test_a_full_queue_drops_lines_but_none_of_audit_and_says_how_many() -> None:
    import threading

    gate, written = threading.Event(), []

    def slow_disk(record: logging.LogRecord) -> None:
        gate.wait(10)
        written.append(record.msg)

    queued = Queued(slow_disk, Brake(1.0), most=5)
    for name in ("trading",) * 100 + ("audit",) * 3:
        queued.handle(logging.LogRecord(name, logging.INFO, "", 0, {"event": name}, None, None))
    gate.set()
    assert queued.stop(10)
    assert queued.dropped >= 94
    assert [one["event"] for one in written].count("audit") == 3
    assert sum(one["lines"] for one in written if one["event"] == "log_lines_dropped") == queued.dropped


_HANGS = """
import logging, os, sys
from pathlib import Path
import structlog
from live_services.adapters.logs import configure_logging, stop_logging
home = Path(sys.argv[1])
(home / "logs").mkdir()
os.mkfifo(home / "logs" / "trading.log", 0o600)  # nobody reads it: whoever opens it waits for ever
configure_logging("account", home)
for n in range(20_000):
    structlog.get_logger("trading").info("tick", n=n)
print("traded on")
sys.stdout.flush()
assert not stop_logging(0.2)
os._exit(0)
"""


def test_a_disk_that_hangs_stalls_nobody_who_logs(tmp_path) -> None:
    done = run(_HANGS, str(tmp_path))
    assert (done.stdout, done.returncode) == ("traded on\n", 0), done.stderr[-2000:]


_WRITES = """
import sys
from pathlib import Path
import structlog
from live_services.adapters.logs import configure_logging, stop_logging
from live_services.operations_settings import LoggingSettings
configure_logging(sys.argv[2], Path(sys.argv[1]), LoggingSettings(max_mb=1, backups=9))
log = structlog.get_logger("trading")
for n in range(3_000):
    log.info("order.filled", n=n, note="x" * 250)
assert stop_logging(30)
"""


def test_a_file_that_three_processes_write_is_rotated_and_loses_no_line(tmp_path) -> None:
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", _WRITES, str(tmp_path), name],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stderr=subprocess.DEVNULL,
        )
        for name in ("one", "two", "three")
    ]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    files = sorted((tmp_path / "logs").glob("trading.log*"))
    assert len(files) >= 3
    oldest_first = sorted(files, key=lambda path: -int(path.suffix[1:]) if path.suffix != ".log" else 0)
    said = [json.loads(line) for path in oldest_first for line in path.read_text().splitlines()]
    for name in ("one", "two", "three"):
        assert [line["n"] for line in said if line["service"] == name] == list(range(3000))


def test_a_file_that_cannot_be_written_is_said_once_and_counted(tmp_path, capsys) -> None:
    (tmp_path / "logs").write_text("no directory")
    wired = log_beside("cli", tmp_path)
    for _ in range(3):
        structlog.get_logger("audit").info("halted")
    assert (wired.failed, wired.lost, wired.is_failing) == (3, 3, True)
    assert Metrics().registry.get_sample_value("alpha_panda_log_lines_lost") == 3.0
    assert capsys.readouterr().err.count("audit.log") == 1


def test_beside_another_console_only_files_are_written_and_none_before_the_first_line(tmp_path, capsys) -> None:
    home = tmp_path / "home"
    log_beside("cli", home)
    assert not home.exists()
    structlog.get_logger("audit").info("trading_state_commanded", state="HALTED")
    (line,) = lines(home, "audit")
    assert (line["service"], line["state"]) == ("cli", "HALTED")
    logging.getLogger("aiokafka").error("is not ours to write")
    assert lines(home, "application") == []
    assert capsys.readouterr() == ("", "")


def test_the_audit_file_is_never_rotated(tmp_path) -> None:
    log_beside("cli", tmp_path, LoggingSettings(max_mb=1, backups=0))
    for n in range(4):
        structlog.get_logger("audit").info("model_promoted", n=n, note="x" * 400_000)
    assert [line["n"] for line in lines(tmp_path, "audit")] == [0, 1, 2, 3]


def test_what_is_bound_is_on_each_line_of_its_caller(tmp_path) -> None:
    configure_logging("account", tmp_path)
    with structlog.contextvars.bound_contextvars(correlation_id="c-1"):
        structlog.get_logger("trading").info("inside")
        logging.getLogger("library").warning("inside too")
    structlog.get_logger("trading").info("outside")
    stop_logging()
    inside, outside = lines(tmp_path, "trading")
    assert inside["correlation_id"] == "c-1"
    assert "correlation_id" not in outside
    assert lines(tmp_path, "application")[0]["correlation_id"] == "c-1"


def test_who_writes_is_said_by_the_process_and_not_by_a_field_of_the_same_name(tmp_path) -> None:
    log_beside("cli", tmp_path)
    structlog.get_logger("audit").info("halted", service="risk_manager")
    (line,) = lines(tmp_path, "audit")
    assert (line["service"], line["said_service"]) == ("cli", "risk_manager")


def test_what_named_libraries_log_goes_to_the_files_and_on_where_it_went(tmp_path, caplog) -> None:
    log_beside("dagster", tmp_path, libraries=("mlflow",))
    logging.getLogger("mlflow.store.db").warning("creating tables")
    (line,) = lines(tmp_path, "application")
    assert (line["logger"], line["event"]) == ("mlflow.store.db", "creating tables")
    assert caplog.messages == ["creating tables"]


def test_a_handler_that_a_library_makes_by_its_name_writes_to_this_processs_files(tmp_path) -> None:
    logger = logging.Logger("dagster")  # of a run: no child of the root
    logger.addHandler(Routed())
    logger.error("nobody is wired yet")
    log_beside("dagster", tmp_path)
    logger.error("a step failed")
    for channel in ("application", "error"):
        assert [line["event"] for line in lines(tmp_path, channel)] == ["a step failed"]


class _Unreadable:
    def __str__(self) -> str:
        raise RuntimeError("it cannot be told")


@pytest.mark.parametrize("configure", [configure_logging, log_beside])
def test_a_line_that_cannot_be_told_is_never_its_writers_failure(tmp_path, capsys, configure) -> None:
    configure("account", tmp_path)
    logger = logging.getLogger("trading")
    logger.warning("%d orders", "three")
    logger.warning(_Unreadable())
    logging.getLogger("trading").warning("%d orders", 3)
    assert stop_logging()
    assert [line["event"] for line in lines(tmp_path, "trading")] == ["3 orders"]
    told = capsys.readouterr().err
    assert "%d orders" in told
    assert "it cannot be told" in told
