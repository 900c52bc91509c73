"""What a person types to see a desk under faults; `live_services.__main__` puts it among the other commands."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

import typer

from live_services.cli.errors import err, out, wide_enough
from live_services.cli.output import JsonOption, tell_json
from live_services.cli.progress import jar_progress


def chaos(  # noqa: PLR0917 (each one is an option of the command line)
    context: typer.Context,
    minutes: Annotated[float, typer.Option(min=0.5, help="How long faults come.")] = 10.0,
    seed: Annotated[int, typer.Option(help="Of the market and of the choice of faults.")] = 7,
    instruments: Annotated[int, typer.Option(min=2, max=3000, help="Instruments of the synthetic market.")] = 6,
    file: Annotated[Path | None, typer.Option("--out", help="Write the report as JSON.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Kill, freeze and slow every process of a desk for two sessions, and prove that its day is the same.

    The desk is made for it (Kafka, Valkey, MLflow, a synthetic market, a trained model) in `.alpha-panda/chaos`, or
    where `--home` says; no other desk is touched. Its day is played undisturbed first, then with faults, alone and
    together; then every topic is compared by id and content, and the books by their hash. Exit code 0 only if nothing
    was lost, said twice or different.

    Example: `alpha-panda chaos --minutes 30 --seed 3 --out chaos.json`
    """
    from live_services.chaos.report import faults_table, topics_table, verdict
    from live_services.chaos.run import CHAOS_HOME, ChaosOptions, run_chaos

    console = err if as_json else out
    started = time.monotonic()

    def tell(line: str) -> None:
        console.print(f"{time.monotonic() - started:5.0f} s  {line}", soft_wrap=True, markup=False)

    options = ChaosOptions(context.obj or CHAOS_HOME, minutes, seed, instruments)
    with jar_progress(console) as progress:
        report = run_chaos(options, tell, progress)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(report.document(), indent=2) + "\n", encoding="utf-8")
        tell(f"report written to {file}")
    if as_json:
        tell_json(report.document())
    else:
        wide = wide_enough(out)
        wide.print(faults_table(report))
        wide.print(topics_table(report))
        tell(verdict(report))
    if not report.same:
        raise typer.Exit(1)
