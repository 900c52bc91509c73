"""A recipe on its way from the search to the fit, as a JSON file."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dagster_project.stored_by_run import StoredByRun
from models_registry.specification import StrategySpec

if TYPE_CHECKING:
    from models_registry.search import Try


@dataclass(frozen=True)
class Recipe:
    """What is fitted next, and what was tried on the way to it."""

    spec: StrategySpec
    """With the hyperparameters that the search chose."""
    tries: tuple[Try, ...]
    """Empty where nothing was searched."""
    data_digest: str
    """Of the training set that it was searched on."""


class RecipeStore(StoredByRun):
    """Keeps recipes, each in a JSON file."""

    extension = ".json"

    def write(self, path: Path, value: Recipe) -> None:
        """Write a recipe."""
        plain = {
            "spec": value.spec.model_dump(mode="json"),
            "tries": [asdict(one) for one in value.tries],
            "data_digest": value.data_digest,
        }
        path.write_text(json.dumps(plain, indent=1), encoding="utf-8")

    def read(self, path: Path) -> Recipe:
        """Read a recipe."""
        from models_registry.search import Try

        plain = json.loads(path.read_text(encoding="utf-8"))
        tries = tuple(Try(**one) for one in plain["tries"])
        return Recipe(StrategySpec.model_validate(plain["spec"]), tries, plain["data_digest"])
