"""A whole desk for a benchmark: Kafka, Valkey and MLflow of its own, a market in its store, and its services.

The services are the processes that ``alpha-panda up`` runs, started here one by one, so that one that ends is an error
and not a restart.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import tomli_w
from aiokafka import TopicPartition

from benchmarks.trained import trained_version
from feature_store.market.types import Session
from feature_store.offline.store import OfflineStore
from live_services.adapters.kafka import committed_offsets
from live_services.chaos.made_desk import MODEL, STRATEGIES
from live_services.cli.models import promote_as_person
from live_services.composition import build_registry, processes
from live_services.demo.run import own_settings_only
from live_services.domain.topics import MARKET_TICKS, Scope, consumer_group
from live_services.machine.programs import SERVERS
from live_services.machine.stack import Stack, create_topics, environment
from live_services.machine.up import interrupts_ignored
from live_services.settings import CONFIG_NAME, Settings, load_settings

ONE_THREAD: Final = {"OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"}
WHY: Final = "a benchmark's desk trades whatever the gate says"
_STOP_SECONDS: Final = 15
_START_SECONDS: Final = 240.0
Tell = Callable[[str], None]
Check = Callable[[], None]
"""Raises if a process has ended that was not to."""


@dataclass(frozen=True, slots=True)
class BenchDesk:
    """A desk whose servers run and whose services do not."""

    home: Path
    stack: Stack
    strategies: Sequence[Mapping[str, Any]]

    @property
    def settings(self) -> Settings:
        """As they are now: `configure` changes them."""
        return load_settings()

    @property
    def store(self) -> OfflineStore:
        """Where its market is."""
        return OfflineStore(self.settings.store_root)

    def configure(self, sessions: Sequence[Session] = (), **market: object) -> None:
        """Say which sessions are replayed, and how."""
        _write_configuration(self.home, self.strategies, sessions, market)

    def argv(self, name: str) -> list[str]:
        """Give the command of one of its services."""
        (scope,) = (scope for entry, scope in self.services if entry.name == name)
        return [sys.executable, "-m", "live_services.process", name, *(() if scope == "shared" else (scope,))]

    @property
    def services(self) -> tuple[tuple[Any, Scope], ...]:
        """What runs on it, by the table."""
        return processes(self.settings)

    def register(self, sessions: Sequence[Session], versions: int = 1) -> list[str]:
        """Train its model on sessions of the store, register it so many times, and make the first champion."""
        registry = build_registry(self.settings)
        packed, sidecar = trained_version(self.settings, sessions, self.store)
        names = [registry.register(packed, sidecar, description="Made by a benchmark.") for _ in range(versions)]
        promote_as_person(self.settings, registry, MODEL, names[0], "champion", reason=WHY, override=WHY)
        return names

    @contextmanager
    def running(self, argvs: Mapping[str, Sequence[str]]) -> Iterator[tuple[dict[str, subprocess.Popen[bytes]], Check]]:
        """Run services, or what stands in for them, with the settings of this desk."""
        with running(argvs, self.home / "logs", {**self.stack.environment, **ONE_THREAD}) as started:
            yield started

    async def chains_begin(self, check: Check) -> None:
        """Wait until every chain has its place on the log; the first start on a machine compiles for a while."""
        kafka, deadline = self.settings.kafka, time.monotonic() + _START_SECONDS
        groups = {consumer_group(entry.name, scope) for entry, scope in self.services if entry.is_chain}
        while groups:
            check()
            if time.monotonic() > deadline:
                raise RuntimeError(f"not there after {_START_SECONDS:.0f} s: {', '.join(sorted(groups))}")
            begun = [
                one for one in groups if await committed_offsets(kafka, one, [TopicPartition(MARKET_TICKS.name, 0)])
            ]
            groups.difference_update(begun)
            await asyncio.sleep(0.2)

    def server_pids(self) -> dict[str, int]:
        """Give the processes of its servers."""
        return {one.name: one.pid for one in self.stack.supervisor.processes() if one.group == SERVERS}


@contextmanager
def bench_desk(tell: Tell, strategies: Sequence[Mapping[str, Any]] = STRATEGIES) -> Iterator[BenchDesk]:
    """Start the servers of a desk in a directory that is gone afterwards; settings of this person play no part.

    By default its strategies propose something in nearly every minute.
    """
    with tempfile.TemporaryDirectory(prefix="bench-desk-", ignore_cleanup_errors=True) as directory:
        home = Path(directory)
        chosen = {
            "ALPHA_PANDA_HOME": str(home),
            "ALPHA_PANDA_CONFIG": str(home / CONFIG_NAME),
            "MLFLOW_LOGGING_LEVEL": "WARNING",
        }
        with own_settings_only(tell), environment(chosen):
            _write_configuration(home, strategies, (), {})
            stack = Stack(load_settings())
            try:
                tell("Kafka, Valkey and MLflow start")
                stack.start_servers(tell=_silent)
                stack.wait_ready("kafka", "valkey", "mlflow", tell=_silent)
                asyncio.run(create_topics(load_settings()))
                yield BenchDesk(home, stack, strategies)
            finally:
                with interrupts_ignored():
                    stack.stop_own()


def all_of(*checks: Check) -> Check:
    """Make one check of several."""

    def check() -> None:
        for one in checks:
            one()

    return check


async def end(process: subprocess.Popen[bytes]) -> None:
    """Ask a process to stop, and wait until it has."""
    process.terminate()
    await asyncio.to_thread(process.wait)


def _silent(_: str) -> None:
    """Say nothing."""


def _write_configuration(
    home: Path, strategies: Sequence[Mapping[str, Any]], sessions: Sequence[Session], market: Mapping[str, object]
) -> None:
    played = {"replay_session": str(sessions[0].date), "replay_through": str(sessions[-1].date)} if sessions else {}
    limits = {"max_open_positions": 1000, "max_gross_notional_inr": 1e9}
    settings = {
        # no Dagster is needed, and a desk that names one starts none
        "dagster": {"url": "http://127.0.0.1:9"},
        "market": {**market, **played},
        "trading": {"paper": {"enabled": True, "starting_cash_inr": 1e8, "risk": limits}},
        "strategies": [dict(one) for one in strategies],
    }
    (home / CONFIG_NAME).write_text(tomli_w.dumps(settings), encoding="utf-8")


@contextmanager
def running(
    argvs: Mapping[str, Sequence[str]], logs: Path, more: Mapping[str, str]
) -> Iterator[tuple[dict[str, subprocess.Popen[bytes]], Check]]:
    """Run processes with more in their environment; gives them, and what raises if one of them has failed."""
    started: dict[str, subprocess.Popen[bytes]] = {}
    logs.mkdir(parents=True, exist_ok=True)
    try:
        for name, argv in argvs.items():
            with (logs / f"{name}.out").open("wb") as log:
                started[name] = subprocess.Popen(argv, stdout=log, stderr=log, env={**os.environ, **more})

        def check() -> None:
            for name, process in started.items():
                if process.poll():
                    tail = (logs / f"{name}.out").read_text()[-3000:]
                    raise RuntimeError(f"the benchmark's {name} ended with {process.returncode}:\n{tail}")

        yield started, check
    finally:
        for process in started.values():
            process.terminate()
        for process in started.values():
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
