"""Whether a label ends when it says, and begins where a trade can. Purging stands on both."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feature_store.features.guards import with_other_future
from feature_store.market.types import Bars, Universe, ist_text
from live_services.audit.findings import AuditReport, Finding, LeakKind, first_of_each


@dataclass(frozen=True, eq=False)
class LabelTable:
    """Labels of bars as decisions, shapes ``(n,)``; NaN where there is none."""

    forward_return: NDArray[np.float64]
    entry_ns: NDArray[np.int64]
    label_end_ns: NDArray[np.int64]
    """When it is said to have been known."""


def label_ends_when_it_says(
    label_of: Callable[[Bars], Any], bars: Bars, universe: Universe, *, cuts: int = 24, seed: int = 7
) -> AuditReport:
    """Change everything after labels are said to have ended; those that change read on, and purging lets them through.

    Parameters
    ----------
    label_of : callable
        Takes bars; gives a `LabelTable` in their order, or what has its fields (`ForwardReturn.of` gives such).
    bars : Bars
        In order of ``(end_ns, instrument)``.
    universe : Universe
    cuts : int
        Ends of labels, by lot.
    seed : int
        Of the lot and the other futures.
    """
    guard, rng = "after the label's end", np.random.default_rng(seed)
    whole = label_of(bars)
    there = np.isfinite(whole.forward_return)
    findings = list(_begins_early(whole, bars, universe, there))
    ends = np.unique(whole.label_end_ns[there])
    chosen = np.sort(rng.permutation(ends)[:cuts])
    values = 0
    for end_ns in chosen.tolist():
        other = label_of(_other_from(bars, end_ns, rng))
        mine = there & (whole.label_end_ns <= end_ns)
        values += int(mine.sum())
        moved = np.flatnonzero(mine & ~_equal(whole.forward_return, other.forward_return))
        if len(moved):
            row = int(moved[np.argmax(whole.label_end_ns[moved])])
            findings.append(
                _of_bar(
                    LeakKind.LABEL_OVERLAPS_TEST, guard, "label", "forward_return", bars, row, universe,
                    f"its end is said to be {ist_text(int(whole.label_end_ns[row]))}, and it changes with what came "
                    "after that: a fold that purges by this end trains on its test",
                    float(whole.forward_return[row]), float(other.forward_return[row]),
                )
            )  # fmt: skip
    too_few = () if len(ends) else ("no bar has a label: give more bars or a shorter horizon",)
    return AuditReport("label", {guard: values}, first_of_each(findings), too_few, counts={"labels": int(there.sum())})


def _begins_early(labels: Any, bars: Bars, universe: Universe, there: NDArray[np.bool_]) -> Iterable[Finding]:
    early = np.flatnonzero(there & ((labels.entry_ns < bars.end_ns) | (labels.label_end_ns <= labels.entry_ns)))
    if len(early):
        row = int(early[0])
        yield _of_bar(
            LeakKind.LABEL_BEGINS_EARLY, "times", "label", "entry_ns", bars, row, universe,
            f"it enters at {ist_text(int(labels.entry_ns[row]))} and ends at "
            f"{ist_text(int(labels.label_end_ns[row]))}: no trade decided at the bar's end does",
        )  # fmt: skip


def _other_from(bars: Bars, from_ns: int, rng: np.random.Generator) -> Bars:
    """Change bars that start at a time or later; of those that start right then the open stays, which was known."""
    other = with_other_future(bars, bars.end_ns > from_ns, rng)
    opens = np.where(bars.start_ns <= from_ns, bars.open, other.open)
    return replace(other, open=opens, high=np.maximum(other.high, opens), low=np.minimum(other.low, opens))


def _equal(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.bool_]:
    return np.asarray((a == b) | (np.isnan(a) & np.isnan(b)))


def _of_bar(  # noqa: PLR0917
    kind: LeakKind, guard: str, stage: str, column: str, bars: Bars, row: int, universe: Universe, what: str,
    with_future: float | None = None, without: float | None = None,
) -> Finding:  # fmt: skip
    symbol, when = universe.instruments[int(bars.instrument[row])].symbol, int(bars.end_ns[row])
    return Finding(kind, guard, stage, column, what, symbol, when, with_future, without)
