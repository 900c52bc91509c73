"""What the gates are told about a candidate, on a small generated market in a store."""

from __future__ import annotations

import dataclasses
import datetime as dt
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dagster_project.evidence import Champion, Ground, champion_comparison, gathered, standing_champion
from dagster_project.recipes import Recipe
from dagster_project.trade_evidence import account_of, trade_evidence
from dagster_project.trials import configuration_of, economics_of, looked_at, record_candidate, record_search
from feature_store.market.corporate_actions import CorporateActions
from feature_store.market.types import MarketDataError, Session
from feature_store.offline.store import OfflineStore
from feature_store.offline.training_frames import TrainingFrame, training_frame
from feature_store.sources.synthetic import synthetic_market
from live_services.adapters.history import StoredHistory
from live_services.backtest.engine import EngineConfig
from live_services.backtest.sessions import UnseenFolds
from live_services.backtest.traded import trade
from live_services.domain.account.charges import ChargeBook
from live_services.domain.account.trades import round_trips
from live_services.domain.money import RUPEE
from live_services.settings import Settings
from models_registry.gates.economics import Look
from models_registry.gates.evidence import NO_CHAMPION, ChampionComparison, Evidence, TradeEvidence
from models_registry.gates.limits import GateLimits
from models_registry.gates.verdicts import judge
from models_registry.ledger import PromotionLedger
from models_registry.packing import Packed, pack, parity
from models_registry.search import Try
from models_registry.specification import StrategySpec
from models_registry.training import TrainedModel, train
from models_registry.trials import HoldoutLook, TrialTable
from models_registry.version import build_sidecar
from tests.models_registry_fakes import InMemoryRegistry, stand
from tests.models_registry_frames import FIT, PLAUSIBLE
from tests.models_registry_frames import packed as any_packed
from tests.models_registry_frames import sidecar as any_sidecar

LIMITS = GateLimits(minimum_test_rows=500)
SPEC = StrategySpec(name="momentum", estimator="logistic_regression", buy_quantile=0.9, sell_quantile=0.1, folds=3)
SHA256 = "c" * 64
WEAKER = ("volatility", "relative_volume", "time_of_day")


@dataclass(frozen=True)
class World:
    settings: Settings
    store: OfflineStore

    def frame(self, spec: StrategySpec, sessions: int | None = None) -> TrainingFrame:
        """Rows of the first sessions, or of all."""
        days = self.store.sessions("bars")[:sessions]
        features, label = spec.feature_schema(), spec.label()
        return training_frame(self.store, None, days[0].date, days[-1].date, features=features, label=label)

    def ground(self, spec: StrategySpec) -> Ground:
        return Ground(self.store, self.frame(spec), None, CorporateActions.none())


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    settings = Settings(alpha_panda_home=tmp_path_factory.mktemp("home"), strategies=(StrategySpec(name="momentum"),))
    store = OfflineStore(settings.store_root)
    made = synthetic_market(instruments=4, sessions=15, edge_bps=12.0, seed=11)
    store.write_universe(made.universe, made.name)
    for session, bars in zip(made.sessions, made.bars, strict=True):
        store.write_bars(session, made.universe, bars, made.name, bar_source="ticks")
    return World(settings, store)


@pytest.fixture(scope="module")
def candidate(world: World) -> TrainedModel:
    return train(world.frame(SPEC), SPEC, FIT)


def champion(world: World, spec: StrategySpec, sessions: int | None = None, **changes: Any) -> Champion:
    """A version trained by another recipe, or on the first sessions only."""
    frame = world.frame(spec, sessions)
    trained = train(frame, spec, FIT)
    packed: Packed = pack(trained.estimator, trained.golden_rows)
    looked_at = Evidence.of(
        trained,
        parity=parity(packed, trained.estimator, frame.X[:100]),
        bar_source="ticks",
        trades_on="ticks",
        champion=NO_CHAMPION,
        trades=None,
        plausibility=PLAUSIBLE,
    )
    sidecar = build_sidecar(
        trained,
        frame,
        packed,
        looked_at,
        gate=judge(looked_at, "champion", LIMITS),
        created_by="tests",
        created_at_ns=1,
    )
    return Champion("3", sidecar.model_copy(update=changes), packed.files)


VERSION_1 = {"specification": {}, "recipe_digest": "", "label_identity": {}, "lineage": None, "train_through": ""}


def compared(world: World, candidate: TrainedModel, holder: Champion | None) -> ChampionComparison:
    return champion_comparison(world.ground(SPEC), candidate, holder, minimum_sessions=5, told=lambda _: None)


