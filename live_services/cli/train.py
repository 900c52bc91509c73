"""``alpha-panda train``: train a strategy's model in the Dagster that runs, and say what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import requests
import typer

from live_services.cli.errors import did_you_mean, out
from live_services.cli.market_options import (
    ColumnsOption,
    StampOption,
    TimeFormatOption,
    TimezoneOption,
    market_settings,
)
from live_services.composition import build_registry, read_settings
from live_services.failures import CommandFailed
from live_services.next_steps import of_home, to_type
from live_services.settings import Settings
from models_registry.specification import StrategySpec, by_model

_TRAINING_SECONDS: Final = 6 * 3600.0
_ANSWER_SECONDS: Final = 10.0


def train(  # noqa: PLR0917 (each one is an option of the command line)
    name: Annotated[str, typer.Argument(help="Model or strategy, for example momentum.")],
    bars: Annotated[Path | None, typer.Option(help="Your own bars, Parquet or CSV; default: those set.")] = None,
    ticks: Annotated[Path | None, typer.Option(help="Your own ticks of later sessions; default: those set.")] = None,
    columns: ColumnsOption = None,
    time_format: TimeFormatOption = None,
    timezone: TimezoneOption = None,
    stamp: StampOption = None,
) -> None:
    """Bring the market in, train a strategy's model on it, and register a version, in the Dagster that runs.

    Says what was found in the data, what each gate says, and the version. Ends with 1, and the reason, when no version
    was made; a version whose gate says no is registered and not promoted.

    Example: `alpha-panda train momentum`

    Example: `alpha-panda train momentum --bars mine.csv --time-format "%d-%m-%Y %H:%M"`
    """
    from live_services.cli import training_run

    settings = read_settings()
    spec = specification_of(settings, name)
    run_config = configuration(bars, ticks, market_settings(columns, time_format, timezone, stamp))
    _require_dagster(settings)
    run_id = training_run.launch(settings.dagster.url, spec.training_job, run_config)
    _tell(f"Dagster runs {spec.training_job}: {settings.dagster.url}/runs/{run_id}")
    with training_run.run_progress(out) as progress:
        training_run.follow(
            settings.dagster.url, run_id, tell=_tell, progress=progress, budget_seconds=_TRAINING_SECONDS
        )
    registry = build_registry(settings)
    version = training_run.registered_version(registry, spec.model_name, run_id)
    training_run.tell_of_version(registry, version, _tell)
    _tell(_what_follows(settings, version.name, version.version, version.gate_verdict("champion")))
    if run_config and settings.market.source != "files":
        _tell(
            "the desk still replays its generated market: to trade on these files set market.source, market.bars_file "
            "and what else you gave here in alpha-panda.toml"
        )


def configuration(bars: Path | None, ticks: Path | None, reading: Mapping[str, Any]) -> dict[str, Any]:
    """Give the run's configuration: the files of the asset `market_data`, and how they are read.

    Parameters
    ----------
    bars, ticks
        Files; None leaves those of the settings.
    reading
        As `live_services.cli.market_options.market_settings` gives it.

    Raises
    ------
    CommandFailed
        If a file is not there.
    """
    files = {"bars_file": bars, "ticks_file": ticks}
    for field, path in files.items():
        if path is not None and not path.is_file():
            raise CommandFailed(f"--{field.removesuffix('_file')}: there is no file {path}")
    said = {field: str(path.absolute()) for field, path in files.items() if path is not None} | dict(reading)
    return {"ops": {"market_data": {"config": said}}} if said else {}


def specification_of(settings: Settings, name: str) -> StrategySpec:
    """Give what trains the model of a name, which is a model's or a strategy's."""
    models = by_model(settings.strategies)
    for spec in (*models.values(), *settings.strategies):
        if name in {spec.model_name, spec.name}:
            return models[spec.model_name]
    near = did_you_mean(name, models)
    raise CommandFailed(f"no strategy has a model {name!r}{f'; {near}' if near else ''}")


def _require_dagster(settings: Settings) -> None:
    start = f"{of_home(settings.alpha_panda_home)} up --detach"
    if not settings.dagster.url:
        raise CommandFailed(f"no Dagster runs on this home: start it with `{start}`, then train")
    try:
        requests.get(f"{settings.dagster.url}/server_info", timeout=_ANSWER_SECONDS).raise_for_status()
    except requests.RequestException as problem:
        raise CommandFailed(
            f"Dagster does not answer at {settings.dagster.url}: start it with `{start}`, then train"
        ) from problem


def _what_follows(settings: Settings, name: str, version: str, verdict: str | None) -> str:
    if verdict == "passed":
        return f"the gate passed: Dagster's sensor promotes it to {name}@champion; {to_type(f'models history {name}')}"
    overrule = f'{of_home(settings.alpha_panda_home)} models promote {name} {version} --override "REASON"'
    return f"the gate said no, so nothing is promoted; a person may overrule it: `{overrule}`"


def _tell(line: str) -> None:
    out.print(line, soft_wrap=True, markup=False)
