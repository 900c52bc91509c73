"""Flat forms that somebody wrote by hand: the walker checks no bounds, so `problem` refuses what it could not walk."""

from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models_registry.estimators.families import FAMILIES
from models_registry.estimators.trees import NODES, joined, problem_of_nodes
from models_registry.specification import ESTIMATORS

FEATURES = 3
TREES = ("hist_gradient_boosting", "random_forest")


@lru_cache
def _form(name):
    random = np.random.default_rng(1)
    X = random.normal(size=(400, FEATURES))  # noqa: N806
    few = {"hist_gradient_boosting": {"max_iter": 3}, "random_forest": {"n_estimators": 3}, "logistic_regression": {}}
    family = FAMILIES[name]
    model = family.build(0, len(X), few[name])
    return family.flatten(family.fit(model, X, X[:, 0] + X[:, 1] + random.normal(size=len(X)) > 0, np.ones(len(X))))


def form(name):
    """A form of its own to spoil."""
    return {key: array.copy() for key, array in _form(name).items()}


def splits(arrays):
    """Nodes that split, of the second tree."""
    first, end = arrays["tree_start"][1:3]
    return first + np.flatnonzero(arrays["is_leaf"][first:end] == 0)


def at_split(key, value, which=0):
    def spoil(a):
        a[key][splits(a)[which]] = value

    return spoil


def cycle(a):
    a["left"][splits(a)[1]] = 0


def itself(a):
    node = splits(a)[1]
    a["right"][node] = node - a["tree_start"][1]


def last_outside(a):
    a["right"][splits(a)[0]] = np.diff(a["tree_start"])[1]


def shared_child(a):
    a["left"][splits(a)[0]] = a["right"][splits(a)[0]]


def overlap(a):
    a["tree_start"][2] = a["tree_start"][1]


def backwards(a):
    a["tree_start"][1:3] = a["tree_start"][[2, 1]]


def uncovered(a):
    a["tree_start"][-1] -= 1


def begins_late(a):
    a["tree_start"][0] = 1


def no_tree(a):
    a["tree_start"] = a["tree_start"][:1]


def far_start(a):
    a["tree_start"][1] = np.iinfo(np.int64).min


def leaf_is_no_number(value):
    def spoil(a):
        a["value"][np.flatnonzero(a["is_leaf"])[0]] = value

    return spoil


@pytest.mark.parametrize("name", TREES)
@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (cycle, "a left child is not forward"),
        (itself, "a right child is not forward"),
        (at_split("left", -1), "a left child is not forward and inside its tree"),
        (last_outside, "a right child is not forward and inside its tree"),
        (at_split("right", 2**31 - 1), "a right child is not forward and inside its tree"),
        (shared_child, "child of two splits or of none"),
        (at_split("is_leaf", 1), "child of two splits or of none"),
        (at_split("feature", FEATURES), "asks for a feature that does not exist"),
        (at_split("feature", -1), "asks for a feature that does not exist"),
        (at_split("threshold", np.nan), "not a number"),
        (leaf_is_no_number(np.nan), "not a number"),
        (leaf_is_no_number(np.inf), "not a number"),
        (at_split("missing_left", 2), "neither 0 nor 1"),
        (at_split("is_leaf", 255), "neither 0 nor 1"),
        (overlap, "do not cover the nodes"),
        (backwards, "do not cover the nodes"),
        (uncovered, "do not cover the nodes"),
        (begins_late, "do not cover the nodes"),
        (no_tree, "do not cover the nodes"),
        (far_start, "do not cover the nodes"),
    ],
)
def test_a_crafted_tree_is_refused_with_its_fault(name, spoil, said):
    arrays = form(name)
    spoil(arrays)
    assert said in FAMILIES[name].problem(arrays, FEATURES)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_an_array_of_another_type_shape_length_or_name_is_refused(name):
    family = FAMILIES[name]
    for key, array in form(name).items():
        other = np.float32 if array.dtype == np.float64 else np.float64
        assert f"{key} is " in family.problem(form(name) | {key: array.astype(other)}, FEATURES)
        if array.itemsize > 1:
            swapped = array.astype(array.dtype.newbyteorder())
            assert f"{key} is " in family.problem(form(name) | {key: swapped}, FEATURES)
        assert f"{key} is " in family.problem(form(name) | {key: array[None]}, FEATURES)
        less = form(name)
        del less[key]
        assert "expected" in family.problem(less, FEATURES)
        if array.ndim:
            assert family.problem(form(name) | {key: array[:-1]}, FEATURES)
    assert "expected" in family.problem(form(name) | {"code": np.zeros(1)}, FEATURES)


