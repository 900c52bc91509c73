"""How far a model's skill hangs on the sessions that it was trained on; a person launches it, nothing waits for it."""

from typing import Any

import dagster as dg

from dagster_project.failures import expected_failures
from dagster_project.model_facts import path_facts
from dagster_project.model_keys import ModelKeys
from dagster_project.recipes import Recipe


def paths_asset(keys: ModelKeys) -> dg.AssetsDefinition:
    """Make the asset that runs a model's recipe over the splits of combinatorial purged cross-validation."""

    @dg.asset(
        key=keys.paths,
        ins={"frame": dg.AssetIn(keys.training_set), "recipe": dg.AssetIn(keys.recipe)},
        group_name=keys.model,
        kinds={"sklearn"},
        description=f"The recipe of {keys.model} fitted on 15 combinations of sessions, purged by label intervals "
        "with an embargo of a session: five paths through all sessions. Their spread is all that is taken from here; "
        "scores for trades, trials and verdicts are those of walk-forward.",
    )
    def paths(context: dg.AssetExecutionContext, frame: Any, recipe: Recipe) -> dg.MaterializeResult[None]:
        """Measure the spread over the paths."""
        from models_registry.cross_validation import path_spread
        from models_registry.training import UntrainableFrame
        from models_registry.validation.splitters import NotEnoughSessions

        context.log.info("15 fits: seconds of a small frame, minutes of a large one")
        with expected_failures(UntrainableFrame, NotEnoughSessions):
            return dg.MaterializeResult(metadata=path_facts(path_spread(frame, recipe.spec)))

    return paths
