"""Every family against the library that fitted it, on rows that lie where walkers and sums go wrong."""
# ruff: noqa: N806

from functools import lru_cache

import numpy as np
import pytest
import sklearn.ensemble
import sklearn.linear_model  # noqa: F401 - threadpool_limits reaches only what is loaded
from scipy.special import expit
from threadpoolctl import threadpool_limits

from models_registry.estimators.boosted_trees import BoostedTrees
from models_registry.estimators.families import FAMILIES, family_of
from models_registry.estimators.family import Unpackable
from models_registry.estimators.logistic import Logistic
from models_registry.flat import FlatModel
from models_registry.packing import pack, parity
from models_registry.specification import ESTIMATORS

TREES = ("hist_gradient_boosting", "random_forest")
QUICK = {"hist_gradient_boosting": {"max_iter": 40}, "random_forest": {"n_estimators": 40}, "logistic_regression": {}}
ROWS, FEATURES = 100_000, 6
SINGLE = np.finfo(np.float32)


@pytest.fixture(autouse=True)
def one_thread():
    with threadpool_limits(1):
        yield


@lru_cache
def fitted(name):
    """Fit to features that are smooth, rough, of few levels, tiny, huge and constant."""
    random = np.random.default_rng(5)
    X = random.normal(size=(6_000, FEATURES))
    X[:, 1] = np.round(X[:, 1] * 2) / 2
    X[:, 2] = X[:, 2] > 0
    X[:, 3] *= 1e-40
    X[:, 4] *= 1e30
    X[:, 5] = 0.1
    up = X[:, 0] + X[:, 1] + X[:, 2] + 1e40 * X[:, 3] + 1e-30 * X[:, 4] + random.normal(size=len(X)) > 0
    family = FAMILIES[name]
    return family.fit(family.build(3, len(X), QUICK[name]), X, up, np.ones(len(X)))


@lru_cache
def flat(name):
    return FlatModel(name, FEATURES, FAMILIES[name].flatten(fitted(name)))


def borders(thresholds):
    """Values on thresholds, next to them, and where rounding to 32 bits could go either way."""
    single = thresholds.astype(np.float32)
    around = [single, np.nextafter(single, SINGLE.max), np.nextafter(single, SINGLE.min)]
    exact = [value.astype(np.float64) for value in around]
    ties = [(exact[0] + other) / 2 for other in exact[1:]]
    near = [np.nextafter(value, end) for value in (thresholds, *exact, *ties) for end in (-np.inf, np.inf)]
    return np.concatenate([thresholds, *exact, *ties, *near])


def edge_rows(name, *, missing):
    random = np.random.default_rng(11)
    special = np.array([0.0, -0.0, 5e-324, -5e-324, 1e-310, 1e-45, -1e-45, 1e-38, 1.0, 1e300, -1e300])
    if name == "random_forest":
        special[-2:] = float(SINGLE.max), float(np.nextafter(np.float64(SINGLE.max), np.inf))
    if name == "logistic_regression":
        special[-2:] = 1e200, -1e200
    X = random.normal(size=(ROWS, FEATURES)) * [1, 1, 1, 1e-40, 1e30, 1]
    arrays = flat(name).arrays
    for column in range(FEATURES):
        pool = special
        if name in TREES:
            split = (arrays["is_leaf"] == 0) & (arrays["feature"] == column) & np.isfinite(arrays["threshold"])
            pool = np.concatenate([special, borders(arrays["threshold"][split])])
        at = random.random(ROWS) < 0.7
        X[at, column] = random.choice(pool, size=int(at.sum()))
    if missing:
        X[random.random(X.shape) < 0.1] = np.nan
    return X


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("name", TREES)
def test_trees_say_what_the_library_says_bit_for_bit(name, missing):
    X = edge_rows(name, missing=missing)
    score = flat(name).score(X)
    assert score.tobytes() == np.ascontiguousarray(fitted(name).predict_proba(X)[:, 1]).tobytes()
    assert len(np.unique(score)) > 1_000
    if name == "hist_gradient_boosting":
        margin = BoostedTrees().margin(X, flat(name).arrays)
        assert margin.tobytes() == fitted(name).decision_function(X).tobytes()


