"""Where Prometheus finds the processes of a home: each writes a file that ``file_sd_configs`` reads.

https://prometheus.io/docs/prometheus/latest/configuration/configuration/#file_sd_config
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import structlog

from live_services.domain.topics import Scope

_log = structlog.get_logger("monitoring")


def targets_directory(home: Path) -> Path:
    """Give the directory of a home in which each process has a file."""
    return home / "run" / "metrics"


def read_targets(home: Path) -> Iterator[tuple[str, str, str]]:
    """Give process, world and address (host and port) of each process of a home that said where it listens."""
    for path in sorted(targets_directory(home).glob("*.json")):
        try:
            (group,) = json.loads(path.read_text(encoding="utf-8"))
            (address,) = group["targets"]
            yield group["labels"]["process"], group["labels"]["world"], str(address)
        except (OSError, ValueError, TypeError, KeyError):
            continue  # of another version, or half removed


class ScrapeTarget:
    """The file of one process; one that ended in a failure leaves it, so that Prometheus shows it as down.

    Parameters
    ----------
    home
    process, scope
        Its name in the table of processes, and whose it is: the labels ``process`` and ``world`` of all its series.
    port
        Of its ``/metrics``, on loopback.
    """

    def __init__(self, home: Path, process: str, scope: Scope, port: int) -> None:
        self._path: Final = targets_directory(home) / f"{scope}.{process}.json"
        self._content: Final = [{"targets": [f"127.0.0.1:{port}"], "labels": {"process": process, "world": scope}}]

    def write(self) -> None:
        """Write the file whole; a folder that cannot be written is logged, and stops nothing."""
        draft = self._path.with_suffix(".draft")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            draft.write_text(json.dumps(self._content), encoding="utf-8")
            draft.replace(self._path)
        except OSError as failure:
            _log.warning("scrape_target_not_written", file=str(self._path), reason=str(failure))

    def remove(self) -> None:
        """Remove the file."""
        try:
            self._path.unlink(missing_ok=True)
        except OSError as failure:
            _log.warning("scrape_target_not_removed", file=str(self._path), reason=str(failure))
