import numpy as np
import pytest

from models_registry.training import UntrainableFrame, train
from models_registry.validation.splitters import NotEnoughSessions
from tests.models_registry_frames import NAMES, frame, trained


@pytest.mark.parametrize("algorithm", ["hist_gradient_boosting", "logistic_regression"])
def test_a_planted_edge_is_found_out_of_sample(algorithm):
    model = trained(algorithm)
    assert model.metrics["auc"] > 0.55
    assert model.metrics["auc_lower_bound"] > 0.5
    assert model.metrics["log_loss"] < model.metrics["naive_log_loss"]
    assert model.metrics["buy_forward_return_bps"] > 0 > model.metrics["sell_forward_return_bps"]
    assert model.metrics["net_expectancy_bps"] == pytest.approx(model.metrics["gross_expectancy_bps"] - 6.0)


def test_noise_has_no_skill_out_of_sample():
    metrics = trained(edge=0.0, seed=4).metrics
    assert metrics["auc_lower_bound"] < 0.5
    assert metrics["log_loss"] > metrics["naive_log_loss"]


def test_the_same_frame_and_seed_give_the_same_model():
    first, second = trained(), train(frame(), "hist_gradient_boosting", seed=1)
    np.testing.assert_array_equal(first.oof.score, second.oof.score)
    np.testing.assert_array_equal(first.golden_rows, second.golden_rows)
    assert first.metrics == second.metrics
    assert first.folds == second.folds


def test_the_order_of_rows_in_the_store_does_not_matter():
    import dataclasses

    whole = frame()
    order = np.argsort(whole.instrument, kind="stable")
    columns = ("X", "forward_return", "decision_ns", "label_end_ns", "instrument")
    by_instrument = dataclasses.replace(whole, **{name: getattr(whole, name)[order] for name in columns})
    assert train(by_instrument, "hist_gradient_boosting", seed=1).metrics == trained().metrics


def test_rows_without_a_usable_label_or_feature_are_dropped_and_counted():
    f = frame()
    f.forward_return[:3] = 0.0
    f.X[5, 0] = np.nan
    model = train(f, "logistic_regression", seed=1)
    assert model.dropped == {"label_missing": 12 * 10 * 4, "return_zero": 3, "feature_not_finite": 1}
    assert model.training_rows == 12 * 90 * 4 - 4


def test_thresholds_are_quantiles_of_the_out_of_fold_scores():
    model = trained()
    assert model.buy_threshold == np.quantile(model.oof.score, 0.98)
    assert model.sell_threshold == np.quantile(model.oof.score, 0.02)
    assert model.metrics["buy_rows"] == pytest.approx(0.02 * len(model.oof.score), rel=0.2)


def test_distributions_have_eleven_edges_by_feature():
    found = trained().feature_distributions
    assert [d.name for d in found] == list(NAMES)
    assert all(len(d.edges) == 11 and list(d.edges) == sorted(d.edges) for d in found)


def test_fold_metrics_have_the_names_of_the_overall_ones():
    model = trained()
    assert all({"auc", "log_loss", "naive_log_loss", "net_expectancy_bps"} <= set(f.metrics) for f in model.folds)
    assert sum(f.rows for f in model.folds) == model.metrics["rows"]


def test_labels_that_all_move_one_way_are_refused():
    f = frame()
    f.forward_return[:] = np.abs(f.forward_return)
    with pytest.raises(UntrainableFrame, match="same sign"):
        train(f, "logistic_regression")


def test_too_few_sessions_say_so():
    with pytest.raises(NotEnoughSessions, match="at least 5 sessions"):
        train(frame(sessions=4, rows=200), "logistic_regression")


def test_a_single_feature_that_has_seen_the_label_shows_as_an_implausible_auc():
    f = frame()
    f.X[:, 3] = np.nan_to_num(f.forward_return)
    assert train(f, "hist_gradient_boosting", seed=1).metrics["auc"] > 0.95
