"""Whether folds, fits and choices knew what they are judged on: each is made again where that is another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from feature_store.market.types import ist_day, ist_text
from live_services.audit.findings import AuditReport, Finding, LeakKind

if TYPE_CHECKING:
    from feature_store.offline.training_frames import TrainingFrame
    from models_registry.training import TrainedModel
    from models_registry.validation.splitters import Fold


def folds_are_purged(
    folds: Sequence[Fold],
    decision_ns: NDArray[np.int64],
    label_end_ns: NDArray[np.int64],
    day: NDArray[np.int64],
    embargo_sessions: int = 0,
) -> AuditReport:
    """No training row's interval, from decision to label end, meets one of the fold's test, nor the embargo.

    Parameters
    ----------
    folds : sequence of Fold
        Of any splitter.
    decision_ns, label_end_ns, day : arrays of int64, shape (n,)
        Of the rows that they index.
    embargo_sessions : int
        Whole sessions before a test that are not trained on.
    """
    guard, findings, values = "intervals of folds", [], 0
    sessions = np.unique(day)
    for fold in folds:
        values += len(fold.train)
        order = fold.test[np.argsort(decision_ns[fold.test], kind="stable")]
        begins, reached = decision_ns[order], np.maximum.accumulate(label_end_ns[order])
        started = np.searchsorted(begins, label_end_ns[fold.train], side="right")
        last = np.where(started > 0, reached[np.maximum(started - 1, 0)], np.int64(-1))
        meets = last >= decision_ns[fold.train]
        place, tested = np.searchsorted(sessions, day[fold.train]), np.searchsorted(sessions, np.unique(day[fold.test]))
        following = np.searchsorted(tested, place, side="left")
        gap = tested[np.minimum(following, len(tested) - 1)] - place
        too_near = (following < len(tested)) & (gap <= embargo_sessions) & (embargo_sessions > 0)
        wrong = fold.train[meets | too_near]
        if len(wrong):
            row = int(wrong[np.argmin(decision_ns[wrong])])
            what = (
                f"fold {fold.number} trains on {len(wrong)} rows whose interval meets its test or the embargo of "
                f"{embargo_sessions} sessions; the first was decided at {ist_text(int(decision_ns[row]))} and ends at "
                f"{ist_text(int(label_end_ns[row]))}"
            )
            kind, when = LeakKind.LABEL_OVERLAPS_TEST, int(decision_ns[row])
            findings.append(Finding(kind, guard, "folds", f"fold {fold.number}", what, time_ns=when))
    too_few = () if len(folds) else ("there is no fold: give more sessions",)
    return AuditReport("folds", {guard: values}, tuple(findings), too_few)


def folds_know_no_test(
    fit: Callable[[TrainingFrame], TrainedModel],
    frame: TrainingFrame,
    *,
    folds: Sequence[int] | None = None,
    seed: int = 7,
) -> AuditReport:
    """Change all that a fold tests on, rows and labels, and fit again: neither its model nor its thresholds may move.

    It finds scalers and selections of features that were fitted on all rows, models that saw their test, and thresholds
    that were taken from the scores they are judged by.

    Parameters
    ----------
    fit : callable
        Takes a frame, gives what has ``fold_models`` (`models_registry.training.train` with its other arguments).
    frame : TrainingFrame
    folds : sequence of int, optional
        Numbers of the folds to try, each for one more fit; default: the first and the last.
    seed : int
        Of the other rows.
    """
    guard, rng, findings, values = "test rows changed", np.random.default_rng(seed), list[Finding](), 0
    models = {one.number: one for one in fit(frame).fold_models}
    if not models:
        return AuditReport("fits", {guard: 0}, too_few=("there is no fold: give more sessions",))
    for number in sorted({min(models), max(models)}) if folds is None else folds:
        model = models[number]
        first_day = np.datetime64(min(model.sessions), "D").astype(np.int64)
        again = {
            one.number: one for one in fit(_other_rows(frame, ist_day(frame.decision_ns) >= first_day, rng)).fold_models
        }
        values += 1
        other, tested = again[number], f"fold {number}, tested from {min(model.sessions)} on"
        if other.arrays != model.arrays:
            what = f"the model of {tested}, is another when its test rows are others"
            findings.append(Finding(LeakKind.MODEL_SAW_TEST, guard, "training", f"fold {number}", what))
        elif (other.buy_threshold, other.sell_threshold) != (model.buy_threshold, model.sell_threshold):
            what = f"the thresholds of {tested}, are others when its test rows are: they were chosen on what they judge"
            findings.append(
                Finding(
                    LeakKind.CHOSEN_ON_TEST, guard, "training", f"fold {number}", what,
                    with_future=model.buy_threshold, without_future=other.buy_threshold,
                )
            )  # fmt: skip
    return AuditReport("fits", {guard: values}, tuple(findings))


def _other_rows(frame: TrainingFrame, later: NDArray[np.bool_], rng: np.random.Generator) -> TrainingFrame:
    features, returns = frame.X.copy(), frame.forward_return.copy()
    usable = np.isfinite(returns) & np.isfinite(features).all(axis=1)  # which rows have a label is no knowledge
    rows = np.flatnonzero(later & usable)
    features[rows] = features[rng.permutation(rows)] * rng.uniform(0.5, 2.0, frame.X.shape[1])
    returns[rows] = -returns[rng.permutation(rows)]
    return replace(frame, X=features, forward_return=returns)


def choice_knows_no_later_session(
    choose: Callable[[NDArray[np.float64]], Any], daily: NDArray[np.float64], *, seed: int = 7
) -> AuditReport:
    """Change what came from a session on: what was chosen for it and for those before must not move.

    Parameters
    ----------
    choose : callable
        Takes results by session and candidate, shape ``(sessions, candidates)``: PnL of thresholds, features,
        instruments, models. Gives for each session what was chosen for it, shape ``(sessions,)``.
    daily : array, shape (sessions, candidates)
    seed : int
        Of the other results.
    """
    guard, rng, values = "later sessions changed", np.random.default_rng(seed), 0
    whole = np.asarray(choose(daily.copy()))
    for session in range(1, len(daily)):
        other = daily.copy()
        other[session:] = -other[session:] + rng.normal(0.0, other.std() + 1e-9, other[session:].shape)
        moved = np.flatnonzero(np.asarray(choose(other))[: session + 1] != whole[: session + 1])
        values += session + 1
        if len(moved):
            first = int(moved[0])
            what = (
                f"what is chosen for session {first} changes with the results of session {session} and later: it is "
                "judged on what it was chosen by"
            )
            found = Finding(LeakKind.CHOSEN_ON_TEST, guard, "selection", f"session {first}", what)
            return AuditReport("selection", {guard: values}, (found,))
    too_few = () if len(daily) > 2 else ("fewer than three sessions: give more",)
    return AuditReport("selection", {guard: values}, (), too_few)
