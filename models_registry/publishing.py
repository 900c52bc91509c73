"""Writing a version through MLflow's own client; imported only by the process that trains."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from models_registry.packing import TRUSTED_TYPES, library_versions
from models_registry.refusals import MODEL_FILE
from models_registry.sidecar import Sidecar

EXPERIMENT_PREFIX: Final = "alpha-panda"
_QUIET: Final = {
    "MLFLOW_DISABLE_TELEMETRY": "true",  # a desk's model names are nobody else's business
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",  # progress bars fill the logs of Dagster runs
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}

_ABOUT: Final = (
    "Aliases: *challenger* is scored in shadow, *champion* trades on paper, *live* trades real money. They are moved "
    "by Dagster's sensor and jobs or by `alpha-panda models promote`, which keep the ledger "
    "(`alpha-panda models history`); one moved here by hand is refused by the strategy runner."
)


def write(
    tracking_uri: str,
    files: Mapping[str, bytes],
    sidecar: Sidecar,
    *,
    description: str,
    plots: Mapping[str, bytes],
    run_name: str,
    tags: Mapping[str, str],
    plot_url: Callable[[str, str], str],
) -> str:
    """Write run, logged model and version; the version appears last, whole, with its tags and description.

    ``plot_url`` gives the address of a plot of a run, for the description.
    """
    for variable, setting in _QUIET.items():
        os.environ.setdefault(variable, setting)
    import mlflow
    import skops.io
    from mlflow.exceptions import RestException

    client = mlflow.MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)
    with tempfile.TemporaryDirectory() as folder, _pointed_at(tracking_uri):
        experiment = mlflow.set_experiment(f"{EXPERIMENT_PREFIX}/{sidecar.model_name}")
        with mlflow.start_run(experiment_id=experiment.experiment_id, run_name=run_name, tags=dict(tags)) as run:
            run_id: str = run.info.run_id
            mlflow.log_params(_params(sidecar))
            mlflow.log_metrics(sidecar.metrics)
            for fold in sidecar.folds:
                mlflow.log_metrics({f"fold_{metric}": value for metric, value in fold.metrics.items()}, step=fold.fold)
            for plot, png in plots.items():
                client.log_artifact(run_id, str(_written(Path(folder), plot, png)), "plots")
            extra = [_written(Path(folder), name, value) for name, value in files.items()]
            # MLflow writes its own skops file from the estimator; ours, whose digest counts, travels beside it.
            logged = mlflow.sklearn.log_model(
                skops.io.loads(files[MODEL_FILE], trusted=list(TRUSTED_TYPES)),
                name=sidecar.model_name,
                serialization_format="skops",
                skops_trusted_types=list(TRUSTED_TYPES),
                pip_requirements=[f"{name}=={found}" for name, found in library_versions().items() if name != "python"],
                extra_files=[str(path) for path in extra],
            )
    try:
        client.create_registered_model(sidecar.model_name, description=_ABOUT)
    except RestException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    version = client.create_model_version(
        sidecar.model_name,
        source=f"models:/{logged.model_id}",
        run_id=run_id,
        tags=dict(tags),
        description=description + _plots_markdown(plots, run_id, plot_url),
        model_id=logged.model_id,
    )
    return str(version.version)


def _params(sidecar: Sidecar) -> dict[str, str | int | float]:
    return (
        {
            "algorithm": sidecar.algorithm,
            "seed": sidecar.seed,
            "market": sidecar.market,
            "bar_clock": sidecar.bar_clock,
            "label": sidecar.label,
            "training_rows": sidecar.training_rows,
            "folds": len(sidecar.folds),
            "features": ", ".join(column.name for column in sidecar.feature_schema),
            "buy_threshold": sidecar.buy_threshold,
            "sell_threshold": sidecar.sell_threshold,
            "train_through": sidecar.train_through,
            "recipe_digest": sidecar.recipe_digest,
        }
        | {f"fold_{name}": str(value) for name, value in sidecar.fold_parameters.items()}
        | {f"hyperparameter_{name}": str(value) for name, value in sidecar.hyperparameters.items()}
    )


def _written(folder: Path, name: str, value: bytes) -> Path:
    path = folder / name
    path.write_bytes(value)
    return path


def _plots_markdown(plots: Mapping[str, bytes], run_id: str, plot_url: Callable[[str, str], str]) -> str:
    return "".join(f"\n\n![{Path(name).stem.replace('_', ' ')}]({plot_url(run_id, name)})" for name in sorted(plots))


@contextmanager
def _pointed_at(tracking_uri: str) -> Iterator[None]:
    # log_model writes to wherever the process-wide address points; leave that as it was found.
    import mlflow

    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(tracking_uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)
