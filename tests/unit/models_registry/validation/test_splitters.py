from itertools import pairwise

import numpy as np
import pytest

from feature_store.market.types import DAY_NS, MINUTE_NS
from models_registry.validation.splitters import NotEnoughSessions, WalkForward, dates_of

ROWS = 40


def rows(sessions: int, label_minutes: int = 10):
    """``ROWS`` decisions a session on days 100, 101, …: decision, label end and day."""
    day = np.repeat(np.arange(100, 100 + sessions), ROWS)
    decision = day * DAY_NS + (240 + np.tile(np.arange(ROWS), sessions)) * MINUTE_NS
    return decision, decision + label_minutes * MINUTE_NS, day


def test_training_grows_and_tests_follow_in_order():
    folds = WalkForward().split(*rows(10))
    assert [fold.number for fold in folds] == [0, 1, 2, 3, 4]
    assert all(a.train_end_ns < b.train_end_ns and a.test_end_ns < b.test_start_ns for a, b in pairwise(folds))
    tested = np.concatenate([fold.test for fold in folds[1:]])
    assert len(np.unique(tested)) == len(tested) == 8 * ROWS


def test_the_fold_inside_the_first_block_tests_its_later_half():
    first, second, *_ = WalkForward().split(*rows(20))
    assert first.test_days.tolist() == [102, 103]
    assert second.test_days.tolist() == [104, 105, 106, 107]
    assert len(first.train) == 2 * ROWS
    assert len(second.train) == 4 * ROWS


def test_a_label_that_reaches_into_the_test_is_purged():
    decision, label_end, day = rows(10)
    label_end[0] = WalkForward().split(decision, label_end, day)[1].test_start_ns
    fold = WalkForward().split(decision, label_end, day)[1]
    assert fold.purged == 1
    assert 0 not in fold.train


def test_the_embargo_leaves_whole_sessions_out_before_each_test():
    decision, label_end, day = rows(20)
    for fold in WalkForward(3, 2).split(decision, label_end, day):
        assert day[fold.train].max() == fold.test_days[0] - 3
        assert fold.purged == 2 * ROWS


def test_another_recipe_with_fewer_rows_gets_the_same_folds_from_the_same_sessions():
    decision, label_end, day = rows(12)
    some = day != 100  # the other recipe is not warm on the first day
    whole = WalkForward().split(decision, label_end, day)
    other = WalkForward().split(decision[some], label_end[some], day[some], np.unique(day))
    assert [fold.test_days.tolist() for fold in whole] == [fold.test_days.tolist() for fold in other]


@pytest.mark.parametrize(("embargo", "needed"), [(0, 6), (1, 11)])
def test_too_few_sessions_say_how_many_are_needed(embargo, needed):
    with pytest.raises(NotEnoughSessions, match=f"at least {needed} sessions, there are {needed - 1}"):
        WalkForward(4, embargo).split(*rows(needed - 1))
    assert len(WalkForward(4, embargo).split(*rows(needed))) == 5


def test_labels_that_leave_nothing_to_train_on_say_which_fold():
    with pytest.raises(NotEnoughSessions, match="fold 0 has no rows to train on"):
        WalkForward().split(*rows(10, label_minutes=100_000))


def test_days_are_said_as_dates():
    assert dates_of(np.array([0, 20_454])) == ("1970-01-01", "2026-01-01")
