"""Debian's Prometheus and its promtool, where they are installed."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

DEPLOY: Final = Path(__file__).parents[1] / "deploy"
CONFIG: Final = DEPLOY / "prometheus" / "prometheus.yml"


def program(name: str) -> str:
    """Path of ``prometheus`` or ``promtool``; the test is skipped without it, unless CI runs it."""
    found = shutil.which(name)
    if found is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(
            "Prometheus is not installed: apt-get install prometheus"
        )
    return found


class Prometheus:
    """A server that can be asked."""

    def __init__(self, port: int) -> None:
        self.url: Final = f"http://127.0.0.1:{port}"

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Give the series of an expression now; none while the server does not answer yet."""
        return self._get("query", query=expression).get("result", [])

    def alerts(self) -> list[dict[str, Any]]:
        """Give the alerts that pend or fire."""
        return self._get("alerts").get("alerts", [])

    def _get(self, what: str, **asked: str) -> dict[str, Any]:
        try:
            address = f"{self.url}/api/v1/{what}?{urllib.parse.urlencode(asked)}"
            with urllib.request.urlopen(address, timeout=5) as answer:
                data: dict[str, Any] = json.load(answer)["data"]
                return data
        except OSError:
            return {}


@contextmanager
def prometheus_of(home: Path, directory: Path) -> Iterator[Prometheus]:
    """Run Prometheus on the configuration that ships, for another home and in a hurry."""
    binary = program("prometheus")
    config = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    config["global"] = {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "1s"}
    config["rule_files"] = [str(CONFIG.parent / file) for file in config["rule_files"]]
    (found,) = config["scrape_configs"][0]["file_sd_configs"]
    found |= {"files": [str(home / "run" / "metrics" / "*.json")], "refresh_interval": "1s"}
    (directory / "prometheus.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = [f"--web.listen-address=127.0.0.1:{port}", f"--storage.tsdb.path={directory / 'tsdb'}"]
    with (directory / "prometheus.log").open("wb") as log:
        command = [binary, f"--config.file={directory / 'prometheus.yml'}", *options]
        server = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            yield Prometheus(port)
        finally:
            server.terminate()
            server.wait(10)
