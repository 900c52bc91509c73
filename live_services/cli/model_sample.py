"""``alpha-panda models sample``: a tiny model for smoke tests, registered like any other and labelled a sample."""

from __future__ import annotations

import getpass
import time
from typing import Annotated

import typer

from live_services.cli.errors import out
from live_services.cli.train import specification_of
from live_services.composition import build_registry, read_settings
from live_services.failures import CommandFailed
from live_services.next_steps import of_home
from live_services.settings import Settings
from models_registry.specification import StrategySpec, by_model


def sample(
    name: Annotated[
        str | None, typer.Argument(help="Model or strategy; may be left out where the desk has one model.")
    ] = None,
) -> None:
    """Register a tiny model of random numbers, to try the road from a promotion to orders in a minute.

    It is labelled a sample, and its gates failed on purpose: only an override lets it trade.

    Example: `alpha-panda models sample momentum`
    """
    from models_registry.sample import SAMPLE_DESCRIPTION, SAMPLE_TAG, sample_version

    settings = read_settings()
    spec = _specification(settings, name)
    registry = build_registry(settings)
    who = f"{getpass.getuser()}, by models sample"
    packed, sidecar = sample_version(spec, created_by=who, created_at_ns=time.time_ns())
    version = registry.register(
        packed, sidecar, SAMPLE_DESCRIPTION, run_name=f"{spec.model_name} sample", tags={SAMPLE_TAG: "true"}
    )
    command = of_home(settings.alpha_panda_home)
    out.print(
        f"{spec.model_name} version {version} is a SAMPLE for smoke tests: it knows nothing of any market, and no gate "
        f'admits it. To let it trade on paper: `{command} models promote {spec.model_name} {version} --override "smoke '
        'test"`',
        soft_wrap=True,
        markup=False,
    )


def _specification(settings: Settings, name: str | None) -> StrategySpec:
    """Give what the model of a name is for; without a name, of the only model there is."""
    models = by_model(settings.strategies)
    if name is None:
        if len(models) != 1:
            raise CommandFailed(f"say which model the sample is of: {', '.join(models) or '[[strategies]] has none'}")
        return next(iter(models.values()))
    return specification_of(settings, name)
