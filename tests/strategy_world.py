"""A strategy runner with one open session, and a registry that says and breaks what a test wants."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from feature_store.market.types import Bars, Session, Universe
from live_services.adapters.metrics import Metrics
from live_services.adapters.model_files import ModelFiles
from live_services.domain.basis import Stamp
from live_services.domain.events import (
    Event,
    StrategiesConfigured,
    StrategiesStopped,
    StrategiesSummarized,
    StrategyHistoryUsed,
    StrategyModelAssigned,
)
from live_services.domain.log import EventRecord, LogPosition, MarketSlice, TaskId
from live_services.domain.strategy.asked import StrategyKey
from live_services.domain.strategy.loaded_model import LoadedModel
from live_services.domain.topics import STRATEGIES_CONTROL
from live_services.runtime.service import Opening
from live_services.services import model_loading
from live_services.services.model_loading import ModelLoader
from live_services.services.strategy_runner import StrategyRunner
from live_services.services.strategy_state import StrategyState
from live_services.settings import MarketSettings, Settings
from models_registry.packing import ModelRefusedError
from models_registry.reconciliation import Standing
from models_registry.refs import Alias, FeatureColumn, GateResult
from models_registry.registry import RegistryUnavailable
from models_registry.sidecar import Sidecar
from models_registry.specification import Broker, StrategySpec
from tests.live_world import OPEN, SESSION, UNIVERSE, bars, loaded_model

TASK = TaskId("strategy_runner", "shared", 0)
AT = LogPosition("market.bars", 0, 0)
NEXT = Session.regular(SESSION.date + dt.timedelta(days=1))
CHAMPION: StrategyKey = ("momentum", "champion")
_CONTROL = StrategiesConfigured | StrategyHistoryUsed | StrategyModelAssigned | StrategiesStopped
MOMENTUM = {
    "feature_schema_hash": StrategySpec(name="momentum").feature_schema().hash,
    "label_identity": StrategySpec(name="momentum").label().identity(),
}
"""What the sidecar of a version says that is what the default strategy trades."""


class Registry:
    """What stands, versions that are good or not, and a switch that cuts it off."""

    def __init__(self) -> None:
        self.alias: str | None = "1"
        """What every model's champion is, unless it has aliases of its own."""
        self.aliases_of: dict[str, dict[Alias, str]] = {}
        self.by_hand: dict[Alias, Standing] = {}
        """Rungs whose aliases were moved past the ledger."""
        self.bad: dict[str, str] = {}
        self.gate: dict[str, str] = {}
        self.down = False
        self.hangs_s = 0.0
        """How long an answer takes."""
        self.trained_to: dict[str, int] = {}
        self.asked: list[str] = []
        self.fetched: list[str] = []
        self.sidecars: dict[str, Sidecar] = {}

    def standings(self, name: str) -> dict[Alias, Standing]:
        self.asked.append(name)
        time.sleep(self.hangs_s)
        if self.down:
            raise RegistryUnavailable("connection refused")
        standing = self.aliases_of.get(name, {} if self.alias is None else {"champion": self.alias})
        return {rung: Standing(version, version, None) for rung, version in standing.items()} | self.by_hand

    def fetch(self, name: str, version: str) -> tuple[Sidecar, Mapping[str, bytes]]:
        if self.down:
            raise RegistryUnavailable("connection refused")
        self.fetched.append(version)
        if version in self.bad:
            raise ModelRefusedError(self.bad[version])
        files = dict.fromkeys(("model.skops", "flat.npz", "golden.npz"), version.encode())
        return self.sidecars.get(version, sidecar(**MOMENTUM)), files

    def may_run(self, name: str, version: str, rung: str) -> str | None:
        return self.gate.get(version)


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Registry:
    made = Registry()

    def accept(sidecar: Sidecar, files: Mapping[str, bytes], version: str, bar_minutes: int) -> LoadedModel:
        model = loaded_model(version)
        identity = model.identity.model_copy(update={"model_name": sidecar.model_name})
        return replace(model, identity=identity, training_end_ns=made.trained_to.get(version, OPEN))

    monkeypatch.setattr(model_loading, "prove", accept)
    monkeypatch.setattr(model_loading, "_FIRST_WAIT_SECONDS", 0.0)
    return made


