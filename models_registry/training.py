"""Fit a model on a training frame and measure it out of sample; pure: data and a seed in, a fitted model out.

The target is an up move: ``forward_return > 0``. Rows without a label, with a return of exactly zero, or with a feature
that is not finite are dropped and counted. The measures come from walk-forward folds (``validation.py``); the estimator
that is kept is fitted once more on all rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from models_registry.refs import FeatureDistribution, FoldResult
from models_registry.validation.splitters import (
    EMBARGO_NS,
    Fold,
    auc,
    auc_by_session,
    log_loss,
    mean_lower_bound,
    session_days,
    walk_forward,
)

if TYPE_CHECKING:
    from feature_store.offline.training_frames import TrainingFrame

Algorithm = Literal["hist_gradient_boosting", "logistic_regression"]
ALGORITHMS: Final[tuple[Algorithm, ...]] = get_args(Algorithm)

ROUND_TRIP_COST_BPS: Final = 6.0
"""Explicit costs of entering and leaving, basis points of notional: twice the paper broker's default per fill."""
_MINIMUM_ROWS: Final = 500
_DECILES: Final = np.linspace(0.0, 1.0, 11)


class UntrainableFrame(ValueError):
    """A frame that no model can be fitted on; the message says what it lacks."""


@dataclass(frozen=True, eq=False)
class OutOfFold:
    """What the model said about rows it had not seen; arrays of shape ``(m,)`` in order of decision time."""

    score: NDArray[np.float64]
    """Probability of an up move."""
    up: NDArray[np.bool_]
    forward_return: NDArray[np.float64]
    """Fraction, not basis points."""
    day: NDArray[np.int64]
    """IST calendar day of the session, counted from the epoch."""
    base_rate: NDArray[np.float64]
    """The naive baseline's score: the share of up moves in the fold's training rows."""


@dataclass(frozen=True, eq=False)
class TrainedModel:
    """A fitted estimator and what it was worth out of sample."""

    algorithm: Algorithm
    seed: int
    estimator: Any
    """HistGradientBoostingClassifier, or a Pipeline of StandardScaler and LogisticRegression."""
    folds: tuple[FoldResult, ...]
    oof: OutOfFold
    buy_threshold: float
    sell_threshold: float
    metrics: dict[str, float]
    """Over all out-of-fold rows; same names as in each fold, and ``auc_lower_bound``, ``test_sessions``."""
    feature_distributions: tuple[FeatureDistribution, ...]
    dropped: dict[str, int]
    """Rows left out by reason: ``label_missing``, ``return_zero``, ``feature_not_finite``."""
    training_rows: int
    training_start_ns: int
    training_end_ns: int
    """Exclusive; the last label of the training rows is known before it."""
    data_digest: str
    golden_rows: NDArray[np.float64]
    """Finite feature rows drawn from the training rows, for ``packing.pack``."""


@dataclass(frozen=True, eq=False)
class _Rows:
    X: NDArray[np.float64]
    forward_return: NDArray[np.float64]
    up: NDArray[np.bool_]
    decision_ns: NDArray[np.int64]
    label_end_ns: NDArray[np.int64]
    dropped: dict[str, int]


