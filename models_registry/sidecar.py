"""What travels with every version: the sidecar, readable without loading the model."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, JsonValue, ValidationError

from models_registry.refs import FeatureColumn, FeatureDistribution, FoldResult, GateResult
from models_registry.specification import Estimator


class UnwritableSidecar(ValueError):
    """A version whose sidecar could not be read back; nothing of it was registered."""


class DataLineage(BaseModel):
    """Which data a model was trained on: a market is its instruments and these sessions, never the name of a file."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    generated: bool
    """Whether it is a SYNTHETIC market."""
    sessions: dict[str, str]
    """SHA-256 of each session's bars, by date (``YYYY-MM-DD``)."""


class FitFacts(BaseModel):
    """What made a model, taken when it was fitted."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    git_commit: str
    library_versions: dict[str, str]
    fitted_at_ns: int


class Sidecar(BaseModel):
    """What a version carries, readable without loading the model (``sidecar.json``)."""

    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())

    schema_version: int = Field(default=2, ge=1)
    """2 since specification, label identity, folds' parameters, instruments and lineage are in it; a later one may add
    fields, which this code passes over. A field that version 1 lacks has a default here."""
    model_name: str
    algorithm: Estimator
    market: str
    """Where the data came from; starts with ``SYNTHETIC`` when it was generated."""
    bar_clock: str
    bar_source: str = "unknown"
    """What made the bars it was trained on, ``ticks`` or ``vendor``; ``unknown`` in versions older than this field."""
    feature_schema: tuple[FeatureColumn, ...]
    feature_schema_hash: str
    training_data_digest: str
    training_start_ns: int
    training_end_ns: int
    training_rows: int
    label: str
    label_horizon_bars: int
    label_identity: dict[str, str | int] = Field(default_factory=dict)
    """Everything that decides what a row's label is; empty in version 1."""
    specification: dict[str, JsonValue] = Field(default_factory=dict)
    """The strategy's specification at the fit, as ``StrategySpec`` dumps it; empty in version 1."""
    recipe_digest: str = ""
    """Of ``StrategySpec.recipe`` at the fit: what was fitted, apart from the data."""
    hyperparameters: dict[str, JsonValue] = Field(default_factory=dict)
    """Of the fitted estimator, every one, by scikit-learn's names."""
    fold_parameters: dict[str, JsonValue] = Field(default_factory=dict)
    """How sessions were cut into folds: scheme, folds, embargo_sessions."""
    instruments: tuple[str, ...] = ()
    """Symbols with rows in the training data."""
    lineage: DataLineage | None = None
    """The sessions it was trained on, with the digests of their bars."""
    train_through: str = ""
    """Date of the last session it was trained on, ``YYYY-MM-DD``."""
    buy_threshold: float
    """Enter long at or above; an out-of-fold quantile of the score."""
    sell_threshold: float
    """Enter short at or below; an out-of-fold quantile of the score."""
    folds: tuple[FoldResult, ...]
    metrics: dict[str, FiniteFloat]
    """Over all out-of-fold rows, of the account's trades in these sessions, and of what was looked at for leaks."""
    gate: GateResult
    """For the rung ``champion``."""
    live_gate: GateResult | None = None
    """For the rung ``live``; None in versions older than this field."""
    feature_distributions: tuple[FeatureDistribution, ...]
    artifact_sha256: dict[str, str]
    """SHA-256 by file name: ``model.skops``, ``flat.npz``, ``golden.npz``."""
    git_commit: str
    """Of the code that fitted it, as ``library_versions``."""
    library_versions: dict[str, str]
    fitted_at_ns: int = 0
    """0 in versions older than this field."""
    seed: int
    created_by: str
    """What made it, for example a Dagster run id or a user name."""
    created_at_ns: int
    """When it was registered."""
    run_url: str = Field(default="")
    """Link to the Dagster run, if there is one."""


def unwritable(error: ValidationError, model_name: str) -> UnwritableSidecar:
    """Say in one sentence which fields keep a sidecar from being written."""
    wrong = ", ".join(".".join(str(part) for part in one["loc"]) for one in error.errors())
    return UnwritableSidecar(
        f"{model_name} is not registered, nothing of it was written: no finite number, or not of its kind: {wrong}. "
        "Give more sessions or fewer folds, and train again"
    )


def sidecar_bytes(sidecar: Sidecar) -> bytes:
    """Write a sidecar as the JSON that is registered, and read it back before anyone stands on it.

    Raises
    ------
    UnwritableSidecar
        If it would read back as something else: a number that is none has no place in JSON.
    """
    value = sidecar.model_dump_json(indent=2).encode()
    try:
        Sidecar.model_validate_json(value)
    except ValidationError as error:
        raise unwritable(error, sidecar.model_name) from error
    return value
