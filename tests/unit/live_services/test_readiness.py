"""What a person reads while something is not there yet: the jobs of the desk's own strategies, and who waits."""

from __future__ import annotations

import pytest

from feature_store.market.types import Session, Universe
from feature_store.offline.store import OfflineStore
from live_services.readiness import has_model, missing
from live_services.settings import Settings
from models_registry import registry as registry_module
from models_registry.refs import ModelRef
from tests.live_world import SESSION, UNIVERSE, bars

TWO = [{"name": "momentum"}, {"name": "fade", "holding_bars": 5}]


@pytest.fixture
def versions(monkeypatch):
    """Versions by alias; the registry answers from it."""
    found: dict[str, str] = {}

    def resolve(self: object, ref: ModelRef) -> str | None:
        return found.get(str(ref))

    monkeypatch.setattr(registry_module.Registry, "resolve", resolve)
    return found


def settings(tmp_path, strategies, *, market=True):
    made = Settings(
        alpha_panda_home=tmp_path,
        strategies=strategies,
        mlflow={"tracking_uri": "http://127.0.0.1:9"},
        dagster={"url": "http://127.0.0.1:3000"},
    )
    if market:
        keep(made, SESSION, UNIVERSE)
    return made


def keep(made: Settings, session: Session, universe: Universe) -> None:
    OfflineStore(made.store_root).write_bars(session, universe, bars((0, 0, 100.0, 101.0)), "SYNTHETIC")


def test_without_a_market_every_job_of_the_desk_is_named(tmp_path, versions):
    one, two = (missing(settings(tmp_path, strategies, market=False)) for strategies in (TWO[1:], TWO))
    assert one is not None
    assert "launch the job train_fade at http://127.0.0.1:3000" in one
    assert two is not None
    assert "launch the jobs train_momentum and train_fade, one after the other, at" in two


def test_without_any_model_the_replay_waits(tmp_path, versions):
    said = missing(settings(tmp_path, TWO))
    assert said is not None
    assert "nothing is traded by momentum, fade and the replay waits" in said
    assert not has_model(settings(tmp_path, TWO))


def test_a_strategy_without_a_model_is_named_while_the_others_trade(tmp_path, versions):
    versions["momentum@champion"] = "1"
    said = missing(settings(tmp_path, TWO))
    assert said is not None
    assert "no version stands behind fade@champion yet, so nothing is traded by fade: launch the job train_fade" in said
    assert has_model(settings(tmp_path, TWO))
    versions["fade@champion"] = "1"
    assert missing(settings(tmp_path, TWO)) is None
