import dataclasses

import numpy as np
import pytest

from models_registry.flat import load_flat
from models_registry.specification import ESTIMATORS
from models_registry.training import UntrainableFrame, evaluate, session_days, train
from models_registry.validation.splitters import NotEnoughSessions
from tests.models_registry_frames import FIT, NAMES, frame, spec, trained

COLUMNS = ("X", "forward_return", "decision_ns", "entry_ns", "label_end_ns", "instrument")


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_planted_edge_is_found_out_of_sample(estimator):
    model = trained(estimator)
    assert model.metrics["auc"] > 0.55
    assert model.metrics["auc_lower_bound"] > 0.5
    assert model.metrics["hit_surplus_lower_bound"] > 0.0
    assert model.metrics["log_loss"] < model.metrics["naive_log_loss"]
    assert model.metrics["buy_forward_return_bps"] > 0 > model.metrics["sell_forward_return_bps"]


def test_noise_has_no_skill_out_of_sample():
    metrics = trained(edge=0.0, seed=4).metrics
    assert metrics["auc_lower_bound"] < 0.5
    assert metrics["log_loss"] > metrics["naive_log_loss"]


def test_the_same_frame_and_seed_give_the_same_model():
    first, second = trained(), train(frame(), spec(), FIT)
    np.testing.assert_array_equal(first.oof.score, second.oof.score)
    np.testing.assert_array_equal(first.golden_rows, second.golden_rows)
    assert first.metrics == second.metrics
    assert first.folds == second.folds
    assert [model.arrays for model in first.fold_models] == [model.arrays for model in second.fold_models]


def test_the_order_of_rows_in_the_store_does_not_matter():
    whole = frame()
    order = np.argsort(whole.instrument, kind="stable")
    by_instrument = dataclasses.replace(whole, **{name: getattr(whole, name)[order] for name in COLUMNS})
    assert train(by_instrument, spec(), FIT).metrics == trained().metrics


def test_rows_without_a_label_or_a_finite_feature_are_dropped_and_counted():
    f = frame()
    f.X[5, 0] = np.nan
    model = train(f, spec("logistic_regression"), FIT)
    assert model.dropped == {"label_missing": 12 * 10 * 4, "feature_not_finite": 1}
    assert model.training_rows == 12 * 90 * 4 - 1


def test_a_return_of_zero_is_a_decision_that_counts_half_to_each_class():
    f = frame()
    f.forward_return[::7] = np.where(np.isfinite(f.forward_return[::7]), 0.0, np.nan)
    model = train(f, spec("logistic_regression"), FIT)
    assert model.training_rows == 12 * 90 * 4
    assert set(np.unique(model.oof.up)) == {0.0, 0.5, 1.0}
    assert model.metrics["rows"] == len(model.oof.score)


def test_a_model_of_zeros_and_halves_equals_one_whose_zeros_were_split_by_hand():
    f = frame()
    f.forward_return[:] = np.where(np.isfinite(f.forward_return), np.sign(f.forward_return), np.nan)
    plain = train(f, spec("logistic_regression"), FIT)
    f.forward_return[np.flatnonzero(np.isfinite(f.forward_return))[::50]] = 0.0
    halves = train(f, spec("logistic_regression"), FIT)
    assert abs(halves.metrics["auc"] - plain.metrics["auc"]) < 0.02


def test_sessions_weigh_the_same_however_many_rows_they_have():
    f = frame()
    keep = (session_days(f.decision_ns) % 2 == 0) | (np.arange(len(f)) % 3 == 0)
    thinned = dataclasses.replace(f, **{name: getattr(f, name)[keep] for name in COLUMNS})
    oof = train(thinned, spec("logistic_regression"), FIT).oof
    sums = np.bincount(oof.day - oof.day.min(), oof.weight)
    np.testing.assert_allclose(sums[sums > 0], sums.max())


def test_each_fold_opens_about_as_often_as_its_quantiles_ask() -> None:
    """Models of few sessions lean further; their quantiles carried over as they are hardly ever open."""
    f = frame(sessions=30, edge=0.1)
    for estimator in ("hist_gradient_boosting", "logistic_regression"):
        model = train(f, spec(estimator, buy_quantile=0.95, sell_quantile=0.05), FIT)
        for fold in model.folds:
            assert 0.015 < fold.metrics["buy_rows"] / fold.rows < 0.15
            assert 0.015 < fold.metrics["sell_rows"] / fold.rows < 0.15
        assert model.metrics["buy_rows"] == sum(fold.metrics["buy_rows"] for fold in model.folds)


def test_no_threshold_knows_the_sessions_that_it_is_tried_on() -> None:
    f, changed = frame(), frame()
    newest = session_days(f.decision_ns) >= session_days(f.decision_ns).max() - 1
    changed.forward_return[newest] = -changed.forward_return[newest]
    changed.X[newest] = -3.0 * changed.X[newest]
    before, after = (train(one, spec("logistic_regression"), FIT) for one in (f, changed))
    for name in ("buy_threshold", "sell_threshold"):
        assert [getattr(m, name) for m in before.fold_models] == [getattr(m, name) for m in after.fold_models]


