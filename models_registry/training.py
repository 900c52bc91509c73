"""Fit a model on a training frame and measure it out of sample; pure: data and a specification in, a fitted model out.

The target is a gain: ``forward_return > 0``, an up move or, of a rule's proposal, a trade that earns before costs. A
return of exactly zero counts half to each class: such a decision is made live as any other. Rows weigh by the
uniqueness of their label's interval (of a trade with barriers the longest that it may last), and sessions equally.
Measures come from walk-forward folds (``validation.splitters``); the estimator that is kept is fitted once more on all
rows.

A threshold is a quantile of what one model said of sessions it had not seen, and never of several models' scores
together: those of a fold come from the fold before it, those of the model that is kept from the newest fold. It is the
lean that carries over, the distance of a score from its model's base rate in log-odds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from feature_store.labels.barrier_return import VOLATILITY, BarrierReturn
from feature_store.market.types import is_generated, ist_day
from models_registry.estimators.families import FAMILIES
from models_registry.flat import dump_arrays
from models_registry.refs import FeatureDistribution, FoldResult
from models_registry.sidecar import DataLineage, FitFacts, ThresholdOrigin
from models_registry.specification import Estimator, StrategySpec
from models_registry.validation.splitters import Fold, NotEnoughSessions, Splitter, WalkForward, dates_of
from models_registry.validation.statistics import FEWEST_SESSIONS, auc, lean, log_loss, skill
from models_registry.validation.trade_skill import trade_skill
from models_registry.validation.uniqueness import row_weights

if TYPE_CHECKING:
    from feature_store.offline.training_frames import TrainingFrame

_MINIMUM_ROWS: Final = 300
_SMALLEST_LEAN: Final = 1e-9  # log-odds; a score that says the base rate opens nothing
_DECILES: Final = np.linspace(0.0, 1.0, 11)


class UntrainableFrame(ValueError):
    """A frame that no model can be fitted on; the message says what it lacks."""


@dataclass(frozen=True, eq=False)
class OutOfFold:
    """What models said about rows they had not seen; arrays of shape ``(m,)`` in order of decision time."""

    score: NDArray[np.float64]
    """Probability of an up move; of a rule's proposal that it gains."""
    up: NDArray[np.float64]
    """1 for an up move or a gain, 0 for a down move or a loss, 0.5 for a return of exactly zero."""
    forward_return: NDArray[np.float64]
    """Fraction, not basis points; of a proposal what its trade gains."""
    side: NDArray[np.int8]
    """1, or -1 of a proposal to sell."""
    decision_ns: NDArray[np.int64]
    label_end_ns: NDArray[np.int64]
    instrument: NDArray[np.int32]
    """Index in the frame's universe."""
    day: NDArray[np.int64]
    """The session, as an IST day counted from the epoch."""
    weight: NDArray[np.float64]
    """Uniqueness of the label's interval, every session with the same sum; mean 1. Of a proposal 1: when its label
    ended says how (`validation.trade_skill`)."""
    base_rate: NDArray[np.float64]
    """The naive baseline's score: the share of up moves in the fold's training rows."""
    gain: NDArray[np.float64]
    """The forward return; of a proposal in volatilities of the holding, as known at the decision."""
    base_gain: NDArray[np.float64]
    """Mean gain of the fold's training rows."""
    fold: NDArray[np.int64]

    def part(self, rows: NDArray[Any]) -> OutOfFold:
        """Give some rows, by index or mask."""
        return OutOfFold(**{name: getattr(self, name)[rows] for name in self.__dataclass_fields__})


@dataclass(frozen=True, eq=False)
class FoldModel:
    """The model of one fold as live code would run it."""

    number: int
    algorithm: Estimator
    arrays: bytes
    """Its flat form, as ``flat.load_flat`` reads it."""
    buy_threshold: float
    sell_threshold: float | None
    sessions: tuple[str, ...]
    """Dates of the sessions that it has not seen and is tested on."""