# --- trades -------------------------------------------------------------------------------------------------------


def test_every_session_that_a_fold_had_not_seen_is_traded_with_its_model(world: World, candidate: TrainedModel) -> None:
    told: list[str] = []
    found = trade_evidence(world.store, world.settings, candidate, told.append, candidate_sha256=SHA256)
    assert found.sessions == sum(len(fold.sessions) for fold in candidate.fold_models) == 9
    assert found.trades == found.long_trades + found.short_trades > 50
    assert found.trades == sum(fold.trades for fold in found.by_fold.values())
    assert set(found.by_fold) == {1, 2, 3}
    assert found.candidate_sha256 == SHA256
    assert found.entries_proposed == found.trades + sum(found.entries_refused.values())
    assert told[-1] == f"traded 9 of 9 unseen sessions: {found.trades} trades"


def test_the_trades_are_those_that_a_backtest_of_the_folds_shows(world: World, candidate: TrainedModel) -> None:
    found = trade_evidence(world.store, world.settings, candidate, lambda _: None, candidate_sha256=SHA256)
    config = EngineConfig((SPEC,), {"paper": account_of(world.settings)})
    stored = {str(session.date): session for session in world.store.sessions("bars")}
    sessions = [stored[date] for fold in candidate.fold_models for date in fold.sessions]
    folds, history = (UnseenFolds.of(candidate),), StoredHistory(world.settings)
    traded = list(trade(world.store, history, config, folds, sessions, fills="bars", in_sample=False))
    trades = round_trips([event for one in traded for event in one.kept])
    assert found.trades == len(trades)
    assert sum(found.exits.values()) == found.trades
    assert found.net_pnl_by_session == {
        str(one.session.date): one.last.equity_inr - one.equity_at_open_inr for one in traded
    }
    assert [one.equity_at_open_inr for one in traded][1:] == [one.last.equity_inr for one in traded][:-1]
    turned_over = sum(fill.quantity * fill.price_inr_e4 for one in traded for fill in one.fills) / RUPEE
    assert found.turnover_a_session_inr == pytest.approx(turned_over / len(traded))
    assert 0.0 < found.median_participation <= found.high_participation < 1.0


def test_each_session_is_run_by_the_model_of_the_fold_that_had_not_seen_it(candidate: TrainedModel) -> None:
    folds = UnseenFolds.of(candidate)
    for fold in candidate.fold_models:
        for date in fold.sessions:
            run_by = folds.model_on(Session.regular(dt.date.fromisoformat(date)))
            assert run_by.identity.model_version == f"fold-{fold.number}"
            assert (run_by.buy_threshold, run_by.sell_threshold) == (fold.buy_threshold, fold.sell_threshold)
    with pytest.raises(KeyError, match="2020-01-01"):
        folds.model_on(Session.regular(dt.date(2020, 1, 1)))


def test_a_trade_is_charged_as_an_intraday_one_of_its_day(world: World, candidate: TrainedModel) -> None:
    found = trade_evidence(world.store, world.settings, candidate, lambda _: None, candidate_sha256=SHA256)
    notional, book = 1000 * 100 * RUPEE, ChargeBook()
    both_ways = sum(
        book.charges_of_fill(
            side,
            "equity_intraday",
            side,
            quantity=1000,
            price_inr_e4=notional // 1000,
            instrument_token=1,
            date=dt.date(2026, 1, 5),
        ).total_inr_e4
        for side in ("BUY", "SELL")
    )
    costs = found.gross_expectancy_bps - found.net_expectancy_bps
    assert costs == pytest.approx(both_ways / notional * 1e4, rel=0.01)


def test_a_session_that_is_gone_from_the_store_is_named(world: World, candidate: TrainedModel, tmp_path: Path) -> None:
    gone = OfflineStore(tmp_path)
    gone.write_universe(world.store.universe(), "none")
    with pytest.raises(MarketDataError, match="are gone, which momentum was trained on: train again"):
        trade_evidence(gone, world.settings, candidate, lambda _: None, candidate_sha256=SHA256)


def test_neither_trades_nor_a_champion_are_looked_at_on_bars_that_have_changed_since(
    world: World, candidate: TrainedModel
) -> None:
    date = candidate.fold_models[0].sessions[0]
    lineage = candidate.lineage.model_copy(update={"sessions": candidate.lineage.sessions | {date: "f" * 64}})
    before = dataclasses.replace(candidate, lineage=lineage)
    said = f"the bars of {date} have changed since momentum was trained on them: train again"
    with pytest.raises(MarketDataError, match=said):
        trade_evidence(world.store, world.settings, before, lambda _: None, candidate_sha256=SHA256)
    with pytest.raises(MarketDataError, match=said):
        compared(world, before, champion(world, SPEC.model_copy(update={"features": WEAKER})))