def test_long_and_short_thresholds_stand_on_their_own_side_of_the_base_rate():
    f = frame(edge=0.0)
    f.forward_return[:] += 2e-3  # nearly every return is up, so both plain quantiles lie far above a half
    model = train(f, spec("logistic_regression", buy_quantile=0.51, sell_quantile=0.49), FIT)
    for fold in model.fold_models:
        rate = model.oof.base_rate[model.oof.fold == fold.number][0]
        assert fold.sell_threshold < rate < fold.buy_threshold


def test_each_folds_model_scores_its_own_sessions_as_the_training_did():
    model = trained()
    rows = frame()
    order = np.lexsort((rows.instrument, rows.decision_ns))
    usable = order[np.isfinite(rows.forward_return[order])]
    features, days = rows.X[usable], session_days(rows.decision_ns[usable])
    for fold in model.fold_models:
        mine = np.isin(days, np.array(fold.sessions, dtype="datetime64[D]").astype(np.int64))
        flat = load_flat(fold.arrays, fold.algorithm, len(NAMES))
        np.testing.assert_array_equal(flat.score(features[mine]), model.oof.score[model.oof.fold == fold.number])


def test_a_recipe_run_again_in_the_same_sessions_says_the_same():
    whole = frame()
    again = evaluate(whole, spec(), np.unique(session_days(whole.decision_ns)))
    np.testing.assert_array_equal(again.score, trained().oof.score)


def test_what_was_trained_on_is_known_from_the_fit():
    model = trained()
    assert model.train_through == "2026-01-16"
    assert model.lineage.generated
    assert model.instruments == ("SYN001", "SYN002", "SYN003", "SYN004")
    assert model.hyperparameters["max_leaf_nodes"] == 15
    assert model.fitted == FIT


def test_hyperparameters_of_the_specification_reach_the_estimator():
    model = train(frame(), spec(hyperparameters={"max_iter": 5}), FIT)
    assert model.hyperparameters["max_iter"] == 5


def test_a_hyperparameter_that_the_estimator_does_not_take_is_one_sentence():
    with pytest.raises(UntrainableFrame, match=r"of 'momentum' cannot be fitted: .*max_iters"):
        train(frame(), spec(hyperparameters={"max_iters": 5}), FIT)
    with pytest.raises(UntrainableFrame, match=r"of 'momentum' cannot be fitted: .*learning_rate"):
        train(frame(), spec(hyperparameters={"learning_rate": -1}), FIT)


def test_a_feature_that_is_never_a_number_is_named():
    f = frame()
    f.X[:, 2] = np.nan
    with pytest.raises(UntrainableFrame, match=r"^0 usable rows, .* feature_not_finite; never finite: volatility$"):
        train(f, spec(), FIT)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_feature_that_never_changes_says_nothing_and_is_no_error(estimator):
    f = frame()
    f.X[:, 3] = 0.1
    model = train(f, spec(estimator), FIT)
    assert model.metrics["auc"] > 0.55


def test_distributions_have_eleven_edges_by_feature():
    found = trained().feature_distributions
    assert [d.name for d in found] == list(NAMES)
    assert all(len(d.edges) == 11 and list(d.edges) == sorted(d.edges) for d in found)


def test_fold_metrics_have_the_names_of_the_overall_ones():
    model = trained()
    assert all({"auc", "log_loss", "naive_log_loss", "buy_rows"} <= set(f.metrics) for f in model.folds)
    assert sum(f.rows for f in model.folds) == model.metrics["rows"]


def test_labels_that_all_move_one_way_are_refused():
    f = frame()
    f.forward_return[:] = np.abs(f.forward_return)
    with pytest.raises(UntrainableFrame, match="all moved the same way"):
        train(f, spec("logistic_regression"), FIT)


def test_a_fold_whose_test_moved_one_way_is_named():
    f = frame()
    newest = session_days(f.decision_ns) >= session_days(f.decision_ns).max() - 1
    f.forward_return[newest] = np.abs(f.forward_return[newest])
    with pytest.raises(UntrainableFrame, match=r"fold 4 \(2026-01-15 to 2026-01-16\) tests rows"):
        train(f, spec("logistic_regression"), FIT)


def test_too_few_sessions_say_so():
    with pytest.raises(NotEnoughSessions, match="at least 6 sessions"):
        train(frame(sessions=5, rows=200), spec("logistic_regression"), FIT)


def test_fewer_tested_sessions_than_a_bound_needs_are_refused():
    with pytest.raises(NotEnoughSessions, match="test 1 sessions, at least 3"):
        train(frame(sessions=3, rows=200), spec("logistic_regression", folds=1), FIT)


def test_a_single_feature_that_has_seen_the_label_shows_as_an_implausible_auc():
    f = frame()
    f.X[:, 3] = np.nan_to_num(f.forward_return)
    assert train(f, spec(), FIT).metrics["auc"] > 0.95
