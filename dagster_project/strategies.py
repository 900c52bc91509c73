"""Everything that Dagster shows of one strategy, made from its specification; what asks one model shares it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import dagster as dg

from dagster_project.assets.backtests import backtest_asset
from dagster_project.assets.models import champion, model_assets, with_mlflow_page
from dagster_project.assets.paths import paths_asset
from dagster_project.checks.models import model_checks
from dagster_project.jobs.training import training_job
from dagster_project.model_keys import ModelKeys
from models_registry.addresses import model_page
from models_registry.specification import StrategySpec


@dataclass(frozen=True)
class StrategyAssets:
    """One model's assets, their checks, and the job that makes them."""

    keys: ModelKeys
    assets: tuple[dg.AssetsDefinition | dg.AssetSpec, ...]
    """With its paths and the backtest of each strategy that asks the model, which the job does not make."""
    trained: tuple[dg.AssetsDefinition, ...]
    """What its job makes, beside the market."""
    checks: tuple[dg.AssetChecksDefinition, ...]
    job: dg.UnresolvedAssetJobDefinition


def strategy_assets(
    spec: StrategySpec,
    market_checks: Sequence[dg.AssetChecksDefinition],
    tracking_uri: str = "",
    asked_by: Sequence[StrategySpec] = (),
) -> StrategyAssets:
    """Make a model's assets; its job looks through the checks of the market before it trains.

    ``asked_by`` are the strategies that ask it, of which each has a backtest; default: the one. ``tracking_uri`` is the
    registry's address, for the links to the model's page.
    """
    keys, trained = ModelKeys(spec.model_name), model_assets(spec)
    job = training_job(spec, trained, market_checks)
    page = model_page(tracking_uri, keys.model) if tracking_uri else ""
    linked = dg.map_asset_specs(
        lambda asset: with_mlflow_page(asset, page) if asset.key in {keys.version, keys.champion} else asset,
        [*trained, champion(keys)],
    )
    backtests = [backtest_asset(one) for one in asked_by or (spec,)]
    return StrategyAssets(keys, (*linked, paths_asset(keys), *backtests), trained, model_checks(keys), job)
