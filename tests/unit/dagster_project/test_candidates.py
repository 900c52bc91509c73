from dataclasses import asdict, replace
from pathlib import Path

import dagster as dg
import numpy as np
import pytest

from dagster_project.candidates import Candidate, CandidateStore, TradeStore
from dagster_project.model_facts import trade_facts
from models_registry.gates.evidence import FoldTrades, TradeEvidence
from models_registry.packing import parity
from tests.models_registry_frames import packed, trained

KEY = dg.AssetKey("momentum_model")


def written_and_read(store: dg.IOManager, value: object) -> object:
    store.handle_output(dg.build_output_context(asset_key=KEY, run_id="a-run"), value)
    return store.load_input(dg.build_input_context(asset_key=KEY))


def test_a_candidate_comes_back_with_everything_but_its_estimator(tmp_path: Path) -> None:
    model = trained()
    agreement = parity(packed(), model.estimator, model.golden_rows)
    back = written_and_read(CandidateStore(str(tmp_path)), Candidate(model, packed(), agreement, "SYNTHETIC test"))
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
    )


def test_trades_come_back_as_they_were(tmp_path: Path) -> None:
    assert written_and_read(TradeStore(str(tmp_path)), some_trades()) == some_trades()


def test_a_fold_without_trades_is_a_row_with_a_dash() -> None:
    quiet = replace(some_trades(), by_fold={1: FoldTrades(3, -2.0), 2: FoldTrades(0, float("nan"))})
    records = trade_facts(quiet)["trades_by_fold"].records
    assert [record.data["net bps a trade"] for record in records] == ["-2.00", "–"]


def test_what_another_version_wrote_says_what_to_do(tmp_path: Path) -> None:
    model = trained()
    candidates, trades = CandidateStore(str(tmp_path / "candidates")), TradeStore(str(tmp_path / "trades"))
    written_and_read(candidates, Candidate(model, packed(), parity(packed(), model.estimator, model.golden_rows), ""))
    document = tmp_path / "candidates" / "momentum_model" / "candidate.json"
    document.write_text(document.read_text().replace('"spec"', '"strategy"'))
    (tmp_path / "trades").mkdir()
    (tmp_path / "trades" / "momentum_model.json").write_text('{"by_fold": {}}')
    for store in (candidates, trades):
        with pytest.raises(dg.Failure, match="momentum_model was written by another version: materialise it again"):
            store.load_input(dg.build_input_context(asset_key=KEY))


@pytest.mark.parametrize("store", [CandidateStore, TradeStore])
def test_what_was_not_made_yet_says_what_to_do(tmp_path: Path, store: type) -> None:
    with pytest.raises(dg.Failure, match=r"materialise .*first, or launch the job that trains"):
        store(str(tmp_path)).load_input(dg.build_input_context(asset_key=KEY))
