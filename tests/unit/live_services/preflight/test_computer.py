"""Folders that cannot be written, a full disk and little memory are found before anything starts."""

import os
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

from live_services import process
from live_services.adapters.logs import stop_logging
from live_services.home import LAYOUT
from live_services.preflight.computer import disk_finding, home_finding, logs_finding, memory_finding
from live_services.settings import load_settings

NOBODY = 65534


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ALPHA_PANDA_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("ALPHA_PANDA_CONFIG", raising=False)
    (tmp_path / "home" / "logs").mkdir(parents=True)
    return tmp_path / "home"


@contextmanager
def closed(folder):
    """A folder that nobody may write in, also where the tests run as root, whom no mode keeps out."""
    root = os.geteuid() == 0
    folder.chmod(0o500)
    if root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        folder.chmod(0o700)


def found(check, **options):
    (finding,) = check(load_settings(**options))
    return finding


def test_a_home_that_is_not_there_yet_can_be_made(home, monkeypatch):
    monkeypatch.setenv("ALPHA_PANDA_HOME", str(home / "one" / "two"))
    assert found(home_finding).status == found(logs_finding).status == "ok"
    assert not (home / "one").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a disk that is full")
def test_a_disk_that_takes_a_file_and_nothing_in_it_is_full(home, monkeypatch):
    with Path("/dev/full").open("wb", buffering=0) as full:
        monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: full)
        finding = found(logs_finding)
    assert finding.reason == f"{home / 'logs'} cannot be written: No space left on device"
    assert finding.way_out.startswith("Free some of that disk")


def test_a_log_folder_that_cannot_be_written_holds_everything_back_and_says_whose_right_is_missing(home):
    with tempfile.TemporaryDirectory() as open_to_all:
        logs = Path(open_to_all) / "logs"
        logs.mkdir()
        Path(open_to_all).chmod(0o755)
        settings = load_settings(alpha_panda_home=Path(open_to_all))
        with closed(logs):
            (finding,) = logs_finding(settings)
        assert [one.status for one in logs_finding(settings)] == ["ok"]
    assert (finding.status, finding.policy) == ("failed", "always")
    assert f"{logs} cannot be written: Permission denied" in finding.reason
    assert f"chown -R $USER {logs}" in finding.way_out


def test_a_file_in_the_place_of_a_folder_is_named(home):
    (home / "run").write_text("")
    assert found(home_finding).reason == f"{home / 'run'} is not a folder"
    assert found(home_finding).way_out.startswith(f"Move {home / 'run'} away, or name another home")


def test_a_home_of_another_version_holds_everything_back(home):
    (home / "kafka").mkdir()
    (home / "layout.toml").write_text(f"layout = {LAYOUT + 1}\n")
    finding = found(home_finding)
    assert (finding.status, finding.policy) == ("failed", "always")
    assert "later version" in finding.reason


def test_little_disk_and_little_memory_are_said_with_their_keys(home):
    assert found(disk_finding).status == found(memory_finding).status == "ok"
    much = {"preflight": {"min_free_disk_mb": 10**9, "min_free_memory_mb": 10**9}}
    for check, key in ((disk_finding, "min_free_disk_mb"), (memory_finding, "min_free_memory_mb")):
        finding = found(check, **much)
        assert (finding.status, finding.policy) == ("failed", "production")
        assert f"1,000,000,000 are asked for (preflight.{key})" in finding.reason.replace(" MB", "")


def test_a_process_that_starts_again_says_what_it_lacks_and_asks_no_server_beside_kafka(home, monkeypatch, capsys):
    for name in ("REDIS__URL", "MLFLOW__TRACKING_URI", "DAGSTER__URL"):
        monkeypatch.setenv(name, f"{'redis' if 'REDIS' in name else 'http'}://127.0.0.1:9")
    (home / "logs").rmdir()
    (home / "logs").write_text("")
    assert process.main(["account", "paper"]) == 1
    assert f"error: {home / 'logs'} is not a folder. Move {home / 'logs'} away" in capsys.readouterr().err
    (home / "logs").unlink()
    (home / "alpha-panda.toml").write_text('[[strategies]]\nname = "m"\nfeatures = ["momentm_10"]\n')
    assert process.main(["strategy_runner"]) == 1
    stop_logging()
    assert "strategies: features of 'm': " in capsys.readouterr().err
