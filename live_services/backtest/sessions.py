"""Sessions that a model had not seen: with what a desk would have had there, and a candidate's fold for each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from feature_store.market.types import Bars, Session, Universe
from live_services.domain.strategy.history import SessionHistory
from live_services.domain.strategy.loaded_model import LoadedModel
from models_registry.flat import load_flat
from models_registry.refs import ModelIdentity
from models_registry.specification import StrategySpec

if TYPE_CHECKING:
    from feature_store.features.schema import FeatureSchema
    from models_registry.training import FoldModel, TrainedModel


@dataclass(frozen=True, slots=True, eq=False)
class TestedSession:
    """A session that a model had not seen, with what the desk would have had at its open."""

    __test__ = False  # no test class, whatever pytest makes of its name

    session: Session
    universe: Universe
    bars: Bars
    """On the desk's clock, in order of ``(end_ns, instrument)``; orders fill at the next bar's open."""
    history: SessionHistory
    model: LoadedModel
    """The model that it is run with."""


@dataclass(frozen=True, slots=True, eq=False)
class UnseenFolds:
    """A strategy and the models of its folds, as `live_services.backtest.traded.trade` runs them."""

    spec: StrategySpec
    models: Mapping[str, LoadedModel]
    """By date of the session that the fold had not seen; in order, at least one."""

    @classmethod
    def of(cls, trained: TrainedModel) -> UnseenFolds:
        """Take what was just trained."""
        schema, name = trained.spec.feature_schema(), trained.spec.model_name
        models: dict[str, LoadedModel] = {}
        for fold in trained.fold_models:
            models |= dict.fromkeys(fold.sessions, loaded_fold(fold, schema, name))
        return cls(trained.spec, models)

    @property
    def model(self) -> LoadedModel:
        """One of them."""
        return next(iter(self.models.values()))

    def model_on(self, session: Session, *, in_sample: bool = False) -> LoadedModel:
        """Give the model of the fold that had not seen a session; there is no model that had (`in_sample`).

        Raises
        ------
        KeyError
            If no fold is tested on it.
        """
        del in_sample
        return self.models[session.date.isoformat()]


def loaded_fold(fold: FoldModel, schema: FeatureSchema, model_name: str) -> LoadedModel:
    """Make a model that a strategy can run of a fold's; its version is ``fold-1`` and so on."""
    identity = ModelIdentity(
        model_name=model_name, model_version=f"fold-{fold.number}", feature_schema_hash=schema.hash
    )
    model = load_flat(fold.arrays, fold.algorithm, len(schema.names))
    return LoadedModel(identity, schema, model, fold.buy_threshold, fold.sell_threshold)
