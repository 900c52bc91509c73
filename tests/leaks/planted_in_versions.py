"""Leaks in what a strategy asks: models that know the batch, remember, or were trained on what they trade."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from live_services.audit.findings import AuditReport
from live_services.audit.sessions import AuditedSession
from live_services.audit.strategy import Effort, audit_strategy
from live_services.domain.events import Event, OrderFilled
from live_services.domain.strategy.loaded_model import LoadedModel, ScoringModel
from models_registry.refs import ModelIdentity
from models_registry.sidecar import Sidecar
from models_registry.specification import StrategySpec
from tests.account_world import limits
from tests.live_world import SESSION, UNIVERSE, past_sessions, session_bars

FEATURES = ("last_return", "z_score")
QUICK = Effort(cuts=6, perturbations=3, traded_cuts=2)
STRATEGIES = (
    StrategySpec(name="direct", features=FEATURES, holding_bars=5),
    StrategySpec(name="moves", features=FEATURES, rule="volatility_move", rule_parameters={"threshold": 1.5}),
    StrategySpec(name="stretches", features=FEATURES, rule="stretch", rule_parameters={"threshold": 1.0}),
    StrategySpec(name="breaks", features=FEATURES, rule="donchian_break", sizing="risk_per_trade"),
)


class Honest:
    """The higher the first feature, the likelier."""

    def score(self, X: NDArray[np.float64]) -> NDArray[np.float64]:  # noqa: N803
        return np.asarray(expit(500.0 * X[:, 0]))


class RankedInTheBatch:
    """Scores are ranks among the rows that come together, as if a day came at once."""

    def score(self, X: NDArray[np.float64]) -> NDArray[np.float64]:  # noqa: N803
        return (X[:, 0].argsort().argsort() + 1.0) / (len(X) + 1.0)


@dataclass
class RemembersItsCalls:
    """Another answer each time that it is asked."""

    calls: int = 0

    def score(self, X: NDArray[np.float64]) -> NDArray[np.float64]:  # noqa: N803
        self.calls += 1
        return np.asarray(expit(500.0 * X[:, 0] + 1e-6 * self.calls))


def loaded(spec: StrategySpec, model: ScoringModel) -> LoadedModel:
    schema = spec.feature_schema()
    identity = ModelIdentity(model_name=spec.model_name, model_version="1", feature_schema_hash=schema.hash)
    return LoadedModel(identity, schema, model, 0.5, None if spec.judged else 0.45)


def session(spec: StrategySpec, model: ScoringModel, seed: int, minutes: int = 120) -> AuditedSession:
    bars = session_bars(SESSION, len(UNIVERSE), minutes, seed)
    return AuditedSession(SESSION, UNIVERSE, bars, past_sessions(UNIVERSE, 1, seed=seed), loaded(spec, model))


def audited(
    spec: StrategySpec, model: ScoringModel, seed: int, minutes: int = 120, sidecar: Sidecar | None = None
) -> AuditReport:
    over = session(spec, model, seed, minutes)
    return audit_strategy(spec, [over], limits(), sidecar=sidecar, effort=QUICK, seed=seed)


def filled_at_the_close_that_was_decided_on(events: Sequence[Event]) -> list[Event]:
    """Fills of a backtest that trades at the decision bar's close."""
    early = []
    for event in events:
        if isinstance(event, OrderFilled) and event.reason == "entry":
            at_ns = event.price_time_ns
            early.append(event.model_copy(update={"event_time_ns": at_ns, "price_time_ns": at_ns - 60_000_000_000}))
        else:
            early.append(event)
    return early


def trained_until(end_ns: int, honest: Sidecar) -> Sidecar:
    return honest.model_copy(update={"training_end_ns": end_ns, "lineage": None, "folds": (), "train_through": ""})
