"""Each strategy's model is put to the runner's questions; what is missing or refused is said with the way out."""

import pytest

from feature_store.features.schema import feature_schema
from live_services.preflight.models import models_findings, strategy_models
from live_services.settings import load_settings
from models_registry.ledger import PromotionLedger
from models_registry.promotion import promote
from models_registry.registry import RegistryUnavailable
from models_registry.sidecar import FeatureColumn
from tests.models_registry_fakes import InMemoryRegistry, stand
from tests.models_registry_frames import packed, sidecar


@pytest.fixture
def desk(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ALPHA_PANDA_HOME", str(tmp_path))
    monkeypatch.delenv("ALPHA_PANDA_CONFIG", raising=False)
    registry = InMemoryRegistry()
    registry.register(packed(), sidecar())
    return (
        load_settings(strategies=[{"name": "momentum"}]),
        registry,
        PromotionLedger(f"sqlite:///{tmp_path}/ledger.sqlite"),
    )


def only(found):
    (finding,) = found
    assert (finding.check, finding.strategy) == ("model momentum@champion", "momentum")
    assert (finding.status, finding.policy) == ("failed", "production")
    return finding


def promoted(registry, ledger):
    words = {"promoted_by": "asha", "reason": "a test", "override": "a test", "now_ns": 1}
    promote(registry, ledger, "momentum", "1", "champion", announce=lambda record: None, **words)


def test_without_a_registry_models_are_asked_when_there_is_one(desk):
    assert [f.status for f in models_findings(desk[0])] == ["not started"]


def test_a_missing_model_is_named_with_the_job_that_trains_it(desk):
    finding = only(strategy_models(*desk))
    assert "no version stands behind momentum@champion" in finding.reason
    assert "Launch train_momentum" in finding.way_out
    assert "models promote momentum VERSION" in finding.way_out


def test_a_version_whose_features_this_code_does_not_have_is_refused_with_their_names(desk):
    promoted(*desk[1:])
    assert "needs features that this code does not have: " in only(strategy_models(*desk)).reason


def test_an_alias_past_the_ledger_is_refused(desk):
    stand(desk[2], "momentum", "champion", "1")
    reason = only(strategy_models(*desk)).reason
    assert "momentum@champion names no version, and the ledger promoted version 1" in reason


def test_files_that_were_changed_are_refused(desk):
    _, registry, ledger = desk
    promoted(registry, ledger)
    registry.files["momentum", "1"]["flat.npz"] += b"more"
    assert "flat.npz" in only(strategy_models(*desk)).reason


def test_a_registry_that_is_away_is_not_a_missing_model(desk):
    settings, _, ledger = desk

    class Away(InMemoryRegistry):
        def resolve(self, ref):
            raise RegistryUnavailable("it did not answer")

    assert only(strategy_models(settings, Away(), ledger)).reason == "it could not be asked for: it did not answer"


def test_a_model_is_good_for_the_strategy_that_it_was_trained_for_and_for_no_other(desk, tmp_path):
    names = ["last_return", "momentum", "rsi", "adx"]
    schema = feature_schema(names, 1)
    columns = tuple(FeatureColumn.model_validate(column) for column in schema.columns())
    card = sidecar().model_copy(update={"feature_schema": columns, "feature_schema_hash": schema.hash})
    registry = InMemoryRegistry()
    registry.register(packed(), card)
    ledger = PromotionLedger(f"sqlite:///{tmp_path}/other.sqlite")
    promoted(registry, ledger)
    good = load_settings(strategies=[{"name": "momentum", "features": names}])
    assert [f.reason for f in strategy_models(good, registry, ledger)] == [
        "version 1 of momentum: files, features, label and golden rows are good"
    ]
    longer = load_settings(strategies=[{"name": "momentum", "features": names, "holding_bars": 20}])
    assert (
        "foretells another label than strategy 'momentum' trades"
        in only(strategy_models(longer, registry, ledger)).reason
    )
    assert "trained on other features" in only(strategy_models(desk[0], registry, ledger)).reason
