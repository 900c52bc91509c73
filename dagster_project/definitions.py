"""The composition root of research: settings become resources, and everything Dagster shows is named here.

Loaded by the webserver, the daemon and every run, so heavy libraries are imported inside functions.
"""

from __future__ import annotations

import datetime as dt

import dagster as dg
from pydantic import ValidationError

from dagster_project.assets import market_data as market_assets
from dagster_project.candidates import CandidateStore, TradeStore
from dagster_project.checks import features as feature_checks
from dagster_project.checks import market as market_checks
from dagster_project.checks import ticks as tick_checks
from dagster_project.checks.live_skew import CHECKS as LIVE_CHECKS
from dagster_project.checks.live_skew import verify_live, verify_live_after_close
from dagster_project.jobs.promotion import promote_job, rollback_job
from dagster_project.jobs.training import train_all_job
from dagster_project.recipes import RecipeStore
from dagster_project.resources import LedgerResource, MlflowResource, OfflineStoreResource, PromotionAnnouncer
from dagster_project.sensors.live import live_model, live_model_observations
from dagster_project.sensors.promotion import promote_champion
from dagster_project.strategies import strategy_assets
from dagster_project.training_frames import TrainingFrameStore
from feature_store.market.types import IST
from live_services.adapters.logs import log_beside
from live_services.adapters.redaction import secrets_of
from live_services.domain.strategy.checks import WrongStrategy, require_known_names
from live_services.next_steps import to_type
from live_services.settings import Settings, load_settings
from live_services.settings_report import describe_error
from models_registry.specification import by_model

MARKET_CHECKS = (*tick_checks.CHECKS, *market_checks.CHECKS, *feature_checks.CHECKS)


def resources(settings: Settings) -> dict[str, object]:
    """Give the table of resources; environments differ in nothing else.

    None is configurable in Dagster: the Launchpad shows what a person decides, not addresses and paths, and an address
    may hold a password.
    """
    root = settings.store_root.absolute()
    return {
        "settings": settings,
        "offline": OfflineStoreResource(root=str(root)),
        "training_frames": TrainingFrameStore(str(root / "training")),
        "recipes": RecipeStore(str(root / "recipes")),
        "candidates": CandidateStore(str(root / "candidates")),
        "trades": TradeStore(str(root / "trades")),
        "mlflow": MlflowResource(tracking_uri=settings.mlflow.tracking_uri),
        "ledger": LedgerResource(settings.ledger_url),
        "announcer": PromotionAnnouncer(settings.kafka),
    }


def definitions(settings: Settings, today: dt.date) -> dg.Definitions:
    """Put the code location together for these settings and this day: one market, and each strategy's model on it."""
    registry = settings.mlflow.tracking_uri
    models = [
        strategy_assets(spec, MARKET_CHECKS, registry, [s for s in settings.strategies if s.model_name == name])
        for name, spec in by_model(settings.strategies).items()
    ]
    every = [train_all_job([one for model in models for one in model.trained], MARKET_CHECKS)] if models[1:] else []
    return dg.Definitions(
        assets=[
            market_assets.market_data,
            *market_assets.daily_assets(settings, today),
            *(asset for model in models for asset in model.assets),
            live_model(model.keys.champion for model in models),
        ],
        asset_checks=[*MARKET_CHECKS, *(check for model in models for check in model.checks), *LIVE_CHECKS],
        jobs=[*(model.job for model in models), *every, promote_job, rollback_job, verify_live],
        schedules=[verify_live_after_close],
        sensors=[promote_champion, live_model_observations],
        resources=resources(settings),
        # One process for a run: each process more costs 7 to 12 seconds of start.
        executor=dg.in_process_executor,
    )


@dg.definitions
def defs() -> dg.Definitions:
    """Read the settings when Dagster asks, not when this module is imported.

    Raises
    ------
    dagster.DagsterInvalidDefinitionError
        If the settings are wrong; the message is what ``alpha-panda config show`` says.
    """
    try:
        settings = load_settings()
        require_known_names(settings.strategies)
    except (ValidationError, WrongStrategy) as wrong:
        said = describe_error(wrong) if isinstance(wrong, ValidationError) else str(wrong)
        way_out = f"Then start again ({to_type('down')}, {to_type('up')}), or reload the location under `dagster dev`."
        raise dg.DagsterInvalidDefinitionError(f"{said}\n{way_out}") from wrong
    home, secrets = settings.alpha_panda_home, secrets_of(settings)
    log_beside("dagster", home, settings.logging, secrets=secrets, libraries=("dagster", "mlflow", "alembic"))
    return definitions(settings, dt.datetime.now(IST).date())
