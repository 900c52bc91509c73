"""The desk of the benchmark of scale: a generated market of any size in a home, its servers and services by the stack.

All is what `alpha-panda up` runs. The model is trained on few instruments, so that this takes seconds; the market
that it trades has as many as are asked for, three sessions of bars, and one session of ticks that is played.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import psutil
import tomli_w

from benchmarks.trained import train_and_promote
from feature_store.market.types import SECOND_NS, Session, Ticks
from feature_store.offline.store import OfflineStore
from feature_store.sources.synthetic import synthetic_market
from live_services.chaos.made_desk import MODEL
from live_services.demo.run import own_settings_only
from live_services.machine.programs import SERVICES
from live_services.machine.stack import Stack, Tell, create_topics, environment
from live_services.machine.up import interrupts_ignored, signals_as_interrupts
from live_services.settings import CONFIG_NAME, Settings, load_settings

RUNNER: Final = "strategy_runner"
ACCOUNT: Final = "paper.account"
SHARE: Final = "'s share"
SESSIONS_BEFORE: Final = 3
_TRAINED_ON: Final = 8
_SESSIONS_TRAINED_ON: Final = 8
_TRAINED_FROM: Final = "2025-11-03"  # a model that has seen the session is refused
_SLOT_NS: Final = 2 * SECOND_NS
"""The generated market has a tick of each instrument in each."""
_EVERY: Final = 8  # slots: an instrument ticks 3.75 times a minute
_FRAMES_A_SECOND: Final = 50
_SNAPSHOT_SECONDS: Final = 3.0
"""Rather than 15, because of a session that takes a minute."""
_RARE: Final = {"buy_quantile": 0.98, "sell_quantile": 0.02}
"""Of scores: of 3,000 instruments about a hundred are proposed in a minute."""


@dataclass(frozen=True, slots=True)
class ScaleDesk:
    """A desk whose servers run and whose services do not."""

    stack: Stack
    settings: Settings
    session: Session
    speed: float
    """Session seconds in one on the wall."""

    @property
    def seconds(self) -> float:
        """How long the session takes on the wall."""
        return (self.session.close_ns - self.session.open_ns) / SECOND_NS / self.speed

    def pids(self) -> dict[str, int]:
        """Give the process of each service that runs, by name."""
        states = self.stack.supervisor.processes()
        return {one.name: one.pid for one in states if one.group == SERVICES and one.pid}

    def memory_mb(self) -> dict[str, float]:
        """Give what each service has resident, by name; on Linux also its share, with pages of files divided among
        the processes that have them.
        """
        found = {}
        for name, pid in self.pids().items():
            try:
                memory = psutil.Process(pid).memory_full_info()
            except psutil.NoSuchProcess:
                continue
            found[name] = memory.rss / 2**20
            if (share := getattr(memory, "pss", None)) is not None:
                found[name + SHARE] = share / 2**20
        return found

    def said(self, event: str) -> list[dict[str, Any]]:
        """Give the log lines with an event, in the order in which they were written."""
        lines: list[dict[str, Any]] = []
        for path in (self.stack.home / "logs").glob("*.log"):
            lines += [line for line in _lines(path) if line.get("event") == event]
        return sorted(lines, key=lambda line: str(line["time"]))


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    for text in path.read_text(errors="replace").splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict):
            yield line


@contextmanager
def scale_desk(home: Path, instruments: int, seconds: float, tell: Tell) -> Iterator[ScaleDesk]:
    """Make a desk and run its servers for as long as the block lasts; its session is to take so many seconds."""
    _write_configuration(home)
    chosen = {
        "ALPHA_PANDA_HOME": str(home),
        "ALPHA_PANDA_CONFIG": str(home / CONFIG_NAME),
        "MLFLOW_LOGGING_LEVEL": "WARNING",
    }
    with signals_as_interrupts(), own_settings_only(tell), environment(chosen):
        session = _store_market(load_settings(), instruments)
        speed = (session.close_ns - session.open_ns) / SECOND_NS / seconds
        _write_configuration(home, session, speed)
        stack = Stack(load_settings())
        try:
            stack.start_servers(tell=tell)
            stack.wait_ready(tell=tell)
            settings = load_settings()
            asyncio.run(create_topics(settings))
            _train(home, settings)
            yield ScaleDesk(stack, settings, session, speed)
        finally:
            with interrupts_ignored():
                stack.stop_own()


def _write_configuration(home: Path, session: Session | None = None, speed: float = 1.0) -> None:
    risk = {"max_open_positions": 3000, "max_gross_notional_inr": 1e9}
    played = {} if session is None else {"replay_session": str(session.date)}
    settings = {
        "runtime": {"snapshot_interval_seconds": _SNAPSHOT_SECONDS},
        "logging": {"level": "DEBUG"},  # it says what a snapshot took
        "dagster": {"url": "http://127.0.0.1:9"},  # none is needed, and a desk that names one starts none
        "market": {"speed": speed, "frame_ms": max(1, round(1000 * speed / _FRAMES_A_SECOND))} | played,
        "trading": {"paper": {"enabled": True, "starting_cash_inr": 1e9, "risk": risk}},
        "strategies": [{"name": MODEL, "model": MODEL, "holding_bars": 3, **_RARE}],
    }
    (home / CONFIG_NAME).write_text(tomli_w.dumps(settings), encoding="utf-8")


def _store_market(settings: Settings, instruments: int) -> Session:
    made = synthetic_market(instruments, SESSIONS_BEFORE, index=False, quotes=False)
    store = OfflineStore(settings.store_root)
    store.write_universe(made.universe, made.name)
    for session, bars in zip(made.sessions, made.bars, strict=True):
        store.write_bars(session, made.universe, bars, made.name)
    (session,), (ticks,) = made.tick_sessions, made.ticks
    store.write_ticks(session, made.universe, _thinned(ticks, session), made.name)
    return session


def _thinned(ticks: Ticks, session: Session) -> Ticks:
    """Keep each eighth tick of each instrument, not all instruments' in the same slot."""
    slots = (ticks.event_time_ns - session.open_ns) // _SLOT_NS
    return ticks[np.flatnonzero((slots + ticks.instrument) % _EVERY == 0)]


def _train(home: Path, settings: Settings) -> None:
    made = synthetic_market(_TRAINED_ON, _SESSIONS_TRAINED_ON, _TRAINED_FROM, index=False, quotes=False, edge_bps=12.0)
    store = OfflineStore(home / "trained-on")
    store.write_universe(made.universe, made.name)
    for session, bars in zip(made.sessions, made.bars, strict=True):
        store.write_bars(session, made.universe, bars, made.name)
    train_and_promote(settings, made, store)


def largest(samples: Iterable[dict[str, float]]) -> dict[str, float]:
    """Give the largest value of each name."""
    found: dict[str, float] = {}
    for sample in samples:
        for name, value in sample.items():
            found[name] = max(value, found.get(name, 0.0))
    return found
