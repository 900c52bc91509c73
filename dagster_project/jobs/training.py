"""One button for each model: from market data to a registered version, in one run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import dagster as dg

from dagster_project.assets.market_data import market_data
from models_registry.specification import TRAIN_ALL, StrategySpec

STORE_TAG: Final = "alpha_panda/writes"
"""Runs that carry it with one value wait for each other; ``dagster.yaml`` says so. Two trainings would otherwise bring
the same market in at once."""


def train_all_job(
    trained: Sequence[dg.AssetsDefinition], market_checks: Sequence[dg.AssetChecksDefinition]
) -> dg.UnresolvedAssetJobDefinition:
    """Make the job that trains every model: the market comes in once for all of them."""
    return dg.define_asset_job(
        TRAIN_ALL,
        selection=dg.AssetSelection.assets(market_data, *trained) | dg.AssetSelection.checks(*market_checks),
        description="From market data to a registered version of every model of the desk, in one run; otherwise as the "
        "job of each of them.",
        tags={STORE_TAG: "store"},
    )


def training_job(
    spec: StrategySpec, trained: Sequence[dg.AssetsDefinition], market_checks: Sequence[dg.AssetChecksDefinition]
) -> dg.UnresolvedAssetJobDefinition:
    """Make the job that trains a strategy's model; needs no partition and no configuration.

    The configuration of `market_data` names other files than the settings.
    """
    return dg.define_asset_job(
        spec.training_job,
        # The checks of the daily assets look at the whole market here: those assets have days, this job has none.
        selection=dg.AssetSelection.assets(market_data, *trained) | dg.AssetSelection.checks(*market_checks),
        description=f"From market data to a registered version of {spec.model_name}, in one run: needs no partition "
        "and no configuration; that of market_data names other files than the settings do. The sensor "
        "promote_champion does the rest if the gate passes.",
        tags={STORE_TAG: "store"},
    )
