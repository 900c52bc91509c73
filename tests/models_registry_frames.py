"""Frames, trained models and sidecars for the tests of models_registry, built by hand."""
# ruff: noqa: N806

from __future__ import annotations

import dataclasses
import datetime as dt
from functools import lru_cache
from typing import Any

import numpy as np

from feature_store.features.library import FeatureSpec
from feature_store.features.schema import FeatureSchema
from feature_store.labels.forward_return import ForwardReturn
from feature_store.market.types import MINUTE_NS, Session
from feature_store.offline.training_frames import TrainingFrame
from models_registry.gates.economics import Look, economics
from models_registry.gates.evidence import NO_CHAMPION, Evidence, FoldTrades, TradeEvidence
from models_registry.gates.limits import GateLimits
from models_registry.gates.verdicts import judge
from models_registry.packing import Packed, pack, parity
from models_registry.refs import GateCheck, GateResult
from models_registry.sidecar import FitFacts, Sidecar
from models_registry.specification import StrategySpec
from models_registry.training import TrainedModel, train
from models_registry.validation.plausibility import Plausibility
from models_registry.version import build_sidecar

NAMES = ("return_1", "momentum", "volatility", "noise")
SCHEMA = FeatureSchema(
    tuple(
        FeatureSpec(name=n, parameters={"window": 10}, warm_up=10, units="1", source="tests", version=1) for n in NAMES
    ),
    "time:60s",
)
SCHEMA_HASH = SCHEMA.hash


def frame(sessions=12, instruments=4, rows=100, edge=0.3, horizon=10, seed=3) -> TrainingFrame:
    """Rows whose return leans on the second feature by ``edge`` standard deviations; a session's last have no label."""
    random = np.random.default_rng(seed)
    n = sessions * rows * instruments
    X = random.normal(size=(n, len(NAMES)))
    forward = 1e-3 * (edge * X[:, 1] + random.normal(size=n))
    dates = [dt.date(2026, 1, 5) + dt.timedelta(days=day) for day in range(sessions)]
    opens = [Session.regular(date).open_ns for date in dates]
    minute = np.tile(np.repeat(np.arange(1, rows + 1), instruments), sessions)
    decision = np.repeat(opens, rows * instruments) + minute * MINUTE_NS
    forward[minute > rows - horizon] = np.nan
    label_end = decision + horizon * MINUTE_NS
    return TrainingFrame(
        X=X,
        forward_return=forward,
        side=np.ones(n, dtype=np.int8),
        decision_ns=decision,
        entry_ns=decision,
        label_end_ns=label_end,
        instrument=np.tile(np.arange(instruments, dtype=np.int32), sessions * rows),
        schema=SCHEMA,
        label=ForwardReturn(horizon),
        digest="d" * 64,
        start_ns=int(decision.min()),
        end_ns=int(decision.max()),
        market="SYNTHETIC test",
        bar_source="ticks",
        instruments=tuple(f"SYN{k + 1:03}" for k in range(instruments)),
        sessions={str(date): f"{k:064x}" for k, date in enumerate(dates)},
        manifests={str(date): f"{k + 100:064x}" for k, date in enumerate(dates)},
        market_details={"instruments": instruments, "sessions": sessions},
        membership_digest="m" * 64,
        actions_digest="a" * 64,
    )


def trained(algorithm="hist_gradient_boosting", edge=0.3, seed=3) -> TrainedModel:
    return _trained(algorithm, edge, seed)


def packed(algorithm="hist_gradient_boosting", edge=0.3) -> Packed:
    return _packed(algorithm, edge)


@lru_cache
def _trained(algorithm: Any, edge: float, seed: int) -> TrainedModel:
    return train(frame(edge=edge, seed=seed), spec(algorithm), FIT)


def spec(estimator="hist_gradient_boosting", **changes: Any) -> StrategySpec:
    if estimator == "random_forest":
        changes = {"hyperparameters": {"n_estimators": 40}} | changes  # of the 200 that it has by default
    return StrategySpec.model_validate({"name": "momentum", "estimator": estimator, "seed": 1} | changes)


@lru_cache
def _packed(algorithm: Any, edge: float) -> Packed:
    model = trained(algorithm, edge)
    return pack(model.estimator, model.golden_rows)


FIT = FitFacts(
    git_commit="0" * 40, library_versions={"numpy": "2"}, fitted_at_ns=1_767_600_000_000_000_000, run_id="r1"
)
LIMITS = GateLimits(minimum_test_rows=500)
SESSIONS_PNL = {f"2026-01-{day:02d}": 700.0 + 2_000.0 * (-1.0) ** day for day in range(1, 10)}
"""A Sharpe ratio of about a third a session, in fewer sessions than tell it from luck."""
TRADES = TradeEvidence(
    candidate_sha256="c" * 64,
    sessions=9,
    trades=240,
    long_trades=130,
    short_trades=110,
    gross_expectancy_bps=9.5,
    net_expectancy_bps=3.5,
    long_net_expectancy_bps=4.0,
    short_net_expectancy_bps=2.9,
    net_pnl_inr=8_400.0,
    left_open=2,
    entries_proposed=300,
    entries_refused={"gross_notional": 60},
    by_fold={1: FoldTrades(240, 3.5), 2: FoldTrades(0, float("nan"))},
    net_pnl_by_session=SESSIONS_PNL,
    exits={"target": 140, "stop": 100},
    turnover_a_session_inr=2_000_000.0,
    median_participation=0.001,
    high_participation=0.004,
    largest_notional_inr=250_000.0,
)
ECONOMICS = economics(
    SESSIONS_PNL, [], config_digest="a" * 64, capital_inr=1_000_000.0, looks=Look(0, {}, "2026-01-09")
)
PLAUSIBLE = Plausibility(
    auc=0.58, features=28, feature="momentum", importance=0.05, shift_retention=0.92, shifted_rows=3_000
)


def evidence(algorithm="hist_gradient_boosting", edge=0.3, **changes: Any) -> Evidence:
    model = trained(algorithm, edge)
    found: dict[str, Any] = {
        "parity": parity(packed(algorithm, edge), model.estimator, model.golden_rows),
        "bar_source": "ticks",
        "trades_on": "ticks",
        "champion": NO_CHAMPION,
        "trades": TRADES,
        "economics": ECONOMICS,
        "plausibility": PLAUSIBLE,
    }
    return Evidence.of(model, **(found | changes))


def gate(algorithm="hist_gradient_boosting", edge=0.3, champion_version=None, **changes: Any) -> GateResult:
    return judge(evidence(algorithm, edge, **changes), "champion", LIMITS, champion_version=champion_version)


FAILED_GATE = GateResult(
    rung="champion",
    checks=(GateCheck(name="ranks_above_chance", passed=False, observed="0.49", required="> 0.5"),),
)


def sidecar(
    algorithm="hist_gradient_boosting", edge=0.3, gate_result: GateResult | None = None, name="momentum"
) -> Sidecar:
    looked_at = evidence(algorithm, edge)
    return build_sidecar(
        dataclasses.replace(trained(algorithm, edge), spec=spec(algorithm, name=name)),
        frame(edge=edge),
        packed(algorithm, edge),
        looked_at,
        gate=gate_result or gate(algorithm, edge),
        live_gate=judge(looked_at, "live", LIMITS),
        created_by="tests",
        created_at_ns=1_767_600_000_000_000_000,
    )
