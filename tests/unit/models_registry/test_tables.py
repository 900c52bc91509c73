import numpy as np

from models_registry.refs import GateCheck, GateResult
from models_registry.tables import fold_rows, metric_rows, reasons, score_deciles
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


def test_a_gate_gives_its_reasons_in_words_and_a_check_without_words_by_its_name():
    ranks = GATE.checks[1].model_copy(update={"name": "ranks_above_chance"})
    gate = GATE.model_copy(update={"checks": (*GATE.checks, ranks)})
    assert reasons(gate) == [
        {"why": "short", "saw": "0.49", "asked": "> 0.5"},
        {"why": "its ranking is not shown to be better than chance", "saw": "0.49", "asked": "> 0.5"},
    ]
    assert [row["saw"] for row in reasons(gate, "warning")] == ["loses"]


def test_every_check_of_a_gate_has_words():
    one = sidecar()
    for check in (*one.gate.checks, *one.live_gate.checks):
        refused = GateResult(rung="champion", checks=(check.model_copy(update={"passed": False, "blocking": True}),))
        assert reasons(refused)[0]["why"] != check.name.replace("_", " "), check.name


def test_figures_of_two_versions_stand_side_by_side_and_those_of_one_alone():
    rows = metric_rows({"auc": 0.6, "trades": 12.0}, "champion v1", {"auc": 0.55})
    assert rows == [
        {"out of fold": "AUC (chance 0.5)", "candidate": "0.6000", "champion v1": "0.5500"},
        {"out of fold": "trades", "candidate": "12", "champion v1": "–"},
    ]
    assert metric_rows({"trades": 12.0}, "champion", {}) == [{"out of fold": "trades", "candidate": "12"}]
    judged = metric_rows({"auc": 0.6, "gain_auc": 0.52}, "champion", {})
    assert [row["candidate"] for row in judged] == ["0.5200"]  # of trades the AUC of their signs tells nothing


def test_deciles_hold_a_tenth_each_and_equal_scores_stay_together():
    oof = trained().oof
    found = score_deciles(oof)
    assert np.all(np.diff(found.score) > 0)
    assert np.all((found.up >= 0) & (found.up <= 1))
    flat = oof.part(np.arange(100))
    same = score_deciles(flat.__class__(**(vars(flat) | {"score": np.full(100, 0.5)})))
    assert np.isfinite(same.score).sum() == 1