def test_a_linear_margin_is_as_near_to_the_librarys_as_its_order_of_summing_allows():
    X = edge_rows("logistic_regression", missing=False)
    a = flat("logistic_regression").arrays
    X = X[np.isfinite((X - a["mean"]) / a["scale"]).all(axis=1)]
    assert len(X) > ROWS // 2
    margin, theirs = Logistic().margin(X, a), fitted("logistic_regression").decision_function(X)
    assert np.abs(margin).max() > 1e10
    terms = np.abs((X - a["mean"]) / a["scale"] * a["coef"]).sum(axis=1) + abs(a["intercept"])
    bound = 2 * (FEATURES + 2) * 2.0**-53 * terms
    assert np.all(np.abs(margin - theirs) <= bound)
    score = flat("logistic_regression").score(X)
    assert score.tobytes() == expit(margin).tobytes()
    probability = fitted("logistic_regression").predict_proba(X)[:, 1]
    assert np.all(np.abs(score - probability) <= bound / 4 + 2.0**-52)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_row_scores_alone_as_it_does_among_others(name):
    X = edge_rows(name, missing=name in TREES)[:3_000]
    whole = flat(name).score(X)
    for size in (1, 7, 999):
        parts = [flat(name).score(X[at : at + size]) for at in range(0, len(X), size)]
        assert np.concatenate(parts).tobytes() == whole.tobytes()


@pytest.mark.parametrize("leaves", [2, 64, 65])
def test_trees_of_any_size_say_of_many_rows_what_they_say_of_each(leaves):
    random = np.random.default_rng(4)
    X = random.normal(size=(4_000, FEATURES))
    family = FAMILIES["hist_gradient_boosting"]
    few = {"max_iter": 3, "max_leaf_nodes": leaves, "max_depth": None, "min_samples_leaf": 1}
    model = family.fit(family.build(0, len(X), few), X, random.random(len(X)) < 0.5, np.ones(len(X)))
    arrays = family.flatten(model)
    assert arrays["is_leaf"][: arrays["tree_start"][1]].sum() == leaves
    X[::5, 1] = np.nan
    margin = BoostedTrees().margin(X, arrays)
    assert margin.tobytes() == model.decision_function(X).tobytes()
    assert (
        margin[:300].tobytes()
        == np.concatenate([BoostedTrees().margin(X[k : k + 1], arrays) for k in range(300)]).tobytes()
    )


@pytest.mark.parametrize("name", ["random_forest", "logistic_regression"])
@pytest.mark.parametrize("value", [np.inf, -np.inf, 1e300])
def test_a_row_that_the_library_refuses_scores_nothing_and_its_neighbours_as_ever(name, value):
    X = edge_rows(name, missing=False)[:50]
    X[:, 3] = 0.0  # 1e300 standardised by 1e-40 is infinite
    whole = flat(name).score(X)
    X[7, 3] = value
    with pytest.raises(ValueError, match="infinity"), np.errstate(over="ignore"):
        fitted(name).predict_proba(X)
    score = flat(name).score(X)
    assert np.isnan(score[7])
    np.testing.assert_array_equal(np.delete(score, 7), np.delete(whole, 7))


def test_an_infinite_value_lies_beyond_every_threshold_of_boosted_trees_as_for_the_library():
    X = edge_rows("hist_gradient_boosting", missing=False)[:1_000]
    X[::2, 0], X[1::2, 1] = np.inf, -np.inf
    score = flat("hist_gradient_boosting").score(X)
    assert score.tobytes() == fitted("hist_gradient_boosting").predict_proba(X)[:, 1].tobytes()


def test_a_missing_value_scores_nothing_in_a_sum():
    X = np.zeros((3, FEATURES))
    X[1, 2] = np.nan
    assert np.isnan(flat("logistic_regression").score(X)).tolist() == [False, True, False]


