"""How often skill is seen where there is none, and how often where it was planted.

Run it with ``make bench NAME=null OUT=null.json``, ``N=300`` for other than the usual number of markets. Markets
without an edge go through the skill check alone: every kind of market, both families of models, all features and small
sets that fooled other statistics, every decision and one in 30, and the proposals of each built-in strategy's rule with
its stop, target and time. The seeds here are none of those that the statistic was chosen with.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from scipy.stats import binom, binomtest

from benchmarks.measuring import machine
from benchmarks.null_candidates import CHOSEN, verdicts, verdicts_on_trades
from benchmarks.null_rows import (
    FEATURE_SETS,
    Density,
    frame_of,
    frame_of_proposals,
    judged_out_of_fold,
    out_of_fold,
)
from feature_store.sources.null_markets import NULL_KINDS, EdgeKind, NullKind, null_market
from models_registry.specification import Estimator, StrategySpec
from models_registry.strategies import BUILT_IN
from models_registry.validation.statistics import ranking
from models_registry.validation.trade_skill import gain_ranking
from models_registry.validation.uniqueness import row_weights

FIRST_SEED = 1_000_000  # below are the seeds that the statistic was chosen with
DENSITIES: tuple[Density, ...] = ("every decision", "one in 30")
SETS_OF: dict[Estimator, tuple[str, ...]] = {
    "logistic_regression": tuple(FEATURE_SETS),
    "hist_gradient_boosting": ("all", "session_return", "session_return, vwap_distance", "overnight_gap, volatility"),
}
PLANTED: tuple[tuple[EdgeKind, float], ...] = tuple(
    itertools.product(("momentum", "reversal", "market momentum"), (1.0, 2.0, 3.0, 5.0))
)
PLANTED_SETS = ("all", "momentum")
RULES: dict[str, StrategySpec] = {strategy.rule: strategy for strategy in BUILT_IN}
RULE_SETS: dict[str, tuple[str, ...]] = {"all": (), "volatility, hour": ("volatility", "time_of_day")}
EDGE_OF_RULE: dict[str, EdgeKind] = {"volatility_move": "momentum", "stretch": "reversal", "donchian_break": "momentum"}
RULE_INSTRUMENTS, RULE_SESSIONS = 40, 52  # about as many proposals as some weeks of an index's members have
MOST_POOLED = 0.01
CELL_QUANTILE = 0.96  # of the binomial of one in a hundred: 6 of 300, 4 of 150, 1 of 30


@dataclass(frozen=True)
class Job:
    """One market and what is fitted on it."""

    kind: NullKind
    seed: int
    algorithm: Estimator
    edge: EdgeKind | None = None
    edge_bps: float = 0.0
    rule: str = ""
    """Of the built-in strategy whose proposals are judged; empty: the model says the side at every decision."""


@dataclass(frozen=True)
class Fit:
    """One model's out-of-fold scores, judged."""

    job: Job
    features: str
    density: Density | str
    """Of the decisions, or the rule."""
    seen: dict[str, bool]
    """By candidate."""
    auc: float


def judge(job: Job) -> list[Fit]:
    """Make a market, fit on it, and say what each candidate sees."""
    import sklearn.ensemble
    import sklearn.linear_model  # noqa: F401 - threadpool_limits reaches only what is loaded
    from threadpoolctl import threadpool_limits

    if job.rule:
        with threadpool_limits(1):
            return judge_proposals(job)
    market = null_market(job.kind, job.seed, edge=job.edge, edge_bps=job.edge_bps)
    found = []
    with threadpool_limits(1):
        for density in DENSITIES:
            frame = frame_of(market, density, job.seed)
            for features in PLANTED_SETS if job.edge else SETS_OF[job.algorithm]:
                scores = out_of_fold(frame, job.algorithm, FEATURE_SETS[features], job.seed)
                auc = ranking(scores.score, scores.up, scores.base_rate, scores.weight, scores.day).estimate
                found.append(Fit(job, features, density, verdicts(scores), auc))
    return found


def judge_proposals(job: Job) -> list[Fit]:
    """Make a market, fit on the proposals of a rule, and say what each candidate sees."""
    size = {"instruments": RULE_INSTRUMENTS, "sessions": RULE_SESSIONS}
    market = null_market(job.kind, job.seed, edge=job.edge, edge_bps=job.edge_bps, **size)
    found = []
    for name, features in RULE_SETS.items():
        changes = {"features": features, "estimator": job.algorithm, "bar_minutes": 5, "seed": job.seed}
        spec = StrategySpec.model_validate(RULES[job.rule].model_dump() | changes)
        rows = judged_out_of_fold(frame_of_proposals(market, spec), spec)
        before = row_weights(rows.instrument, rows.decision_ns, rows.label_end_ns, rows.day)
        auc = gain_ranking(rows.score, rows.gain, rows.base_rate, rows.day).estimate
        found.append(Fit(job, name, job.rule, verdicts_on_trades(rows, before), auc))
    return found


