"""What is not registered: a candidate beside evidence of another one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import pytest

from dagster_project.assets.models import model_assets
from dagster_project.candidates import Candidate
from dagster_project.model_keys import ModelKeys
from dagster_project.resources import LedgerResource, MlflowResource, OfflineStoreResource
from live_services.settings import Settings
from models_registry.packing import parity
from tests.models_registry_frames import TRADES, packed, spec, trained

KEYS = ModelKeys("momentum")


class Kept(dg.IOManager):
    """Has what was materialised before."""

    def __init__(self, values: Mapping[dg.AssetKey, object]) -> None:
        self.values = values

    def handle_output(self, context: dg.OutputContext, obj: object) -> None:
        raise NotImplementedError

    def load_input(self, context: dg.InputContext) -> object:
        return self.values[context.asset_key]


def refusal(home: Path, trades_of: Candidate, candidate: Candidate) -> str:
    """Materialise the version alone, of a candidate, with the trades of another."""
    kept = Kept(
        {
            KEYS.fitted: candidate,
            KEYS.training_set: SimpleNamespace(digest=candidate.trained.data_digest),
            KEYS.trades: dataclasses.replace(TRADES, candidate_sha256=trades_of.sha256),
        }
    )
    result = dg.materialize(
        model_assets(spec()),
        selection=[KEYS.version],
        resources={
            "settings": Settings(alpha_panda_home=home),
            "mlflow": MlflowResource(tracking_uri=""),
            "ledger": LedgerResource(f"sqlite:///{home}/ledger.sqlite"),
            "offline": OfflineStoreResource(root=str(home)),
            "recipes": kept,
            "candidates": kept,
            "training_frames": kept,
            "trades": kept,
        },
        raise_on_error=False,
    )
    (failure,) = [event for event in result.all_events if event.event_type_value == "STEP_FAILURE"]
    return str(failure.step_failure_data.user_failure_data.description)


def candidate(**changes: object) -> Candidate:
    model = trained()
    first, *others = model.fold_models
    folds = (dataclasses.replace(first, **changes), *others)
    agreement = parity(packed(), model.estimator, model.golden_rows)
    return Candidate(dataclasses.replace(model, fold_models=folds), packed(), agreement, "SYNTHETIC test")


@pytest.mark.parametrize("changes", [{"arrays": b"of another seed"}, {"buy_threshold": 0.9}, {"sessions": ()}])
def test_a_candidate_is_not_judged_by_the_trades_of_another(tmp_path: Path, changes: dict[str, object]) -> None:
    said = refusal(tmp_path, trades_of=candidate(**changes), candidate=candidate())
    assert said == (
        "The trades are of another model than the one that was trained last: materialise momentum_trades again."
    )


def test_with_its_own_trades_a_candidate_goes_on_to_the_registry(tmp_path: Path) -> None:
    assert refusal(tmp_path, trades_of=candidate(), candidate=candidate()).startswith("No MLflow server is set")
