"""A desk for the big tests: real servers and real service processes under the real supervisor, a model really trained.

The expensive part (Kafka, Valkey, MLflow, a market, trained and registered versions) is made once for a pytest session;
every session that is traded gets an empty log.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiokafka import TopicPartition

from feature_store.features.schema import MOMENTUM_FEATURES, feature_schema
from feature_store.labels.forward_return import ForwardReturn
from feature_store.market.types import Session, Ticks
from feature_store.offline.store import OfflineStore
from feature_store.offline.training_frames import training_frame
from feature_store.sources.synthetic import synthetic_market
from live_services.adapters.kafka import StoredRecord, committed_offsets, read_topic
from live_services.adapters.market_log import last_watermarks
from live_services.adapters.sessions import MarketSessions
from live_services.adapters.stored_market import Replay, StoredMarket
from live_services.chaos.log import empty_log, until_settled
from live_services.composition import processes
from live_services.domain.clock import session_end_ns
from live_services.domain.events import Event, FeedStarted, PnlSnapshot, Watermark, decode_event
from live_services.domain.frames import decode_frame, universe_digest_of
from live_services.domain.partitions import part_of
from live_services.domain.topics import (
    FEATURES_SKEW,
    MARKET_SESSIONS,
    MARKET_TICKS,
    MODELS_LOADED,
    MODELS_REFUSED,
    SIGNALS_SHADOW,
    STRATEGIES_CONTROL,
    Topic,
    broker_topics,
    consumer_group,
)
from live_services.machine.programs import SERVICES
from live_services.machine.stack import Stack, environment
from live_services.runtime.positions import decode_position
from live_services.settings import Settings, load_settings
from models_registry.gates.evidence import NO_CHAMPION, Evidence
from models_registry.gates.limits import GateLimits
from models_registry.gates.plausible import plausibility_of
from models_registry.gates.verdicts import judge
from models_registry.ledger import PromotionLedger
from models_registry.packing import pack, parity
from models_registry.promotion import PromotionRecord, promote
from models_registry.registry import Registry
from models_registry.specification import StrategySpec
from models_registry.training import train
from models_registry.version import build_sidecar
from tests.kafka_desk import admin_of
from tests.models_registry_frames import FIT, TRADES

MODEL = "momentum"
STRATEGIES = ("momentum", "bracketed")
"""Both ask the one model."""
PAPER = broker_topics("paper")
FEED, RUNNER, ACCOUNT, MONITOR = "market_feed", "strategy_runner", "paper.account", "skew_monitor"
"""The programs, by the supervisor's names."""
SAID = (MARKET_SESSIONS, STRATEGIES_CONTROL, SIGNALS_SHADOW, FEATURES_SKEW, MODELS_LOADED, MODELS_REFUSED, *PAPER)
"""Every topic but the market's own: what the services say."""

Log = dict[str, list[StoredRecord]]
"""Committed records by topic, each partition in order."""

_MARKET = {"instruments": 6, "sessions": 8, "edge_bps": 12.0, "seed": 11, "tick_sessions": 2}


@dataclass(frozen=True)
class Versions:
    """What is registered; only the first is champion when a session starts."""

    champion: str
    successor: str
    failed_gate: str


class Desk:
    """Servers, services and models of one home."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.configuration = home / "alpha-panda.toml"
        self.configure()
        self.stack = Stack(load_settings())

    # --- settings -------------------------------------------------------------------------------------------------

    def configure(
        self, *, sessions: int = 1, speed: float = 0.0, frame_ms: int = 1000, poll_seconds: float = 5.0
    ) -> None:
        """Write the settings that a service reads when it starts: two strategies that ask one model, on one account."""
        played = [str(session.date) for session in self.sessions[:sessions]]
        played_range = f'replay_session = "{played[0]}"\nreplay_through = "{played[-1]}"' if played else ""
        self.configuration.write_text(
            f"""\
dagster.url = "http://127.0.0.1:9" # none is needed, and none is started
kafka.market_partitions = 2
mlflow.poll_seconds = {poll_seconds}

[market]
speed = {speed}
frame_ms = {frame_ms}
{played_range}

[trading.paper]
enabled = true
risk.max_open_positions = 3 # so that there is something to reject

[[strategies]]
name = "{STRATEGIES[0]}"
model = "{MODEL}"