def rule_jobs(n: int, planted: int) -> list[Job]:
    """Give the jobs of the rules: each on ``n`` markets of each kind, and on ``planted`` with an edge of each size.

    Every third market without an edge sees boosted trees.
    """
    families: tuple[Estimator, ...] = ("logistic_regression", "logistic_regression", "hist_gradient_boosting")
    null = [
        Job(kind, FIRST_SEED + 200_000 + k, families[k % 3], rule=rule)
        for k in range(n)
        for kind in NULL_KINDS
        for rule in RULES
    ]
    edges = [
        Job("one factor", FIRST_SEED + 700_000 + k, "logistic_regression", edge, bps, rule)
        for k in range(planted)
        for rule, edge in EDGE_OF_RULE.items()
        for bps in (5.0, 15.0)
    ]
    return mixed(null, edges)


def mixed(*parts: list[Job]) -> list[Job]:
    """Lay jobs among each other, so that a run that is cut short has some of everything."""
    placed = [((k + 0.5) / len(part), job) for part in parts for k, job in enumerate(part)]
    return [job for _, job in sorted(placed, key=lambda one: one[0])]


def jobs(n: int, boosted: int, planted: int) -> list[Job]:
    """Give the jobs of models that say the side themselves.

    ``n`` markets of each kind without an edge see logistic models, ``boosted`` of them boosted trees too, and there are
    ``planted`` markets with each edge.
    """
    null = [Job(kind, FIRST_SEED + k, "logistic_regression") for k in range(n) for kind in NULL_KINDS]
    trees = [Job(kind, FIRST_SEED + k, "hist_gradient_boosting") for k in range(boosted) for kind in NULL_KINDS]
    edges = [
        Job("one factor", FIRST_SEED + 500_000 + k, "logistic_regression", *edge)
        for k in range(planted)
        for edge in PLANTED
    ]
    return mixed(null, trees, edges)


