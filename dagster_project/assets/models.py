"""A strategy's model: training set → fitted model → out-of-sample report → registered version.

The assets are made from the strategy's specification, so every model of the desk has its own, beside the others; two
strategies that ask one model share them. The market that they stand on is one for all.
"""

import time
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import ValidationError

from dagster_project.assets.market_data import BARS, FEATURES, LABELS, market_data
from dagster_project.candidates import Candidate
from dagster_project.desk import Desk
from dagster_project.evidence import Champion, DamagedChampion, Ground, gathered, standing_champion
from dagster_project.failures import expected_failures
from dagster_project.model_facts import (
    fitted_facts,
    recipe_facts,
    report_facts,
    skill_gate_result,
    trade_facts,
    training_set_facts,
    version_facts,
)
from dagster_project.model_keys import ModelKeys
from dagster_project.recipes import Recipe
from dagster_project.resources import LedgerResource, MlflowResource, OfflineStoreResource
from dagster_project.trade_evidence import trade_evidence
from dagster_project.trials import economics_of, record_candidate, record_search
from feature_store.market.types import MarketDataError
from feature_store.provenance import code_commit
from live_services.settings import Settings
from models_registry.specification import ESTIMATORS, StrategySpec

if TYPE_CHECKING:
    from feature_store.offline.store import OfflineStore
    from feature_store.offline.training_frames import TrainingFrame
    from models_registry.gates.economics import Economics
    from models_registry.gates.evidence import Evidence, TradeEvidence
    from models_registry.registry import Registry
    from models_registry.sidecar import Sidecar
    from models_registry.training import TrainedModel


def model_assets(spec: StrategySpec) -> tuple[dg.AssetsDefinition, ...]:
    """Make what the training of a strategy's model makes, in order."""
    keys = ModelKeys(spec.model_name)
    return (
        _training_set(spec, keys),
        _recipe(spec, keys),
        _fitted_model(keys),
        _report(keys),
        _trades(keys),
        _version(keys),
    )


def with_mlflow_page(asset: dg.AssetSpec, address: str) -> dg.AssetSpec:
    """Give a model's asset the link to its page in MLflow: of the definition, so it is of the ports of now."""
    return asset.merge_attributes(metadata={"mlflow": dg.MetadataValue.url(address)}) if address else asset


def champion(keys: ModelKeys) -> dg.AssetSpec:
    """Describe the asset that follows a model's alias champion."""
    return dg.AssetSpec(
        keys.champion,
        deps=[keys.version],
        group_name=keys.model,
        kinds={"mlflow"},
        description=f"The version that the alias {keys.model}@champion points to. Every promotion and rollback in the "
        "ledger, by the sensor or by a person, is a materialisation here.",
    )


# --- from the market to a fitted model ----------------------------------------------------------------------------


def _training_set(spec: StrategySpec, keys: ModelKeys) -> dg.AssetsDefinition:
    @dg.asset(
        key=keys.training_set,
        deps=[market_data, BARS, FEATURES, LABELS],
        group_name=keys.model,
        kinds={"parquet"},
        io_manager_key="training_frames",
        description=f"What {keys.model} is trained on: warm feature rows of the sessions through market.train_through "
        "(else before the session that is held out for the replay), each with its label; of the strategy's "
        "instruments, if it names any, and of members only, if market.membership names a table.",
    )
    def training_set(
        context: dg.AssetExecutionContext,
        settings: dg.ResourceParam[Settings],
        offline: dg.ResourceParam[OfflineStoreResource],
    ) -> Any:
        """Put together what may be trained on."""
        from feature_store.offline.training_frames import training_frame
        from feature_store.proposals.rules import RuleFailed
        from live_services.domain.strategy.checks import WrongStrategy, strategy_schema

        desk = Desk(offline.store(), settings)
        with expected_failures(MarketDataError, WrongStrategy, RuleFailed):
            sessions, held_out = desk.training_sessions(), desk.held_out_session()
            frame = training_frame(
                desk.store,
                spec.instruments or None,
                sessions[0].date,
                sessions[-1].date,
                features=strategy_schema(spec),
                label=spec.label(),
                proposer=spec.proposer(),
                membership=desk.membership,
                actions=desk.actions,
            )
        context.add_output_metadata(
            training_set_facts(frame, sessions, held_out) | {"corporate_actions": len(desk.actions)}
        )
        return frame

    return training_set


