"""What supervisord is told, and what a home without one answers."""

from __future__ import annotations

import configparser
import shlex
import stat
from pathlib import Path

import pytest

from live_services.supervision import (
    SERVERS,
    SERVICES,
    NotRunning,
    Program,
    SupervisionError,
    Supervisor,
    supervisor_configuration,
    write_private,
)


def _read(text: str) -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser()
    parser.read_string(text)
    return parser


def test_a_program_is_started_with_its_own_words_and_environment(tmp_path):
    program = Program("feed", ("/py thon", "-m", "live_services", "100%"), {"KEY": "va lue"}, stop_seconds=7.0)
    text = supervisor_configuration(Supervisor(tmp_path), {SERVERS: [], SERVICES: [program]})
    section = _read(text)["program:feed"]
    assert shlex.split(section["command"].replace("%%", "%")) == list(program.argv)
    assert section["environment"] == 'KEY="va lue"'
    assert (section["stopasgroup"], section["killasgroup"], section["autostart"]) == ("true", "true", "false")
    assert section["stopwaitsecs"] == "7"
    assert _read(text)["group:services"]["programs"] == "feed"


def test_a_value_that_supervisord_cannot_pass_on_is_refused(tmp_path):
    program = Program("feed", ("x",), {"KEY": 'a"b'})
    with pytest.raises(SupervisionError, match="KEY has a quote"):
        supervisor_configuration(Supervisor(tmp_path), {SERVICES: [program]})


def test_the_control_socket_of_a_deep_home_still_fits(tmp_path):
    deep = tmp_path / ("d" * 120)
    assert len(str(Supervisor(deep).socket_path)) <= 100
    assert Supervisor(deep).socket_path != Supervisor(tmp_path / ("e" * 120)).socket_path


def test_a_home_where_nothing_runs_says_how_to_start(tmp_path):
    supervisor = Supervisor(tmp_path)
    assert not supervisor.running
    with pytest.raises(NotRunning, match="alpha-panda up"):
        supervisor.processes()


def test_endpoints_are_private(tmp_path: Path):
    path = tmp_path / "run" / "endpoints.toml"
    write_private(path, "a = 1\n")
    write_private(path, "a = 2\n")
    assert path.read_text() == "a = 2\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