# --- trials -------------------------------------------------------------------------------------------------------


@pytest.fixture
def table(tmp_path: Path) -> TrialTable:
    return TrialTable(f"sqlite:///{tmp_path}/ledger.sqlite")


@pytest.fixture(scope="module")
def trades(world: World, candidate: TrainedModel) -> TradeEvidence:
    return trade_evidence(world.store, world.settings, candidate, lambda _: None, candidate_sha256=SHA256)


def test_a_candidate_is_one_trial_however_often_it_is_traded(
    world: World, candidate: TrainedModel, trades: TradeEvidence, table: TrialTable
) -> None:
    for run in ("one", "two"):
        kept = record_candidate(table, candidate, trades, world.settings, run_id=run, at_ns=1)
    (trial,) = table.of("momentum")
    assert (trial.recorded, kept.run_id) == (2, "one")
    assert trial.daily_pnl_inr == trades.net_pnl_by_session
    assert economics_of(table, candidate, trades, world.settings).configurations == 1


@pytest.mark.parametrize(
    "changes", [{"buy_quantile": 0.95}, {"seed": 8}, {"stop_bps": 30.0}, {"notional_per_trade_inr": 50_000.0}], ids=str
)
def test_another_threshold_seed_stop_or_size_is_another_trial(
    world: World, candidate: TrainedModel, trades: TradeEvidence, table: TrialTable, changes: dict[str, Any]
) -> None:
    other = dataclasses.replace(candidate, spec=candidate.spec.model_copy(update=changes))
    record_candidate(table, other, trades, world.settings, run_id="", at_ns=1)
    found = economics_of(table, candidate, trades, world.settings)
    assert (found.configurations, found.compared) == (2, 2)
    assert found.deflated.n_trials == pytest.approx(1.0)  # it made the same profits


def test_a_name_or_a_rank_among_strategies_is_no_other_trial(world: World, candidate: TrainedModel) -> None:
    renamed = candidate.spec.model_copy(update={"name": "other", "priority": 3})
    other = dataclasses.replace(candidate, spec=renamed)
    assert configuration_of(other, world.settings) == configuration_of(candidate, world.settings)


def test_what_a_search_tried_and_did_not_choose_counts_without_profits(
    world: World, candidate: TrainedModel, trades: TradeEvidence, table: TrialTable
) -> None:
    tries = (Try(1, dict(candidate.spec.hyperparameters), 0.69, 1.0), Try(2, {"C": 0.1}, 0.70, 1.0))
    recipe = Recipe(candidate.spec, tries, candidate.data_digest)
    record_search(table, recipe, world.settings, run_id="", at_ns=1)
    record_search(table, recipe, world.settings, run_id="", at_ns=2)
    (trial,) = table.of("momentum")
    assert trial.config["made"]["hyperparameters"] == {"C": 0.1}  # type: ignore[index, call-overload]
    found = economics_of(table, candidate, trades, world.settings)
    assert (found.configurations, found.compared) == (2, 1)


def test_only_looks_at_sessions_after_the_training_count(table: TrialTable) -> None:
    for first, last, what in (("2026-02-02", "2026-02-06", "backtest"), ("2026-02-20", "2026-03-02", "replay")):
        table.look(
            HoldoutLook(model_name="momentum", first_session=first, last_session=last, what=what, by="asha", at_ns=1,
                        config_digest=SHA256)
        )  # fmt: skip
    assert looked_at(table.looks("momentum"), "2026-02-27") == Look(1, {"replay": 1}, "2026-02-27")


# --- the champion -------------------------------------------------------------------------------------------------


def test_without_a_champion_there_is_nothing_to_beat(world: World, candidate: TrainedModel) -> None:
    assert compared(world, candidate, None) == NO_CHAMPION


def test_another_recipe_is_run_in_the_same_folds_on_its_own_features(world: World, candidate: TrainedModel) -> None:
    weaker = champion(world, SPEC.model_copy(update={"features": WEAKER}))
    found = compared(world, candidate, weaker)
    assert found.outcome == "compared"
    assert found.sessions == 9
    assert found.lower_bound > 0.0
    assert found.how == "the recipe of champion v3, run in the same folds"


