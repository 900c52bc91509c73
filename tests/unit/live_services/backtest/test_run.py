from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from feature_store.market.types import MarketDataError
from live_services.adapters.history import StoredHistory
from live_services.backtest.engine import Engine, EngineConfig, MarketDay, assignments_at_open
from live_services.backtest.recording import Recorders
from live_services.backtest.report import BacktestResult
from live_services.backtest.run import backtest
from live_services.backtest.sessions import loaded_fold
from live_services.backtest.versions import BacktestRefused
from live_services.domain.account.trades import round_trips
from live_services.domain.limits import AccountConfig
from live_services.domain.money import rupees
from models_registry.ledger import PromotionLedger
from models_registry.out_of_fold import load_out_of_fold
from models_registry.trials import HoldoutLook, Trial
from tests.backtest_world import HELD_OUT, SPEC, BacktestWorld
from tests.models_registry_fakes import stand


def run(world: BacktestWorld, names: str | Sequence[str] = "momentum", **asked: Any) -> BacktestResult:
    return backtest(names, **{"models": "momentum@1"} | world.known() | asked)  # type: ignore[arg-type]


# --- what is traded -----------------------------------------------------------------------------------------------


def test_without_dates_the_sessions_are_those_that_folds_tested_and_no_other(
    world: BacktestWorld, result: BacktestResult
) -> None:
    _, folds = load_out_of_fold(world.registry.out_of_fold("momentum", "1") or b"")
    tested = [date for fold in folds for date in fold.sessions]
    assert [one.session.date.isoformat() for one in result.traded] == tested
    assert set(result.sessions["role"]) == {"out of fold"}
    assert set(result.trades["model_version"]) == {"fold-1", "fold-2"}


def test_the_trades_and_the_cash_are_those_of_a_plain_run_of_the_engine_with_each_folds_model(
    world: BacktestWorld, result: BacktestResult
) -> None:
    _, folds = load_out_of_fold(world.registry.out_of_fold("momentum", "1") or b"")
    engine = Engine(EngineConfig((SPEC,), {"paper": AccountConfig()}))
    stored, events = {s.date.isoformat(): s for s in world.store.sessions("bars")}, []
    for fold in folds:
        model = loaded_fold(fold, SPEC.feature_schema(), "momentum")
        for date in fold.sessions:
            session = stored[date]
            history = StoredHistory(world.settings).of(session, world.store.universe())
            assigned = assignments_at_open(session, {"momentum": model})
            events += engine.run(
                MarketDay(session, world.store.universe(), world.store.read_bars([session]), assigned, history)
            )
    trades = round_trips(events)
    assert len(trades) == len(result.trades) > 10
    assert result.trades["order_id"].tolist() == [one.opening_order_id for one in trades]
    assert result.trades["net_inr"].tolist() == [rupees(one.net_pnl_inr_e4) for one in trades]


def test_cash_goes_from_session_to_session(result: BacktestResult) -> None:
    opened = [one.equity_at_open_inr for one in result.traded]
    assert opened[1:] == result.sessions["equity_inr"].tolist()[:-1]
    assert result.sessions["net_inr"].sum() == pytest.approx(result.trades["net_inr"].sum())


def test_charges_taken_apart_add_up_to_what_the_account_booked(result: BacktestResult) -> None:
    booked = sum(fill.charges_inr_e4 for one in result.traded for fill in one.fills)
    assert result.charges.sum() == pytest.approx(rupees(booked), abs=1e-4 * len(result.trades))
    assert result.charges["dp"] == 0


def test_sessions_after_the_training_run_the_registered_model_and_count_as_a_look(world: BacktestWorld) -> None:
    looks: list[HoldoutLook] = []
    tried: list[Trial] = []
    after = world.dates[-HELD_OUT:]
    found = run(world, first=after[0], recorders=Recorders(looks.append, tried.append))
    assert set(found.sessions["role"]) == {"after training"}
    assert set(found.trades["model_version"]) == {"1"}
    (look,), (trial,) = looks, tried
    assert (look.first_session, look.last_session, look.what) == (
        dt.date.fromisoformat(after[0]),
        dt.date.fromisoformat(after[-1]),
        "backtest",
    )
    assert look.config_digest == trial.config_digest
    assert list(trial.daily_pnl_inr) == after
    assert sum(trial.daily_pnl_inr.values()) == pytest.approx(found.trades["net_inr"].sum())


def test_no_look_is_recorded_where_only_folds_were_judged(world: BacktestWorld) -> None:
    looks: list[HoldoutLook] = []
    run(
        world, first=world.dates[-HELD_OUT - 1], last=world.dates[-HELD_OUT - 1], recorders=Recorders(look=looks.append)
    )
    assert looks == []