@dataclass(frozen=True, eq=False)
class TrainedModel:
    """A fitted estimator and what it was worth out of sample."""

    spec: StrategySpec
    estimator: Any
    """As its family builds it; None once it was read back from disk."""
    folds: tuple[FoldResult, ...]
    fold_models: tuple[FoldModel, ...]
    oof: OutOfFold
    buy_threshold: float
    """Open long at or above; above the base rate. Of a model that judges proposals: accept at or above."""
    sell_threshold: float | None
    """Open short at or below; below the base rate. None of a model that judges proposals."""
    thresholds_from: ThresholdOrigin
    """What these two were taken from."""
    metrics: dict[str, float]
    """Over all out-of-fold rows; finite."""
    feature_distributions: tuple[FeatureDistribution, ...]
    dropped: dict[str, int]
    """Rows left out by reason: ``label_missing``, ``feature_not_finite``."""
    training_rows: int
    training_start_ns: int
    training_end_ns: int
    """Exclusive; the last label of the training rows is known before it."""
    data_digest: str
    lineage: DataLineage
    instruments: tuple[str, ...]
    hyperparameters: dict[str, Any]
    """Of the estimator that is kept, every one."""
    fitted: FitFacts
    golden_rows: NDArray[np.float64]
    """Finite feature rows drawn from the training rows, for ``packing.pack``."""

    @property
    def train_through(self) -> str:
        """Date of the last session that was trained on."""
        return max(self.lineage.sessions)


@dataclass(frozen=True, eq=False)
class Rows:
    """What a frame gives to fit on and to judge by: rows with a label and finite features, by decision time."""

    X: NDArray[np.float64]
    forward_return: NDArray[np.float64]
    side: NDArray[np.int8]
    up: NDArray[np.float64]
    decision_ns: NDArray[np.int64]
    label_end_ns: NDArray[np.int64]
    instrument: NDArray[np.int32]
    day: NDArray[np.int64]
    weight: NDArray[np.float64]
    gain: NDArray[np.float64]
    dropped: dict[str, int]


@dataclass(frozen=True, eq=False)
class _Model:
    """A fitted estimator, and the share of up moves and the mean gain of the rows that it was fitted on."""

    estimator: Any
    base_rate: float
    base_gain: float

    def score(self, rows: Rows, chosen: NDArray[np.intp]) -> NDArray[np.float64]:
        return np.asarray(self.estimator.predict_proba(rows.X[chosen])[:, 1], dtype=np.float64)


@dataclass(frozen=True, eq=False)
class _Tested:
    """A fold, the model fitted on its training rows, and that model's scores of its test rows."""

    fold: Fold
    model: _Model
    score: NDArray[np.float64]

    def unseen_lean(self) -> NDArray[np.float64]:
        """Distance of each score from the model's base rate, in log-odds."""
        return lean(self.score, np.full(len(self.score), self.model.base_rate))


def train(frame: TrainingFrame, spec: StrategySpec, fitted: FitFacts) -> TrainedModel:
    """Fit on the frame and measure by walk-forward; equal arguments give an equal model, on one thread.

    Parameters
    ----------
    frame : TrainingFrame
        Warm feature rows with their forward returns (fractions; NaN where there is no label).
    spec : StrategySpec
        Estimator, hyperparameters, seed, folds, embargo and quantiles.
    fitted : FitFacts
        Commit, libraries and time of this fit; the caller knows them.

    Raises
    ------
    UntrainableFrame
        If too few usable rows are left, all rows or those of a fold moved the same way, or the estimator has no such
        hyperparameter.
    NotEnoughSessions
        If there are too few sessions for the folds, or fewer are tested than a bound over sessions needs.
    """
    from threadpoolctl import threadpool_limits

    rows = usable_rows(frame)
    import_estimators()
    with threadpool_limits(1):
        tested = _walk(rows, spec, None)
        kept = fit_rows(spec, rows, np.arange(len(rows.up)), "the training rows")
        # a fold's model trades by scores of the model before it; those of the newest are for the one that is kept
        models = [*(one.model for one in tested[1:]), kept]
        scales = [_scale(rows, one, model) for one, model in zip(tested, models, strict=True)]
    pairs = zip(tested, models, scales, strict=True)
    *before, (buy, sell) = [_thresholds(spec, one, model, scale) for one, model, scale in pairs]
    oof = _out_of_fold(spec, rows, tested[1:])
    buys, sells = (np.array(side, dtype=np.float64)[oof.fold - 1] for side in zip(*before, strict=True))
    parts = [oof.fold == one.fold.number for one in tested[1:]]
    measured = [_row_measures(oof.part(part), buys[part], sells[part]) for part in parts]
    return TrainedModel(
        spec=spec,
        estimator=kept.estimator,
        folds=tuple(_fold_result(one.fold, found) for one, found in zip(tested[1:], measured, strict=True)),
        fold_models=tuple(_fold_model(spec, one, pair) for one, pair in zip(tested[1:], before, strict=True)),
        oof=oof,
        buy_threshold=buy,
        sell_threshold=sell,
        thresholds_from=_origin(spec, tested[-1].fold, scales[-1]),
        metrics=_row_measures(oof, buys, sells) | _skill(spec, oof),
        feature_distributions=_distributions(frame.schema.names, rows.X),
        dropped=rows.dropped,
        training_rows=len(rows.up),
        training_start_ns=int(rows.decision_ns.min()),
        training_end_ns=int(rows.label_end_ns.max()) + 1,
        data_digest=frame.digest,
        lineage=DataLineage(
            generated=is_generated(frame.market),
            sessions=frame.sessions,
            manifests=frame.manifests,
            membership_digest=frame.membership_digest,
            actions_digest=frame.actions_digest,
        ),
        instruments=frame.instruments,
        hyperparameters=FAMILIES[spec.estimator].hyperparameters(kept.estimator),
        fitted=fitted,
        golden_rows=_golden_rows(rows.X, spec.seed),
    )


