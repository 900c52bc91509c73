"""What travels with every version: the sidecar, readable without loading the model."""

from __future__ import annotations

import json
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, JsonValue, ValidationError

from models_registry.refs import FeatureColumn, FeatureDistribution, FoldResult, GateResult
from models_registry.refusals import FLAT_FILE, GOLDEN_FILE, sha256_of
from models_registry.specification import Estimator

_DECIDES: Final = {
    "model_name", "algorithm", "bar_clock", "feature_schema_hash", "label_horizon_bars", "label_identity",
    "recipe_digest", "buy_threshold", "sell_threshold", "training_end_ns",
}  # fmt: skip
"""Fields that a live process acts upon."""


class UnwritableSidecar(ValueError):
    """A version whose sidecar could not be read back; nothing of it was registered."""


class DataLineage(BaseModel):
    """Which data a model was trained on: a market is its instruments and these sessions, never the name of a file."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    generated: bool
    """Whether it is a SYNTHETIC market."""
    sessions: dict[str, str]
    """SHA-256 of each session's bars, by date (``YYYY-MM-DD``)."""
    manifests: dict[str, str] = Field(default_factory=dict)
    """SHA-256 of what the store said of each file of bars that was read, by date; the sessions of history before them
    are among them. Empty in versions older than this field."""
    membership_digest: str = ""
    """Of the table of members; empty if every tradable instrument was trained on."""
    actions_digest: str = ""
    """Of the corporate actions that features lived through."""


class ThresholdOrigin(BaseModel):
    """What the thresholds of the fitted model were taken from."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    fold: int
    """The fold whose model scored these rows."""
    first_session: str
    last_session: str
    rows: int
    buy_quantile: FiniteFloat
    sell_quantile: FiniteFloat | None
    """Quantiles of the lean, the distance of a score from the base rate in log-odds; of a model that judges proposals
    the first is where it accepts, and there is no second."""
    scale: FiniteFloat
    """How far the fitted model leans on the same rows, compared with that one; its quantiles are multiplied by it."""


class FitFacts(BaseModel):
    """What made a model, taken when it was fitted."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    git_commit: str
    library_versions: dict[str, str]
    fitted_at_ns: int
    run_id: str = ""
    """The Dagster run that fitted it, if one did."""


class Sidecar(BaseModel):
    """What a version carries, readable without loading the model (``sidecar.json``)."""

    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())

    schema_version: int = Field(default=2, ge=1)
    """2 since specification, label identity, folds' parameters, instruments and lineage are in it; a later one may add
    fields, which this code passes over. A field that version 1 lacks has a default here."""
    model_name: str
    algorithm: Estimator
    market: str
    """Name of the market; starts with ``SYNTHETIC`` when it was generated."""
    market_details: dict[str, JsonValue] = Field(default_factory=dict)
    """Where its data came from, as the store says it: files and their digests, or the parameters of its generation."""
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
    label_identity: dict[str, str | int | float] = Field(default_factory=dict)
    """Everything that decides what a row's label is; empty in version 1."""
    proposals: dict[str, JsonValue] = Field(default_factory=dict)
    """Identity of the rule whose proposals it judges, with its parameters; empty of a model that says the side."""
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
    """Enter long at or above; an out-of-fold quantile of the score. A model that judges proposals accepts them here."""
    sell_threshold: float | None
    """Enter short at or below; an out-of-fold quantile of the score. None of a model that judges proposals."""
    thresholds_from: ThresholdOrigin | None = None
    """None in versions older than this field."""
    folds: tuple[FoldResult, ...]
    metrics: dict[str, FiniteFloat]
    """Over all out-of-fold rows, of the account's trades in these sessions, and of what was looked at for leaks."""
    gate: GateResult
    """For the rung ``champion``."""
    live_gate: GateResult | None = None
    """For the rung ``live``; None in versions older than this field."""
    feature_distributions: tuple[FeatureDistribution, ...]
    artifact_sha256: dict[str, str]
    """SHA-256 by file name: ``model.skops``, ``flat.npz``, ``golden.npz``, and ``out_of_fold.npz`` if it is kept."""
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
    run_id: str = ""
    """The Dagster run that fitted it; empty if none did, and in versions older than this field."""

    @property
    def identity(self) -> str:
        """SHA-256 of what live reads: equal data, code and seed give an equal one.

        It covers the flat arrays, the golden rows, and the fields that decide what the arrays are asked and what their
        scores do. ``model.skops`` is for people, and other bytes each time.
        """
        read = {name: self.artifact_sha256.get(name, "") for name in (FLAT_FILE, GOLDEN_FILE)}
        decides = self.model_dump(mode="json", include=_DECIDES) | {"artifact_sha256": read}
        if self.proposals:
            decides["proposals"] = self.proposals
        return sha256_of(json.dumps(decides, sort_keys=True).encode())


def unwritable(error: ValidationError, model_name: str) -> UnwritableSidecar:
    """Say in one sentence which fields keep a sidecar from being written."""
    return _refused(model_name, [".".join(str(part) for part in one["loc"]) for one in error.errors()])


def _refused(model_name: str, wrong: list[str]) -> UnwritableSidecar:
    return UnwritableSidecar(
        f"{model_name} is not registered, nothing of it was written: no finite number, or not of its kind: "
        f"{', '.join(wrong)}. Give more sessions or fewer folds, and train again"
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
        back = Sidecar.model_validate_json(value)
    except ValidationError as error:
        raise unwritable(error, sidecar.model_name) from error
    if back != sidecar:  # a number that is none, where null may stand
        wrong = [name for name in Sidecar.model_fields if getattr(back, name) != getattr(sidecar, name)]
        raise _refused(sidecar.model_name, wrong)
    return value
