import numpy as np
import pytest

from models_registry.cross_validation import path_spread
from models_registry.validation.splitters import CombinatorialPurged, NotEnoughSessions
from tests.models_registry_frames import frame, spec


def test_every_path_of_a_planted_edge_shows_it():
    found = path_spread(frame(sessions=18), spec("logistic_regression"))
    assert (len(found.auc), len(found.auc_by_split)) == (5, 15)
    assert found.rows == 18 * 90 * 4
    assert found.lowest > 0.55
    assert 0.0 < found.standard_deviation < 0.02
    assert found.mean == pytest.approx(np.mean(found.auc_by_split), abs=0.01)


def test_paths_of_noise_lie_about_chance():
    found = path_spread(frame(sessions=18, edge=0.0), spec("logistic_regression"))
    assert abs(found.mean - 0.5) < 0.03


def test_fewer_rows_are_drawn_from_every_session_and_always_the_same():
    whole = frame(sessions=12)
    first, again = (path_spread(whole, spec("logistic_regression"), most_rows=2_000) for _ in range(2))
    assert first == again
    assert first.thinned_from == len(whole)
    assert 1_700 < first.rows < 1_900  # a tenth has no label
    assert first.lowest > 0.5


def test_boosted_trees_are_measured_too():
    found = path_spread(frame(), spec(hyperparameters={"max_iter": 5}), CombinatorialPurged(4, 2), most_rows=2_000)
    assert (len(found.auc), len(found.auc_by_split)) == (3, 6)
    assert found.mean > 0.52


def test_too_few_sessions_say_so():
    with pytest.raises(NotEnoughSessions, match="6 groups need at least as many sessions, there are 5"):
        path_spread(frame(sessions=5), spec("logistic_regression"))