def judged(of: list[Job], processes: int, minutes: float, console: Console) -> Iterator[Fit]:
    """Judge in processes of their own, with progress; markets not begun when the time is up are left out."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    frame_of(null_market("random walk", 0))  # compiles the features once, where nothing else does
    context = multiprocessing.get_context("spawn")
    until = time.monotonic() + 60.0 * minutes
    with (
        Progress(*columns, TimeRemainingColumn(), console=console) as progress,
        ProcessPoolExecutor(processes, mp_context=context) as pool,
    ):
        task = progress.add_task("markets", total=len(of))
        todo = iter(of)
        running = {pool.submit(judge, job) for job in itertools.islice(todo, 2 * processes)}
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for one in done:
                progress.advance(task)
                yield from one.result()
            if time.monotonic() < until:
                running |= {pool.submit(judge, job) for job in itertools.islice(todo, len(done))}


# --- tables -----------------------------------------------------------------------------------------------------------


def share(seen: Iterable[bool]) -> dict[str, Any]:
    """Count, and give the interval of Clopper and Pearson (1934) at 95 %."""
    of = list(seen)
    if not of:
        return {"seen": 0, "of": 0, "low": 0.0, "high": 1.0}
    between = binomtest(sum(of), len(of)).proportion_ci(0.95, method="exact")
    return {"seen": sum(of), "of": len(of), "low": float(between.low), "high": float(between.high)}


def within(cell: list[bool]) -> bool:
    """Whether a cell saw no more than chance would let one in a hundred be seen."""
    return sum(cell) <= int(binom.ppf(CELL_QUANTILE, len(cell), 0.01))


def text(one: dict[str, Any]) -> str:
    if not one["of"]:
        return "not measured"
    return f"{one['seen']}/{one['of']}  {one['seen'] / one['of']:.2%} ({one['low']:.2%} to {one['high']:.2%})"


def candidates(fits: list[Fit]) -> dict[str, Any]:
    """Count what each candidate saw where there is nothing, and where something was planted."""
    null, planted = [f for f in fits if f.job.edge is None], [f for f in fits if f.job.edge is not None]
    return {
        name: {"null": share(f.seen[name] for f in null), "planted": share(f.seen[name] for f in planted)}
        for name in (fits[0].seen if fits else ())
    }


def summary(fits: list[Fit]) -> dict[str, Any]:
    """Everything that is printed, as data."""
    null, planted = [f for f in fits if f.job.edge is None], [f for f in fits if f.job.edge is not None]
    cells: dict[tuple[str, ...], list[bool]] = defaultdict(list)
    for fit in null:
        cells[fit.job.algorithm, fit.features, fit.density, fit.job.kind].append(fit.seen[CHOSEN])
    edges: dict[tuple[Any, ...], list[Fit]] = defaultdict(list)
    for fit in planted:
        edges[fit.job.edge, fit.job.edge_bps, fit.features, fit.density].append(fit)
    worst = max(cells.values(), key=lambda seen: sum(seen) / len(seen), default=[])
    pooled = share(f.seen[CHOSEN] for f in null)
    return {
        "pooled": pooled,
        "pooled_by_family": {a: share(f.seen[CHOSEN] for f in null if f.job.algorithm == a) for a in SETS_OF},
        "worst_cell": share(worst),
        "holds": pooled["seen"] / pooled["of"] <= MOST_POOLED and all(map(within, cells.values())),
        "cells": [{"cell": list(cell), **share(seen)} for cell, seen in sorted(cells.items())],
        "candidates": candidates([fit for fit in fits if not fit.job.rule]),
        "candidates_of_rules": candidates([fit for fit in fits if fit.job.rule]),
        "planted": [
            {
                "edge": list(edge),
                "auc": sum(f.auc for f in of) / len(of),
                **share(f.seen[CHOSEN] for f in of),
            }
            for edge, of in sorted(edges.items(), key=lambda item: tuple(map(str, item[0])))
        ],
    }


def tables(found: dict[str, Any]) -> Iterator[Table]:
    """Give the tables, in the order of reading."""
    null = Table("model", "features", "decisions", *NULL_KINDS, title="skill seen where there is none, of N markets")
    rows: dict[tuple[str, ...], dict[str, str]] = defaultdict(dict)
    for cell in found["cells"]:
        *row, kind = cell["cell"]
        rows[tuple(row)][kind] = f"{cell['seen']}/{cell['of']} (≤ {cell['high']:.1%})"
    for row, by_kind in rows.items():
        null.add_row(*row, *(by_kind.get(kind, "") for kind in NULL_KINDS))
    yield null
    rest = Table("", "seen (95 % interval)", title="together")
    rest.add_row("all cells", text(found["pooled"]))
    for family, one in found["pooled_by_family"].items():
        rest.add_row(family, text(one))
    rest.add_row("the worst cell", text(found["worst_cell"]))
    yield rest
    planted = Table("edge", "bps a bar", "features", "decisions", "AUC", "seen (95 % interval)", title="planted edges")
    for one in found["planted"]:
        edge, bps, features, density = one["edge"]
        planted.add_row(edge, f"{bps:g}", features, density, f"{one['auc']:.3f}", text(one))
    yield planted
    for title in ("candidates", "candidates_of_rules"):
        table = Table("statistic", "seen where there is none", "seen where planted", title=title.replace("_", " "))
        for name, one in found[title].items():
            table.add_row(name, text(one["null"]), text(one["planted"]))
        yield table


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.null", description=__doc__)
    parser.add_argument("--n", type=int, default=150, help="markets of each kind without an edge")
    parser.add_argument("--boosted", type=int, help="how many of them boosted trees see; default a fifth")
    parser.add_argument("--rules", type=int, help="markets of each kind that each rule proposes on; default a third")
    parser.add_argument("--planted", type=int, help="markets with each planted edge; default a fifth")
    parser.add_argument("--minutes", type=float, default=19.0, help="markets not begun by then are left out")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, help="also write the figures as JSON to this file")
    asked = parser.parse_args()
    if asked.n < 0 or asked.n == asked.rules == 0:
        parser.error("--n must be at least 1, or 0 beside --rules")
    boosted, planted = (max(asked.n // 5, 1) if x is None else x for x in (asked.boosted, asked.planted))
    console = Console(width=None if sys.stdout.isatty() else 130)
    facts = machine(["numpy", "scipy", "scikit-learn", "numba"])
    console.print(", ".join(f"{key} {value}" for key, value in facts.items()), highlight=False)
    rules = max(asked.n // 3, 1) if asked.rules is None else asked.rules
    of = mixed(jobs(asked.n, boosted, planted) if asked.n else [], rule_jobs(rules, planted) if rules else [])
    fits = list(judged(of, asked.processes, asked.minutes, console))
    found = summary(fits)
    for table in tables(found):
        console.print(table)
    markets = len({fit.job for fit in fits})
    console.print(f"{markets} of {len(of)} markets judged" + (": the time was up" if markets < len(of) else ""))
    holds = "holds" if found["holds"] else "[red]does not hold[/]"
    console.print(f"at most {MOST_POOLED:.0%} in all, and no cell beyond what chance makes of that: {holds}")
    if asked.out is not None:
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        settings = {"n": asked.n, "boosted": boosted, "rules": rules, "planted": planted, "first_seed": FIRST_SEED}
        settings |= {"markets": len(of), "judged": markets}
        document = {"benchmark": "null", "machine": facts, "settings": settings, **found}
        asked.out.write_text(json.dumps(document, indent=1, ensure_ascii=False))
        console.print(f"written to {asked.out}")


if __name__ == "__main__":
    main()
