"""What the assets of a model are called: every one begins with the model's name, and the group is the name itself."""

from __future__ import annotations

from dataclasses import dataclass

import dagster as dg


@dataclass(frozen=True)
class ModelKeys:
    """The keys of one model's assets."""

    model: str
    """Name in the registry."""

    @property
    def training_set(self) -> dg.AssetKey:
        """What it is fitted on."""
        return self._key("training_set")

    @property
    def recipe(self) -> dg.AssetKey:
        """How it is fitted: the specification with the hyperparameters that were searched."""
        return self._key("recipe")

    @property
    def fitted(self) -> dg.AssetKey:
        """The fitted model on its way to the registry."""
        return self._key("model")

    @property
    def report(self) -> dg.AssetKey:
        """What it was worth out of sample."""
        return self._key("report")

    @property
    def paths(self) -> dg.AssetKey:
        """How far its skill hangs on the sessions that it was trained on."""
        return self._key("paths")

    @property
    def trades(self) -> dg.AssetKey:
        """What the account would have traded by it in sessions that it had not seen."""
        return self._key("trades")

    @property
    def version(self) -> dg.AssetKey:
        """The version in the registry."""
        return self._key("version")

    @property
    def champion(self) -> dg.AssetKey:
        """The version that the alias champion names."""
        return self._key("champion")

    def _key(self, stage: str) -> dg.AssetKey:
        return dg.AssetKey(f"{self.model}_{stage}")