def train(
    frame: TrainingFrame,
    algorithm: Algorithm = "hist_gradient_boosting",
    seed: int = 0,
    *,
    folds: int = 4,
    embargo_ns: int = EMBARGO_NS,
    buy_quantile: float = 0.98,
    sell_quantile: float = 0.02,
    round_trip_cost_bps: float = ROUND_TRIP_COST_BPS,
) -> TrainedModel:
    """Fit on the frame and measure by walk-forward; equal arguments give an equal model, on one thread.

    Parameters
    ----------
    frame : TrainingFrame
        Warm feature rows with their forward returns (fractions; NaN where a session ends too early).
    algorithm : {'hist_gradient_boosting', 'logistic_regression'}
    seed : int
        Seed of the estimator, of the bootstrap and of the choice of golden rows.
    folds, embargo_ns
        See ``validation.walk_forward``.
    buy_quantile, sell_quantile : float
        Quantiles of the out-of-fold scores that become the thresholds. They look at scores of all folds, never at
        outcomes.
    round_trip_cost_bps : float
        Costs taken off each trade's return in ``net_expectancy_bps``, basis points of notional.

    Raises
    ------
    UntrainableFrame
        If too few usable rows are left, or all moved the same way.
    NotEnoughSessions
        If there are too few sessions for the folds.
    """
    # Before the limit, which reaches only libraries that are loaded: OpenMP's threads on busy cores made 2 s into 30 s.
    import sklearn.ensemble
    import sklearn.linear_model  # noqa: F401
    from threadpoolctl import threadpool_limits

    if algorithm not in ALGORITHMS:
        raise ValueError(f"unknown algorithm {algorithm!r}; choose one of {ALGORITHMS}")
    if not 0.0 <= sell_quantile < buy_quantile <= 1.0:
        raise ValueError(f"quantiles must be ordered: sell {sell_quantile} < buy {buy_quantile}")
    rows = _usable(frame)
    with threadpool_limits(1):
        steps = walk_forward(rows.decision_ns, rows.label_end_ns, folds=folds, embargo_ns=embargo_ns)
        scores = [_fit(algorithm, seed, rows, fold.train).predict_proba(rows.X[fold.test])[:, 1] for fold in steps]
        estimator = _fit(algorithm, seed, rows, np.arange(len(rows.up)))
    oof = _out_of_fold(rows, steps, scores)
    buy, sell = (float(np.quantile(oof.score, q)) for q in (buy_quantile, sell_quantile))
    parts = np.split(np.arange(len(oof.score)), np.cumsum([len(fold.test) for fold in steps])[:-1])
    results = tuple(
        _fold_result(fold, _metrics(_part(oof, part), buy, sell, round_trip_cost_bps))
        for fold, part in zip(steps, parts, strict=True)
    )
    per_session = auc_by_session(oof.score, oof.up, oof.day)
    metrics = _metrics(oof, buy, sell, round_trip_cost_bps) | {
        "auc_session_mean": float(per_session.mean()) if len(per_session) else float("nan"),
        "auc_lower_bound": mean_lower_bound(per_session, seed=seed),
        "test_sessions": float(len(per_session)),
        "round_trip_cost_bps": round_trip_cost_bps,
    }
    return TrainedModel(
        algorithm=algorithm,
        seed=seed,
        estimator=estimator,
        folds=results,
        oof=oof,
        buy_threshold=buy,
        sell_threshold=sell,
        metrics=metrics,
        feature_distributions=_distributions(frame.schema.names, rows.X),
        dropped=rows.dropped,
        training_rows=len(rows.up),
        training_start_ns=int(rows.decision_ns.min()),
        training_end_ns=int(rows.label_end_ns.max()) + 1,
        data_digest=frame.digest,
        golden_rows=_golden_rows(rows.X, seed),
    )


def _usable(frame: TrainingFrame) -> _Rows:
    # A stable sort by decision time: folds are then contiguous and nothing depends on how the store laid rows out.
    order = np.argsort(frame.decision_ns, kind="stable")
    features, returns = np.ascontiguousarray(frame.X[order], dtype=np.float64), frame.forward_return[order]
    missing = ~np.isfinite(returns)
    zero = returns == 0.0
    not_finite = ~missing & ~zero & ~np.all(np.isfinite(features), axis=1)
    keep = ~(missing | zero | not_finite)
    dropped = {
        "label_missing": int(missing.sum()),
        "return_zero": int(zero.sum()),
        "feature_not_finite": int(not_finite.sum()),
    }
    up = returns[keep] > 0.0
    if len(up) < _MINIMUM_ROWS:
        raise UntrainableFrame(
            f"{len(up)} usable rows, at least {_MINIMUM_ROWS} are needed: give more sessions or instruments. "
            f"Dropped: {', '.join(f'{n} {reason}' for reason, n in dropped.items())}"
        )
    if up.all() or not up.any():
        raise UntrainableFrame("every forward return has the same sign: check the label")
    return _Rows(
        features[keep], returns[keep], up, frame.decision_ns[order][keep], frame.label_end_ns[order][keep], dropped
    )


