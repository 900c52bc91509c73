"""Everything that Dagster shows of one strategy, made from its specification; what asks one model shares it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import dagster as dg

from dagster_project.assets.models import champion, model_assets
from dagster_project.checks.models import model_checks
from dagster_project.jobs.training import training_job
from dagster_project.model_keys import ModelKeys
from models_registry.specification import StrategySpec


@dataclass(frozen=True)
class StrategyAssets:
    """One model's assets, their checks, and the job that makes them."""

    keys: ModelKeys
    assets: tuple[dg.AssetsDefinition | dg.AssetSpec, ...]
    checks: tuple[dg.AssetChecksDefinition, ...]
    job: dg.UnresolvedAssetJobDefinition


def strategy_assets(spec: StrategySpec, market_checks: Sequence[dg.AssetChecksDefinition]) -> StrategyAssets:
    """Make a model's assets; its job looks through the checks of the market before it trains."""
    keys, trained = ModelKeys(spec.model_name), model_assets(spec)
    return StrategyAssets(
        keys, (*trained, champion(keys)), model_checks(keys), training_job(spec, trained, market_checks)
    )
