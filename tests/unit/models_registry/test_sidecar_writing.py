from __future__ import annotations

import dataclasses
import math

import pytest

from models_registry.gates.verdicts import judge
from models_registry.refs import FoldResult
from models_registry.sidecar import Sidecar, UnwritableSidecar, sidecar_bytes
from models_registry.specification import StrategySpec
from models_registry.training import TrainedModel
from models_registry.version import build_sidecar
from tests.models_registry_fakes import InMemoryRegistry
from tests.models_registry_frames import FIT, LIMITS, TRADES, evidence, frame, gate, packed, sidecar, spec, trained


def built(model: TrainedModel) -> Sidecar:
    looked_at = evidence()
    return build_sidecar(
        model,
        frame(),
        packed(),
        looked_at,
        gate=gate(),
        live_gate=judge(looked_at, "live", LIMITS),
        created_by="tests",
        created_at_ns=1,
    )


def test_a_sidecar_says_what_made_the_model_as_it_was_at_the_fit() -> None:
    written = sidecar()
    assert written.schema_version == 2
    assert (written.git_commit, written.library_versions) == (FIT.git_commit, FIT.library_versions)
    assert written.fitted_at_ns == FIT.fitted_at_ns
    assert StrategySpec.model_validate(written.specification) == spec()
    assert written.recipe_digest == spec().recipe_digest()
    assert written.label_identity == spec().label().identity()
    assert written.fold_parameters == {"scheme": "walk_forward", "folds": 4, "embargo_sessions": 0}
    assert written.lineage == trained().lineage
    assert written.train_through == "2026-01-16"
    assert written.instruments == ("SYN001", "SYN002", "SYN003", "SYN004")
    assert written.hyperparameters["max_iter"] == 100


def test_the_figures_of_trades_and_thresholds_are_registered_with_the_others() -> None:
    written = sidecar()
    assert written.metrics["trade_net_expectancy_bps"] == TRADES.net_expectancy_bps
    assert written.metrics["entries_refused"] == 60
    first = trained().fold_models[0]
    assert written.folds[0].metrics["buy_threshold"] == first.buy_threshold
    assert written.folds[0].metrics["trades"] == 240


def test_a_sidecar_reads_back_as_what_was_written() -> None:
    written = sidecar()
    assert Sidecar.model_validate_json(sidecar_bytes(written)) == written


def test_a_metric_that_is_no_number_is_one_sentence_that_names_it() -> None:
    spoilt = dataclasses.replace(trained(), metrics=trained().metrics | {"auc": math.nan})
    with pytest.raises(UnwritableSidecar, match=r"momentum is not registered.*metrics\.auc"):
        built(spoilt)


@pytest.mark.parametrize("field", ["buy_threshold", "sell_threshold"])
def test_a_threshold_that_is_no_number_is_never_registered(field: str) -> None:
    spoilt = built(dataclasses.replace(trained(), **{field: math.nan}))
    registry = InMemoryRegistry()
    with pytest.raises(UnwritableSidecar, match=field):
        registry.register(packed(), spoilt)
    assert registry.names() == ()


def test_a_fold_without_an_auc_is_never_registered() -> None:
    first, *rest = trained().folds
    spoilt = FoldResult.model_construct(**(dict(first) | {"metrics": first.metrics | {"auc": math.nan}}))
    with pytest.raises(UnwritableSidecar, match=r"folds\.0\.metrics\.auc"):
        sidecar_bytes(built(dataclasses.replace(trained(), folds=(spoilt, *rest))))
