"""Audit of features: parity of history and live, honesty about time, and independence of what must not matter.

`audit` runs every guard (`feature_store.features.guards`) on the platform's features and on a user's own, whether
compiled or written on a data frame. Out of reach are: what a function knows without its bars (a constant fitted on all
of history, a table of the future that it looks up by time, a result kept from the call before), and bars whose own
times are wrong. Checks of market data stand in `feature_store.bars.quality`.

Examples
--------
>>> from feature_store.sources.synthetic import synthetic_market
>>> market = synthetic_market(instruments=2, sessions=1)
>>> leaking = {"tomorrow": lambda bars: bars.close.shift(-1) / bars.close - 1}
>>> report = audit(leaking, market.bars[0][:100], market.universe)
>>> report.passed, report.of("tomorrow")[0].symbol
(False, 'SYN002')
>>> audit({"range": lambda bars: bars.high - bars.low}, market.bars[0][:100], market.universe).passed
True
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from feature_store.features.guards import (
    CompiledFeatures,
    Declared,
    Difference,
    FrameFeatures,
    Guards,
    Subject,
    TableFeature,
)
from feature_store.features.schema import FeatureSchema
from feature_store.market.checks import CheckResult
from feature_store.market.corporate_actions import CorporateActions
from feature_store.market.types import Bars, Universe

_EDGES: Final = 800  # a leak in 1 % of the rows escapes so many with odds of 1 in 3,000


@dataclass(frozen=True)
class AuditReport:
    """What the guards saw."""

    features: tuple[str, ...]
    rows: int
    compared: dict[str, int]
    """Values compared, by guard; 0 where a guard had nothing to compare. Two NaNs are not counted."""
    differences: tuple[Difference, ...]
    """The first one of each guard and feature."""
    never_seen: tuple[str, ...]
    """Features without a single finite value on these bars; about them the guards say nothing."""

    @property
    def passed(self) -> bool:
        """Whether no guard found a difference, every guard compared something, and every feature was seen."""
        return not self.differences and all(self.compared.values()) and not self.never_seen

    def of(self, feature: str) -> tuple[Difference, ...]:
        """Give the differences of one feature."""
        return tuple(d for d in self.differences if d.feature == feature)

    def __str__(self) -> str:
        guards = [
            f"  {guard:<28} {n:>12,} values  "
            + (f"{len(bad)} features differ" if (bad := [d for d in self.differences if d.guard == guard]) else "")
            + ("" if n else "NOTHING TO COMPARE: give more bars")
            for guard, n in self.compared.items()
        ]
        verdict = "passed" if self.passed else "FAILED"
        head = f"audit of {len(self.features)} features on {self.rows:,} bars: {verdict}"
        unseen = [f"  {name}: NEVER FINITE, so nothing is known of it: give more bars" for name in self.never_seen]
        return "\n".join([head, *(line.rstrip() for line in guards), *unseen, *(f"  {d}" for d in self.differences)])


def audit(
    features: FeatureSchema | Mapping[str, TableFeature],
    bars: Bars,
    universe: Universe,
    *,
    actions: CorporateActions | None = None,
    declared: Declared | None = None,
    warm_up: int = 0,
    seed: int = 7,
    cuts: int = 8,
    edges: int = _EDGES,
    progress: Callable[[str], None] | None = None,
) -> AuditReport:
    """Run every guard on features; name each feature that fails, with the first differing row and time.

    Parameters
    ----------
    features : FeatureSchema, or mapping of name to function
        The platform's features, or functions on a data frame of one instrument's bars (`TableFeature`).
    bars : Bars
        In order of ``(end_ns, instrument)``; several sessions, or nothing gets warm and the report says so.
    universe : Universe
        What the bars refer to.
    actions : CorporateActions, optional
        Of the instruments; compiled features only.
    declared : sequence, optional
        Compiled functions of your own, as `library.declare` gives them; ``features`` is then a schema that names them.
    warm_up : int
        Of functions on a data frame: bars after which a value no longer depends on where the data begins; 0 leaves
        this out.
    seed : int
        Of the random cuts, batches and orders.
    cuts : int
        Random places for each guard.
    edges : int
        Functions on a data frame are also cut behind so many rows: the last ones of sessions, then any, by lot; a leak
        in few rows is found if one of them is among these. Give ``len(bars)`` to try every row.
    progress : callable, optional
        Told the name of each guard as it begins.

    Returns
    -------
    AuditReport
        ``print`` shows it as a table.
    """
    subject: Subject
    if isinstance(features, FeatureSchema):
        subject = CompiledFeatures(features, universe, actions, declared)
    else:
        subject = FrameFeatures(dict(features), warm_up)
    if len(bars) == 0:
        return AuditReport(subject.names, 0, {"any": 0}, (), subject.names)
    guards = Guards(subject, bars, universe, np.random.default_rng(seed), cuts, edges)
    guards.run(progress or (lambda _guard: None))
    return AuditReport(
        subject.names, len(bars), guards.compared, tuple(guards.differences.values()), guards.never_seen()
    )


def features_pass_audit(
    bars: Bars,
    schema: FeatureSchema,
    universe: Universe,
    *,
    actions: CorporateActions | None = None,
    cuts: int = 3,
) -> CheckResult:
    """Run `audit` on stored bars, as a check: history equals live, and no feature knows the future.

    A feature of the index or the depth may be NaN throughout where the source has none; the details name it.
    """
    report = audit(schema, bars, universe, actions=actions, cuts=cuts)
    first = str(report.differences[0]) if report.differences else ""
    needed = {spec.name for spec in schema.features if spec.nan_policy == "never"}
    idle = [guard for guard, n in report.compared.items() if n == 0] + sorted(needed & set(report.never_seen))
    return CheckResult(
        "features_pass_audit",
        not (report.differences or idle),
        {
            "rows": len(bars),
            "values": sum(report.compared.values()),
            "first": first,
            "nothing_to_compare": ", ".join(idle),
            "without_input": ", ".join(name for name in report.never_seen if name not in needed),
        },
    )


def warm_rows_finite(rows: NDArray[np.float64], warm: NDArray[np.bool_], schema: FeatureSchema) -> CheckResult:
    """Warm rows are finite in every column whose NaN policy is ``never``."""
    always = np.array([spec.nan_policy == "never" for spec in schema.features], dtype=np.bool_)
    bad = int((~np.isfinite(rows[warm][:, always])).sum())
    return CheckResult("warm_rows_finite", bad == 0, {"warm": int(warm.sum()), "not_finite": bad})