def test_a_recipe_that_says_the_same_is_not_beaten(world: World, candidate: TrainedModel) -> None:
    found = compared(world, candidate, champion(world, SPEC.model_copy(update={"seed": 8})))
    assert (found.outcome, found.improvement, found.rows) == ("compared", 0.0, len(candidate.oof.score))


def test_a_version_1_champion_scores_only_what_is_later_than_its_training(
    world: World, candidate: TrainedModel
) -> None:
    found = compared(world, candidate, champion(world, SPEC, sessions=9, **VERSION_1))
    assert (found.outcome, found.sessions) == ("compared", 6)
    assert "registered model of champion v3" in found.how


def test_a_version_1_champion_that_knows_nearly_all_sessions_cannot_be_compared(
    world: World, candidate: TrainedModel
) -> None:
    found = compared(world, candidate, champion(world, SPEC, sessions=12, **VERSION_1))
    assert found.outcome == "not_comparable"
    assert "3 sessions of the test are later than its training" in found.how


def test_a_champion_whose_features_are_gone_cannot_be_compared_and_the_reason_is_said(
    world: World, candidate: TrainedModel
) -> None:
    holder = champion(world, SPEC, seed=3)
    features = tuple(column.model_copy(update={"name": "gone"}) for column in holder.sidecar.feature_schema[:1])
    specification = holder.sidecar.specification | {"features": ["gone"]}
    lost = holder.sidecar.model_copy(
        update={"feature_schema": features, "specification": specification, "recipe_digest": "f" * 64}
    )
    found = compared(world, candidate, dataclasses.replace(holder, sidecar=lost))
    assert found.outcome == "not_comparable"
    assert "gone" in found.how


def test_a_damaged_champion_cannot_be_compared_with_and_the_check_says_why(
    world: World, candidate: TrainedModel, tmp_path: Path
) -> None:
    registry, ledger = InMemoryRegistry(), PromotionLedger(f"sqlite:///{tmp_path}/ledger.sqlite")
    stand(ledger, "momentum", "champion", registry.register(any_packed(), any_sidecar()))
    registry.files["momentum", "1"]["flat.npz"] += b"x"
    damaged = standing_champion(registry, ledger, "momentum")
    found = champion_comparison(world.ground(SPEC), candidate, damaged, minimum_sessions=5, told=lambda _: None)
    assert found.outcome == "not_comparable"
    assert found.how.startswith("champion v1 cannot be compared: flat.npz has SHA-256")
    assert "the artifact was changed after training" in found.how


def test_the_champion_is_the_ledgers_whatever_an_alias_says(tmp_path: Path) -> None:
    registry, ledger = InMemoryRegistry(), PromotionLedger(f"sqlite:///{tmp_path}/ledger.sqlite")
    for _ in "12":
        registry.register(any_packed(), any_sidecar())
    registry.set_alias("momentum", "champion", "2")  # by hand
    assert standing_champion(registry, ledger, "momentum") is None
    stand(ledger, "momentum", "champion", "1")
    found = standing_champion(registry, ledger, "momentum")
    assert found is not None
    assert found.version == "1"


# --- all of it ----------------------------------------------------------------------------------------------------


def test_a_model_with_skill_is_judged_by_all_that_was_gathered(
    world: World, candidate: TrainedModel, table: TrialTable
) -> None:
    ground = world.ground(SPEC)
    packed = pack(candidate.estimator, candidate.golden_rows)
    agreement = parity(packed, candidate.estimator, ground.frame.X[:100])
    trades = trade_evidence(world.store, world.settings, candidate, lambda _: None, candidate_sha256=SHA256)
    found = gathered(
        ground,
        world.settings,
        candidate,
        agreement,
        None,
        trades=trades,
        economics=economics_of(table, candidate, trades, world.settings),
        trades_on="ticks",
        told=lambda _: None,
    )
    result = judge(found, "champion", LIMITS)
    assert result.passed
    assert found.plausibility is not None
    assert found.plausibility.auc == pytest.approx(candidate.metrics["auc"])
    assert found.trades is not None
    assert np.isfinite(found.trades.net_expectancy_bps)
    assert {check.name for check in result.checks if check.verdict == "failed"} == set()
    live = {check.name: check for check in judge(found, "live", LIMITS).checks}
    assert live["holdout_is_fresh"].observed.startswith(f"sessions after {candidate.train_through} were looked at 0 ")
    assert live["choice_is_not_overfitted"].verdict == "warning"


def test_the_first_day_of_the_market_is_in_the_lineage(candidate: TrainedModel) -> None:
    assert min(candidate.lineage.sessions) == str(dt.date(2026, 1, 5))
