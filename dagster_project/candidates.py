"""A trained model and its trades on their way to the registry, as plain files between assets: none is pickled."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel

from dagster_project.stored_by_run import StoredByRun
from models_registry.refs import FeatureDistribution, FoldResult
from models_registry.refusals import FLAT_FILE, sha256_of
from models_registry.sidecar import DataLineage, FitFacts, ThresholdOrigin
from models_registry.specification import StrategySpec

if TYPE_CHECKING:
    from models_registry.gates.evidence import TradeEvidence
    from models_registry.packing import Packed, Parity
    from models_registry.training import TrainedModel

_DOCUMENTS: Final[dict[str, type[BaseModel]]] = {
    "spec": StrategySpec,
    "lineage": DataLineage,
    "fitted": FitFacts,
    "thresholds_from": ThresholdOrigin,
}
_LISTS: Final[dict[str, type[BaseModel]]] = {"folds": FoldResult, "feature_distributions": FeatureDistribution}
_ARRAYS: Final = ("estimator", "oof", "golden_rows", "fold_models")


@dataclass(frozen=True, eq=False)
class Candidate:
    """What training hands to the report and to the registration."""

    trained: TrainedModel
    """Read back from disk its ``estimator`` is None: the fitted model is in ``packed``."""
    packed: Packed
    parity: Parity
    market: str
    """Starts with ``SYNTHETIC`` when it was generated."""

    @property
    def sha256(self) -> str:
        """Of what it trades by: the fitted model, and the model, thresholds and sessions of each fold."""
        folds = [
            [model.number, sha256_of(model.arrays), model.buy_threshold, model.sell_threshold, model.sessions]
            for model in self.trained.fold_models
        ]
        return sha256_of(json.dumps([self.packed.sha256[FLAT_FILE], folds]).encode())


class CandidateStore(StoredByRun):
    """Keeps candidates, each in a folder."""

    def write(self, path: Path, value: Candidate) -> None:
        """Write a candidate's files."""
        write_candidate(path, value)

    def read(self, path: Path) -> Candidate:
        """Read a candidate."""
        return read_candidate(path)


class TradeStore(StoredByRun):
    """Keeps the trades of models, each in a JSON file."""

    extension = ".json"

    def write(self, path: Path, value: TradeEvidence) -> None:
        """Write trades."""
        path.write_text(json.dumps(asdict(value), indent=1), encoding="utf-8")

    def read(self, path: Path) -> TradeEvidence:
        """Read trades."""
        from models_registry.gates.evidence import FoldTrades, TradeEvidence

        plain: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        by_fold = {int(number): FoldTrades(**fold) for number, fold in plain["by_fold"].items()}
        return TradeEvidence(**plain | {"by_fold": by_fold})


def write_candidate(directory: Path, candidate: Candidate) -> None:
    """Write a candidate's files: its packed model, each fold's flat model, ``candidate.json`` and ``arrays.npz``."""
    import numpy as np

    directory.mkdir(parents=True)
    trained = candidate.trained
    for name, content in candidate.packed.files.items():
        (directory / name).write_bytes(content)
    for model in trained.fold_models:
        _fold_path(directory, model.number).write_bytes(model.arrays)
    plain = {f.name: getattr(trained, f.name) for f in fields(trained) if f.name not in _ARRAYS}
    plain |= {name: plain[name].model_dump() for name in _DOCUMENTS}
    plain |= {name: [one.model_dump() for one in plain[name]] for name in _LISTS}
    document = {
        "market": candidate.market,
        "trained": plain,
        "fold_models": [asdict(model) | {"arrays": ""} for model in trained.fold_models],
        "packed": candidate.packed.sha256,
        "parity": asdict(candidate.parity),
    }
    (directory / "candidate.json").write_text(json.dumps(document, indent=1), encoding="utf-8")
    oof = {f.name: getattr(trained.oof, f.name) for f in fields(trained.oof)}
    with (directory / "arrays.npz").open("wb") as file:
        np.savez(file, golden_rows=trained.golden_rows, **oof)


def read_candidate(directory: Path) -> Candidate:
    """Read a candidate that ``write_candidate`` wrote; its estimator is None."""
    import numpy as np

    from models_registry.packing import Packed, Parity
    from models_registry.training import FoldModel, OutOfFold, TrainedModel

    document: dict[str, Any] = json.loads((directory / "candidate.json").read_text(encoding="utf-8"))
    with np.load(directory / "arrays.npz", allow_pickle=False) as arrays:
        golden_rows = arrays["golden_rows"]
        oof = OutOfFold(**{f.name: arrays[f.name] for f in fields(OutOfFold)})
    plain = document["trained"]
    plain |= {name: kind.model_validate(plain[name]) for name, kind in _DOCUMENTS.items()}
    plain |= {name: tuple(kind.model_validate(one) for one in plain[name]) for name, kind in _LISTS.items()}
    plain["instruments"] = tuple(plain["instruments"])
    fold_models = tuple(
        FoldModel(
            **model
            | {"arrays": _fold_path(directory, model["number"]).read_bytes(), "sessions": tuple(model["sessions"])}
        )
        for model in document["fold_models"]
    )
    sha256 = document["packed"]
    return Candidate(
        trained=TrainedModel(estimator=None, oof=oof, golden_rows=golden_rows, fold_models=fold_models, **plain),
        packed=Packed({name: (directory / name).read_bytes() for name in sha256}, sha256),
        parity=Parity(**document["parity"]),
        market=document["market"],
    )


def _fold_path(directory: Path, number: int) -> Path:
    return directory / f"fold_{number}.npz"
