"""Who a model is: references, identities and the sidecar that travels with every version."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from feature_store.market.types import TICK_BARS, VENDOR_BARS

Alias = Literal["challenger", "champion", "live"]
"""The three rungs: shadow, paper, real money."""

GateVerdict = Literal["passed", "failed"]

_REF = re.compile(r"(?P<name>[A-Za-z0-9_.-]+)@(?P<alias>challenger|champion|live)")


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class ModelRef(_Frozen):
    """A model by registry name and alias, written ``momentum@champion``; never a path."""

    name: str
    alias: Alias

    @classmethod
    def parse(cls, text: str) -> ModelRef:
        """Read ``name@alias``.

        Raises
        ------
        ValueError
            If the text is no reference; the message shows the form.
        """
        match = _REF.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is not a model reference; write NAME@challenger, NAME@champion or NAME@live")
        return cls.model_validate(match.groupdict())

    def __str__(self) -> str:
        return f"{self.name}@{self.alias}"


def bars_in_words(bar_source: str) -> str:
    """Say in words where bars came from, for people."""
    words = {TICK_BARS: "bars built from ticks", VENDOR_BARS: "a vendor's bars", "unknown": "bars of unknown source"}
    return " and ".join(words.get(part, f"bars of {part}") for part in bar_source.split(" + "))


class ModelIdentity(_Frozen):
    """What every signal, order and fill is stamped with."""

    model_name: str
    model_version: str
    feature_schema_hash: str


class FeatureColumn(_Frozen):
    """One feature of a schema, as the sidecar records it."""

    name: str
    parameters: dict[str, int | float | str]
    dtype: str
    version: int
    warm_up: int
    """Bars of history after which the value no longer depends on the origin."""


class FeatureDistribution(_Frozen):
    """Quantiles of a feature over the training rows, for drift; ``edges`` has 11 entries (0 %, 10 %, … 100 %)."""

    name: str
    mean: float
    std: float
    edges: tuple[float, ...]


class FoldResult(_Frozen):
    """Out-of-sample result of one fold; times are epoch nanoseconds, ends exclusive."""

    fold: int
    train_start_ns: int
    train_end_ns: int
    test_start_ns: int
    test_end_ns: int
    rows: int
    metrics: dict[str, float]


class GateCheck(_Frozen):
    """One check of a gate, with what it saw and what it asked for."""

    name: str
    passed: bool
    observed: str
    required: str
    blocking: bool = True
    """Whether the gate fails with this check; one that does not block is a warning."""

    @property
    def verdict(self) -> Literal["passed", "failed", "warning"]:
        """``warning``: it did not pass, and does not keep the gate from passing."""
        if self.passed:
            return "passed"
        return "failed" if self.blocking else "warning"


class GateResult(_Frozen):
    """The verdict of a gate for one rung; ``passed`` only if every blocking check passed."""

    rung: Alias
    checks: tuple[GateCheck, ...]
    judged_against: str | None = None
    """The version that held the rung's alias when this was judged; None: no version did."""

    @property
    def passed(self) -> bool:
        """Whether no check failed; a gate without checks has not passed."""
        return bool(self.checks) and all(c.verdict != "failed" for c in self.checks)


class Sidecar(_Frozen):
    """What a version carries, readable without loading the model (``sidecar.json``)."""

    schema_version: Literal[1] = 1
    model_name: str
    algorithm: Literal["hist_gradient_boosting", "logistic_regression"]
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
    buy_threshold: float
    """Enter long at or above; an out-of-fold quantile of the score."""
    sell_threshold: float
    """Enter short at or below; an out-of-fold quantile of the score."""
    folds: tuple[FoldResult, ...]
    metrics: dict[str, float]
    gate: GateResult
    feature_distributions: tuple[FeatureDistribution, ...]
    artifact_sha256: dict[str, str]
    """SHA-256 by file name: ``model.skops``, ``flat.npz``, ``golden.npz``."""
    git_commit: str
    library_versions: dict[str, str]
    seed: int
    created_by: str
    """What made it, for example a Dagster run id or a user name."""
    created_at_ns: int
    run_url: str = Field(default="")
    """Link to the Dagster run, if there is one."""