class World:
    """A runner with one open session, and what it said."""

    def __init__(
        self,
        registry: Registry,
        *strategies: StrategySpec,
        brokers: Sequence[Broker] = ("paper",),
        kept: ModelFiles | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        strategies = strategies or (StrategySpec(name="momentum"),)
        self.loader = ModelLoader(
            registry,
            registry.standings,
            registry.may_run,
            strategies,
            brokers=brokers,
            bar_minutes=1,
            poll_seconds=60,
            kept=kept,
            counter=metrics,
        )
        settings = Settings(strategies=strategies, market=MarketSettings(feed="bars"))
        inferred = metrics.inferred if metrics is not None else None
        self.runner = StrategyRunner(settings, self.loader, Stamp(), brokers=brokers, inferred=inferred)
        self.state: StrategyState = self.runner.open_session(Opening(SESSION, UNIVERSE, TASK))
        self.summaries: list[StrategiesSummarized] = []

    def next_session(self, session: Session = NEXT, universe: Universe = UNIVERSE) -> None:
        """Open the session after the one at hand, as a process does that lives through the night."""
        self.state = self.runner.open_session(Opening(session, universe, TASK, self.state))

    async def say(self, now_ns: int = OPEN) -> list[Event]:
        await self.loader.refresh()
        said: list[Event] = []
        for event in self.runner.commands(self.state, now_ns):
            if isinstance(event, StrategiesSummarized):
                self.summaries.append(event)
            elif not isinstance(event, StrategiesConfigured | StrategyHistoryUsed):
                said.append(event)
            said += self.follow(event)
        return said

    def follow(self, event: Event) -> list[Event]:
        """Take back what stands on the control topic."""
        if not isinstance(event, _CONTROL):
            return []
        record = EventRecord(event, LogPosition(STRATEGIES_CONTROL.name, 0, -1))
        return list(self.runner.handle(record, self.state, event.event_time_ns))

    async def restart(self, control: Sequence[Event]) -> None:
        """Do what a process does that comes up in the middle of a session: prepare, then follow its control records."""
        await self.runner.prepare(TASK, control)
        for event in control:
            self.follow(event)

    def trade(self, market: Bars) -> list[Event]:
        self.runner.handle(MarketSlice(market, AT), self.state, int(market.end_ns[-1]))
        return list(self.runner.advance(self.state, int(market.end_ns[-1]) + 1))

    @property
    def running(self) -> str | None:
        return self.runs(CHAMPION)

    def runs(self, key: StrategyKey) -> str | None:
        model = self.state.running(key)
        return model.identity.model_version if model is not None else None


def sidecar(**changes: object) -> Sidecar:
    column = FeatureColumn(name="momentum", parameters={}, dtype="float64", version=1, warm_up=11)
    fields: dict[str, object] = {
        "model_name": "momentum",
        "algorithm": "logistic_regression",
        "market": "SYNTHETIC",
        "bar_clock": "time:60s",
        "feature_schema": (column,),
        "feature_schema_hash": "h",
        "training_data_digest": "d",
        "training_start_ns": 0,
        "training_end_ns": 1,
        "training_rows": 1,
        "label": "l",
        "label_horizon_bars": 1,
        "buy_threshold": 0.6,
        "sell_threshold": 0.4,
        "folds": (),
        "metrics": {},
        "gate": GateResult(rung="champion", checks=()),
        "feature_distributions": (),
        "artifact_sha256": {},
        "git_commit": "c",
        "library_versions": {},
        "seed": 1,
        "created_by": "me",
        "created_at_ns": 1,
    }
    return Sidecar.model_validate(fields | changes)


RISING = bars(*((i, k, 100.0 + k, 101.0 + k) for i in range(3) for k in range(30)))
