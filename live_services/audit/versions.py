"""Whether a version is older than what it trades, and says the truth of its training."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from feature_store.market.types import ist_day, ist_text
from live_services.audit.findings import AuditReport, Finding, LeakKind

if TYPE_CHECKING:
    from feature_store.offline.training_frames import TrainingFrame
    from models_registry.sidecar import Sidecar

_DAY_NS: Final = 86_400_000_000_000


def version_is_older(
    sidecar: Sidecar, first_decision_ns: int, *, sessions: Sequence[str] = (), frame: TrainingFrame | None = None
) -> AuditReport:
    """Training end + label + embargo lie before the first decision, and what the sidecar says of its training agrees.

    Parameters
    ----------
    sidecar : Sidecar
        Of the version.
    first_decision_ns : int
        Of the sessions it trades; their open is earlier and does as well.
    sessions : sequence of str
        ISO dates of the sessions that are known, to count the embargo by.
    frame : TrainingFrame, optional
        The frame that its sidecar says it was trained on, made again: its digest and its last label are held against
        what is stated.
    """
    guard, findings = "training against trading", list[Finding]()

    def found(kind: LeakKind, column: str, what: str, time_ns: int | None = None) -> None:
        findings.append(Finding(kind, guard, "version", column, f"{sidecar.model_name}: {what}", time_ns=time_ns))

    end_ns, date = sidecar.training_end_ns, str(np.datetime64(int(ist_day(np.array([first_decision_ns]))[0]), "D"))
    trained = sorted(sidecar.lineage.sessions) if sidecar.lineage is not None else []
    if end_ns > first_decision_ns:
        what = f"its training ends at {ist_text(end_ns)}, and it trades from {ist_text(first_decision_ns)} on"
        found(LeakKind.MODEL_SAW_TEST, "training_end_ns", what, end_ns)
    elif trained and trained[-1] >= date:
        what = f"it was trained on the session {trained[-1]}, and trades {date}"
        found(LeakKind.MODEL_SAW_TEST, "lineage.sessions", what)
    for column, why in _untrue(sidecar, trained, frame):
        found(LeakKind.TRAINING_END_UNTRUE, column, why, end_ns)
    embargo = int(str(sidecar.fold_parameters.get("embargo_sessions", 0)))
    last = trained[-1] if trained else ""
    between = sum(last < one < date for one in sessions)
    if last and last < date and embargo > between and sessions:
        what = f"an embargo of {embargo} sessions is asked for, and {between} lie between {last} and {date}"
        found(LeakKind.LABEL_OVERLAPS_TEST, "fold_parameters.embargo_sessions", what)
    for fold in sidecar.folds:
        if fold.train_end_ns > fold.test_start_ns:
            what = f"fold {fold.fold} trains until {ist_text(fold.train_end_ns)} and is tested from before that on"
            found(LeakKind.LABEL_OVERLAPS_TEST, f"fold {fold.fold}", what, fold.test_start_ns)
            continue
        after, until = ist_text(fold.train_end_ns - 1)[:10], ist_text(fold.test_start_ns)[:10]
        left_out = sum(after < one < until for one in trained)
        if trained and left_out < embargo:
            what = (
                f"fold {fold.fold} leaves out {left_out} sessions between its training and its test, and an embargo of "
                f"{embargo} is asked for"
            )
            found(LeakKind.LABEL_OVERLAPS_TEST, f"fold {fold.fold}", what, fold.test_start_ns)
    return AuditReport("version", {guard: 3 + len(sidecar.folds)}, tuple(findings))


def _untrue(sidecar: Sidecar, trained: Sequence[str], frame: TrainingFrame | None) -> Iterable[tuple[str, str]]:
    end_ns = sidecar.training_end_ns
    stated = ist_text(end_ns)
    if trained and trained[-1] > stated[:10]:
        yield "lineage.sessions", f"its training is said to end at {stated}, and the session {trained[-1]} is in it"
    if trained and sidecar.train_through and sidecar.train_through != trained[-1]:
        yield "train_through", f"it says {sidecar.train_through}, and its last session is {trained[-1]}"
    ends = [fold.test_end_ns for fold in sidecar.folds]
    if ends and max(ends) > end_ns:
        yield "folds", f"its training is said to end at {stated}, and a fold reaches to {ist_text(max(ends))}"
    if 0 < sidecar.fitted_at_ns < end_ns - _DAY_NS:
        yield "fitted_at_ns", f"it was fitted at {ist_text(sidecar.fitted_at_ns)}, before its training is said to end"
    if frame is None:
        return
    known = np.isfinite(frame.forward_return)
    last = int(frame.label_end_ns[known].max()) if known.any() else 0
    if last >= end_ns:
        yield "training_end_ns", f"its training is said to end at {stated}, and a label of it ends at {ist_text(last)}"
    if frame.digest != sidecar.training_data_digest:
        yield "training_data_digest", "the sessions that it names give other training rows than it was fitted on"
