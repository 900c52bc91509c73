import dataclasses
import math

import pytest

from models_registry.gates.skill import SkillLimits, skill_gate
from models_registry.packing import Parity
from models_registry.refs import GateResult
from tests.models_registry_frames import LIMITS, gate, sidecar, trained

EXACT = Parity(rows=100, largest_difference=0.0, bit_equal=True, allowed_difference=0.0)


def judge(metrics=None, parity=EXACT, folds=None, limits=LIMITS, market="SYNTHETIC test", **changes) -> GateResult:
    model = trained()
    changed = dataclasses.replace(
        model, metrics=model.metrics | (metrics or {}), folds=folds if folds is not None else model.folds
    )
    sources = {"bar_source": "ticks", "trades_on": "ticks"} | changes
    return skill_gate(changed, parity, market=market, limits=limits, **sources)


def failed(result):
    return [check.name for check in result.checks if not check.passed]


def test_a_model_with_skill_passes_every_check():
    assert gate().passed
    assert gate().rung == "champion"
    assert len(gate().checks) == 9


@pytest.mark.parametrize(
    ("trained_on", "trades_on", "observed"),
    [
        ("vendor", "ticks", "trained on a vendor's bars, trades on bars built from ticks"),
        ("ticks", "vendor", "trained on bars built from ticks, trades on a vendor's bars"),
        ("ticks + vendor", "ticks", "trained on bars built from ticks and a vendor's bars, trades on bars built from"),
        ("", "ticks", "trained on bars of unknown source, trades on bars built from ticks"),
        ("unknown", "unknown", "trained on bars of unknown source, trades on bars of unknown source"),
        ("dhan", "ticks", "trained on bars of dhan, trades on bars built from ticks"),
    ],
)
def test_a_model_that_trades_on_bars_of_another_source_is_told_so_and_not_blocked(trained_on, trades_on, observed):
    result = judge(bar_source=trained_on, trades_on=trades_on)
    check = result.checks[-1]
    assert result.passed
    assert (check.name, check.verdict) == ("bar_source", "warning")
    assert check.observed.startswith(observed)


@pytest.mark.parametrize("source", ["ticks", "vendor"])
def test_a_model_that_trades_on_bars_of_the_source_it_was_trained_on_is_fine(source):
    assert judge(bar_source=source, trades_on=source).checks[-1].verdict == "passed"


def test_noise_does_not_pass():
    assert "log_loss_below_naive" in failed(gate(edge=0.0))
    assert not gate(edge=0.0).passed


@pytest.mark.parametrize(
    ("metrics", "name"),
    [
        ({"auc_lower_bound": 0.5}, "auc_above_chance"),
        ({"auc": 0.99}, "auc_plausible"),
        ({"log_loss": 0.7, "naive_log_loss": 0.69}, "log_loss_below_naive"),
        ({"rows": 10.0}, "enough_test_rows"),
        ({"test_sessions": 4.0}, "enough_test_rows"),
    ],
)
def test_each_shortfall_fails_its_own_check(metrics, name):
    assert failed(judge(metrics)) == [name]


@pytest.mark.parametrize("name", ["auc", "log_loss", "auc_lower_bound"])
def test_a_metric_that_is_no_number_never_passes(name):
    result = judge({name: math.nan})
    assert "finite_metrics" in failed(result)
    assert len(failed(result)) >= 2


def test_a_training_label_that_reaches_the_test_is_a_leak():
    first, *rest = trained().folds
    leaking = first.model_copy(update={"train_end_ns": first.test_start_ns + 1})
    assert failed(judge(folds=(leaking, *rest))) == ["no_leak"]
    assert failed(judge(folds=())) == ["no_leak"]
    assert failed(judge(folds=tuple(reversed(trained().folds)))) == ["no_leak"]


def test_a_packed_model_that_differs_fails_parity():
    assert failed(judge(parity=Parity(100, 1e-9, bit_equal=False, allowed_difference=0.0))) == ["packed_parity"]
    assert failed(judge(parity=Parity(0, 0.0, bit_equal=True, allowed_difference=0.0))) == ["packed_parity"]


def test_a_champion_of_the_same_market_must_be_beaten():
    champion = sidecar()
    worse = champion.model_copy(update={"metrics": champion.metrics | {"auc": 0.51}})
    assert judge(champion=worse, champion_version="3").passed
    equal = judge(champion=champion, champion_version="3")
    assert failed(equal) == ["auc_above_champion"]
    assert equal.checks[6].observed.endswith("the same as champion v3")
    assert "champion v3" in equal.checks[6].required


def test_a_champion_of_another_market_cannot_be_compared():
    champion = sidecar().model_copy(update={"market": "files nse.parquet"})
    assert judge(champion=champion, market="files nse-2.parquet").passed


def test_generated_data_never_replaces_a_champion_of_real_data():
    champion = sidecar().model_copy(update={"market": "files nse.parquet"})
    assert failed(judge(champion=champion)) == ["auc_above_champion"]


def test_the_default_limits_ask_for_thousands_of_rows():
    assert SkillLimits().minimum_test_rows == 5_000


def test_a_gate_without_checks_has_not_passed():
    assert not GateResult(rung="champion", checks=()).passed
