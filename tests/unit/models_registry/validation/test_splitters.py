from itertools import pairwise

import numpy as np
import pytest

from models_registry.validation.splitters import auc, auc_by_session, log_loss, mean_lower_bound, walk_forward
from tests.models_registry_frames import frame


def test_training_grows_and_tests_follow_in_order():
    f = frame(sessions=10)
    folds = walk_forward(f.decision_ns, f.label_end_ns, folds=4)
    assert [fold.number for fold in folds] == [1, 2, 3, 4]
    assert all(a.train_end_ns < b.train_end_ns and a.test_end_ns < b.test_start_ns for a, b in pairwise(folds))
    tested = np.concatenate([fold.test for fold in folds])
    assert len(np.unique(tested)) == len(tested) == 8 * 400


def test_a_label_that_reaches_into_the_test_is_purged():
    f = frame(sessions=10)
    late = f.label_end_ns.copy()
    first_test = walk_forward(f.decision_ns, late, folds=4)[0].test_start_ns
    late[0] = first_test
    fold = walk_forward(f.decision_ns, late, folds=4, embargo_ns=0)[0]
    assert fold.purged == 1
    assert 0 not in fold.train


def test_auc_and_log_loss_agree_with_scikit_learn():
    from sklearn import metrics

    random = np.random.default_rng(0)
    score, up = random.integers(1, 50, 5000) / 50, random.random(5000) < 0.4
    assert auc(score, up) == pytest.approx(metrics.roc_auc_score(up, score), abs=1e-12)
    assert log_loss(score, up) == pytest.approx(metrics.log_loss(up, score), abs=1e-12)


def test_auc_of_one_class_is_not_a_number():
    assert np.isnan(auc(np.array([0.1, 0.2]), np.array([True, True])))


def test_sessions_with_one_outcome_only_have_no_auc():
    score, day = np.array([0.1, 0.2, 0.3, 0.4]), np.array([1, 1, 2, 2])
    assert auc_by_session(score, np.array([True, True, False, True]), day).tolist() == [1.0]


def test_the_lower_bound_covers_the_truth_about_as_often_as_it_says():
    random = np.random.default_rng(1)
    missed = [mean_lower_bound(random.normal(0.5, 0.05, 12), resamples=400) > 0.5 for _ in range(400)]
    assert 0.02 <= np.mean(missed) <= 0.08


def test_the_lower_bound_needs_three_sessions():
    assert np.isnan(mean_lower_bound(np.array([0.5, 0.6])))
