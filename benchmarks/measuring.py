"""What every benchmark needs: repeated timing, and a report of figures with the machine that made them."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Figure:
    """One measured figure: the median of several runs, and what it was to be."""

    name: str
    value: float
    unit: str
    target: str = ""
    met: bool | None = None
    ratio: float | None = None
    """How many times faster than the rival of this line."""
    rival: str = ""


def seconds(
    run: Callable[[], object],
    repeats: int = 5,
    prepare: Callable[[], object] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Median seconds of a run; ``prepare`` goes before each and is not counted.

    Of the wall clock, or of this process with `time.process_time`: what a core takes for it, whatever else runs there.
    """
    taken = []
    for _ in range(repeats):
        if prepare is not None:
            prepare()
        started = clock()
        run()
        taken.append(clock() - started)
    return statistics.median(taken)


def at_least(
    name: str, value: float, unit: str, target: float, *, ratio: float | None = None, rival: str = ""
) -> Figure:
    """Give a figure that is to be no smaller than its target."""
    return Figure(name, value, unit, f"≥ {target:,.6g}", value >= target, ratio, rival)


def at_most(
    name: str, value: float, unit: str, target: float, *, ratio: float | None = None, rival: str = ""
) -> Figure:
    """Give a figure that is to be no larger than its target."""
    return Figure(name, value, unit, f"≤ {target:,.6g}", value <= target, ratio, rival)


def machine(packages: Sequence[str]) -> dict[str, str]:
    """Name the machine and the versions that a figure belongs to."""
    cpu = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        cpu = next((s.split(":")[1].strip() for s in cpuinfo.read_text().splitlines() if "model name" in s), cpu)
    return {
        "cpu": cpu,
        "cores": str(psutil.cpu_count()),
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "load": ", ".join(f"{load:.1f}" for load in psutil.getloadavg()),
        "system": platform.platform(),
        "python": sys.version.split()[0],
        **{name: importlib.metadata.version(name) for name in packages},
    }


def arguments(name: str) -> argparse.ArgumentParser:
    """Give what every benchmark takes on its command line; one that takes more adds it."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}")
    parser.add_argument("--out", type=Path, help="also write the figures as JSON to this file")
    return parser


def said(facts: Mapping[str, str]) -> str:
    """Put what `machine` found into one line."""
    return ", ".join(f"{key} {value}" for key, value in facts.items())


def report(
    name: str,
    measure: Callable[[Callable[[str], None]], list[Figure]],
    packages: Sequence[str],
    asked: argparse.Namespace | None = None,
) -> None:
    """Measure, print a table, and write JSON where ``--out`` says; for a benchmark's ``__main__``.

    ``asked`` is what a benchmark with `arguments` of its own was given; default: this command line.
    """
    out: Path | None = (asked or arguments(name).parse_args()).out
    console = Console(width=None if sys.stdout.isatty() else 110)
    facts = machine(packages)
    console.print(said(facts), highlight=False)
    with console.status("measuring") as status:
        figures = measure(lambda what: status.update(f"measuring {what}"))
    table = Table("figure", "median", "unit", "target", "ratio", title=f"benchmark {name}")
    for column in table.columns[1:2]:
        column.justify = "right"
    for figure in figures:
        met = {True: "[green]met[/]", False: "[red]missed[/]", None: ""}[figure.met]
        ratio = f"{figure.ratio:,.3g} × {figure.rival}" if figure.ratio is not None else ""
        table.add_row(figure.name, f"{figure.value:,.4g}", figure.unit, f"{figure.target} {met}".strip(), ratio)
    console.print(table)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        document = {"benchmark": name, "machine": facts, "figures": [asdict(figure) for figure in figures]}
        out.write_text(json.dumps(document, indent=1, ensure_ascii=False))
        console.print(f"written to {out}")