def _recipe(spec: StrategySpec, keys: ModelKeys) -> dg.AssetsDefinition:
    @dg.asset(
        key=keys.recipe,
        ins={"frame": dg.AssetIn(keys.training_set)},
        group_name=keys.model,
        kinds={"optuna"},
        io_manager_key="recipes",
        config_schema=_training_config(spec),
        description=f"How {keys.model} is fitted: the strategy's hyperparameters, or those that a small search "
        "chose in the first training block, before any session that judges the model. Each try is a trial.",
    )
    def recipe(
        context: dg.AssetExecutionContext,
        settings: dg.ResourceParam[Settings],
        ledger: dg.ResourceParam[LedgerResource],
        frame: Any,
    ) -> Recipe:
        """Choose hyperparameters."""
        from models_registry.hyperparameters import WrongHyperparameter, refuse_wrong
        from models_registry.ledger import LedgerError
        from models_registry.search import search
        from models_registry.training import UntrainableFrame
        from models_registry.validation.splitters import NotEnoughSessions

        asked = _chosen(spec, context.op_execution_context.op_config)
        with expected_failures(WrongHyperparameter, UntrainableFrame, NotEnoughSessions, LedgerError):
            refuse_wrong(asked.estimator, asked.hyperparameters)
            found = search(frame, asked, tries=asked.search_tries, told=context.log.info)
            chosen = asked.model_copy(update={"hyperparameters": found.chosen})
            recipe = Recipe(chosen, found.tries, frame.digest)
            if recipe.tries:
                record_search(ledger.trials(), recipe, settings, run_id=context.run.run_id, at_ns=time.time_ns())
        context.add_output_metadata(recipe_facts(recipe))
        return recipe

    return recipe


def _training_config(spec: StrategySpec) -> dict[str, dg.Field]:
    """Give what the Launchpad offers, with the strategy's own values."""
    estimators = dg.Enum("Estimator", [dg.EnumValue(name) for name in ESTIMATORS])
    return {
        "estimator": dg.Field(estimators, default_value=spec.estimator, description="How it is fitted."),
        "seed": dg.Field(int, default_value=spec.seed, description="Equal seeds and equal data give an equal model."),
        "folds": dg.Field(
            int,
            default_value=spec.folds,
            description="Walk-forward test blocks; sessions are cut into one more.",
        ),
        "search_tries": dg.Field(
            int,
            default_value=spec.search_tries,
            description="Sets of hyperparameters to try, at most 8; 0 takes the strategy's own.",
        ),
    }


def _chosen(spec: StrategySpec, config: dict[str, Any]) -> StrategySpec:
    """Lay what a person chose in the Launchpad over the specification."""
    try:
        return StrategySpec.model_validate(spec.model_dump() | config)
    except ValidationError as error:
        said = "; ".join(f"{problem['loc'][0]}: {problem['msg']}" for problem in error.errors(include_url=False))
        raise dg.Failure(f"{said}. Correct it in the Launchpad.", allow_retries=False) from error


