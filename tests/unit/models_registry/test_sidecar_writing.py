from __future__ import annotations

import dataclasses
import math

import pytest

from models_registry.gates.verdicts import judge
from models_registry.packing import Packed, pack
from models_registry.refs import FoldResult
from models_registry.sidecar import FitFacts, Sidecar, UnwritableSidecar, sidecar_bytes
from models_registry.specification import StrategySpec
from models_registry.training import TrainedModel, train
from models_registry.version import build_sidecar
from tests.models_registry_fakes import InMemoryRegistry
from tests.models_registry_frames import FIT, LIMITS, TRADES, evidence, frame, gate, packed, sidecar, spec, trained


def built(model: TrainedModel, files: Packed | None = None) -> Sidecar:
    looked_at = evidence()
    return build_sidecar(
        model,
        frame(),
        files or packed(),
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
    assert written.run_id == FIT.run_id
    assert written.market_details == {"instruments": 4, "sessions": 12}
    assert written.lineage.membership_digest == "m" * 64
    assert written.lineage.actions_digest == "a" * 64
    assert set(written.lineage.manifests) == set(written.lineage.sessions)


def test_a_sidecar_says_what_its_thresholds_were_taken_from() -> None:
    origin, last = sidecar().thresholds_from, trained().folds[-1]
    assert origin is not None
    assert (origin.fold, origin.rows) == (last.fold, last.rows)
    assert (origin.first_session, origin.last_session) == ("2026-01-15", "2026-01-16")
    assert (origin.buy_quantile, origin.sell_quantile) == (spec().buy_quantile, spec().sell_quantile)
    assert origin.scale > 0


def test_equal_data_code_and_seed_give_an_equal_identity() -> None:
    def version(seed: int = 1, fit: FitFacts = FIT) -> Sidecar:
        model = train(frame(), spec("logistic_regression", seed=seed), fit)
        return built(model, pack(model.estimator, model.golden_rows))

    first, again = version(), version(fit=FIT.model_copy(update={"run_id": "another", "fitted_at_ns": 2}))
    assert first.identity == again.identity
    assert version(seed=2).identity != first.identity


def test_an_identity_is_of_what_live_reads_and_of_nothing_else() -> None:
    written = sidecar()
    for_people = {"artifact_sha256": written.artifact_sha256 | {"model.skops": "0" * 64}, "created_by": "another"}
    assert written.model_copy(update=for_people).identity == written.identity
    for name, value in (("buy_threshold", 0.99), ("feature_schema_hash", "0" * 64), ("label_identity", {})):
        assert written.model_copy(update={name: value}).identity != written.identity
    for file in ("flat.npz", "golden.npz"):
        changed = written.artifact_sha256 | {file: "0" * 64}
        assert written.model_copy(update={"artifact_sha256": changed}).identity != written.identity


def test_a_hyperparameter_that_json_cannot_hold_is_refused_by_name() -> None:
    spoilt = sidecar().model_copy(update={"hyperparameters": {"C": math.inf}})
    with pytest.raises(UnwritableSidecar, match=r"momentum is not registered.*hyperparameters"):
        sidecar_bytes(spoilt)


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