[[strategies]]
name = "{STRATEGIES[1]}"
model = "{MODEL}"
priority = 1
stop_bps = 25
target_bps = 30
"""
        )

    @property
    def settings(self) -> Settings:
        return load_settings()

    @property
    def registry(self) -> Registry:
        return Registry(self.settings.mlflow.tracking_uri)

    @property
    def ledger(self) -> PromotionLedger:
        return PromotionLedger(self.settings.ledger_url)

    # --- models ---------------------------------------------------------------------------------------------------

    def register_versions(self) -> Versions:
        """Make a market, train on its bars, register three versions and promote the first."""
        made = synthetic_market(**_MARKET)
        store = OfflineStore(self.settings.store_root)
        store.write_universe(made.universe, made.name)
        for session, bars in zip(made.sessions, made.bars, strict=True):
            store.write_bars(session, made.universe, bars, made.name)
        for session, ticks in zip(made.tick_sessions, made.ticks, strict=True):
            store.write_ticks(session, made.universe, ticks, made.name)
        first, last = made.sessions[0].date, made.sessions[-1].date
        frame = training_frame(
            store, None, first, last, features=feature_schema(MOMENTUM_FEATURES, 1), label=ForwardReturn(10)
        )
        versions = []
        limits = (GateLimits(), GateLimits(), GateLimits(minimum_test_rows=10**9))
        algorithms = ("hist_gradient_boosting", "logistic_regression", "logistic_regression")
        for estimator, asked in zip(algorithms, limits, strict=True):
            often = {"buy_quantile": 0.92, "sell_quantile": 0.08}
            spec = StrategySpec.model_validate({"name": MODEL, "estimator": estimator} | often)
            trained = train(frame, spec, FIT)
            packed = pack(trained.estimator, trained.golden_rows)
            evidence = Evidence.of(
                trained,
                parity=parity(packed, trained.estimator, frame.X[::50]),
                bar_source="ticks",
                trades_on="ticks",
                champion=NO_CHAMPION,
                trades=TRADES,
                plausibility=plausibility_of(trained, frame),
            )
            sidecar = build_sidecar(
                trained,
                frame,
                packed,
                evidence,
                gate=judge(evidence, "champion", asked),
                created_by="tests",
                created_at_ns=time.time_ns(),
            )
            versions.append(self.registry.register(packed, sidecar, description="made by the tests"))
        self.promote(versions[0])
        return Versions(*versions)

    def promote(
        self,
        version: str,
        *,
        registry: Registry | None = None,
        announce: Callable[[PromotionRecord], None] = lambda _: None,
        override: str | None = "a test",
    ) -> PromotionRecord:
        """Promote to champion as a person does, overruling the gate if it says no."""
        return promote(
            registry or self.registry,
            self.ledger,
            MODEL,
            version,
            "champion",
            promoted_by="tests",
            reason="a test",
            override=override,
            now_ns=time.time_ns(),
            announce=announce,
        )

    def stored_file(self, version: str, file: str) -> Path:
        """Where MLflow keeps a file of a version."""
        run_of = self.registry.version(MODEL, version).source.removeprefix("models:/")
        found = [
            p for p in (self.home / "mlflow" / "artifacts").rglob(f"{run_of}/**/{file}") if "extra_files" in p.parts
        ]
        assert len(found) == 1, found
        return found[0]

    # --- a traded session -----------------------------------------------------------------------------------------

    @property
    def sessions(self) -> tuple[Session, ...]:
        """The two sessions that can be played."""
        return OfflineStore(self.settings.store_root).sessions("ticks") if self.configuration.exists() else ()

    @property
    def session(self) -> Session:
        """The first of them."""
        return self.sessions[0]

    @contextmanager
    def trading(
        self, *, sessions: int = 1, speed: float = 0.0, frame_ms: int = 1000, poll_seconds: float = 5.0
    ) -> Iterator[None]:
        """Run all services on an empty log for as long as the block lasts."""
        self.configure(sessions=sessions, speed=speed, frame_ms=frame_ms, poll_seconds=poll_seconds)
        asyncio.run(empty_log(self.settings))
        self.stack.start_services()
        try:
            yield
        finally:
            self.stack.supervisor.stop_group(SERVICES)

    def traded(self, *, sessions: int = 2, speed: float = 0.0, frame_ms: int = 1000) -> Log:
        """Trade sessions to the end of the last and give what was said."""
        with self.trading(sessions=sessions, speed=speed, frame_ms=frame_ms):
            self.wait_for_end(self.sessions[sessions - 1])
            return self.log()

    def wait_for_end(self, session: Session, seconds: float = 240) -> None:
        """Wait until every chain has committed the end of a session."""
        end_ns = session_end_ns(session)
        self.until(lambda: all(self.committed_ns(group) >= end_ns for group in self.groups), seconds)

    @property
    def groups(self) -> tuple[str, ...]:
        """The consumer groups of the desk's chains."""
        return tuple(consumer_group(entry.name, scope) for entry, scope in processes(self.settings) if entry.is_chain)

    def committed_ns(self, group: str) -> int:
        """Give the event time up to which a group has committed its work, on the partition furthest behind."""
        partitions = [TopicPartition(MARKET_TICKS.name, p) for p in range(self.settings.kafka.market_partitions)]
        found = asyncio.run(committed_offsets(self.settings.kafka, group, partitions))
        reached = [decode_position(group, tp, *position).watermark_ns for tp, position in found.items()]
        return min(reached) if len(reached) == len(partitions) else -1

    def until(self, condition: Callable[[], bool], seconds: float = 90) -> None:
        """Wait for a condition; fail at once when a service has given up."""
        deadline = time.monotonic() + seconds
        while not condition():
            self.stack.supervisor.require_alive(SERVICES)
            assert time.monotonic() < deadline, f"waited {seconds} s in vain; logs in {self.stack.supervisor.logs}"
            time.sleep(0.2)

    # --- what is on the log ---------------------------------------------------------------------------------------

    def records(self, topic: Topic) -> list[StoredRecord]:
        return asyncio.run(_read(self.settings, topic))

    def events(self, topic: Topic) -> list[Event]:
        return events(self.records(topic))

    def watermark_ns(self, topic: Topic) -> int:
        """Committed watermark of a topic: that of the partition furthest behind."""
        partitions = range(topic.partitions(self.settings.kafka.market_partitions))
        if topic == MARKET_TICKS:  # too long to be read again and again
            ends = asyncio.run(_market_ends(self.settings))
            return min(ends[p][1] if p in ends else 0 for p in partitions)
        reached = dict.fromkeys(partitions, 0)
        for record in self.records(topic):
            headers = dict(record.headers)
            if headers["event_type"] == b"watermark":
                reached[record.partition] = int(headers["event_time_ns"])
        return min(reached.values())

    def assert_market_is_whole(self) -> None:
        """Compare the market topic with the stored sessions."""
        market = StoredMarket(self.settings)
        assert_market_is_whole(self.records(MARKET_TICKS), [market.load(session) for session in self.sessions])

    def log(self) -> Log:
        """Give everything the services said, once all transactions are settled."""
        asyncio.run(until_settled(self.settings, SAID))
        return {topic.name: self.records(topic) for topic in SAID} | {
            topic.dlq: asyncio.run(_read_named(self.settings, topic.dlq)) for topic in (MARKET_TICKS, *SAID)
        }

    # --- processes ------------------------------------------------------------------------------------------------

    def pid_of(self, program: str) -> int:
        return next(p.pid for p in self.stack.supervisor.processes() if p.name == program)

    def kill(self, program: str) -> int:
        """End a process by SIGKILL; give its pid."""
        pid = self.pid_of(program)
        assert pid, f"{program} does not run"
        os.kill(pid, signal.SIGKILL)
        return pid

    def is_back(self, program: str, after: int) -> bool:
        return self.pid_of(program) not in (0, after)

    def start(self, program: str) -> None:
        """Start a process that has done what it had to do."""
        self.stack.supervisor.start_program(SERVICES, program)

    def members(self, process: str) -> int:
        """Count the members of a shared process' group that own something of the market."""
        return asyncio.run(_owners(self.settings, consumer_group(process, "shared")))

    @contextmanager
    def another(self, process: str) -> Iterator[None]:
        """Run one more member of a process' group beside the supervised one; it leaves as a stopped process does."""
        named = os.environ | {"RUNTIME__MEMBER": "a-second-member"}
        member = subprocess.Popen([sys.executable, "-m", "live_services.process", process], env=named)
        try:
            yield
        finally:
            member.terminate()
            assert member.wait(30) == 128 + signal.SIGTERM