def _fitted_model(keys: ModelKeys) -> dg.AssetsDefinition:
    @dg.asset(
        key=keys.fitted,
        ins={"frame": dg.AssetIn(keys.training_set), "recipe": dg.AssetIn(keys.recipe)},
        group_name=keys.model,
        kinds={"sklearn"},
        io_manager_key="candidates",
        description=f"The model {keys.model}, fitted on all training sessions, measured by walk-forward on sessions "
        "that it had not seen, and packed into files that load without pickle.",
    )
    def fitted_model(context: dg.AssetExecutionContext, frame: Any, recipe: Recipe) -> Candidate:
        """Train, measure and pack."""
        from models_registry.out_of_fold import with_out_of_fold
        from models_registry.packing import Unpackable, pack, parity
        from models_registry.training import UntrainableFrame
        from models_registry.validation.splitters import NotEnoughSessions

        if frame.digest != recipe.data_digest:
            raise dg.Failure(
                "The training set has changed since the recipe was chosen: materialise "
                f"{keys.recipe.to_user_string()} again.",
                allow_retries=False,
            )
        with expected_failures(UntrainableFrame, NotEnoughSessions, Unpackable):
            trained = _train(frame, recipe.spec, context.run.run_id)
            packed = with_out_of_fold(pack(trained.estimator, trained.golden_rows), trained)
        candidate = Candidate(
            trained=trained,
            packed=packed,
            parity=parity(packed, trained.estimator, frame.X[:: max(1, len(frame) // 5000)]),
            market=frame.market,
        )
        context.add_output_metadata(fitted_facts(candidate, frame.schema.hash))
        return candidate

    return fitted_model


def _train(frame: "TrainingFrame", spec: StrategySpec, run_id: str) -> "TrainedModel":
    from models_registry.packing import library_versions
    from models_registry.sidecar import FitFacts
    from models_registry.training import train

    fitted = FitFacts(
        git_commit=code_commit(),
        library_versions=library_versions(),
        fitted_at_ns=time.time_ns(),
        run_id=run_id,
    )
    return train(frame, spec, fitted)


def _report(keys: ModelKeys) -> dg.AssetsDefinition:
    @dg.asset(
        key=keys.report,
        ins={"candidate": dg.AssetIn(keys.fitted)},
        group_name=keys.model,
        kinds={"sklearn"},
        description=f"What {keys.model} was worth on sessions it had not seen, fold by fold, against always guessing "
        "the base rate.",
    )
    def report(candidate: Candidate) -> dg.MaterializeResult[None]:
        """Report the out-of-sample results."""
        return dg.MaterializeResult(metadata=report_facts(candidate))

    return report


def _trades(keys: ModelKeys) -> dg.AssetsDefinition:
    @dg.asset(
        key=keys.trades,
        ins={"candidate": dg.AssetIn(keys.fitted)},
        group_name=keys.model,
        kinds={"numba"},
        io_manager_key="trades",
        description=f"The trades that the paper account would have made by {keys.model} in the sessions that it had "
        "not seen: each session by its fold's own model and thresholds, filled at the next bar's open, within the "
        "account's limits and after its costs. What it made a session is recorded as a trial beside the ledger.",
    )
    def trades(
        context: dg.AssetExecutionContext,
        settings: dg.ResourceParam[Settings],
        offline: dg.ResourceParam[OfflineStoreResource],
        ledger: dg.ResourceParam[LedgerResource],
        candidate: Candidate,
    ) -> Any:
        """Trade every session that a fold had not seen, and record the trial."""
        from models_registry.ledger import LedgerError

        with expected_failures(MarketDataError):
            found = trade_evidence(
                offline.store(), settings, candidate.trained, context.log.info, candidate_sha256=candidate.sha256
            )
        with expected_failures(LedgerError):
            record_candidate(
                ledger.trials(),
                candidate.trained,
                found,
                settings,
                run_id=context.run.run_id,
                at_ns=time.time_ns(),
            )
        context.add_output_metadata(trade_facts(found))
        return found

    return trades


# --- from a fitted model to a version -----------------------------------------------------------------------------


def _version(keys: ModelKeys) -> dg.AssetsDefinition:
    @dg.asset(
        key=keys.version,
        deps=[keys.report],
        ins={
            "candidate": dg.AssetIn(keys.fitted),
            "frame": dg.AssetIn(keys.training_set),
            "trades": dg.AssetIn(keys.trades),
        },
        group_name=keys.model,
        kinds={"mlflow"},
        check_specs=[
            dg.AssetCheckSpec(
                "skill_gate",
                asset=keys.version,
                description="Whether this version may become champion; also a tag in MLflow.",
            )
        ],
        description=f"The model {keys.model} as a version in MLflow, with its sidecar and the verdict of its gate. "
        "Registering promotes nothing: the sensor promote_champion, or a person, moves the alias.",
    )
    def version(  # noqa: PLR0917  # Dagster fills resources and inputs in by name
        context: dg.AssetExecutionContext,
        settings: dg.ResourceParam[Settings],
        mlflow: dg.ResourceParam[MlflowResource],
        ledger: dg.ResourceParam[LedgerResource],
        offline: dg.ResourceParam[OfflineStoreResource],
        candidate: Candidate,
        frame: Any,
        trades: Any,
    ) -> dg.MaterializeResult:  # type: ignore[type-arg]  # with checks Dagster takes only the bare class
        """Judge the candidate against the champion, and register it whatever the verdict."""
        from models_registry.ledger import LedgerError
        from models_registry.registry import RegistryUnavailable

        _require_of_one_training(keys, frame, candidate, trades)
        registry = mlflow.registry()
        with expected_failures(RegistryUnavailable, LedgerError):
            standing = standing_champion(registry, ledger.ledger(), keys.model)
            worth = economics_of(ledger.trials(), candidate.trained, trades, settings)
        evidence = _evidence(context, settings, offline.store(), candidate, frame, trades, worth, standing)
        sidecar = _sidecar(context.run.run_id, settings, candidate, frame, evidence, standing)
        against = standing if isinstance(standing, Champion) else None
        with expected_failures(RegistryUnavailable):
            number = _registered(registry, candidate, trades, sidecar, against, context.run.run_id)
        return dg.MaterializeResult(
            metadata=version_facts(
                sidecar, number, candidate.trained.oof, trades, against.sidecar if against else None
            ),
            check_results=[skill_gate_result(sidecar.gate, keys.model, number)],
        )

    return version


def _require_of_one_training(
    keys: ModelKeys, frame: "TrainingFrame", candidate: Candidate, trades: "TradeEvidence"
) -> None:
    if frame.digest != candidate.trained.data_digest:
        raise dg.Failure(
            "The training set has changed since the model was trained: materialise "
            f"{keys.fitted.to_user_string()} again.",
            allow_retries=False,
        )
    if trades.candidate_sha256 != candidate.sha256:
        raise dg.Failure(
            "The trades are of another model than the one that was trained last: materialise "
            f"{keys.trades.to_user_string()} again.",
            allow_retries=False,
        )


def _evidence(  # noqa: PLR0917
    context: dg.AssetExecutionContext,
    settings: Settings,
    store: "OfflineStore",
    candidate: Candidate,
    frame: "TrainingFrame",
    trades: "TradeEvidence",
    worth: "Economics",
    standing: Champion | DamagedChampion | None,
) -> "Evidence":
    desk = Desk(store, settings)
    with expected_failures(MarketDataError):
        return gathered(
            Ground(store, frame, desk.membership, desk.actions),
            settings,
            candidate.trained,
            candidate.parity,
            standing,
            trades=trades,
            economics=worth,
            trades_on=desk.traded_bar_source(),
            told=context.log.info,
        )


def _sidecar(  # noqa: PLR0917
    run_id: str,
    settings: Settings,
    candidate: Candidate,
    frame: "TrainingFrame",
    evidence: "Evidence",
    standing: Champion | DamagedChampion | None,
) -> "Sidecar":
    from models_registry.gates.verdicts import judge
    from models_registry.sidecar import UnwritableSidecar
    from models_registry.version import build_sidecar

    against = standing.version if standing else None
    with expected_failures(UnwritableSidecar):
        return build_sidecar(
            candidate.trained,
            frame,
            candidate.packed,
            evidence,
            gate=judge(evidence, "champion", settings.gates.champion, champion_version=against),
            live_gate=judge(evidence, "live", settings.gates.live),
            created_by=f"Dagster run {run_id}",
            created_at_ns=time.time_ns(),
        )


def _registered(  # noqa: PLR0917
    registry: "Registry",
    candidate: Candidate,
    trades: "TradeEvidence",
    sidecar: "Sidecar",
    against: Champion | None,
    run_id: str,
) -> str:
    from models_registry.description import describe
    from models_registry.pictures import plots

    trained = candidate.trained
    theirs, number = (against.sidecar, against.version) if against else (None, None)
    shown = plots(
        trained.oof,
        trades.net_pnl_by_session,
        generated=trained.lineage.generated,
        judged=trained.spec.judged,
    )
    return registry.register(
        candidate.packed,
        sidecar,
        description=describe(sidecar, theirs, number, shown=shown),
        plots=shown,
        run_name=f"{trained.spec.training_job} {run_id[:8]}",
        tags={"dagster_run_id": run_id},
    )