def test_trees_that_were_fitted_with_missing_values_send_them_where_they_learnt_to():
    random = np.random.default_rng(2)
    X = random.normal(size=(3_000, FEATURES))
    up = X[:, 0] + random.normal(size=len(X)) > 0
    X[(random.random(X.shape) < 0.3) & (up[:, None] | (random.random(X.shape) < 0.2))] = np.nan
    finite = X[np.isfinite(X).all(axis=1)][:64]
    for name in TREES:
        family = FAMILIES[name]
        model = family.fit(family.build(3, len(X), QUICK[name]), X, up, np.ones(len(X)))
        packed = pack(model, np.tile(finite, (5, 1))[:64])
        assert parity(packed, model, X).bit_equal


@pytest.mark.parametrize("name", ESTIMATORS)
def test_an_estimator_is_known_by_what_it_is_and_flattens_to_its_familys_layout(name):
    assert family_of(fitted(name)) == name
    arrays = FAMILIES[name].flatten(fitted(name))
    assert {key: (array.dtype.str, array.ndim) for key, array in arrays.items()} == FAMILIES[name].layout
    assert FAMILIES[name].problem(arrays, FEATURES) is None


@pytest.mark.parametrize("name", ESTIMATORS)
def test_edge_rows_are_ones_the_packed_model_is_tried_on(name):
    rows = FAMILIES[name].edge_rows(np.zeros((64, FEATURES)), flat(name).arrays)
    assert rows.shape == (64 + FEATURES + 1 if name in TREES else 0, FEATURES)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_the_same_rows_and_seed_give_the_same_bits_and_a_search_has_spans_that_the_family_takes(name):
    family, random = FAMILIES[name], np.random.default_rng(0)
    X = random.normal(size=(500, 3))
    for end in ("low", "high"):
        chosen = {key: getattr(span, end) for key, span in family.search_space().items()} | QUICK[name]
        one, two = (family.fit(family.build(7, 500, chosen), X, X[:, 0] > 0, np.ones(500)) for _ in range(2))
        arrays = family.flatten(one)
        assert all(array.tobytes() == family.flatten(two)[key].tobytes() for key, array in arrays.items())


def test_a_constant_feature_has_a_scale_of_one_though_weights_round_its_variance_below_zero():
    family, random = FAMILIES["logistic_regression"], np.random.default_rng(0)
    X = np.stack([random.normal(size=4_000), np.full(4_000, 0.1)], axis=1)
    for seed in range(20):
        weight = np.random.default_rng(seed).uniform(0.1, 2.0, size=4_000)
        arrays = family.flatten(family.fit(family.build(0, 4_000, {}), X, X[:, 0] > 0, weight))
        assert arrays["scale"][1] == 1.0


def test_a_constant_feature_has_a_scale_of_one_and_no_weight_in_any_family():
    assert flat("logistic_regression").arrays["scale"][5] == 1.0
    assert flat("logistic_regression").arrays["coef"][5] == pytest.approx(0.0, abs=1e-12)
    for name in TREES:
        split = flat(name).arrays["is_leaf"] == 0
        assert not np.any(flat(name).arrays["feature"][split] == 5)


@pytest.mark.parametrize("name", TREES)
def test_trees_of_one_class_have_no_flat_form(name):
    family = FAMILIES[name]
    model = family.fit(family.build(0, 300, QUICK[name]), np.zeros((300, 2)), np.ones(300, dtype=bool), np.ones(300))
    with pytest.raises(Unpackable, match=r"knows 1 class \(True\), a score tells two apart"):
        family.flatten(model)


def test_a_forest_without_drawn_samples_can_be_asked_for():
    family = FAMILIES["random_forest"]
    model = family.build(0, 300, {"bootstrap": False, "n_estimators": 3})
    assert family.fit(model, np.arange(300.0)[:, None], np.arange(300) > 99, np.ones(300)).max_samples is None


def test_a_forest_of_two_answers_a_row_is_refused():
    family, X = FAMILIES["random_forest"], np.arange(40.0)[:, None]
    with pytest.raises(Unpackable):
        family.flatten(family.build(0, 40, QUICK["random_forest"]).fit(X, np.tile(X > 9, 2)))