def evaluate(
    frame: TrainingFrame,
    spec: StrategySpec,
    sessions: NDArray[np.int64] | None,
    splitter: Splitter | None = None,
) -> OutOfFold:
    """Run a recipe in given folds and give what it said out of fold.

    Parameters
    ----------
    frame : TrainingFrame
        Of the recipe's own features.
    spec : StrategySpec
        The recipe; its number of folds and embargo must be those of what it is compared with.
    sessions : ndarray of int64
        Days that are cut into folds, ascending: those of the frame that it is compared with; default: its own.
    splitter : Splitter, optional
        What cuts them; default: walk-forward as the recipe says. A row that several folds test is there as often.

    Raises
    ------
    UntrainableFrame, NotEnoughSessions
        As `train`.
    """
    from threadpoolctl import threadpool_limits

    rows = usable_rows(frame)
    import_estimators()
    with threadpool_limits(1):
        return _out_of_fold(spec, rows, _walk(rows, spec, sessions, first=1, splitter=splitter))


def import_estimators() -> None:
    """Load scikit-learn before `threadpool_limits`, which reaches only libraries that are loaded.

    OpenMP's threads on busy cores made 2 s into 30 s.
    """
    import sklearn.ensemble
    import sklearn.linear_model  # noqa: F401


def session_days(decision_ns: NDArray[np.int64]) -> NDArray[np.int64]:
    """IST calendar day of each decision, counted from the epoch; an NSE session never crosses midnight."""
    return ist_day(decision_ns)


def usable_rows(frame: TrainingFrame) -> Rows:
    """Sort a frame, leave out what cannot be fitted on, and weigh the rest; raises UntrainableFrame for too few."""
    # A stable sort by decision time: folds are then contiguous and nothing depends on how the store laid rows out.
    order = np.lexsort((frame.instrument, frame.decision_ns))
    features, returns = np.ascontiguousarray(frame.X[order], dtype=np.float64), frame.forward_return[order]
    missing = ~np.isfinite(returns)
    not_finite = ~missing & ~np.all(np.isfinite(features), axis=1)
    keep = ~(missing | not_finite)
    dropped = {"label_missing": int(missing.sum()), "feature_not_finite": int(not_finite.sum())}
    if keep.sum() < _MINIMUM_ROWS:
        never = [name for name, of in zip(frame.schema.names, features.T, strict=True) if not np.isfinite(of).any()]
        raise UntrainableFrame(
            f"{int(keep.sum())} usable rows, at least {_MINIMUM_ROWS} are needed: give more sessions or instruments. "
            f"Dropped: {', '.join(f'{n} {reason}' for reason, n in dropped.items())}"
            + (f"; never finite: {', '.join(never)}" if never else "")
        )
    decision_ns, label_end_ns = frame.decision_ns[order][keep], frame.label_end_ns[order][keep]
    instrument, day = frame.instrument[order][keep], session_days(decision_ns)
    longest_ns, unit = label_end_ns, 1.0
    if isinstance(frame.label, BarrierReturn):  # when a barrier was touched is hindsight: weights do not know it
        longest_ns = decision_ns + frame.label.horizon_ns
        unit = features[keep, frame.schema.names.index(VOLATILITY)] * np.sqrt(frame.label.horizon_bars)
    return Rows(
        X=features[keep],
        forward_return=returns[keep],
        side=frame.side[order][keep],
        up=(np.sign(returns[keep]) + 1.0) / 2.0,
        decision_ns=decision_ns,
        label_end_ns=label_end_ns,
        instrument=instrument,
        day=day,
        weight=row_weights(instrument, decision_ns, longest_ns, day),
        gain=returns[keep] / unit,
        dropped=dropped,
    )