@pytest.mark.parametrize("value", [-0.01, 1.01])
def test_a_forests_leaf_is_a_probability(value):
    arrays = form("random_forest")
    leaf_is_no_number(value)(arrays)
    assert FAMILIES["random_forest"].problem(arrays, FEATURES) == "a value is no probability"


@pytest.mark.parametrize("key", ["mean", "scale", "coef"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_sum_with_a_number_that_is_not_finite_is_refused(key, value):
    arrays = form("logistic_regression")
    arrays[key][1] = value
    assert FAMILIES["logistic_regression"].problem(arrays, FEATURES) == "a coefficient is not finite"


@pytest.mark.parametrize("value", [0.0, -1.0, -0.0])
def test_a_scale_that_is_not_positive_is_refused(value):
    arrays = form("logistic_regression")
    arrays["scale"][1] = value
    assert FAMILIES["logistic_regression"].problem(arrays, FEATURES) == "a scale is not positive"


@pytest.mark.parametrize(
    ("name", "key"), [("hist_gradient_boosting", "baseline"), ("logistic_regression", "intercept")]
)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_sum_that_begins_at_no_number_is_refused(name, key, value):
    assert FAMILIES[name].problem(form(name) | {key: np.array(value)}, FEATURES)


@settings(max_examples=300, deadline=None)
@given(
    name=st.sampled_from(ESTIMATORS),
    changes=st.lists(
        st.tuples(st.integers(0, 20), st.floats(0, 1, exclude_max=True), st.integers(-(2**63), 2**63 - 1)),
        min_size=1,
        max_size=3,
    ),
    small=st.booleans(),
)
def test_whatever_bits_are_changed_the_form_is_refused_or_scores_every_row(name, changes, small):
    arrays = form(name)
    for which, where, bits in changes:
        keys = [key for key in arrays if key not in {"format_version", "n_features"}]
        array = arrays[keys[which % len(keys)]]
        flat = array.reshape(-1).view(f"u{array.dtype.itemsize}")
        value = bits % (2 * len(flat) if small else 2 ** (8 * array.dtype.itemsize))
        flat[int(where * len(flat))] = np.uint64(value).astype(flat.dtype)
    family = FAMILIES[name]
    if family.problem(arrays, FEATURES) is None:
        rows = np.array([[0.0] * FEATURES, [1.0] * FEATURES, [-1.0] * FEATURES])
        with np.errstate(over="ignore"):
            score = family.probability(rows, arrays)
        assert score.shape == (3,)
        if name in TREES:
            assert np.all(np.isfinite(score) & (score >= 0.0) & (score <= 1.0))


@st.composite
def binary_trees(draw):
    """Trees that grow anywhere: as many leaves as splits and one more, each node's children behind it."""
    grown = []
    for _ in range(draw(st.integers(1, 4))):
        left, right = [0], [0]
        for _ in range(draw(st.integers(0, 8))):
            leaves = [node for node, child in enumerate(left) if child == 0]
            node = draw(st.sampled_from(leaves))
            left[node], right[node] = len(left), len(left) + 1
            left += [0, 0]
            right += [0, 0]
        n = len(left)
        column = st.lists(st.sampled_from([-1.0, -0.0, 0.0, 1.0]), min_size=n, max_size=n)
        grown.append(
            {
                "feature": np.array(draw(st.lists(st.integers(0, 1), min_size=n, max_size=n))),
                "threshold": np.array(draw(column)),
                "missing_left": np.array(draw(st.lists(st.booleans(), min_size=n, max_size=n))),
                "left": np.array(left),
                "right": np.array(right),
                "is_leaf": np.array(left) == 0,
                "value": np.arange(n) / n,
            }
        )
    return grown


def walked(tree, row):
    """Follow one row down, in plain Python."""
    node = 0
    while not tree["is_leaf"][node]:
        x = row[tree["feature"][node]]
        left = tree["missing_left"][node] if np.isnan(x) else x <= tree["threshold"][node]
        node = tree["left" if left else "right"][node]
    return tree["value"][node]


@settings(max_examples=100, deadline=None)
@given(trees=binary_trees(), seed=st.integers(0, 1000))
def test_any_binary_trees_are_accepted_and_walked_as_drawn(trees, seed):
    arrays = joined(trees)
    assert {key: (array.dtype.str, array.ndim) for key, array in arrays.items()} == NODES
    assert problem_of_nodes(arrays, 2) is None
    rows = np.random.default_rng(seed).choice([-1.0, -0.0, 0.0, 0.5, 1.0, np.nan], size=(5, 2))
    family = FAMILIES["random_forest"]
    expected = []
    for row in rows:
        total = 0.0
        for tree in trees:
            total += walked(tree, row)
        expected.append(total / len(trees))
    np.testing.assert_array_equal(family.probability(rows, arrays), expected)
