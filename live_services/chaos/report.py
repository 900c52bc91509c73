"""What a trial came to: a table of faults, a table of topics, and both as one document."""

from __future__ import annotations

import platform
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Final

from live_services.chaos.comparison import Run, TopicDifferences, books_hash, compare, first_difference
from live_services.chaos.trial import Measured, Trial
from live_services.cli.output import Document, Field, FittingTable
from live_services.domain.topics import STRATEGIES_SUMMARY

_LIBRARIES: Final = ("aiokafka", "numpy", "numba", "pyarrow")
_HASH_DIGITS: Final = 16
_NOT_OF_THE_DAY: Final = frozenset({STRATEGIES_SUMMARY.name})
"""Said by the wall clock, about how the desk is: no two runs say the same, and nothing rests on it."""


@dataclass(frozen=True, slots=True)
class FaultRow:
    """What was done to whom, how often, and how the desk got over it."""

    what: str
    whom: str
    times: int
    """Alone and together with others."""
    median_s: float | None
    """Of the times it came alone; None if it never did."""
    worst_s: float | None


@dataclass(frozen=True, slots=True)
class Report:
    """A trial, compared with the undisturbed run."""

    seed: int
    minutes: float
    faults: tuple[FaultRow, ...]
    topics: tuple[TopicDifferences, ...]
    undisturbed_books: str
    disturbed_books: str
    failure: str
    first_difference: tuple[str, str] | None

    @property
    def same(self) -> bool:
        """Whether the day with faults is the very day without."""
        return not self.failure and self.undisturbed_books == self.disturbed_books and all(t.same for t in self.topics)

    def document(self) -> Document:
        """Give it for a script."""
        return {
            "same": self.same,
            "seed": self.seed,
            "minutes": self.minutes,
            "machine": machine(),
            "faults": [asdict(row) for row in self.faults],
            "topics": [asdict(topic) | {"same": topic.same} for topic in self.topics],
            "books_sha256": {"undisturbed": self.undisturbed_books, "disturbed": self.disturbed_books},
            "failure": self.failure or None,
            "first_difference": self.first_difference,
        }


def report_of(undisturbed: Run, trial: Trial, *, seed: int, minutes: float) -> Report:
    """Compare a trial with the undisturbed run."""
    topics = [t for t in compare(undisturbed, trial.run) if t.topic not in _NOT_OF_THE_DAY] if trial.run else []
    differs = next((topic.topic for topic in topics if not topic.same), None)
    return Report(
        seed,
        minutes,
        fault_rows(trial.measured),
        tuple(topics),
        books_hash(undisturbed),
        books_hash(trial.run) if trial.run else "",
        trial.failure,
        first_difference(undisturbed, trial.run, differs) if trial.run and differs else None,
    )


def fault_rows(measured: Sequence[Measured]) -> tuple[FaultRow, ...]:
    """Count what was done by kind and target; times of recovery only of what came alone."""
    times: dict[tuple[str, str], int] = defaultdict(int)
    alone: dict[tuple[str, str], list[float]] = defaultdict(list)
    for one in measured:
        if one.in_last_minute:
            _note(alone, ("kill in the last minute", "all chains"), one)
            times["kill in the last minute", "all chains"] += 1
            continue
        for injury in one.done:
            times[injury.kind, injury.target] += 1
        if one.episode.alone and one.done:
            _note(alone, (one.done[0].kind, one.done[0].target), one)
        elif not one.episode.alone:
            times["together", "several at once"] += 1
            _note(alone, ("together", "several at once"), one)
    ordered = sorted(times, key=lambda key: (key[0] in {"together", "kill in the last minute"}, key))
    return tuple(FaultRow(*key, times[key], *_median_and_worst(alone[key])) for key in ordered)


def _note(found: dict[tuple[str, str], list[float]], key: tuple[str, str], one: Measured) -> None:
    if one.recovered_s is not None:
        found[key].append(one.recovered_s)


def _median_and_worst(seconds: Sequence[float]) -> tuple[float | None, float | None]:
    return (round(statistics.median(seconds), 1), round(max(seconds), 1)) if seconds else (None, None)


def faults_table(report: Report) -> FittingTable:
    """Lay out what was done."""
    table = FittingTable(
        (
            Field("Fault"),
            Field("Process"),
            Field("Times", right=True),
            Field("Back in, median s", right=True),
            Field("Worst s", right=True),
        ),
        title=f"Faults in {report.minutes:g} minutes, seed {report.seed}",
    )
    for row in report.faults:
        table.add_row(row.what, row.whom, f"{row.times}", _seconds(row.median_s), _seconds(row.worst_s))
    return table


def topics_table(report: Report) -> FittingTable:
    """Lay out how the topics compare."""
    numbers = ("Records", "Lost", "Twice", "Different", "New", "Out of order")
    table = FittingTable((Field("Topic"), *(Field(name, right=True) for name in numbers)), title="Against no faults")
    for topic in report.topics:
        counts = (topic.records, topic.lost, topic.twice, topic.different, topic.new, topic.out_of_order)
        table.add_row(topic.topic, *(f"{count:,}" for count in counts))
    return table


def verdict(report: Report) -> str:
    """Say in one sentence what came of it."""
    if report.failure:
        return f"the desk did not get over it: {report.failure}"
    if report.same:
        return (
            "nothing was lost, said twice or different; the books end as they do without faults "
            f"({report.disturbed_books[:_HASH_DIGITS]})"
        )
    books = "equal" if report.undisturbed_books == report.disturbed_books else "other"
    differ = ", ".join(topic.topic for topic in report.topics if not topic.same)
    return f"the day is another one: {differ or 'no topic'} differs; {books} books in the end"


def machine() -> dict[str, str]:
    """Say what it ran on."""
    import os

    libraries = {name: version(name) for name in _LIBRARIES}
    return {
        "system": platform.platform(),
        "cores": str(os.cpu_count()),
        "python": platform.python_version(),
    } | libraries


def _seconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.1f}"
