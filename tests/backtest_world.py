"""A small generated market in a store, and versions of a model that was trained on all but its last two sessions."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from dagster_project.desk import Desk
from feature_store.offline.stages import store_arrival, store_bars
from feature_store.offline.store import OfflineStore
from feature_store.offline.training_frames import training_frame
from live_services.settings import Settings
from models_registry.gates.evidence import NO_CHAMPION, Evidence
from models_registry.gates.verdicts import judge
from models_registry.ledger import PromotionLedger
from models_registry.out_of_fold import with_out_of_fold
from models_registry.packing import pack, parity
from models_registry.registry import Registry
from models_registry.specification import StrategySpec
from models_registry.training import train
from models_registry.version import build_sidecar
from tests.models_registry_fakes import InMemoryRegistry
from tests.models_registry_frames import FIT

SPEC = StrategySpec(
    name="momentum",
    features=("last_return", "momentum", "volatility"),
    estimator="logistic_regression",
    folds=2,
    buy_quantile=0.95,
    sell_quantile=0.05,
)
GUARDED = SPEC.model_copy(update={"name": "guarded", "stop_bps": 15.0, "target_bps": 25.0})
JUDGED = StrategySpec(
    name="judged",
    rule="stretch",
    rule_parameters={"threshold": 0.5},
    features=("last_return", "volatility"),
    estimator="logistic_regression",
    folds=2,
)
HELD_OUT = 2
"""Sessions after the training."""


@dataclasses.dataclass(frozen=True, eq=False)
class BacktestWorld:
    settings: Settings
    registry: InMemoryRegistry
    """Of momentum version 1 has the models of its folds, 2 was registered without; judged has one version."""
    ledger: PromotionLedger

    @property
    def store(self) -> OfflineStore:
        return OfflineStore(self.settings.store_root)

    @property
    def dates(self) -> list[str]:
        return [session.date.isoformat() for session in self.store.sessions("bars")]

    def known(self) -> dict[str, object]:
        """What `backtest` is handed."""
        return {"settings": self.settings, "registry": self.registry, "ledger": self.ledger}


def backtest_world(home: Path) -> BacktestWorld:
    market = {"synthetic": {"instruments": 4, "sessions": 11, "tick_sessions": 2, "edge_bps": 8.0}}
    settings = Settings(
        alpha_panda_home=home,
        market=market,
        strategies=(SPEC, GUARDED, JUDGED),
        mlflow={"tracking_uri": "http://127.0.0.1:1"},
    )
    store = OfflineStore(settings.store_root)
    desk = Desk(store, settings)
    list(store_arrival(store, desk.read_market()))
    list(store_bars(store, desk.incoming_sessions(), desk.clock))
    registry = InMemoryRegistry()
    for spec, whole in ((SPEC, True), (SPEC, False), (JUDGED, True)):
        register(settings, store, registry, spec, whole)
    return BacktestWorld(settings, registry, PromotionLedger(settings.ledger_url))


def register(
    settings: Settings, store: OfflineStore, registry: InMemoryRegistry | Registry, spec: StrategySpec, whole: bool
) -> None:
    days = store.sessions("bars")[:-HELD_OUT]
    features, label, proposer = spec.feature_schema(), spec.label(), spec.proposer()
    frame = training_frame(store, None, days[0].date, days[-1].date, features=features, label=label, proposer=proposer)
    trained = train(frame, spec, FIT)
    packed = pack(trained.estimator, trained.golden_rows)
    if whole:
        packed = with_out_of_fold(packed, trained)
    looked_at = Evidence.of(
        trained,
        parity=parity(packed, trained.estimator, trained.golden_rows),
        bar_source=frame.bar_source,
        trades_on=frame.bar_source,
        plausibility=None,
        champion=NO_CHAMPION,
        trades=None,
    )
    gate = judge(looked_at, "champion", settings.gates.champion)
    sidecar = build_sidecar(trained, frame, packed, looked_at, gate=gate, created_by="tests", created_at_ns=1)
    registry.register(packed, sidecar, description="made by the tests")
