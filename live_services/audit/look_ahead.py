"""Runs of a chain on cut and on changed data: what it said of a time must not move with what came after.

A leak is attributed to the first stage that differs; what later stages make of it is its consequence, and named once it
is mended. Its kind is read from how the differing rows behave: how many they are, how much later they settle, and what
they become.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from feature_store.features.guards import with_other_future
from feature_store.market.types import Bars, Universe, ist_text
from live_services.audit.findings import AuditReport, Finding, LeakKind, first_of_each
from live_services.audit.stages import ROW, Chain, Differing, Stage, compared

PREFIX: Final = "prefix"
PERTURBED: Final = "future perturbation"
REPEATED: Final = "repetition"
LATER_START: Final = "later start"

_SPARSE: Final = 0.03  # of the rows that were the last; more is no rare case
_FAR_BARS: Final = 20  # a value that settles later than so many bars stands on the sample, not on a window
_EXAMPLES: Final = 5  # rows whose settling is looked at; each costs about ten runs
_KEPT_RUNS: Final = 64
_FIRST: Final = 20

_KIND_OF_STAGE: Final = {
    "bars": LeakKind.BAR_EARLY,
    "proposals": LeakKind.RULE_LOOKS_AHEAD,
    "scores": LeakKind.SCORE_LOOKS_AHEAD,
    "signals": LeakKind.SIGNAL_LOOKS_AHEAD,
    "orders": LeakKind.ORDER_LOOKS_AHEAD,
    "fills": LeakKind.ORDER_LOOKS_AHEAD,
}

Tell = Callable[[str], None]
"""Takes the name of each step as it begins."""


def look_ahead(
    chain: Chain,
    bars: Bars,
    universe: Universe,
    *,
    cuts: Sequence[int] | NDArray[np.int64] | None = None,
    perturbations: int = 8,
    later_starts: Sequence[int] = (),
    seed: int = 7,
    progress: Tell | None = None,
) -> AuditReport:
    """Run a chain again on data cut at decisions, and on data whose future is another, and compare every stage.

    Parameters
    ----------
    chain : callable
        See `live_services.audit.stages.Chain`.
    bars : Bars
        In order of ``(end_ns, instrument)``.
    universe : Universe
        What they refer to.
    cuts : sequence or array of int, optional
        Times of decisions at which the data is cut, epoch nanoseconds; default: the end of every bar but the first 20,
        of which code of your own may make nothing. A leak that few rows have is found where one of them is the last.
    perturbations : int
        How many of the cuts, by lot, also get another future.
    later_starts : sequence of int
        Times at which the data may also begin: rows that are there then must be the same. None: what depends on the
        beginning is allowed.
    seed : int
        Of the lot and the other futures.
    progress : callable, optional
        Told each step.

    Returns
    -------
    AuditReport
        One finding for each kind, stage and column.
    """
    guards = _Guards(chain, bars, universe, np.random.default_rng(seed), progress or (lambda _step: None))
    times = np.unique(bars.end_ns)[_FIRST:] if cuts is None else np.unique(np.asarray(cuts, dtype=np.int64))
    times = times[(times >= bars.end_ns[0]) & (times < bars.end_ns[-1])] if len(bars) else times[:0]
    if not len(times):
        return AuditReport("look ahead", {PREFIX: 0}, too_few=("there is no bar after a decision: give more bars",))
    guards.repeat()
    guards.prefixes(times)
    guards.other_futures(times, perturbations)
    guards.later(later_starts)
    return AuditReport("look ahead", guards.compared, first_of_each(guards.findings()))


@dataclass(slots=True)
class _Edge:
    """What became of a column's rows when they were the last."""

    tried: int = 0
    differing: list[tuple[int, int, float, float]] = field(default_factory=list)
    """Instrument, time, value with the future, value without it."""