def test_ticks_fill_orders_at_the_next_tick_of_the_sessions_that_have_them(world: BacktestWorld) -> None:
    found = run(world, first=world.dates[-HELD_OUT], fills="ticks")
    assert {fill.fill_model for one in found.traded for fill in one.fills} == {"next_tick"}
    assert len(found.traded) == HELD_OUT


def test_strategies_trade_side_by_side_on_one_account(world: BacktestWorld, result: BacktestResult) -> None:
    tried: list[Trial] = []
    both = run(world, ["momentum", "guarded"], recorders=Recorders(trial=tried.append))
    assert set(both.trades["strategy"]) == {"momentum", "guarded"}
    assert {"stop", "target"} & set(both.trades["exit_reason"])
    assert both.sessions["trades"].sum() > result.sessions["trades"].sum()
    assert [sum(one.daily_pnl_inr.values()) for one in tried] == pytest.approx(
        [both.trades.loc[both.trades["strategy"] == name, "net_inr"].sum() for name in ("momentum", "guarded")]
    )  # each is a try of its own: nobody tries for nothing by trying two at once
    assert [len(one.config["beside"]) for one in tried] == [1, 1]  # type: ignore[arg-type]
    assert {tuple(one.daily_pnl_inr) for one in tried} == {tuple(d.isoformat() for d in both.sessions.index)}


def test_a_strategy_whose_model_judges_a_rule_ends_its_trades_by_what_labelled_them(world: BacktestWorld) -> None:
    found = run(world, "judged", models=())
    assert {"stop", "target"} <= set(found.trades["exit_reason"])
    assert set(found.trades["side"]) == {"long", "short"}
    stricter = run(world, "judged", models=(), changes={"accept_threshold": 0.5})
    assert 0 < len(stricter.trades) < len(found.trades)
    with pytest.raises(BacktestRefused, match="has no buy_threshold: it stands on accept_threshold"):
        run(world, "judged", models=(), changes={"buy_threshold": 0.6})


# --- what is refused ----------------------------------------------------------------------------------------------


def test_a_model_is_refused_on_its_own_training_period_unless_told_and_then_it_is_stamped(
    world: BacktestWorld,
) -> None:
    with pytest.raises(BacktestRefused, match=r"was trained on .* no fold tested them .*--in-sample"):
        run(world, first=world.dates[0])
    found = run(world, first=world.dates[0], last=world.dates[1], in_sample=True)
    assert set(found.trades["model_version"]) == {"1"}
    assert any(stamp.startswith("IN SAMPLE") for stamp in found.stamps)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"names": "momentun"}, "did you mean 'momentum'"),
        ({"models": "momentum"}, "write NAME@7"),
        ({"models": "fade@1"}, "none of the strategies asks a model 'fade'"),
        ({"models": "momentum@champion"}, "no version stands for momentum@champion"),
        ({"models": "momentum@2"}, r"without the models of its folds.*train it again.*--from"),
        ({"first": "2030-01-01"}, "no session with bars from 2030-01-01"),
        ({"first": "2026-02-01", "last": "2026-01-01"}, "is before"),
        ({"first": "yesterday"}, "write YYYY-MM-DD"),
        ({"changes": {"holding_bars": 5}}, "holding_bars makes the model.*train"),
        ({"changes": {"buy_quantile": 0.9}}, r"set the threshold that came of it \(buy_threshold=0.6\)"),
        ({"changes": {"stop_bp": 5}}, "did you mean stop_bps"),
        ({"changes": {"stop_bps": -5}}, "stop_bps"),
        ({"changes": {"buy_threshold": 2}}, "a threshold is a probability"),
        ({"changes": {"other.stop_bps": 5}}, "'other' is not in this backtest"),
    ],
)
def test_what_cannot_be_done_is_one_sentence_with_the_way_out(
    world: BacktestWorld, asked: dict[str, Any], said: str
) -> None:
    with pytest.raises(BacktestRefused, match=said):
        run(world, asked.pop("names", "momentum"), **asked)


def test_a_version_of_another_label_is_refused_and_names_both_sides(world: BacktestWorld) -> None:
    other = world.settings.model_copy(update={"strategies": (SPEC.model_copy(update={"holding_bars": 3}),)})
    with pytest.raises(BacktestRefused, match="foretells another label"):
        run(world, settings=other)


