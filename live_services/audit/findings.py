"""What an audit finds: a leak by its kind, the first row that shows it, and the way out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Literal

from feature_store.market.types import ist_text

Verdict = Literal["clean", "leaks", "too_few"]


class LeakKind(StrEnum):
    """What kind of leak it is."""

    BAR_EARLY = "bar known before its end"
    FEATURE_LOOKS_AHEAD = "feature looks ahead"
    FULL_SAMPLE_STATISTIC = "full-sample statistic"
    RESAMPLED_EARLY = "resampled early"
    BACKWARD_FILL = "backward fill"
    SPARSE_LEAK = "sparse leak"
    RULE_LOOKS_AHEAD = "rule looks ahead"
    READS_TABLE = "reads a table of its own"
    SCORE_LOOKS_AHEAD = "score looks ahead"
    SIGNAL_LOOKS_AHEAD = "signal looks ahead"
    ORDER_LOOKS_AHEAD = "order looks ahead"
    FILL_BEFORE_DECISION = "fill not after its decision"
    LABEL_OVERLAPS_TEST = "label overlaps test"
    LABEL_BEGINS_EARLY = "label begins before a trade can"
    MODEL_SAW_TEST = "model trained on its test span"
    TRAINING_END_UNTRUE = "training end later than stated"
    CHOSEN_ON_TEST = "gate or selection on test sessions"
    SIDE_TABLE_KNOWN_LATER = "side table known later"
    DEPENDS_ON_START = "depends on where the data begins"
    BATCH_DIFFERS = "stream differs from batch"
    NOT_REPEATABLE = "another answer every time"


WAY_OUT: Final[Mapping[LeakKind, str]] = {
    LeakKind.BAR_EARLY: "stamp a bar with its end, and give it out only when that has passed",
    LeakKind.FEATURE_LOOKS_AHEAD: "compute the row from bars that end at or before its own: no negative shift, no "
    "centred window",
    LeakKind.FULL_SAMPLE_STATISTIC: "take means, ranks and fits over a window that ends at the row: rolling, expanding",
    LeakKind.RESAMPLED_EARLY: "stamp longer bars with their end (label='right', closed='left') before joining them",
    LeakKind.BACKWARD_FILL: "fill forward, or leave the value missing",
    LeakKind.SPARSE_LEAK: "find what the rows named here have in common; few rows suffice to make a backtest",
    LeakKind.RULE_LOOKS_AHEAD: "let the rule see one row of features and nothing else (feature_store.proposals.rules)",
    LeakKind.READS_TABLE: "nobody can tell what the numbers in it know: make them parameters, or a feature",
    LeakKind.SCORE_LOOKS_AHEAD: "score each row by itself: no rank, scaling or threshold over the rows of a batch",
    LeakKind.SIGNAL_LOOKS_AHEAD: "this is a fault of the platform: report it with this audit",
    LeakKind.ORDER_LOOKS_AHEAD: "this is a fault of the platform: report it with this audit",
    LeakKind.FILL_BEFORE_DECISION: "fill at the next open or the next tick, never at the price that was decided on",
    LeakKind.LABEL_OVERLAPS_TEST: "state when the label was last looked at as its end, and purge training rows by it",
    LeakKind.LABEL_BEGINS_EARLY: "let the label enter at the next open, where an order fills",
    LeakKind.MODEL_SAW_TEST: "fit scalers, selected features and the model on the training rows of the fold alone; "
    "trade a version on sessions after its training only",
    LeakKind.TRAINING_END_UNTRUE: "register the version again with the end of its last label as its training end",
    LeakKind.CHOSEN_ON_TEST: "choose by sessions before those that are judged, and keep a hold-out for the last word",
    LeakKind.SIDE_TABLE_KNOWN_LATER: "give the table available_at, the first instant a decision could use the row, and "
    "join it by feature_store.offline.point_in_time",
    LeakKind.DEPENDS_ON_START: "declare a longer warm-up, or leave out what remembers the beginning",
    LeakKind.BATCH_DIFFERS: "the live desk would decide otherwise than this: compute both by one function",
    LeakKind.NOT_REPEATABLE: "seed what is random, and keep nothing from one call to the next",
}


@dataclass(frozen=True)
class Finding:
    """One leak, and the first row that shows it."""

    kind: LeakKind
    guard: str
    """What found it: ``prefix``, ``future perturbation``, …"""
    stage: str
    """Where in the chain: features, proposals, scores, signals, orders, fills, label, training, …"""
    column: str
    what: str
    """One sentence."""
    symbol: str = ""
    """Empty if it is about no instrument."""
    time_ns: int | None = None
    with_future: float | str | None = None
    """The value as it came of all data."""
    without_future: float | str | None = None
    """The value as it came of what was known."""

    @property
    def way_out(self) -> str:
        """What to do about a leak of its kind."""
        return WAY_OUT[self.kind]

    def record(self) -> dict[str, Any]:
        """Give it as JSON has it; NaN is null there."""
        return {
            "kind": self.kind.value,
            "guard": self.guard,
            "stage": self.stage,
            "column": self.column,
            "symbol": self.symbol,
            "time": None if self.time_ns is None else ist_text(self.time_ns),
            "time_ns": self.time_ns,
            "with_future": _finite(self.with_future),
            "without_future": _finite(self.without_future),
            "what": self.what,
            "way_out": self.way_out,
        }

    def __str__(self) -> str:
        where = ", ".join(filter(None, (self.symbol, "" if self.time_ns is None else ist_text(self.time_ns))))
        return f"{self.kind.value.upper()} in {self.stage}, {self.column}{f' ({where})' if where else ''}: {self.what}"


def _finite(value: float | str | None) -> float | str | None:
    return None if isinstance(value, float) and not math.isfinite(value) else value


@dataclass(frozen=True)
class AuditReport:
    """What an audit of a strategy, or of a part of its chain, saw."""

    name: str
    compared: Mapping[str, int]
    """How many values each guard compared, by its name."""
    findings: tuple[Finding, ...] = ()
    too_few: tuple[str, ...] = ()
    """What there was too little of to say anything; a sentence each."""
    notes: tuple[str, ...] = ()
    """What was not looked at, and why."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """How much there was to look at: bars, decisions, fills."""

    @property
    def verdict(self) -> Verdict:
        """``leaks``; else ``too_few`` where a guard had too little to go by, which is no pass; else ``clean``."""
        if self.findings:
            return "leaks"
        return "too_few" if self.too_few or not any(self.compared.values()) else "clean"

    @property
    def passed(self) -> bool:
        """Whether everything was looked at and nothing leaks."""
        return self.verdict == "clean"

    def kinds(self) -> frozenset[LeakKind]:
        """Give the kinds of leak that were found."""
        return frozenset(one.kind for one in self.findings)

    def record(self) -> dict[str, Any]:
        """Give it as JSON has it."""
        return {
            "name": self.name,
            "verdict": self.verdict,
            "counts": dict(self.counts),
            "compared": dict(self.compared),
            "findings": [one.record() for one in self.findings],
            "too_few": list(self.too_few),
            "notes": list(self.notes),
        }


def joined(name: str, reports: Iterable[AuditReport]) -> AuditReport:
    """Put reports together; of the leaks of one kind, stage and column the earliest stays."""
    parts = list(reports)
    compared: dict[str, int] = {}
    counts: dict[str, int] = {}
    for part in parts:
        for total, mine in ((compared, part.compared), (counts, part.counts)):
            for key, n in mine.items():
                total[key] = total.get(key, 0) + n
    return AuditReport(
        name,
        compared,
        first_of_each(one for part in parts for one in part.findings),
        tuple(dict.fromkeys(one for part in parts for one in part.too_few)),
        tuple(dict.fromkeys(one for part in parts for one in part.notes)),
        counts,
    )


def first_of_each(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Keep of the leaks of one kind, stage and column the earliest."""
    first: dict[tuple[str, str, str], Finding] = {}
    for one in findings:
        key = (one.kind.value, one.stage, one.column)
        known = first.get(key)
        if known is None or (one.time_ns or 0) < (known.time_ns or 0):
            first[key] = one
    return tuple(first.values())
