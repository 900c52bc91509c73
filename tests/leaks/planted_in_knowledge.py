"""Leaks that no cut of the bars shows: in labels, folds, fits, choices, side tables, versions, rules and fills."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from feature_store.features.guards import FrameFeatures
from feature_store.features.library import declare as declare_feature
from feature_store.features.window import CLOSE, Window
from feature_store.labels.forward_return import ForwardReturn
from feature_store.market.types import MINUTE_NS, Bars, ist_day
from feature_store.offline.point_in_time import point_in_time_join
from feature_store.offline.training_frames import TrainingFrame
from feature_store.proposals.rules import Rule, declare
from live_services.audit.decisions import reads_no_table
from live_services.audit.findings import AuditReport
from live_services.audit.labels import LabelTable, label_ends_when_it_says
from live_services.audit.side_tables import side_table_was_known
from live_services.audit.training import choice_knows_no_later_session, folds_are_purged, folds_know_no_test
from live_services.audit.versions import version_is_older
from models_registry.estimators.families import FAMILIES
from models_registry.flat import dump_arrays
from models_registry.sidecar import Sidecar
from models_registry.specification import StrategySpec
from models_registry.training import TrainedModel, train
from models_registry.validation.splitters import CombinatorialPurged, Fold, WalkForward
from tests.feature_markets import FeatureMarket, feature_market
from tests.models_registry_frames import FIT, frame, sidecar, spec

Times = NDArray[np.int64]
SPEC: StrategySpec = spec("logistic_regression", folds=2)


def market(seed: int) -> FeatureMarket:
    return feature_market(seed, stocks=2, sessions=2, bars_per_session=60)


# --- labels -----------------------------------------------------------------------------------------------------------


def shifted_label(bars: Bars, *, horizon: int = 5, stated_bars: int = 1) -> LabelTable:
    """The return to the close five bars on, as ``shift(-5)`` gives it; said to have ended with the next bar."""
    returns, ends = np.full(len(bars), np.nan), bars.end_ns.copy()
    for i in np.unique(bars.instrument):
        mine = np.flatnonzero(bars.instrument == i)
        f = FrameFeatures.frame(bars[mine])
        returns[mine] = f.close.groupby(f.end.dt.date).shift(-horizon) / f.close - 1
        ends[mine] = bars.end_ns[mine] + stated_bars * MINUTE_NS
    return LabelTable(returns, bars.end_ns, ends)


def label_from_the_bar_itself(bars: Bars) -> LabelTable:
    """Buys at the open of the very bar whose close was looked at."""
    honest = shifted_label(bars, stated_bars=6)
    return LabelTable(honest.forward_return, bars.start_ns, honest.label_end_ns)


def label_with_its_true_end(bars: Bars) -> LabelTable:
    return shifted_label(bars, stated_bars=5)


def label_audit(seed: int, label_of: Callable[[Bars], object] | None = None) -> AuditReport:
    m = market(seed)
    honest = ForwardReturn(5)
    return label_ends_when_it_says(
        label_of or (lambda bars: honest.of(bars, len(m.universe), m.sessions)), m.bars, m.universe, seed=seed
    )


# --- folds and fits ---------------------------------------------------------------------------------------------------


def rows(seed: int) -> TrainingFrame:
    return frame(sessions=10, instruments=2, rows=60, seed=seed)


def without_purge(decision_ns: Times, _label_end_ns: Times, _day: Times) -> tuple[Fold, ...]:
    """Train on the first half of the rows, test on the second, and forget how long a label lasts."""
    half = len(decision_ns) // 2 + 31
    train_rows, test = np.arange(half), np.arange(half, len(decision_ns))
    return (Fold(1, train_rows, test, np.empty(0, np.int64), 0, 0, 0, 0, 0),)


def walked(decision_ns: Times, label_end_ns: Times, day: Times) -> tuple[Fold, ...]:
    return WalkForward(folds=3, embargo_sessions=1).split(decision_ns, label_end_ns, day)


def combined(decision_ns: Times, label_end_ns: Times, day: Times) -> tuple[Fold, ...]:
    return CombinatorialPurged(groups=5, test_groups=2, embargo_sessions=1).split(decision_ns, label_end_ns, day)


def without_embargo(decision_ns: Times, label_end_ns: Times, day: Times) -> tuple[Fold, ...]:
    return WalkForward(folds=3).split(decision_ns, label_end_ns, day)


def folds_audit(seed: int, split: Callable[[Times, Times, Times], tuple[Fold, ...]]) -> AuditReport:
    f = rows(seed)
    day = ist_day(f.decision_ns)
    return folds_are_purged(split(f.decision_ns, f.label_end_ns, day), f.decision_ns, f.label_end_ns, day, 1)


def honest_fit(f: TrainingFrame) -> TrainedModel:
    return train(f, SPEC, FIT)


def searched_fit(f: TrainingFrame) -> TrainedModel:
    """With a search of its hyperparameters."""
    return train(f, spec("logistic_regression", folds=2, search_tries=2), FIT)


def forest_fit(f: TrainingFrame) -> TrainedModel:
    return train(f, spec("random_forest", folds=2, hyperparameters={"n_estimators": 10}), FIT)


def scaled_on_all_rows(f: TrainingFrame) -> TrainedModel:
    return train(replace(f, X=(f.X - f.X.mean(axis=0)) / f.X.std(axis=0)), SPEC, FIT)


def tested_by_the_model_of_all_rows(f: TrainingFrame) -> TrainedModel:
    """The model that is kept, which was fitted on every session, is what each fold is tested with."""
    fitted = honest_fit(f)
    arrays = dump_arrays(FAMILIES[SPEC.estimator].flatten(fitted.estimator))
    return replace(fitted, fold_models=tuple(replace(one, arrays=arrays) for one in fitted.fold_models))


def thresholds_of_the_test(f: TrainingFrame) -> TrainedModel:
    """Thresholds are quantiles of the very scores that they are judged on."""
    fitted = honest_fit(f)
    models = []
    for one in fitted.fold_models:
        score = fitted.oof.score[fitted.oof.fold == one.number]
        models.append(replace(one, buy_threshold=float(np.quantile(score, 0.98))))
    return replace(fitted, fold_models=tuple(models))


def fit_audit(seed: int, fit: Callable[[TrainingFrame], TrainedModel] = honest_fit) -> AuditReport:
    return folds_know_no_test(fit, rows(seed), seed=seed)


# --- choices ----------------------------------------------------------------------------------------------------------


def best_of_all_sessions(daily: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.full(len(daily), int(daily.mean(axis=0).argmax()))


def best_so_far(daily: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.array([int(daily[:k].sum(axis=0).argmax()) if k else 0 for k in range(len(daily))])


def choice_audit(seed: int, choose: Callable[[NDArray[np.float64]], object]) -> AuditReport:
    daily = np.random.default_rng(seed).normal(0.0, 1_000.0, (12, 6))
    return choice_knows_no_later_session(choose, daily, seed=seed)


# --- side tables ------------------------------------------------------------------------------------------------------


def decisions_and_reports(seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Decisions of three months, and quarterly results that are known weeks after the quarter that they are about."""
    rng = np.random.default_rng(seed)
    days = pd.date_range("2026-01-05 10:00", "2026-06-30 10:00", freq="D", tz="Asia/Kolkata")
    decisions = pd.DataFrame({"at": days.repeat(2), "symbol": ["AAA", "BBB"] * len(days)})
    quarters = pd.DatetimeIndex(["2025-09-30", "2025-12-31", "2026-03-31"], tz="Asia/Kolkata")
    reports = pd.DataFrame({"quarter": quarters.repeat(2), "symbol": ["AAA", "BBB"] * 3})
    reports["available_at"] = reports.quarter + pd.to_timedelta(rng.integers(20, 45, len(reports)), unit="D")
    reports["profit"] = rng.normal(100.0, 10.0, len(reports)).round(2)
    return decisions, reports.sort_values("available_at").reset_index(drop=True)


