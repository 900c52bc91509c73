"""A sample of a model for smoke tests: tiny, made of random numbers, labelled so, and admitted by no gate."""

from __future__ import annotations

from typing import Final

import numpy as np

from feature_store.market.types import SYNTHETIC
from feature_store.provenance import code_commit
from models_registry.estimators.families import FAMILIES
from models_registry.packing import Packed, library_versions, pack
from models_registry.refs import FeatureColumn, GateCheck, GateResult
from models_registry.refusals import sha256_of
from models_registry.sidecar import Sidecar
from models_registry.specification import Estimator, StrategySpec

SAMPLE_MARKET: Final = f"{SYNTHETIC} sample of no market"
SAMPLE_TAG: Final = "sample"
SAMPLE_DESCRIPTION: Final = (
    "**A SAMPLE for smoke tests.** It was fitted to random numbers and knows nothing of any market: it buys while its "
    "first feature is above zero, and sells while it is below. Its gates failed on purpose; only an override lets it "
    "trade."
)
_ALGORITHM: Final[Estimator] = "logistic_regression"
_ROWS: Final = 256
_SEED: Final = 7
_MARGIN: Final = 1e-6  # its scores are near one half, whatever the unit of the feature


def sample_version(spec: StrategySpec, *, created_by: str, created_at_ns: int) -> tuple[Packed, Sidecar]:
    """Make the files and the sidecar of a sample that a strategy could trade, in well under a second.

    Parameters
    ----------
    spec : StrategySpec
        Whose features, clock and label it has; its estimator does not matter.
    created_by : str
        Who makes it.
    created_at_ns : int
        When, UTC epoch nanoseconds.

    Returns
    -------
    Packed, Sidecar
        For ``Registry.register``. Both gates say that they failed, and why.
    """
    schema, label, family = spec.feature_schema(), spec.label(), FAMILIES[_ALGORITHM]
    asks = spec.proposer()
    half = np.abs(np.random.default_rng(_SEED).normal(size=_ROWS // 2))
    rows = np.zeros((_ROWS, len(schema.names)))
    rows[:, 0] = np.concatenate([half, -half])  # the same above zero and below, so that zero scores one half
    estimator = family.build(_SEED, _ROWS, {})
    packed = pack(family.fit(estimator, rows, rows[:, 0] > 0, np.ones(_ROWS)), rows)
    refused = GateCheck(
        name="trained_on_a_market",
        passed=False,
        observed="a sample for smoke tests, fitted to random numbers",
        required="a model that was trained on a market",
    )
    return packed, Sidecar(
        model_name=spec.model_name,
        algorithm=_ALGORITHM,
        market=SAMPLE_MARKET,
        bar_clock=schema.bar_clock,
        feature_schema=tuple(FeatureColumn.model_validate(column) for column in schema.columns()),
        feature_schema_hash=schema.hash,
        training_data_digest=sha256_of(rows.tobytes()),
        training_start_ns=0,
        training_end_ns=1,  # before any session: it knows nothing of one
        training_rows=_ROWS,
        label=label.name,
        label_horizon_bars=label.horizon_bars,
        label_identity=label.identity(),
        proposals=asks.identity() if asks else {},
        hyperparameters=family.hyperparameters(estimator),
        buy_threshold=0.0 if asks else 0.5 + _MARGIN,  # whatever a rule proposes is accepted
        sell_threshold=None if asks else 0.5 - _MARGIN,
        folds=(),
        metrics={},
        gate=GateResult(rung="champion", checks=(refused,)),
        live_gate=GateResult(rung="live", checks=(refused,)),
        feature_distributions=(),
        artifact_sha256=packed.sha256,
        git_commit=code_commit(),
        library_versions=library_versions(),
        fitted_at_ns=created_at_ns,
        seed=_SEED,
        created_by=created_by,
        created_at_ns=created_at_ns,
    )
