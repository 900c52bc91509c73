"""What the statistics of economics say of profits without an edge: deflated Sharpe, its error, overfitting, trials.

Run it with ``make bench NAME=null_economics OUT=null_economics.json``; ``N=2000`` for another number of records a row.
Records are drawn without a market: normal ones, ones with fat tails (Student's t, 4 degrees of freedom), and ones that
gain a little mostly and lose much rarely (an exponential turned round). A single trial is drawn ten times as often, one
for Student's t fifty times.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy import stats

from benchmarks.measuring import machine
from models_registry.validation.overfitting import Overfitting, probability_of_overfitting
from models_registry.validation.sharpe import deflated_sharpe, sharpe_ratio, trial_variance
from models_registry.validation.trials_count import effective_trials

SEED = 2_000_000
SESSIONS = (32, 250)
TRIALS = ((1, 1, 0.0), (2, 2, 0.0), (8, 8, 0.0), (20, 20, 0.0), (10, 1, 0.5), (10, 1, 0.9), (24, 3, 0.9))
"""Number, groups and correlation inside a group."""
KINDS = ("normal", "fat tails", "rare losses")
PASS = 0.95

Floats = NDArray[np.float64]


def draw(random: np.random.Generator, kind: str, shape: tuple[int, int]) -> Floats:
    if kind == "rare losses":
        return 1.0 - random.exponential(size=shape)
    return random.normal(size=shape) if kind == "normal" else random.standard_t(4, shape) / math.sqrt(2)


def trials(random: np.random.Generator, kind: str, n: int, what: tuple[int, int, float]) -> Floats:
    number, groups, correlation = what
    shared = draw(random, kind, (n, groups))[:, np.arange(number) % groups]
    return math.sqrt(correlation) * shared + math.sqrt(1 - correlation) * draw(random, kind, (n, number))


def deflated(random: np.random.Generator, repeats: int) -> Iterator[dict[str, Any]]:
    """How often the best of trials without an edge passes."""
    for kind in KINDS:
        for n in SESSIONS:
            for what in TRIALS:
                passed, numbers = 0, []
                drawn = repeats * (10 if what[0] == 1 else 1)
                for _ in range(drawn):
                    pnl = trials(random, kind, n, what)
                    best = pnl[:, int(np.argmax(pnl.mean(axis=0) / pnl.std(axis=0)))]
                    numbers.append(effective_trials(pnl).number)
                    found = deflated_sharpe(best, n_trials=numbers[-1], variance_of_trials=trial_variance(pnl))
                    passed += found.probability >= PASS
                row = {"records": kind, "sessions": n, "trials": what[0], "groups": what[1], "correlation": what[2]}
                yield row | {"counted as": float(np.mean(numbers)), "passed": passed / drawn}


def students_t(random: np.random.Generator, repeats: int) -> Iterator[dict[str, Any]]:
    """How often one record without an edge passes by Student's t alone, which knows of no skew and no fat tails."""
    for kind in KINDS:
        for n in SESSIONS:
            records = draw(random, kind, (n, 50 * repeats))
            passed = stats.ttest_1samp(records, 0.0, alternative="greater").pvalue <= 1.0 - PASS
            yield {"records": kind, "sessions": n, "passed": float(np.mean(passed))}


def coverage(random: np.random.Generator, repeats: int) -> Iterator[dict[str, Any]]:
    """How often an interval of two standard errors holds the true ratio."""
    for kind in KINDS:
        for n in SESSIONS:
            records = 0.1 + draw(random, kind, (n, 10 * repeats))
            found = [sharpe_ratio(column) for column in records.T]
            held = [abs(one.per_session - 0.1) < 1.96 * one.standard_error for one in found]
            yield {"records": kind, "sessions": n, "ratio": 0.1, "held": float(np.mean(held))}


def overfitting(random: np.random.Generator, repeats: int) -> Iterator[dict[str, Any]]:
    """What the probability of overfitting is without an edge, and where one configuration has one."""
    for n, number, edge in ((24, 6, 0.0), (32, 20, 0.0), (250, 20, 0.0), (32, 20, 0.6), (250, 20, 0.2)):
        values = []
        for _ in range(repeats):
            pnl = random.normal(size=(n, number))
            pnl[:, 0] += edge
            found = probability_of_overfitting(pnl)
            assert isinstance(found, Overfitting)
            values.append(found.probability)
        low, high = np.quantile(values, [0.05, 0.95])
        row = {"sessions": n, "configurations": number, "ratio of one": edge, "mean": float(np.mean(values))}
        yield row | {"from": float(low), "to": float(high)}


PARTS = {
    "deflated Sharpe passed": deflated,
    "Student's t passed": students_t,
    "standard error": coverage,
    "probability of overfitting": overfitting,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.null_economics", description=__doc__)
    parser.add_argument("--n", type=int, default=200, help="records in each row")
    parser.add_argument("--out", type=Path, help="also write the figures as JSON to this file")
    asked = parser.parse_args()
    if asked.n < 1:
        parser.error("--n must be at least 1")
    console = Console(width=None if sys.stdout.isatty() else 130)
    facts = machine(["numpy", "scipy", "scikit-learn"])
    console.print(", ".join(f"{key} {value}" for key, value in facts.items()), highlight=False)
    found = {name: list(part(np.random.default_rng(SEED), asked.n)) for name, part in PARTS.items()}
    for name, rows in found.items():
        table = Table(title=name)
        for column in rows[0]:
            table.add_column(column, justify="left" if column == "records" else "right")
        for row in rows:
            table.add_row(*(f"{value:.3g}" if isinstance(value, float) else str(value) for value in row.values()))
        console.print(table)
    if asked.out is not None:
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        document = {"benchmark": "null_economics", "machine": facts, "settings": {"n": asked.n, "seed": SEED}, **found}
        asked.out.write_text(json.dumps(document, indent=1, ensure_ascii=False))
        console.print(f"written to {asked.out}")


if __name__ == "__main__":
    main()