def events(records: list[StoredRecord]) -> list[Event]:
    """Decode what is no watermark."""
    decoded = [decode_event(record.value, record.headers) for record in records]
    return [event for event in decoded if not isinstance(event, Watermark)]


def facts(log: Log) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """What was said, by topic and by who said it and in order: every field but the basis.

    Which days a feed was told to play is no part of it.
    """
    said: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for topic, records in log.items():
        speakers = said.setdefault(topic, {})
        for record in records:
            for event in (one for one in events([record]) if not isinstance(one, FeedStarted)):
                fields = json.loads(event.model_dump_json(exclude={"basis"}))
                # Where several tasks speak on one partition, whose word comes first is chance.
                speakers.setdefault(fields.get("task", str(record.partition)), []).append(fields)
    return said


def last_snapshot(log: Log) -> PnlSnapshot:
    """Give what the account comes to in the end."""
    return [event for event in events(log[PAPER.pnl_snapshots.name]) if isinstance(event, PnlSnapshot)][-1]


def assert_market_is_whole(records: Sequence[StoredRecord], replayed: Sequence[Replay]) -> None:
    """Every tick of the sessions once, and watermarks that only rise, on every partition of a market topic."""
    partitions = sorted({record.partition for record in records})
    universes = {replay.universe.digest: replay.universe for replay in replayed}
    for partition in partitions:
        watermarks: list[int] = []
        tables: dict[int, list[Ticks]] = {replay.session.open_ns: [] for replay in replayed}
        for record in (r for r in records if r.partition == partition):
            if dict(record.headers)["event_type"] == b"watermark":
                watermarks.append(decode_event(record.value, record.headers).event_time_ns)
                continue
            frame = decode_frame(record.value, record.headers, universes[universe_digest_of(record.headers)])
            assert isinstance(frame.table, Ticks)
            watermarks.append(frame.watermark_ns)
            tables[frame.session.open_ns].append(frame.table)
        assert watermarks == sorted(set(watermarks))
        assert {session_end_ns(replay.session) for replay in replayed} <= set(watermarks)
        assert watermarks[-1] == session_end_ns(replayed[-1].session)
        for replay in replayed:
            assert isinstance(replay.market, Ticks)
            expected = part_of(replay.market, replay.universe, partition, len(partitions))
            for column in ("instrument", "event_time_ns", "last_price", "day_volume"):
                np.testing.assert_array_equal(
                    np.concatenate([getattr(table, column) for table in tables[replay.session.open_ns]]),
                    getattr(expected, column),
                )


