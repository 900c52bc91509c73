from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from dagster_project.candidates import Candidate, CandidateStore, TradeStore
from dagster_project.model_facts import trade_facts
from dagster_project.stored_by_run import StoredByRun
from models_registry.gates.evidence import FoldTrades, TradeEvidence
from models_registry.packing import parity
from tests.models_registry_frames import packed, trained


def written_and_read(store: StoredByRun, path: Path, value: object) -> object:
    store.write(path, value)
    return store.read(path)


def test_a_candidate_comes_back_with_everything_but_its_estimator(tmp_path: Path) -> None:
    model = trained()
    agreement = parity(packed(), model.estimator, model.golden_rows)
    back = written_and_read(
        CandidateStore(""), tmp_path / "one", Candidate(model, packed(), agreement, "SYNTHETIC test")
    )
    assert isinstance(back, Candidate)
    assert back.trained.estimator is None
    assert (back.packed, back.parity, back.market) == (packed(), agreement, "SYNTHETIC test")
    for name in ("spec", "folds", "metrics", "feature_distributions", "lineage", "fitted", "instruments", "dropped"):
        assert getattr(back.trained, name) == getattr(model, name)
    assert back.sha256 == Candidate(model, packed(), agreement, "").sha256
    assert list(map(asdict, back.trained.fold_models)) == list(map(asdict, model.fold_models))
    np.testing.assert_array_equal(back.trained.oof.score, model.oof.score)


def some_trades() -> TradeEvidence:
    return TradeEvidence(
        candidate_sha256="c" * 64,
        sessions=2,
        trades=3,
        long_trades=2,
        short_trades=1,
        gross_expectancy_bps=4.0,
        net_expectancy_bps=-2.0,
        long_net_expectancy_bps=1.0,
        short_net_expectancy_bps=-8.0,
        net_pnl_inr=-60.0,
        left_open=0,
        entries_proposed=4,
        entries_refused={"open_positions": 1},
        by_fold={1: FoldTrades(3, -2.0)},
        net_pnl_by_session={"2026-01-05": 10.0, "2026-01-06": -70.0},
        exits={"target": 2, "stop": 1},
        turnover_a_session_inr=300_000.0,
        median_participation=0.001,
        high_participation=0.004,
        largest_notional_inr=250_000.0,
    )


def test_trades_come_back_as_they_were(tmp_path: Path) -> None:
    assert written_and_read(TradeStore(""), tmp_path / "one.json", some_trades()) == some_trades()


def test_a_fold_without_trades_is_a_row_with_a_dash() -> None:
    quiet = replace(some_trades(), by_fold={1: FoldTrades(3, -2.0), 2: FoldTrades(0, float("nan"))})
    records = trade_facts(quiet)["trades_by_fold"].records
    assert [record.data["net bps a trade"] for record in records] == ["-2.00", "–"]
