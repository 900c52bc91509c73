import numpy as np

from models_registry.refs import GateCheck, GateResult
from models_registry.tables import failures, fold_rows, gate_rows, score_deciles, warnings
from tests.models_registry_frames import sidecar, trained

GATE = GateResult(
    rung="champion",
    checks=(
        GateCheck(name="fine", passed=True, observed="1", required="≥ 0"),
        GateCheck(name="short", passed=False, observed="0.49", required="> 0.5"),
        GateCheck(name="other", passed=False, observed="loses", required="> 0", blocking=False),
    ),
)


def test_a_fold_tells_what_it_was_trained_and_tested_on_and_what_its_trades_earned():
    first, second, *_ = fold_rows(sidecar().folds)
    assert list(first) == list(second)
    assert first["fold"] == "1"
    assert first["trained"].startswith("2026-01-05 – ")
    assert (first["trades"], first["net bps a trade"]) == ("240", "3.50")
    assert (second["trades"], second["net bps a trade"]) == ("0", "–")  # of no trades there is no mean
    assert float(first["sell at"]) < float(first["buy at"])


def test_figures_that_no_fold_has_are_left_out_and_one_that_some_lack_is_a_dash():
    first, *rest = trained().folds
    assert "trades" not in fold_rows(trained().folds)[0]
    traded = first.model_copy(update={"metrics": first.metrics | {"trades": 3.0}})
    assert [row["trades"] for row in fold_rows((traded, *rest))][:2] == ["3", "–"]


def test_a_gate_is_told_check_by_check():
    assert [row["verdict"] for row in gate_rows(GATE)] == ["passed", "failed", "warning"]
    assert failures(GATE) == "short saw 0.49, asked for > 0.5"
    assert warnings(GATE) == "loses"


def test_deciles_hold_a_tenth_each_and_equal_scores_stay_together():
    oof = trained().oof
    found = score_deciles(oof)
    assert np.all(np.diff(found.score) > 0)
    assert np.all((found.up >= 0) & (found.up <= 1))
    flat = oof.part(np.arange(100))
    same = score_deciles(flat.__class__(**(vars(flat) | {"score": np.full(100, 0.5)})))
    assert np.isfinite(same.score).sum() == 1
