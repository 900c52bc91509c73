import numpy as np
import pandas as pd
import pytest
from purgedcv import CombinatorialPurgedCV as PurgedByTime
from skfolio.model_selection import CombinatorialPurgedCV as PurgedByCount

from feature_store.market.types import DAY_NS, MINUTE_NS
from models_registry.validation.paths import path_scores
from models_registry.validation.splitters import CombinatorialPurged, NotEnoughSessions

ROWS = 20


def rows(sessions: int, label_minutes: int = 10):
    """``ROWS`` decisions a session on days 100, 101, …: decision, label end and day."""
    day = np.repeat(np.arange(100, 100 + sessions), ROWS)
    decision = day * DAY_NS + (240 + np.tile(np.arange(ROWS), sessions)) * MINUTE_NS
    return decision, decision + label_minutes * MINUTE_NS, day


def test_six_groups_of_which_two_are_tested_make_fifteen_splits_and_five_paths():
    folds = CombinatorialPurged().split(*rows(45))
    assert [fold.number for fold in folds] == list(range(1, 16))
    scores = path_scores(folds, [np.ones(len(fold.test)) for fold in folds], 45 * ROWS)
    np.testing.assert_array_equal(scores, np.ones((5, 45 * ROWS)))


@pytest.mark.parametrize(("groups", "test_groups"), [(6, 2), (4, 2), (6, 3), (8, 2)])
def test_splits_and_paths_are_those_of_skfolio(groups, test_groups):
    decision, label_end, day = rows(24)
    folds = CombinatorialPurged(groups, test_groups, embargo_sessions=0).split(decision, label_end, day)
    by_count = PurgedByCount(n_folds=groups, n_test_folds=test_groups)
    paths = path_scores(folds, [np.full(len(fold.test), fold.number) for fold in folds], len(day))
    assert (len(folds), len(paths)) == (by_count.n_splits, by_count.n_test_paths)
    np.testing.assert_array_equal(paths[:, :: 24 * ROWS // groups].T - 1, by_count.recombined_paths)
    places = np.arange(len(day))[:, None]
    for fold, (train, tests) in zip(folds, by_count.split(places), strict=True):
        np.testing.assert_array_equal(fold.test, np.concatenate(tests))
        np.testing.assert_array_equal(fold.train, train)  # labels that end over night reach no other session


def test_what_labels_of_days_reach_is_purged_as_purgedcv_purges_it_by_time():
    decision, label_end, day = rows(24, label_minutes=3 * 24 * 60 + 5)
    folds = CombinatorialPurged(embargo_sessions=0).split(decision, label_end, day)
    other = PurgedByTime(
        n_splits=6,
        n_test_groups=2,
        prediction_times=pd.Series(pd.to_datetime(decision)),
        evaluation_times=pd.Series(pd.to_datetime(label_end)),
        purge_horizon=pd.Timedelta(0),
    )
    for fold, (train, test) in zip(folds, other.split(np.zeros((len(day), 1))), strict=True):
        np.testing.assert_array_equal(fold.test, test)
        # purgedcv drops rows one by one; here the session in which a test's last label ends is left out whole
        assert set(fold.train) <= set(train)
        last_label_ends = {100 + 4 * group + 3 + 3 for group in fold.test_groups}
        assert {day[row] for row in set(train) - set(fold.train)} <= last_label_ends


def test_skfolio_purges_by_count_and_lets_through_what_is_longer_than_its_count():
    decision, label_end, day = rows(24)
    label_end[:] = decision + np.where(day == 103, 2 * DAY_NS, 10 * MINUTE_NS)
    first = PurgedByCount(n_folds=6, n_test_folds=2, purged_size=ROWS // 2)
    train, tests = list(first.split(np.arange(len(day))[:, None]))[9]  # tests groups 2 and 3: days 108 to 115
    assert tests[0][0] == 8 * ROWS
    label_end[7 * ROWS] = decision[7 * ROWS] + DAY_NS
    assert 7 * ROWS in train  # it reaches into day 108
    assert 7 * ROWS not in CombinatorialPurged(embargo_sessions=0).split(decision, label_end, day)[9].train


def test_the_embargo_leaves_whole_sessions_out_on_both_sides():
    decision, label_end, day = rows(24)
    fold = CombinatorialPurged(embargo_sessions=2).split(decision, label_end, day)[9]
    assert fold.test_groups == (2, 3)
    assert sorted(set(range(100, 124)) - set(day[fold.train])) == list(range(106, 118))
    assert fold.purged == 4 * ROWS


def test_each_path_passes_once_through_every_row():
    decision, label_end, day = rows(24)
    folds = CombinatorialPurged().split(decision, label_end, day)
    found = path_scores(folds, [np.full(len(fold.test), fold.number) for fold in folds], len(day))
    assert found.shape == (5, len(day))
    for session in range(100, 124):
        tested_by = [fold.number for fold in folds if session in fold.test_days]
        assert (found[:, day == session] == np.array(tested_by)[:, None]).all()


def test_rows_of_sessions_that_are_not_cut_are_neither_trained_nor_tested_on():
    decision, label_end, day = rows(24)
    cut = np.delete(np.unique(day), 3)
    folds = CombinatorialPurged().split(decision, label_end, day, cut)
    assert not any((day[rows_] == 103).any() for fold in folds for rows_ in (fold.train, fold.test))
    scores = path_scores(folds, [np.ones(len(fold.test)) for fold in folds], len(day))
    np.testing.assert_array_equal(np.isnan(scores[0]), day == 103)


def test_what_cannot_be_cut_says_why():
    with pytest.raises(NotEnoughSessions, match="6 groups need at least as many sessions, there are 5"):
        CombinatorialPurged().split(*rows(5))
    with pytest.raises(NotEnoughSessions, match="has no rows to train on"):
        CombinatorialPurged(embargo_sessions=5).split(*rows(12))
    with pytest.raises(ValueError, match="of 3 groups 3 cannot be tested"):
        CombinatorialPurged(3, 3).split(*rows(12))