def _walk(
    rows: Rows,
    spec: StrategySpec,
    sessions: NDArray[np.int64] | None,
    first: int = 0,
    splitter: Splitter | None = None,
) -> list[_Tested]:
    folds = (splitter or WalkForward(spec.folds, spec.embargo_sessions)).split(
        rows.decision_ns, rows.label_end_ns, rows.day, sessions
    )
    sessions_tested = sum(len(fold.test_days) for fold in folds if fold.number > 0)
    if sessions_tested < FEWEST_SESSIONS:
        raise NotEnoughSessions(
            f"the folds test {sessions_tested} sessions, at least {FEWEST_SESSIONS} are needed: give more sessions"
        )
    tested = []
    for fold in folds:
        if fold.number < first:
            continue
        begins, ends = dates_of(fold.test_days[[0, -1]])
        what = f"fold {fold.number} ({begins} to {ends})"
        if fold.number > 0 and _one_class(rows.up[fold.test]):
            raise UntrainableFrame(f"{what} tests rows that all moved the same way: give more sessions or fewer folds")
        model = fit_rows(spec, rows, fold.train, f"the training rows of {what}")
        tested.append(_Tested(fold, model, model.score(rows, fold.test)))
    return tested


def fit_rows(spec: StrategySpec, rows: Rows, train_rows: NDArray[np.intp], what: str) -> _Model:
    """Fit a specification's estimator on some rows; raises UntrainableFrame, with ``what`` the rows are."""
    features, up, weight = rows.X[train_rows], rows.up[train_rows], rows.weight[train_rows]
    if _one_class(up):
        raise UntrainableFrame(f"{what} all moved the same way: check the label, give more sessions or fewer folds")
    base_rate = float(np.average(up, weights=weight))
    halves = up == 0.5
    if halves.any():  # one row of each class, with half the weight
        features = np.concatenate([features, features[halves]])
        weight = np.concatenate([np.where(halves, weight / 2, weight), weight[halves] / 2])
        up = np.concatenate([np.where(halves, 1.0, up), np.zeros(int(halves.sum()))])
    family = FAMILIES[spec.estimator]
    try:
        estimator = family.build(spec.seed, len(train_rows), spec.hyperparameters)
        fitted = family.fit(estimator, features, up > 0.5, weight * (len(weight) / weight.sum()))
    except (TypeError, ValueError) as wrong:  # ValueError: scikit-learn's own word on a value
        raise UntrainableFrame(f"{spec.estimator} of {spec.name!r} cannot be fitted: {wrong}") from wrong
    return _Model(fitted, base_rate, float(rows.gain[train_rows].mean()))


def _one_class(up: NDArray[np.float64]) -> bool:
    return len(np.unique(up[up != 0.5])) < 2


def _scale(rows: Rows, before: _Tested, model: _Model) -> float:
    """How far a model leans on the rows that the model before it had not seen, compared with that one."""
    again = model.score(rows, before.fold.test)
    leans = lean(again, np.full(len(again), model.base_rate))
    return float(leans.std() / max(before.unseen_lean().std(), _SMALLEST_LEAN))