class _Guards:
    def __init__(self, chain: Chain, bars: Bars, universe: Universe, rng: np.random.Generator, tell: Tell) -> None:
        self._chain, self._bars, self._universe, self._rng, self._tell = chain, bars, universe, rng, tell
        self._whole = tuple(chain(bars))
        self._cut_runs: OrderedDict[int, Sequence[Stage]] = OrderedDict()
        self._edges: dict[tuple[int, int], _Edge] = {}
        self._seen: dict[tuple[str, int, int], Differing] = {}
        """The first differing rows by guard, stage and column."""
        self.compared: dict[str, int] = {}

    # --- guards ---

    def repeat(self) -> None:
        """The same data once more."""
        self._tell(REPEATED)
        self._compare(REPEATED, self._chain(self._bars), int(self._bars.end_ns[-1]))

    def prefixes(self, times: NDArray[np.int64]) -> None:
        """Data up to each time."""
        for number, cut in enumerate(times.tolist(), 1):
            self._tell(f"{PREFIX} {number} of {len(times)}")
            stages = self._until(cut)
            self._compare(PREFIX, stages, cut)
            self._note_edges(stages, cut)

    def other_futures(self, times: NDArray[np.int64], count: int) -> None:
        """Data whose rows after a time are others."""
        self.compared[PERTURBED] = 0
        chosen = np.sort(self._rng.permutation(times)[:count])
        for number, cut in enumerate(chosen.tolist(), 1):
            self._tell(f"{PERTURBED} {number} of {len(chosen)}")
            other = with_other_future(self._bars, self._bars.end_ns > cut, self._rng)
            self._compare(PERTURBED, self._chain(other), cut)

    def later(self, starts: Iterable[int]) -> None:
        """Data that begins later; only stages that say of every bar what they know of it, not what was traded."""
        for start in starts:
            self._tell(LATER_START)
            stages = self._chain(self._bars[self._bars.start_ns >= start])
            of_rows = [stage for stage in stages if stage.name in {"features", "proposals", "scores"}]
            self._compare(LATER_START, of_rows, int(self._bars.end_ns[-1]), fewer=True)

    def _compare(self, guard: str, stages: Sequence[Stage], until_ns: int, *, fewer: bool = False) -> None:
        places = {stage.name: place for place, stage in enumerate(self._whole)}
        for stage in stages:
            place = places[stage.name]
            n, found = compared(self._whole[place], stage, until_ns, fewer=fewer)
            self.compared[guard] = self.compared.get(guard, 0) + n
            for one in found:
                self._seen.setdefault((guard, place, one.column), one)
            if found:
                return  # what stands on it differs because of it

    def _until(self, cut: int) -> Sequence[Stage]:
        known = self._cut_runs.get(cut)
        if known is None:
            known = self._chain(self._bars[: int(np.searchsorted(self._bars.end_ns, cut, side="right"))])
            self._cut_runs[cut] = known
            if len(self._cut_runs) > _KEPT_RUNS:
                self._cut_runs.popitem(last=False)
        return known

    def _note_edges(self, stages: Sequence[Stage], cut: int) -> None:
        for place, stage in enumerate(stages):
            whole = self._whole[place]
            rows = np.flatnonzero(stage.known_ns == cut)
            if not len(rows):
                continue
            differs = False
            for column in range(len(stage.columns)):
                edge = self._edges.setdefault((place, column), _Edge())
                for row in rows.tolist():
                    instrument = int(stage.instrument[row])
                    a, b = whole.value(instrument, cut, column), float(stage.values[row, column])
                    if np.isnan(a) and np.isnan(b):
                        continue
                    edge.tried += 1
                    if not _same(a, b):
                        edge.differing.append((instrument, cut, a, b))
                        differs = True
            if differs:
                return

    # --- what it comes to ---

    def findings(self) -> Iterable[Finding]:
        """Give a finding for each column that differs; a guard after another tells of what that one did not see."""
        told: set[tuple[int, int]] = set()
        unstable = {(place, column) for guard, place, column in self._seen if guard == REPEATED}
        for (guard, place, column), differing in self._seen.items():
            if (place, column) in told:
                continue
            told.add((place, column))
            kind = LeakKind.NOT_REPEATABLE if (place, column) in unstable else self._kind(guard, place, column)
            yield self._finding(kind, guard, place, differing)

    def _finding(self, kind: LeakKind, guard: str, place: int, differing: Differing) -> Finding:
        stage = self._whole[place]
        column = ROW if differing.column < 0 else stage.columns[differing.column]
        first = int(np.lexsort((differing.instrument, differing.known_ns))[0])
        with_future, without = float(differing.with_future[first]), float(differing.without_future[first])
        symbol = self._universe.instruments[int(differing.instrument[first])].symbol
        when = int(differing.known_ns[first])
        if column == ROW:
            there = ("is there only with", "is there only without")[int(with_future == 0.0)]
            what = f"the row {there} what came after it"
        else:
            what = f"{with_future!r} with what came after it, {without!r} without"
        edge = self._edges.get((place, differing.column))
        if edge is not None and edge.differing:
            what += f"; {len(edge.differing)} of {edge.tried} rows differ when they are the last"
        if guard == LATER_START:
            what = f"{with_future!r} of all data, {without!r} where it begins later, at {ist_text(when)}"
        return Finding(kind, guard, stage.name, column, what, symbol, when, with_future, without)

    def _kind(self, guard: str, place: int, column: int) -> LeakKind:
        stage = self._whole[place]
        if guard == LATER_START:
            return LeakKind.DEPENDS_ON_START
        if stage.name in _KIND_OF_STAGE:
            return _KIND_OF_STAGE[stage.name]
        edge = self._edges.get((place, column))
        if edge is None or not edge.differing:
            return LeakKind.FEATURE_LOOKS_AHEAD
        return self._kind_of_feature(place, column, edge)

    def _kind_of_feature(self, place: int, column: int, edge: _Edge) -> LeakKind:
        if len(edge.differing) < _SPARSE * edge.tried:
            return LeakKind.SPARSE_LEAK
        chosen = np.unique(np.linspace(0, len(edge.differing) - 1, _EXAMPLES).astype(int))
        examples = [edge.differing[k] for k in chosen]
        bars_later, copied, blank = [], [], []
        for instrument, time_ns, value, without in examples:
            later = self._later_ends(instrument, time_ns)
            steps = self._settles(place, column, instrument, time_ns, value, later)
            bars_later.append(len(self._bars) if steps is None else steps)
            blank.append(bool(np.isnan(without)))
            if steps is not None:
                copied.append(_same(self._whole[place].value(instrument, int(later[steps - 1]), column), value))
        if np.median(bars_later) > _FAR_BARS:
            return LeakKind.FULL_SAMPLE_STATISTIC
        if copied and all(copied) and len(edge.differing) < edge.tried:
            return LeakKind.BACKWARD_FILL if all(blank) else LeakKind.RESAMPLED_EARLY
        return LeakKind.FEATURE_LOOKS_AHEAD

    def _later_ends(self, instrument: int, time_ns: int) -> NDArray[np.int64]:
        ends = self._bars.end_ns[(self._bars.instrument == instrument) & (self._bars.end_ns > time_ns)]
        return np.asarray(ends, dtype=np.int64)

    def _settles(  # noqa: PLR0917
        self, place: int, column: int, instrument: int, time_ns: int, value: float, later: NDArray[np.int64]
    ) -> int | None:
        """After how many more bars of its instrument a value is what it stays; None: only when all are there."""

        def settled(steps: int) -> bool:
            stages = self._until(int(later[steps - 1]))
            return _same(stages[place].value(instrument, time_ns, column), value)

        low, high = 0, 1
        while high < len(later) and not settled(high):
            low, high = high, 2 * high
        high = min(high, len(later))
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if settled(middle) else (middle, high)
        return None if not len(later) or high >= len(later) else high


def _same(a: float, b: float) -> bool:
    return (a == b and np.signbit(a) == np.signbit(b)) or bool(np.isnan(a) and np.isnan(b))
