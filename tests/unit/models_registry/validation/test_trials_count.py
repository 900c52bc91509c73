import math

import numpy as np
import pytest

from models_registry.validation.trials_count import effective_trials


def trials(number, *, groups=1, correlation=0.0, sessions=60, seed=1):
    """Trials that hang together inside each of the groups, which they belong to in turn."""
    random = np.random.default_rng(seed)
    shared = random.normal(size=(sessions, groups))[:, np.arange(number) % groups]
    return math.sqrt(correlation) * shared + math.sqrt(1 - correlation) * random.normal(size=(sessions, number))


@pytest.mark.parametrize("number", [1, 2, 3, 12])
def test_equal_trials_are_one(number):
    assert effective_trials(trials(number, correlation=1.0)).number == pytest.approx(1.0)


@pytest.mark.parametrize("number", [1, 2, 8, 30])
def test_unrelated_trials_are_as_many_as_they_are(number):
    assert effective_trials(trials(number)).number == pytest.approx(number, rel=0.1)


@pytest.mark.parametrize(("number", "groups"), [(12, 2), (24, 3), (40, 5)])
def test_groups_of_like_trials_are_about_as_many_as_the_groups(number, groups):
    found = effective_trials(trials(number, groups=groups, correlation=0.98))
    assert groups <= found.number < 1.25 * groups
    assert len(set(found.clusters)) == groups
    assert found.clusters[:groups] == found.clusters[groups : 2 * groups]
    assert found.silhouette > 0.7


def test_the_closer_trials_are_the_fewer_they_count():
    found = [effective_trials(trials(20, correlation=rho)).number for rho in (0.0, 0.3, 0.6, 0.9, 0.99)]
    assert found == sorted(found, reverse=True)
    assert found[-2] == pytest.approx(20 - 0.9 * 19, abs=1.0)


def test_opposite_trials_are_two_and_trials_that_never_traded_one():
    one = trials(1)
    assert effective_trials(np.hstack([one, -one])).number == 2.0
    assert effective_trials(np.hstack([one, np.zeros((60, 4))])).number == pytest.approx(2.0)
    assert effective_trials(np.zeros((60, 4))).number == 1.0
    assert effective_trials(np.empty((60, 0))).number == 0.0


def test_scale_and_order_do_not_matter():
    pnl = trials(24, groups=3, correlation=0.95)
    scaled = (pnl * np.linspace(1.0, 1e6, 24))[:, ::-1]
    assert effective_trials(scaled).number == pytest.approx(effective_trials(pnl).number)


def test_a_hole_in_a_record_is_refused():
    with pytest.raises(ValueError, match="a session without trades has 0"):
        effective_trials(np.full((5, 2), np.nan))
