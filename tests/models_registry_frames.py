"""Frames, trained models and sidecars for the tests of models_registry, built by hand."""
# ruff: noqa: N806

from __future__ import annotations

import datetime as dt
from functools import lru_cache
from typing import Any

import numpy as np

from feature_store.features.library import FeatureSpec
from feature_store.features.schema import FeatureSchema
from feature_store.labels.forward_return import ForwardReturn
from feature_store.market.types import MINUTE_NS, Session
from feature_store.offline.training_frames import TrainingFrame
from models_registry.gates.skill import SkillLimits, skill_gate
from models_registry.packing import Packed, build_sidecar, pack, parity
from models_registry.refs import GateCheck, GateResult
from models_registry.sidecar import FitFacts, Sidecar
from models_registry.specification import StrategySpec
from models_registry.training import TrainedModel, train

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
    )


def trained(algorithm="hist_gradient_boosting", edge=0.3, seed=3) -> TrainedModel:
    return _trained(algorithm, edge, seed)


def packed(algorithm="hist_gradient_boosting", edge=0.3) -> Packed:
    return _packed(algorithm, edge)


@lru_cache
def _trained(algorithm: Any, edge: float, seed: int) -> TrainedModel:
    return train(frame(edge=edge, seed=seed), spec(algorithm), FIT)


def spec(estimator="hist_gradient_boosting", **changes: Any) -> StrategySpec:
    return StrategySpec.model_validate({"name": "momentum", "estimator": estimator, "seed": 1} | changes)


@lru_cache
def _packed(algorithm: Any, edge: float) -> Packed:
    model = trained(algorithm, edge)
    return pack(model.estimator, model.golden_rows)


FIT = FitFacts(git_commit="0" * 40, library_versions={"numpy": "2"}, fitted_at_ns=1_767_600_000_000_000_000)
LIMITS = SkillLimits(minimum_test_rows=500)


def gate(algorithm="hist_gradient_boosting", edge=0.3, **changes: Any) -> GateResult:
    model = trained(algorithm, edge)
    agreement = parity(packed(algorithm, edge), model.estimator, model.golden_rows)
    return skill_gate(
        model,
        agreement,
        **({"market": "SYNTHETIC test", "bar_source": "ticks", "trades_on": "ticks", "limits": LIMITS} | changes),
    )


FAILED_GATE = GateResult(
    rung="champion",
    checks=(GateCheck(name="auc_above_chance", passed=False, observed="0.49", required="> 0.5"),),
)


def sidecar(
    algorithm="hist_gradient_boosting", edge=0.3, gate_result: GateResult | None = None, name="momentum"
) -> Sidecar:
    return build_sidecar(
        trained(algorithm, edge),
        frame(edge=edge),
        packed(algorithm, edge),
        gate_result or gate(algorithm, edge),
        model_name=name,
        git_commit="0" * 40,
        created_by="tests",
        created_at_ns=1_767_600_000_000_000_000,
        run_url="http://127.0.0.1:3000/runs/1",
    )
