"""What `audit` says of a strategy of the settings, and what it says is missing."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from feature_store.market.types import Session
from feature_store.offline.store import OfflineStore
from live_services.cli import audit as cli_audit
from live_services.cli.main import app
from live_services.settings import load_settings
from models_registry.sample import sample_version
from models_registry.sidecar import Sidecar
from models_registry.specification import StrategySpec
from tests.live_world import UNIVERSE, session_bars
from tests.models_registry_fakes import InMemoryRegistry

PLAIN = StrategySpec(name="plain", features=("last_return", "momentum"))
DATES = (dt.date(2026, 1, 5), dt.date(2026, 1, 6))


class Registry(InMemoryRegistry):
    def out_of_fold(self, _name: str, _version: str) -> bytes | None:
        return None


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ALPHA_PANDA_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("ALPHA_PANDA_CONFIG", raising=False)
    (tmp_path / "alpha-panda.toml").write_text(
        '[[strategies]]\nname = "plain"\nfeatures = ["last_return", "momentum"]\n', encoding="utf-8"
    )
    kept = Registry()
    monkeypatch.setattr(cli_audit, "build_registry", lambda settings: kept)
    return kept


def bring_a_market() -> None:
    store = OfflineStore(load_settings().store_root)
    for date in DATES:
        session = Session.regular(date)
        store.write_bars(session, UNIVERSE, session_bars(session, len(UNIVERSE), 60, 5), "SYNTHETIC test")


def register(registry: Registry, **changes: object) -> Sidecar:
    packed, sidecar = sample_version(PLAIN, created_by="a test", created_at_ns=1)
    registry.register(packed, changed := sidecar.model_copy(update=changes))
    return changed


def ran(*words: str, code: int) -> str:
    result = CliRunner().invoke(app, ["audit", *words])
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())


def test_a_clean_strategy_ends_with_zero_and_says_what_was_compared(registry: Registry) -> None:
    bring_a_market()
    register(registry)
    found = json.loads(ran("plain", "--sessions", "1", "--json", code=0))
    assert (found["verdict"], found["strategy"], found["version"]) == ("clean", "plain", "1")
    assert found["sessions"] == ["2026-01-06"]
    assert found["counts"]["fills"] > 0
    assert all(found["compared"].values())
    text = ran("plain", "--sessions", "1", "--training", code=0)
    assert "names no session that it was trained on: it is not trained again" in text
    assert "nothing that was looked at knew the future" in text
    assert "future perturbation" in text


def test_a_version_whose_training_says_two_things_ends_with_one_and_names_the_kind(registry: Registry) -> None:
    bring_a_market()
    register(registry, fitted_at_ns=1, training_end_ns=Session.regular(DATES[1]).open_ns)
    text = ran("plain", "--sessions", "1", code=1)
    assert "it leaks" in text
    assert "training end later than stated" in text


def test_what_is_missing_is_said_with_the_way_to_it(registry: Registry) -> None:
    assert "no market is stored in" in ran("plain", code=1)
    bring_a_market()
    assert "the registry has no version of 'plain': make one with" in ran("plain", code=1)
    assert "no strategy is named 'plaim'; did you mean 'plain'?" in ran("plaim", code=1)