def test_bars_that_changed_since_the_training_are_refused(
    world: BacktestWorld, result: BacktestResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    sidecar, files = world.registry.fetch("momentum", "1")
    date = result.traded[0].session.date.isoformat()
    assert sidecar.lineage is not None
    lineage = sidecar.lineage.model_copy(update={"sessions": sidecar.lineage.sessions | {date: "0" * 64}})
    changed = sidecar.model_copy(update={"lineage": lineage})
    monkeypatch.setattr(world.registry, "fetch", lambda _name, _version: (changed, files))
    with pytest.raises(MarketDataError, match=f"the bars of {date} have changed since momentum v1"):
        run(world)


# --- what is changed ----------------------------------------------------------------------------------------------


def test_fields_of_how_it_is_traded_can_be_changed_for_one_backtest(
    world: BacktestWorld, result: BacktestResult
) -> None:
    assert set(result.trades["exit_reason"]) <= {"time", "square_off"}
    found = run(world, changes={"stop_bps": 15, "max_open_positions": 1, "slippage_bps": 2.0})
    assert "stop" in set(found.trades["exit_reason"])
    assert found.refusals["open_positions"] > 0
    assert max(found.equity["positions"]) == 1
    first, before = found.trades.iloc[0], result.trades.iloc[0]
    assert abs(first["entry_price"] / before["entry_price"] - 1) == pytest.approx(2e-4, rel=0.01)


def test_a_threshold_is_laid_over_every_model(world: BacktestWorld, result: BacktestResult) -> None:
    found = run(world, changes={"buy_threshold": 0.999, "sell_threshold": 0.2})
    assert set(found.trades["side"]) <= {"short"}
    assert len(found.trades) < len(result.trades)


# --- beside it ----------------------------------------------------------------------------------------------------


def test_another_version_that_is_champion_trades_the_same_sessions_beside_it(
    world: BacktestWorld, tmp_path: Path
) -> None:
    ledger = PromotionLedger(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    stand(ledger, "momentum", "champion", "1")
    same = run(world, models=(), ledger=ledger)
    assert same.champion is None
    assert same.no_champion == "momentum v1 is the champion"
    after = world.dates[-HELD_OUT]
    beside = run(world, models="momentum@2", first=after, ledger=ledger)
    assert beside.champion is not None
    assert beside.champion.title == "momentum v1"
    assert beside.champion.returns.total_return == pytest.approx(beside.returns.total_return)  # equal models


def test_strategies_side_by_side_are_held_against_their_champions_side_by_side(
    world: BacktestWorld, tmp_path: Path
) -> None:
    ledger = PromotionLedger(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    stand(ledger, "momentum", "champion", "1")
    asked = {"models": "momentum@2", "first": world.dates[-HELD_OUT], "ledger": ledger}
    without = run(world, ["momentum", "judged"], **asked)
    assert without.no_champion.startswith("no version stands for judged@champion; ")
    stand(ledger, "judged", "champion", "1")
    beside = run(world, ["momentum", "judged"], **asked)
    assert beside.champion is not None
    assert beside.champion.title == "momentum v1 + judged v1"
    assert beside.champion.returns.total_return == pytest.approx(beside.returns.total_return)  # equal models
    same = run(world, ["momentum", "judged"], models=(), ledger=ledger)
    assert same.no_champion == "momentum v1 + judged v1 are the champions"


def test_a_version_that_stands_against_its_gate_says_by_whose_override(world: BacktestWorld, tmp_path: Path) -> None:
    ledger = PromotionLedger(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    stand(ledger, "momentum", "champion", "1", override=True)
    after = world.dates[-1]
    found = run(world, first=after, ledger=ledger, against_champion=False)
    (stamp,) = (one for one in found.stamps if one.startswith("REFUSED BY ITS GATE: momentum v1 ("))
    assert stamp.endswith("), which is champion by asha's override: a test")


def test_buy_and_hold_is_of_the_same_instruments_at_the_first_open_and_the_last_close(
    world: BacktestWorld, result: BacktestResult
) -> None:
    held, universe = result.holding, world.store.universe()
    assert held is not None
    first, last = (world.store.read_bars([result.traded[k].session]) for k in (0, -1))
    growth = [
        last.close[last.instrument == k][-1] / first.open[first.instrument == k][0]
        for k, one in enumerate(universe.instruments)
        if one.tradable
    ]
    assert held.instruments == len(growth)
    assert held.equity_inr.iloc[-1] == pytest.approx(1_000_000 * np.mean(growth) - held.charges_inr)


def test_progress_says_what_is_left_and_ends_at_all(world: BacktestWorld) -> None:
    said: list[tuple[str, int, int]] = []
    found = run(world, progress=lambda *one: said.append(one))
    trading = [(done, total) for what, done, total in said if what == "trading momentum"]
    assert trading == [(k, len(found.traded)) for k in range(len(found.traded) + 1)]


def test_dates_may_be_dates_or_text(world: BacktestWorld) -> None:
    after = world.dates[-1]
    assert len(run(world, first=after, last=after).traded) == 1
    assert len(run(world, first=dt.date.fromisoformat(after)).traded) == 1
