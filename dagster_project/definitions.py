"""The composition root of research: settings become resources, and everything Dagster shows is named here.

Loaded by the webserver, the daemon and every run, so heavy libraries are imported inside functions.
"""

from __future__ import annotations

import datetime as dt

import dagster as dg

from dagster_project.assets import market_data as market_assets
from dagster_project.assets import models as model_assets
from dagster_project.candidates import CandidateStore
from dagster_project.checks import features as feature_checks
from dagster_project.checks import market as market_checks
from dagster_project.checks.live_skew import CHECKS as LIVE_CHECKS
from dagster_project.checks.live_skew import verify_live, verify_live_after_close
from dagster_project.resources import LedgerResource, MlflowResource, OfflineStoreResource, PromotionAnnouncer
from dagster_project.sensors.live import LIVE_MODEL, live_model_observations
from dagster_project.sensors.promotion import MOMENTUM_CHAMPION, promote_champion, promote_job, rollback_job
from dagster_project.training_frames import TrainingFrameStore
from feature_store.market.types import IST
from live_services.settings import Settings, load_settings

TRAIN = (
    *market_assets.WHOLE_MARKET,
    model_assets.momentum_model,
    model_assets.momentum_report,
    model_assets.momentum_version,
)

MARKET_CHECKS = (*market_checks.CHECKS, *feature_checks.CHECKS)

train_momentum = dg.define_asset_job(
    "train_momentum",
    # The checks of the daily assets look at the whole market here: those assets have days, this job has none.
    selection=dg.AssetSelection.assets(*TRAIN) | dg.AssetSelection.checks(*MARKET_CHECKS),
    description="From market data to a registered version, in one run: needs no partition and no configuration. The "
    "sensor promote_champion does the rest if the gate passes.",
)


def resources(settings: Settings) -> dict[str, object]:
    """Give the table of resources; environments differ in nothing else.

    None is configurable in Dagster: the Launchpad shows what a person decides, not addresses and paths, and an address
    may hold a password.
    """
    root = settings.store_root.absolute()
    return {
        "settings": settings,
        "offline": OfflineStoreResource(root=str(root)),
        "training_frames": TrainingFrameStore(root=str(root / "training")),
        "candidates": CandidateStore(root=str(root / "candidates")),
        "mlflow": MlflowResource(tracking_uri=settings.mlflow.tracking_uri),
        "ledger": LedgerResource(settings.ledger_url),
        "announcer": PromotionAnnouncer(settings.kafka),
    }


def definitions(settings: Settings, today: dt.date) -> dg.Definitions:
    """Put the code location together for these settings and this day."""
    return dg.Definitions(
        assets=[*TRAIN, *market_assets.daily_assets(settings, today), MOMENTUM_CHAMPION, LIVE_MODEL],
        asset_checks=[*MARKET_CHECKS, *model_assets.CHECKS, *LIVE_CHECKS],
        jobs=[train_momentum, promote_job, rollback_job, verify_live],
        schedules=[verify_live_after_close],
        sensors=[promote_champion, live_model_observations],
        resources=resources(settings),
        # One process for a run: each process more costs 7 to 12 seconds of start.
        executor=dg.in_process_executor,
    )


@dg.definitions
def defs() -> dg.Definitions:
    """Read the settings when Dagster asks, not when this module is imported."""
    return definitions(load_settings(), dt.datetime.now(IST).date())
