"""The candidates that were tried, written to the table of trials and read from it for the gate of real money."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dagster_project.recipes import Recipe
from dagster_project.trade_evidence import account_of
from live_services.backtest.recording import configuration
from live_services.settings import Settings
from models_registry.gates.economics import Economics, Look, Tried, economics
from models_registry.gates.evidence import TradeEvidence
from models_registry.trials import HoldoutLook, Trial, TrialTable, config_digest

if TYPE_CHECKING:
    from models_registry.training import TrainedModel


def configuration_of(trained: TrainedModel, settings: Settings) -> dict[str, Any]:
    """Give the configuration of a candidate, as a backtest of its version has it."""
    spec = trained.spec
    return configuration(spec.recipe_digest(), spec.model_dump(mode="json"), spec, account_of(settings))


def record_candidate(
    table: TrialTable,
    trained: TrainedModel,
    trades: TradeEvidence,
    settings: Settings,
    *,
    run_id: str,
    at_ns: int,
) -> Trial:
    """Record a candidate that was traded; the same configuration on the same data is one trial, however often.

    Parameters
    ----------
    table : TrialTable
    trained : TrainedModel
        The candidate.
    trades : TradeEvidence
        Its trades in the sessions that it had not seen.
    settings : Settings
        Of the account.
    run_id : str
        Of the run that traded it.
    at_ns : int
        UTC epoch nanoseconds.
    """
    return table.record(
        Trial(
            model_name=trained.spec.model_name,
            config=configuration_of(trained, settings),
            data_digest=trained.data_digest,
            daily_pnl_inr=dict(trades.net_pnl_by_session),
            made_by="training",
            recorded_at_ns=at_ns,
            run_id=run_id,
        )
    )


def record_search(
    table: TrialTable,
    recipe: Recipe,
    settings: Settings,
    *,
    run_id: str,
    at_ns: int,
) -> None:
    """Record what a search tried and did not choose: no profit, since it was never traded, but each counts as a try."""
    for one in recipe.tries:
        spec = recipe.spec.model_copy(update={"hyperparameters": dict(one.hyperparameters)})
        if one.hyperparameters != recipe.spec.hyperparameters:
            said = configuration(spec.recipe_digest(), spec.model_dump(mode="json"), spec, account_of(settings))
            table.record(
                Trial(
                    model_name=spec.model_name,
                    config=said,
                    data_digest=recipe.data_digest,
                    daily_pnl_inr={},
                    made_by=f"search, log loss {one.value:.6f}",
                    recorded_at_ns=at_ns,
                    run_id=run_id,
                )
            )


def economics_of(table: TrialTable, trained: TrainedModel, trades: TradeEvidence, settings: Settings) -> Economics:
    """Judge a candidate's trades after all that was tried for its model.

    Raises
    ------
    models_registry.ledger.LedgerError
        If the table does not answer, or was tampered with.
    """
    name = trained.spec.model_name
    return economics(
        trades.net_pnl_by_session,
        [Tried(one.config_digest, one.daily_pnl_inr) for one in table.of(name)],
        config_digest=config_digest(configuration_of(trained, settings)),
        capital_inr=account_of(settings).starting_cash_inr,
        looks=looked_at(table.looks(name), trained.train_through),
    )


def looked_at(looks: Sequence[HoldoutLook], train_through: str) -> Look:
    """Count the looks at sessions after a model's training (``YYYY-MM-DD``), by how they were looked at."""
    held_out = [one for one in looks if one.last_session.isoformat() > train_through]
    kinds = Counter(one.what for one in held_out)
    return Look(len(held_out), dict(sorted(kinds.items())), train_through)
