"""Leaks are planted into features of a generated market, and so are honest edges: the checks must tell them apart."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import pytest
from numpy.typing import NDArray

from feature_store.features.engine import FeatureEngine
from feature_store.features.library import FeatureSpec
from feature_store.features.schema import MOMENTUM_FEATURES, FeatureSchema, feature_schema
from feature_store.offline.training_frames import TrainingFrame
from feature_store.sources.synthetic import synthetic_market
from models_registry.gates.checks import no_feature_carries_it, skill_outlives_a_bar
from models_registry.gates.limits import GateLimits
from models_registry.gates.plausible import plausibility_of
from models_registry.training import train
from models_registry.validation.plausibility import Plausibility, plausibility
from tests.models_registry_frames import FIT, evidence, spec, trained
from tests.models_registry_frames import frame as made_up_frame

Leak = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""Closes of one instrument's session → what a feature must not know at each of them."""

LEAK = FeatureSpec(name="leak", parameters={}, warm_up=1, units="1", source="tests", version=1)


def next_return(close: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.append(np.diff(np.log(close)), np.nan)


def centred_window(close: NDArray[np.float64]) -> NDArray[np.float64]:
    window = np.full(len(close), np.nan)
    window[5:-5] = np.convolve(close, np.full(11, 1 / 11), "valid")
    return np.log(window / close)


def session_close(close: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.log(close[-1] / close)


@lru_cache
def frame(edge_bps: float) -> tuple[TrainingFrame, tuple[tuple[NDArray[np.intp], NDArray[np.float64]], ...]]:
    """A generated market's rows, and for each instrument's session its rows and its closes."""
    made = synthetic_market(instruments=6, sessions=12, edge_bps=edge_bps, seed=7)
    schema = feature_schema(MOMENTUM_FEATURES, 1)
    engine = FeatureEngine(schema, made.universe)
    parts, closes, first = [], [], 0
    for session, bars in zip(made.sessions, made.bars, strict=True):
        values, warm = engine.step(bars)
        labels = spec().label().of(bars, len(made.universe), [session])
        tradable = np.array([i.tradable for i in made.universe.instruments])[bars.instrument]
        usable = warm & tradable & np.isfinite(values).all(axis=1)
        returns = np.where(usable, labels.forward_return, np.nan)
        parts.append((values.copy(), returns, bars.end_ns, labels.label_end_ns, bars.instrument))
        of_instrument = (np.flatnonzero(bars.instrument == index) for index in np.unique(bars.instrument))
        closes += [(rows + first, bars.close[rows]) for rows in of_instrument]
        first += len(bars)
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    whole = dataclasses.replace(
        made_up_frame(sessions=1, rows=20),
        **dict(zip(("X", "forward_return", "decision_ns", "label_end_ns", "instrument"), columns, strict=True)),
        side=np.ones(len(columns[0]), dtype=np.int8),
        schema=schema,
        sessions={str(session.date): "d" * 64 for session in made.sessions},
    )
    return whole, tuple(closes)


def found(edge_bps: float, estimator: str, leak: Leak | None = None, noise: float = 0.0) -> Plausibility:
    """Train on the market with a leaking feature beside the others, and look."""
    whole, closes = frame(edge_bps)
    if leak is not None:
        known = np.empty(len(whole))
        for rows, close in closes:
            known[rows] = leak(close)
        known += np.random.default_rng(1).normal(0.0, noise * np.nanstd(known), len(known))
        whole = dataclasses.replace(
            whole,
            X=np.column_stack([whole.X, known]),
            schema=FeatureSchema((*whole.schema.features, LEAK), whole.schema.bar_clock),
        )
    return plausibility_of(train(whole, spec(estimator), FIT), whole)


def accused(one: Plausibility) -> list[str]:
    looked_at = dataclasses.replace(evidence(), plausibility=one)
    checks = (no_feature_carries_it(looked_at, GateLimits()), skill_outlives_a_bar(looked_at, GateLimits()))
    return [check.name for check in checks if not check.passed]


@pytest.mark.parametrize(
    ("edge_bps", "estimator"),
    [(12.0, "logistic_regression"), (20.0, "logistic_regression"), (12.0, "hist_gradient_boosting")],
)
def test_honest_edges_are_not_accused_however_strong(edge_bps: float, estimator: str) -> None:
    one = found(edge_bps, estimator)
    assert one.auc > GateLimits().suspicious_auc  # so that it was asked
    assert not accused(one)


@pytest.mark.parametrize(
    ("leak", "noise", "edge_bps"),
    [
        (next_return, 0.5, 0.0),
        (next_return, 1.0, 6.0),
        (centred_window, 0.0, 0.0),
        (centred_window, 1.0, 6.0),
        (session_close, 0.0, 0.0),
        (session_close, 1.0, 6.0),
    ],
)
def test_a_leaking_feature_is_named_where_the_auc_alone_looks_fine(leak: Leak, noise: float, edge_bps: float) -> None:
    one = found(edge_bps, "logistic_regression", leak, noise)
    assert GateLimits().suspicious_auc < one.auc < GateLimits().maximum_auc
    assert one.feature == "leak"
    assert "no_feature_carries_it" in accused(one)


def test_knowledge_of_the_next_bar_is_gone_one_bar_later() -> None:
    one = found(0.0, "logistic_regression", next_return, 0.5)
    assert one.shift_retention < 0.2
    assert accused(one) == ["no_feature_carries_it", "skill_outlives_a_bar"]


def test_rows_without_a_row_one_bar_later_cannot_be_asked() -> None:
    rows = trained().oof
    some = rows.part(rows.decision_ns // 60_000_000_000 % 2 == 0)
    one = plausibility(
        some, np.zeros((len(some.score), 1)), ["none"], {k: Constant() for k in range(5)}, bar_ns=60_000_000_000, seed=0
    )
    assert np.isnan(one.shift_retention)
    assert one.shifted_rows == 0
    assert one.importance == 0.0


class Constant:
    def score(self, X: NDArray[np.float64], /) -> NDArray[np.float64]:  # noqa: N803
        return np.full(len(X), 0.5)


def test_the_same_rows_give_the_same_figures() -> None:
    assert plausibility_of(trained(), made_up_frame()) == plausibility_of(trained(), made_up_frame())
