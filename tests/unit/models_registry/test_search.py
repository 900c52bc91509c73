import dataclasses
import itertools

import numpy as np
import pytest

from models_registry.estimators.families import FAMILIES
from models_registry.search import SearchResult, search
from models_registry.specification import ESTIMATORS
from models_registry.training import UntrainableFrame, session_days, train
from models_registry.validation.splitters import NotEnoughSessions
from tests.models_registry_frames import FIT, frame, spec

SESSIONS, BLOCK = 16, 6  # two folds: three blocks of sessions, the first has six
QUICK = {
    "hist_gradient_boosting": {"max_iter": 15, "max_bins": 15},
    "random_forest": {"n_estimators": 15},
    "logistic_regression": {},
}


def recipe(estimator="hist_gradient_boosting", **changes):
    return spec(estimator, **({"folds": 2, "hyperparameters": QUICK[estimator]} | changes))


def rows(**changes):
    return frame(**({"sessions": SESSIONS, "rows": 60, "instruments": 2} | changes))


def looked(a_frame, a_spec, tries=4) -> SearchResult:
    ticks = itertools.count()
    return search(a_frame, a_spec, tries=tries, told=lambda _: None, clock=lambda: float(next(ticks)))


def test_no_tries_search_nothing_and_leave_what_was_specified():
    assert looked(rows(), recipe(), 0) == SearchResult({"max_iter": 15, "max_bins": 15}, ())


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_every_family_is_searched_from_what_was_specified_and_the_lowest_loss_is_chosen(estimator):
    found = looked(rows(), recipe(estimator))
    assert [one.number for one in found.tries] == [1, 2, 3, 4]
    assert found.tries[0].hyperparameters == QUICK[estimator]
    space = FAMILIES[estimator].search_space()
    for one in found.tries[1:]:
        assert one.hyperparameters.keys() == space.keys() | QUICK[estimator].keys()
        assert all(span.low <= one.hyperparameters[name] <= span.high for name, span in space.items())
        assert one.hyperparameters.items() >= QUICK[estimator].items()
    assert found.chosen == min(found.tries, key=lambda one: one.value).hyperparameters
    train(rows(), recipe(estimator, hyperparameters=found.chosen), FIT)


def test_where_a_better_value_is_planted_it_is_found():
    """Noise alone: who learns slowly learns less of it."""
    found = looked(rows(edge=0.0), recipe(hyperparameters={"max_iter": 60, "max_bins": 15, "max_leaf_nodes": 31}), 8)
    own, best = found.tries[0], min(found.tries, key=lambda one: one.value)
    assert best.value < own.value - 0.01
    assert best.hyperparameters["learning_rate"] < 0.03  # 0.05 by default


def test_the_same_rows_and_seed_give_the_same_tries_and_another_seed_others():
    assert looked(rows(), recipe()) == looked(rows(), recipe())
    assert looked(rows(), recipe()).tries[1] != looked(rows(), recipe(seed=2)).tries[1]


@pytest.mark.parametrize("embargo_sessions", [0, 1])
def test_no_session_behind_the_first_block_is_seen(embargo_sessions):
    whole, changed = rows(), rows()
    days = session_days(changed.decision_ns)
    seen = np.unique(days)[: BLOCK - embargo_sessions]
    later = ~np.isin(days, seen)
    random = np.random.default_rng(1)
    changed.X[later] = 50 * random.normal(size=changed.X[later].shape)
    changed.forward_return[later] = random.normal(size=later.sum())
    kept = ~later | (random.random(len(days)) < 0.5)
    columns = [
        field.name for field in dataclasses.fields(changed) if isinstance(getattr(changed, field.name), np.ndarray)
    ]
    thinner = dataclasses.replace(changed, **{name: getattr(changed, name)[kept] for name in columns})
    asked = recipe("logistic_regression", embargo_sessions=embargo_sessions)
    assert looked(whole, asked) == looked(changed, asked)
    assert looked(whole, asked) == looked(thinner, asked)
    within = days == seen[-1]
    changed.forward_return[within] = -changed.forward_return[within]
    assert looked(whole, asked) != looked(changed, asked)


def test_a_label_that_reaches_into_the_second_block_is_not_looked_at():
    long, changed = rows(), rows()
    days = session_days(long.decision_ns)
    last = np.flatnonzero(days == np.unique(days)[BLOCK - 1])[-20:]
    for one in (long, changed):
        one.label_end_ns[last] += 3 * 86_400 * 10**9
        one.forward_return[last] = 1e-3
    changed.forward_return[last] = -1e-3
    asked = recipe("logistic_regression")
    assert looked(long, asked) == looked(changed, asked)


def test_what_was_specified_is_not_searched():
    found = looked(rows(), recipe(hyperparameters={"max_iter": 15, "max_bins": 15, "learning_rate": 0.02}))
    assert all(one.hyperparameters["learning_rate"] == 0.02 for one in found.tries)
    alone = looked(rows(), recipe("logistic_regression", hyperparameters={"C": 0.5}))
    assert (len(alone.tries), alone.chosen) == (1, {"C": 0.5})


def test_progress_says_what_was_found_and_what_is_left():
    told, ticks = [], itertools.count()
    search(rows(), recipe("logistic_regression"), tries=3, told=told.append, clock=lambda: float(next(ticks)))
    assert len(told) == 3
    assert told[0].startswith("try 1 of 3 (as specified): log loss 0.6")
    assert told[0].endswith("; about 2 s left")
    assert told[1].startswith("try 2 of 3 (C ")
    assert "chosen: " in told[2]


def test_optunas_own_voice_is_silent_and_its_setting_left_as_it_was(capfd):
    from optuna import logging

    before = logging.get_verbosity()
    looked(rows(), recipe("logistic_regression"))
    assert capfd.readouterr() == ("", "")
    assert logging.get_verbosity() == before


@pytest.mark.parametrize("tries", [-1, 9])
def test_another_number_of_tries_is_refused(tries):
    with pytest.raises(ValueError, match=f"0 to 8 tries, not {tries}"):
        looked(rows(), recipe(), tries)


def test_a_first_block_that_cannot_be_cut_is_one_sentence():
    with pytest.raises(NotEnoughSessions, match=r"search of 'momentum' has the 2 sessions .* at least 3 are needed"):
        looked(rows(sessions=6), recipe())


def test_a_block_of_one_class_and_a_wrong_hyperparameter_are_one_sentence():
    one_way = rows()
    one_way.forward_return[:] = np.abs(one_way.forward_return)
    with pytest.raises(UntrainableFrame, match=r"search's fold for 2026-.* all moved the same way"):
        looked(one_way, recipe())
    with pytest.raises(UntrainableFrame, match=r"of 'momentum' cannot be fitted: .*max_iters"):
        looked(rows(), recipe(hyperparameters={"max_iters": 3}))


def test_labels_that_are_no_numbers_are_left_out_and_too_few_are_refused_with_their_number():
    bare = rows()
    bare.forward_return[:] = np.nan
    with pytest.raises(UntrainableFrame, match=r"0 usable rows.*1920 label_missing"):
        looked(bare, recipe())
