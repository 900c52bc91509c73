"""A trained model on its way to the registry, kept between assets as plain files: nothing is pickled."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from models_registry.refs import FeatureDistribution, FoldResult
from models_registry.specification import StrategySpec

if TYPE_CHECKING:
    from models_registry.packing import Packed, Parity
    from models_registry.training import TrainedModel


@dataclass(frozen=True, eq=False)
class Candidate:
    """What training hands to the report and to the registration."""

    specification: StrategySpec
    """Of the strategy, as it was at the fit."""
    trained: TrainedModel
    """Read back from disk its ``estimator`` is None: the fitted model is in ``packed``."""
    packed: Packed
    parity: Parity
    market: str
    """Starts with ``SYNTHETIC`` when it was generated."""


@dataclass(frozen=True)
class CandidateStore(dg.IOManager):
    """Keeps the newest candidate of each model asset in a directory of its own."""

    root: str

    def handle_output(self, context: dg.OutputContext, obj: Candidate) -> None:
        """Write a candidate beside the one before, then put it in its place."""
        target = self._directory(context.asset_key)
        fresh = target.with_name(f".{target.name}.{context.run_id}.writing")
        shutil.rmtree(fresh, ignore_errors=True)
        write_candidate(fresh, obj)
        shutil.rmtree(target, ignore_errors=True)
        fresh.rename(target)

    def load_input(self, context: dg.InputContext) -> Candidate:
        """Read the newest candidate.

        Raises
        ------
        dagster.Failure
            If none was trained yet.
        """
        directory = self._directory(context.asset_key)
        if not directory.is_dir():
            raise dg.Failure(
                f"No candidate of {context.asset_key.to_user_string()} was trained yet: materialise that asset first, "
                "or launch the job that trains it.",
                allow_retries=False,
            )
        return read_candidate(directory)

    def _directory(self, key: dg.AssetKey) -> Path:
        return Path(self.root).joinpath(*key.path)


def write_candidate(directory: Path, candidate: Candidate) -> None:
    """Write a candidate's files: its packed model, ``candidate.json`` and ``arrays.npz``."""
    import numpy as np

    directory.mkdir(parents=True)
    for name, content in candidate.packed.files.items():
        (directory / name).write_bytes(content)
    trained = candidate.trained
    plain = {f.name: getattr(trained, f.name) for f in fields(trained)}
    for name in ("estimator", "oof", "golden_rows"):
        del plain[name]
    plain["folds"] = [fold.model_dump() for fold in trained.folds]
    plain["feature_distributions"] = [item.model_dump() for item in trained.feature_distributions]
    rest = {f.name: getattr(candidate, f.name) for f in fields(candidate)}
    rest |= {
        "specification": candidate.specification.model_dump(mode="json"),
        "trained": plain,
        "packed": candidate.packed.sha256,
        "parity": asdict(candidate.parity),
    }
    (directory / "candidate.json").write_text(json.dumps(rest, indent=1), encoding="utf-8")
    with (directory / "arrays.npz").open("wb") as file:
        np.savez(
            file, golden_rows=trained.golden_rows, **{f.name: getattr(trained.oof, f.name) for f in fields(trained.oof)}
        )


def read_candidate(directory: Path) -> Candidate:
    """Read a candidate that ``write_candidate`` wrote; its estimator is None."""
    import numpy as np

    from models_registry.packing import Packed, Parity
    from models_registry.training import OutOfFold, TrainedModel

    rest: dict[str, Any] = json.loads((directory / "candidate.json").read_text(encoding="utf-8"))
    with np.load(directory / "arrays.npz", allow_pickle=False) as arrays:
        golden_rows = arrays["golden_rows"]
        oof = OutOfFold(**{f.name: arrays[f.name] for f in fields(OutOfFold)})
    plain = rest.pop("trained")
    plain["folds"] = tuple(FoldResult.model_validate(fold) for fold in plain["folds"])
    plain["feature_distributions"] = tuple(
        FeatureDistribution.model_validate(d) for d in plain["feature_distributions"]
    )
    sha256 = rest.pop("packed")
    return Candidate(
        specification=StrategySpec.model_validate(rest.pop("specification")),
        trained=TrainedModel(estimator=None, oof=oof, golden_rows=golden_rows, **plain),
        packed=Packed({name: (directory / name).read_bytes() for name in sha256}, sha256),
        parity=Parity(**rest.pop("parity")),
        **rest,
    )
