"""What a person reads while something is not there yet: the jobs of the desk's own strategies, and who waits."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from feature_store.market.types import Session, Universe
from feature_store.offline.store import OfflineStore
from live_services.adapters.readiness import can_trade, missing
from live_services.settings import Settings, endpoints_file
from models_registry import registry as registry_module
from models_registry.ledger import PromotionLedger
from models_registry.registry import RegistryUnavailable, VersionInfo
from tests.live_world import SESSION, UNIVERSE, bars
from tests.models_registry_fakes import stand

TWO = [{"name": "momentum"}, {"name": "fade", "holding_bars": 5}]


class Verdicts:
    """What a registry answers: the verdicts of a model's versions, oldest first."""

    def __init__(self) -> None:
        self.verdicts: dict[str, list[str]] = {}

    def versions(self, name: str) -> tuple[VersionInfo, ...]:
        judged = enumerate(self.verdicts.get(name, []), start=1)
        return tuple(
            VersionInfo(name, str(n), (), {"gate.champion": verdict}, 0, "", "") for n, verdict in reversed([*judged])
        )


@pytest.fixture
def registry(monkeypatch):
    answers = Verdicts()
    monkeypatch.setattr(registry_module, "Registry", lambda _uri: answers)
    return answers


def settings(tmp_path, strategies, *, market=True, brokers=("paper",)):
    made = Settings(
        alpha_panda_home=tmp_path,
        strategies=strategies,
        active_brokers=brokers,
        trading={"zerodha": {"enabled": True}},
        mlflow={"tracking_uri": "http://127.0.0.1:9"},
        dagster={"url": "http://127.0.0.1:3000"},
    )
    if market:
        keep(made, SESSION, UNIVERSE)
    return made


def promote(home: Path, ref: str, version: str = "1") -> None:
    name, _, alias = ref.partition("@")
    stand(PromotionLedger(f"sqlite:///{home}/ledger.sqlite"), name, alias, version)


def keep(made: Settings, session: Session, universe: Universe) -> None:
    OfflineStore(made.store_root).write_bars(session, universe, bars((0, 0, 100.0, 101.0)), "SYNTHETIC")


def test_without_a_market_every_job_of_the_desk_is_named(tmp_path, registry):
    one, two = (missing(settings(tmp_path, strategies, market=False)) for strategies in (TWO[1:], TWO))
    assert one is not None
    assert "launch the job train_fade at http://127.0.0.1:3000" in one
    assert two is not None
    assert "launch the jobs train_momentum and train_fade, one after the other, at" in two


def test_without_any_model_the_replay_waits(tmp_path, registry):
    said = missing(settings(tmp_path, TWO))
    assert said is not None
    assert "nothing is traded by momentum, fade and the replay waits:" in said
    assert f"--home {tmp_path} models promote NAME VERSION" in said
    assert not can_trade(settings(tmp_path, TWO))


def test_the_replay_waits_for_a_second_strategy_that_was_never_trained(tmp_path, registry):
    promote(tmp_path, "momentum@champion")
    assert not can_trade(settings(tmp_path, TWO))
    said = missing(settings(tmp_path, TWO))
    assert said is not None
    assert "nothing is traded by fade and the replay waits for fade: launch the job train_fade at" in said
    assert "take what is not to trade out of [[strategies]]" in said


def test_a_registry_that_is_away_holds_up_no_strategy_that_has_its_model(tmp_path, registry, monkeypatch):
    def away(_name: str) -> tuple[VersionInfo, ...]:
        raise RegistryUnavailable("no MLflow answers")

    monkeypatch.setattr(registry, "versions", away)
    assert not can_trade(settings(tmp_path, TWO))
    promote(tmp_path, "momentum@champion")
    assert can_trade(settings(tmp_path, TWO))
    said = missing(settings(tmp_path, TWO))
    assert said is not None
    assert "nothing is traded by fade: launch the job train_fade at" in said