async def _market_ends(settings: Settings) -> Mapping[int, tuple[int, int]]:
    told = MarketSessions(settings.kafka)
    await told.refresh()
    return await last_watermarks(settings.kafka, MARKET_TICKS, told)


async def _owners(settings: Settings, group: str) -> int:
    async with admin_of(settings.kafka) as admin:
        (described,) = await admin.describe_consumer_groups([group])
        (_, _, state, _, _, members, *_) = described.groups[0]
    return len(members) if state == "Stable" else 0


async def _read(settings: Settings, topic: Topic) -> list[StoredRecord]:
    return await _read_named(settings, topic.name)


async def _read_named(settings: Settings, topic: str) -> list[StoredRecord]:
    return [record async for record in read_topic(settings.kafka, topic)]


@dataclass(frozen=True)
class OpenDesk:
    """A desk whose servers run and whose versions are registered."""

    desk: Desk
    versions: Versions


@pytest.fixture(scope="session")
def standing_desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenDesk]:
    """Kafka, Valkey and MLflow under the supervisor, a market in the store, a champion and two other versions.

    It outlives the tests that ask for it, but its settings do not: a test that asks for no desk must not read them.
    """
    home = tmp_path_factory.mktemp("desk")
    with environment(_names_of(home)):
        desk = Desk(home)
    try:
        with environment(_names_of(home)):
            desk.stack.start_servers(tell=lambda _: None)
            desk.stack.wait_ready(tell=lambda _: None)
            versions = desk.register_versions()
        yield OpenDesk(desk, versions)
    finally:
        with environment(_names_of(home)):
            desk.stack.stop()


@pytest.fixture
def open_desk(standing_desk: OpenDesk) -> Iterator[OpenDesk]:
    """The standing desk, with its settings in the environment for as long as one test lasts."""
    with environment(_names_of(standing_desk.desk.home)):
        yield standing_desk


@pytest.fixture(scope="session")
def reference(standing_desk: OpenDesk) -> Mapping[str, list[StoredRecord]]:
    """The log of two sessions, fed as fast as it goes in frames of a second, in which nothing died."""
    with environment(_names_of(standing_desk.desk.home)):
        return standing_desk.desk.traded()


def _names_of(home: Path) -> dict[str, str]:
    return {"ALPHA_PANDA_HOME": str(home), "ALPHA_PANDA_CONFIG": str(home / "alpha-panda.toml")}