def _thresholds(spec: StrategySpec, before: _Tested, model: _Model, scale: float) -> tuple[float, float | None]:
    """Thresholds of a model, from what the model before it said of sessions that it had not seen: (buy, sell).

    The lean is what carries over: the level of a score follows the base rate of its model's training rows. A model of
    fewer sessions leans further, so its quantiles are scaled by how far the two lean on the same rows, which the later
    one was trained on. Each threshold is kept on its own side of the base rate.
    """
    level = logit(model.base_rate)
    if spec.judged:  # the rule says the side: a quantile of proposals is accepted, wherever the base rate lies
        return float(expit(level + scale * np.quantile(before.unseen_lean(), spec.accept_quantile))), None
    buy, sell = scale * np.quantile(before.unseen_lean(), [spec.buy_quantile, spec.sell_quantile])
    return float(expit(level + max(buy, _SMALLEST_LEAN))), float(expit(level + min(sell, -_SMALLEST_LEAN)))


def _origin(spec: StrategySpec, fold: Fold, scale: float) -> ThresholdOrigin:
    first, last = dates_of(fold.test_days[[0, -1]])
    return ThresholdOrigin(
        fold=fold.number,
        first_session=first,
        last_session=last,
        rows=len(fold.test),
        buy_quantile=spec.accept_quantile if spec.judged else spec.buy_quantile,
        sell_quantile=None if spec.judged else spec.sell_quantile,
        scale=scale,
    )


def _fold_model(spec: StrategySpec, tested: _Tested, thresholds: tuple[float, float | None]) -> FoldModel:
    return FoldModel(
        number=tested.fold.number,
        algorithm=spec.estimator,
        arrays=dump_arrays(FAMILIES[spec.estimator].flatten(tested.model.estimator)),
        buy_threshold=thresholds[0],
        sell_threshold=thresholds[1],
        sessions=dates_of(tested.fold.test_days),
    )


def _out_of_fold(spec: StrategySpec, rows: Rows, tested: list[_Tested]) -> OutOfFold:
    test = np.concatenate([one.fold.test for one in tested])
    sizes = [len(one.fold.test) for one in tested]
    columns = ("up", "forward_return", "side", "decision_ns", "label_end_ns", "instrument", "day", "gain")
    return OutOfFold(
        weight=np.ones(len(test)) if spec.judged else rows.weight[test],
        base_gain=np.repeat([one.model.base_gain for one in tested], sizes),
        score=np.concatenate([one.score for one in tested]),
        base_rate=np.repeat([one.model.base_rate for one in tested], sizes),
        fold=np.repeat([one.fold.number for one in tested], sizes),
        **{name: getattr(rows, name)[test] for name in columns},
    )


def _skill(spec: StrategySpec, oof: OutOfFold) -> dict[str, float]:
    if spec.judged:
        return trade_skill(oof.score, oof.gain, oof.base_rate, oof.base_gain, oof.day)
    return skill(oof.score, oof.up, oof.base_rate, oof.weight, oof.day)


# --- measures -----------------------------------------------------------------------------------------------------


def _row_measures(oof: OutOfFold, buy: NDArray[np.float64], sell: NDArray[np.float64]) -> dict[str, float]:
    """Measure rows against the thresholds of their fold; ``buy`` and ``sell`` have one for each row, or NaN.

    A proposal counts to the side that it is of.
    """
    return_bps = oof.forward_return * 1e4
    judged = np.isnan(sell)
    bought = (oof.score >= buy) & (oof.side > 0)
    sold = np.where(judged, (oof.score >= buy) & (oof.side < 0), oof.score <= sell)
    return {
        "rows": float(len(oof.score)),
        "auc": auc(oof.score, oof.up, oof.weight),
        "log_loss": log_loss(oof.score, oof.up, oof.weight),
        "naive_log_loss": log_loss(oof.base_rate, oof.up, oof.weight),
        "base_rate": float(np.average(oof.up, weights=oof.weight)),
        "buy_rows": float(bought.sum()),
        "buy_forward_return_bps": _mean(return_bps[bought]),
        "sell_rows": float(sold.sum()),
        "sell_forward_return_bps": _mean(return_bps[sold]),
    }


def _mean(values: NDArray[np.float64]) -> float:
    # No rows earn nothing; their number stands beside it.
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