def _fit(algorithm: Algorithm, seed: int, rows: _Rows, train_rows: NDArray[np.intp]) -> Any:
    up = rows.up[train_rows]
    if up.all() or not up.any():
        raise UntrainableFrame("a fold's training rows all moved the same way: give more sessions or fewer folds")
    return _estimator(algorithm, seed, len(train_rows)).fit(rows.X[train_rows], up)


def _estimator(algorithm: Algorithm, seed: int, n_rows: int) -> Any:
    if algorithm == "logistic_regression":
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import Pipeline
        from sklearn.preprocessing import StandardScaler

        return Pipeline(
            [("scale", StandardScaler()), ("logistic", LogisticRegression(max_iter=500, random_state=seed))]
        )
    from sklearn.ensemble import HistGradientBoostingClassifier

    # A leaf of fewer than about 0.2 % of the rows fits noise of single minutes; 20 keeps small test frames trainable.
    return HistGradientBoostingClassifier(
        max_iter=100,
        learning_rate=0.05,
        max_leaf_nodes=15,
        min_samples_leaf=int(np.clip(n_rows // 500, 20, 200)),
        early_stopping=False,
        random_state=seed,
    )


def _out_of_fold(rows: _Rows, folds: tuple[Fold, ...], scores: list[NDArray[np.float64]]) -> OutOfFold:
    test = np.concatenate([fold.test for fold in folds])
    return OutOfFold(
        score=np.concatenate(scores),
        up=rows.up[test],
        forward_return=rows.forward_return[test],
        day=session_days(rows.decision_ns[test]),
        base_rate=np.concatenate([np.full(len(fold.test), rows.up[fold.train].mean()) for fold in folds]),
    )


def _part(oof: OutOfFold, rows: NDArray[np.intp]) -> OutOfFold:
    return OutOfFold(oof.score[rows], oof.up[rows], oof.forward_return[rows], oof.day[rows], oof.base_rate[rows])


def _metrics(oof: OutOfFold, buy: float, sell: float, cost_bps: float) -> dict[str, float]:
    bought, sold = oof.score >= buy, oof.score <= sell
    return_bps = oof.forward_return * 1e4
    traded = np.concatenate([return_bps[bought], -return_bps[sold]])
    return {
        "rows": float(len(oof.score)),
        "auc": auc(oof.score, oof.up),
        "log_loss": log_loss(oof.score, oof.up),
        "naive_log_loss": log_loss(oof.base_rate, oof.up),
        "base_rate": float(oof.up.mean()),
        "buy_rows": float(bought.sum()),
        "buy_forward_return_bps": _mean(return_bps[bought]),
        "sell_rows": float(sold.sum()),
        "sell_forward_return_bps": _mean(return_bps[sold]),
        "gross_expectancy_bps": _mean(traded),
        "net_expectancy_bps": _mean(traded - cost_bps),
    }


def _mean(values: NDArray[np.float64]) -> float:
    # No trades earn nothing; the number of rows stands beside it.
    return float(values.mean()) if len(values) else 0.0


def _fold_result(fold: Fold, metrics: dict[str, float]) -> FoldResult:
    return FoldResult(
        fold=fold.number,
        train_start_ns=fold.train_start_ns,
        train_end_ns=fold.train_end_ns,
        test_start_ns=fold.test_start_ns,
        test_end_ns=fold.test_end_ns,
        rows=len(fold.test),
        metrics=metrics | {"train_rows": float(len(fold.train)), "purged_rows": float(fold.purged)},
    )


def _distributions(names: tuple[str, ...], features: NDArray[np.float64]) -> tuple[FeatureDistribution, ...]:
    edges = np.quantile(features, _DECILES, axis=0)
    return tuple(
        FeatureDistribution(
            name=name,
            mean=float(features[:, column].mean()),
            std=float(features[:, column].std()),
            edges=tuple(float(edge) for edge in edges[:, column]),
        )
        for column, name in enumerate(names)
    )


def _golden_rows(features: NDArray[np.float64], seed: int, rows: int = 128) -> NDArray[np.float64]:
    chosen = np.random.default_rng(seed).choice(len(features), size=min(rows, len(features)), replace=False)
    return features[np.sort(chosen)]