def test_the_replay_waits_while_a_version_that_passed_is_promoted(tmp_path, registry):
    promote(tmp_path, "momentum@champion")
    registry.verdicts["fade"] = ["failed", "passed"]
    assert not can_trade(settings(tmp_path, TWO))
    promote(tmp_path, "fade@champion", "2")
    assert can_trade(settings(tmp_path, TWO))
    assert missing(settings(tmp_path, TWO)) is None


def test_a_strategy_whose_newest_version_was_refused_holds_nobody_up(tmp_path, registry):
    registry.verdicts["fade"] = ["passed", "failed"]
    promote(tmp_path, "momentum@champion")
    assert can_trade(settings(tmp_path, TWO))
    said = missing(settings(tmp_path, TWO))
    assert said is not None
    assert "nothing is traded by fade: launch the job train_fade" in said
    registry.verdicts["momentum"] = ["failed"]
    assert not can_trade(settings(tmp_path / "another", TWO))


def test_an_alias_that_was_moved_by_hand_starts_and_stops_no_replay(tmp_path, registry):
    registry.verdicts["momentum"] = ["passed"]
    registry.resolve = lambda ref: "1"  # what runners refuse, because the ledger knows nothing of it
    assert not can_trade(settings(tmp_path, TWO[:1]))
    promote(tmp_path, "momentum@champion")
    registry.resolve = lambda ref: None  # what stands goes on
    assert can_trade(settings(tmp_path, TWO[:1]))


BOTH = [{"name": "momentum", "brokers": ["paper", "zerodha"]}]


def test_each_broker_that_runs_asks_its_own_rung_and_nobody_waits_for_a_challenger(tmp_path, registry):
    promote(tmp_path, "momentum@champion")
    paper = settings(tmp_path, BOTH)
    assert can_trade(paper)
    assert missing(paper) is None
    only_live = settings(tmp_path, BOTH, brokers=("zerodha",))
    registry.verdicts["momentum"] = ["passed"]
    assert not can_trade(only_live)
    said = missing(only_live)
    assert said is not None
    assert "no version stands behind momentum@live yet, so nothing is traded by momentum and the replay waits" in said
    assert "models promote NAME VERSION --alias live`" in said
    promote(tmp_path, "momentum@live")
    assert can_trade(only_live)


def test_a_strategy_that_no_person_let_live_does_not_hold_up_its_paper_account(tmp_path, registry):
    promote(tmp_path, "momentum@champion")
    registry.verdicts["momentum"] = ["passed"]
    both = settings(tmp_path, BOTH, brokers=("paper", "zerodha"))
    assert can_trade(both)
    said = missing(both)
    assert said is not None
    assert "no version stands behind momentum@live yet, so nothing is traded by momentum" in said
    assert "and the replay waits" not in said


def test_strategies_of_brokers_that_do_not_run_are_not_waited_for_and_none_at_all_is_said(tmp_path, registry):
    promote(tmp_path, "momentum@champion")
    elsewhere = {"name": "fade", "brokers": ["zerodha"]}
    assert can_trade(settings(tmp_path, [{"name": "momentum"}, elsewhere]))
    said = missing(settings(tmp_path, [elsewhere]))
    assert said is not None
    assert said.startswith("no strategy speaks to an account that runs")
    assert not can_trade(settings(tmp_path, [elsewhere]))


def test_a_settings_file_that_was_changed_while_the_stack_runs_needs_a_restart(tmp_path, registry, monkeypatch):
    for ref in ("momentum@champion", "fade@champion"):
        promote(tmp_path, ref)
    configuration, endpoints = tmp_path / "desk.toml", endpoints_file(tmp_path)
    endpoints.parent.mkdir()
    made = settings(tmp_path, TWO)
    monkeypatch.setenv("ALPHA_PANDA_CONFIG", str(configuration))
    for file, written_at in ((configuration, 1), (endpoints, 2)):
        file.touch()
        os.utime(file, (written_at, written_at))
    assert missing(made) is None
    os.utime(configuration, (3, 3))
    said = missing(made)
    assert said is not None
    assert "was changed after this stack started" in said
    assert f"--home {tmp_path} down` and" in said