def joined_by_quarter(decisions: pd.DataFrame, reports: pd.DataFrame) -> pd.DataFrame:
    """The newest quarter that was over, whether or not its results were out."""
    side = reports[["quarter", "symbol", "profit"]].sort_values("quarter")
    left = decisions.reset_index().sort_values("at")
    joined = pd.merge_asof(left, side, left_on="at", right_on="quarter", by="symbol").drop(columns="quarter")
    return joined.set_index("index").sort_index()


def joined_as_known(decisions: pd.DataFrame, reports: pd.DataFrame) -> pd.DataFrame:
    return point_in_time_join(decisions, reports, by="symbol", at="at", columns=["profit"])


def side_audit(seed: int, join: Callable[[pd.DataFrame, pd.DataFrame], pd.DataFrame]) -> AuditReport:
    return side_table_was_known(join, *decisions_and_reports(seed), at="at", cuts=20, seed=seed)


def side_audit_of(decisions: pd.DataFrame, reports: pd.DataFrame) -> AuditReport:
    return side_table_was_known(joined_by_quarter, decisions, reports, at="at")


# --- versions ---------------------------------------------------------------------------------------------------------


def version() -> Sidecar:
    """Trained on twelve days from 5 January 2026 on."""
    made = sidecar("logistic_regression")
    return made.model_copy(update={"fitted_at_ns": made.training_end_ns})


def version_audit(first_day: dt.date, changed: Sidecar | None = None, sessions: Sequence[str] = ()) -> AuditReport:
    open_ns = int(np.datetime64(f"{first_day}T03:45", "ns").astype(np.int64))
    return version_is_older(changed or version(), open_ns, sessions=sessions)


def says_that_it_ends_earlier(days: int) -> Sidecar:
    honest = version()
    return honest.model_copy(update={"training_end_ns": honest.training_end_ns - days * 1440 * MINUTE_NS})


# --- rules ------------------------------------------------------------------------------------------------------------

BEST_SIDES = np.random.default_rng(5).integers(-1, 2, 375)
"""What would have paid in each minute of a day, from a notebook that had seen the day."""


def remembered_day(time_of_day: float) -> int:
    return int(BEST_SIDES[int(time_of_day * 374)])


def honest_rule(z_score: float, threshold: float = 2.0) -> int:
    return 1 if z_score < -threshold else 0


def rule_audit(function: Callable[..., int]) -> AuditReport:
    declared: Rule = declare(function, source="a test")
    return reads_no_table(declared.name, declared.function, "proposals")


# --- compiled features ------------------------------------------------------------------------------------------------

MEANS = np.array([101.5, 203.25, 304.125])
"""Mean closes of all data, by instrument, from a notebook."""


def standardised_by_all_data(bars: Window) -> float:
    return bars.last(CLOSE) / MEANS[0] - 1.0


def feature_audit(function: Callable[..., float]) -> AuditReport:
    spec, compiled = declare_feature(function, warm_up=1, units="fraction", source="a test")
    return reads_no_table(spec.name, compiled, "features")
