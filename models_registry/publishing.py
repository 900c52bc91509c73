"""Writing a version through MLflow's own client; imported only by the process that trains."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from models_registry.addresses import plot_source
from models_registry.description import LONGEST_PAGE, ROOM_FOR_STANDING, shortened, with_plots
from models_registry.packing import TRUSTED_TYPES, library_versions
from models_registry.refs import named_thresholds
from models_registry.refusals import MODEL_FILE
from models_registry.sidecar import Sidecar

if TYPE_CHECKING:
    from mlflow.entities import Dataset, DatasetInput, Metric
    from mlflow.models import ModelSignature

EXPERIMENT_PREFIX: Final = "alpha-panda"
_QUIET: Final = {
    "MLFLOW_DISABLE_TELEMETRY": "true",  # a desk's model names are nobody else's business
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",  # progress bars fill the logs of Dagster runs
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}

_ABOUT: Final = (
    "The alias challenger is scored in shadow, champion trades on paper, live trades real money. They are moved by "
    "Dagster or by alpha-panda models promote, which keep the ledger; one that is moved here by hand is refused."
)
_LONGEST_DIGEST: Final = 36  # of a data set in MLflow's tables; its source has the whole one


def log(
    tracking_uri: str,
    files: Mapping[str, bytes],
    sidecar: Sidecar,
    *,
    plots: Mapping[str, bytes],
    run_name: str,
    tags: Mapping[str, str],
) -> tuple[str, str]:
    """Write an MLflow run and its logged model, which nobody sees as a version yet; give the ids of both.

    The run has the data set, parameters, metrics and plots; the logged model has the files, and the metrics with the
    data set that they were measured on, so that MLflow's tables of models can be sorted by them.
    """
    mlflow = _quiet_mlflow()
    import skops.io

    client = mlflow.MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)
    with tempfile.TemporaryDirectory() as folder, _pointed_at(tracking_uri):
        experiment = mlflow.set_experiment(f"{EXPERIMENT_PREFIX}/{sidecar.model_name}")
        with mlflow.start_run(experiment_id=experiment.experiment_id, run_name=run_name, tags=dict(tags)) as run:
            run_id: str = run.info.run_id
            mlflow.log_params(_params(sidecar))
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
                params=_params(sidecar),
                signature=_signature(sidecar),
                pyfunc_predict_fn="predict_proba",
            )
            dataset = _dataset(sidecar)
            client.log_inputs(run_id, datasets=[dataset])
            client.log_batch(run_id, metrics=_metrics(sidecar, logged.model_id, dataset.dataset))
    return run_id, logged.model_id


def add_version(
    tracking_uri: str,
    sidecar: Sidecar,
    *,
    description: str,
    plots: Mapping[str, bytes],
    run_id: str,
    model_id: str,
    tags: Mapping[str, str],
) -> str:
    """Make a version of a logged model: it appears whole, with its tags and description."""
    mlflow = _quiet_mlflow()
    from mlflow.exceptions import RestException

    client = mlflow.MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)
    try:
        client.create_registered_model(sidecar.model_name, description=_ABOUT)
    except RestException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise

    def create(page: str) -> str:
        made = client.create_model_version(
            sidecar.model_name,
            source=f"models:/{model_id}",
            run_id=run_id,
            tags=dict(tags),
            description=page,
            model_id=model_id,
        )
        return str(made.version)

    page = with_plots(description, {name: plot_source(run_id, name) for name in plots})
    try:
        return create(page)
    except RestException:
        if len(page) <= LONGEST_PAGE:
            raise
        return create(shortened(page, LONGEST_PAGE - ROOM_FOR_STANDING))


def _quiet_mlflow() -> Any:
    for variable, setting in _QUIET.items():
        os.environ.setdefault(variable, setting)
    import mlflow

    return mlflow


def _dataset(sidecar: Sidecar) -> DatasetInput:
    """Describe the training data as MLflow's tables show it: name, digest, source, columns, rows."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    lineage = sidecar.lineage.model_dump(exclude={"manifests"}) if sidecar.lineage is not None else {}
    source = {
        "market": sidecar.market,
        "market_details": sidecar.market_details,
        "training_data_digest": sidecar.training_data_digest,
        "instruments": len(sidecar.instruments),
        **lineage,
    }
    columns = [{"type": "double", "name": column.name, "required": True} for column in sidecar.feature_schema]
    return DatasetInput(
        dataset=Dataset(
            name=f"{sidecar.market} {sidecar.bar_clock}",
            digest=sidecar.training_data_digest[:_LONGEST_DIGEST],
            source_type="offline store",
            source=json.dumps(source),
            schema=json.dumps({"mlflow_colspec": columns}),
            profile=json.dumps({"num_rows": sidecar.training_rows}),
        ),
        tags=[InputTag("mlflow.data.context", "training")],
    )


def _signature(sidecar: Sidecar) -> ModelSignature:
    """Give the schema that MLflow shows: features by name in, the probabilities of a down and an up move out."""
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema, TensorSpec

    return ModelSignature(
        inputs=Schema([ColSpec(DataType.double, column.name) for column in sidecar.feature_schema]),
        outputs=Schema([TensorSpec(np.dtype(np.float64), (-1, 2))]),
    )


def _metrics(sidecar: Sidecar, model_id: str, dataset: Dataset) -> list[Metric]:
    """Give the figures of the version, of the model and its data, and those of each fold as a step."""
    from mlflow.entities import Metric

    at_ms = sidecar.created_at_ns // 1_000_000
    of_model = {"model_id": model_id, "dataset_name": dataset.name, "dataset_digest": dataset.digest}
    return [Metric(name, value, at_ms, 0, **of_model) for name, value in sidecar.metrics.items()] + [
        Metric(f"fold_{name}", value, at_ms, fold.fold)
        for fold in sidecar.folds
        for name, value in fold.metrics.items()
    ]


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
            **named_thresholds(sidecar.buy_threshold, sidecar.sell_threshold),
            "train_through": sidecar.train_through,
            "recipe_digest": sidecar.recipe_digest,
            "training_data_digest": sidecar.training_data_digest,
            "git_commit": sidecar.git_commit,
            "created_by": sidecar.created_by,
        }
        | {f"fold_{name}": str(value) for name, value in sidecar.fold_parameters.items()}
        | {f"hyperparameter_{name}": str(value) for name, value in sidecar.hyperparameters.items()}
    )


def _written(folder: Path, name: str, value: bytes) -> Path:
    path = folder / name
    path.write_bytes(value)
    return path


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
