# ruff: noqa: N806
import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import RobustScaler, StandardScaler

from models_registry.flat import dump_arrays, flatten, load_arrays, load_flat
from models_registry.packing import (
    TRUSTED_TYPES,
    FeatureSchemaMismatch,
    GoldenRowsDiffer,
    ModelRefusedError,
    TamperedModel,
    Unpackable,
    load,
    pack,
    parity,
)
from models_registry.refusals import FLAT_FILE, GOLDEN_FILE, sha256_of
from models_registry.specification import ESTIMATORS
from tests.models_registry_frames import SCHEMA_HASH, frame, packed, sidecar, trained


def with_file(files, name, value):
    """A version whose sidecar agrees with the changed file: what is left is the structure's own guard."""
    changed = dict(files) | {name: value}
    record = sidecar().model_copy(update={"artifact_sha256": {n: sha256_of(v) for n, v in changed.items()}})
    return changed, record


@pytest.mark.parametrize("algorithm", ESTIMATORS)
def test_a_packed_model_loads_and_scores_like_the_trained_one(algorithm):
    model = load(packed(algorithm).files, sidecar(algorithm), expected_feature_schema_hash=SCHEMA_HASH)
    X = frame(seed=9).X
    reference = trained(algorithm).estimator.predict_proba(X)[:, 1]
    if algorithm == "logistic_regression":
        assert np.max(np.abs(model.score(X) - reference)) <= 1e-12
    else:
        assert model.score(X).tobytes() == reference.tobytes()


@pytest.mark.parametrize("algorithm", ESTIMATORS)
def test_scores_do_not_depend_on_how_rows_are_batched(algorithm):
    model = load(packed(algorithm).files, sidecar(algorithm), expected_feature_schema_hash=SCHEMA_HASH)
    X = frame(seed=9).X[:200]
    one_by_one = np.concatenate([model.score(X[i : i + 1]) for i in range(len(X))])
    assert one_by_one.tobytes() == model.score(X).tobytes() == model.score(np.asfortranarray(X)).tobytes()


def test_trees_send_missing_values_where_scikit_learn_does():
    X = frame(seed=9).X[:3000].copy()
    X[np.random.default_rng(0).random(X.shape) < 0.3] = np.nan
    model = load(packed().files, sidecar(), expected_feature_schema_hash=SCHEMA_HASH)
    assert model.score(X).tobytes() == trained().estimator.predict_proba(X)[:, 1].tobytes()


@pytest.mark.parametrize("algorithm", ESTIMATORS)
def test_parity_holds_on_rows_that_are_not_golden(algorithm):
    found = parity(packed(algorithm), trained(algorithm).estimator, frame(seed=8).X[:1000])
    assert found.holds
    assert found.rows == 1000


def test_flat_and_golden_files_are_the_same_bytes_every_time():
    again = pack(trained().estimator, trained().golden_rows)
    assert {n: again.sha256[n] for n in (FLAT_FILE, GOLDEN_FILE)} == {
        n: packed().sha256[n] for n in (FLAT_FILE, GOLDEN_FILE)
    }


@pytest.mark.parametrize("algorithm", ESTIMATORS)
def test_the_skops_file_is_the_estimator(algorithm):
    import skops.io

    back = skops.io.loads(packed(algorithm).files["model.skops"], trusted=list(TRUSTED_TYPES))
    X = frame().X[:50]
    np.testing.assert_array_equal(back.predict_proba(X), trained(algorithm).estimator.predict_proba(X))


def test_loading_never_deserialises_the_skops_file(monkeypatch):
    import skops.io

    def refuse(*args, **kwargs):
        raise AssertionError("live code read model.skops")

    for name in ("load", "loads"):
        monkeypatch.setattr(skops.io, name, refuse)
    load(packed().files, sidecar(), expected_feature_schema_hash=SCHEMA_HASH)


def test_digests_are_compared_before_anything_is_parsed():
    broken = dict.fromkeys(packed().files, b"no model")
    with pytest.raises(TamperedModel, match="the artifact was changed"):
        load(broken, sidecar(), expected_feature_schema_hash="another")


@pytest.mark.parametrize("change", ["missing", "unexpected"])
def test_a_missing_or_unexpected_file_is_refused(change):
    files = dict(packed().files)
    if change == "missing":
        del files[FLAT_FILE]
    else:
        files["run_me.py"] = b""
    with pytest.raises(TamperedModel, match="exactly"):
        load(files, sidecar(), expected_feature_schema_hash=SCHEMA_HASH)


def test_a_model_of_other_features_is_refused():
    with pytest.raises(FeatureSchemaMismatch, match="Train the model on the current features"):
        load(packed().files, sidecar(), expected_feature_schema_hash="0" * 64)


def test_a_model_that_says_something_else_on_the_golden_rows_is_refused():
    golden = load_arrays(packed().files[GOLDEN_FILE], {"X": ("<f8", 2), "score": ("<f8", 1)}, GOLDEN_FILE)
    golden["score"] = golden["score"].copy()
    golden["score"][7] = np.nextafter(golden["score"][7], 1.0)
    files, record = with_file(packed().files, GOLDEN_FILE, dump_arrays(golden))
    with pytest.raises(GoldenRowsDiffer, match="1 of"):
        load(files, record, expected_feature_schema_hash=SCHEMA_HASH)


def _first_split(arrays):
    return int(np.flatnonzero(arrays["is_leaf"] == 0)[0])


def _set(name, value):
    def change(arrays):
        arrays[name][_first_split(arrays)] = value

    return change


def _drop(arrays):
    del arrays["right"]


def _retype(arrays):
    arrays["threshold"] = arrays["threshold"].astype(np.float32)


def _format(arrays):
    arrays["format_version"] = np.array(2)


def _width(arrays):
    arrays["n_features"] = np.array(40)


@pytest.mark.parametrize(
    "change",
    [
        _set("left", 0),
        _set("feature", 4),
        _drop,
        _retype,
        _format,
        _width,
    ],
)
def test_a_crafted_tree_is_refused_even_when_its_digest_fits(change):
    _, arrays = flatten(trained().estimator)
    arrays = {name: array.copy() for name, array in arrays.items()}
    change(arrays)
    files, record = with_file(packed().files, FLAT_FILE, dump_arrays(arrays))
    with pytest.raises(TamperedModel, match=r"flat\.npz"):
        load(files, record, expected_feature_schema_hash=SCHEMA_HASH)


def test_a_pickled_array_is_refused():
    import io

    buffer = io.BytesIO()
    _, arrays = flatten(trained().estimator)
    np.savez(buffer, allow_pickle=True, **(arrays | {"value": np.array([print], dtype=object)}))
    files, record = with_file(packed().files, FLAT_FILE, buffer.getvalue())
    with pytest.raises(TamperedModel, match="without pickle"):
        load(files, record, expected_feature_schema_hash=SCHEMA_HASH)


def test_a_linear_model_with_a_zero_scale_is_refused():
    _, arrays = flatten(trained("logistic_regression").estimator)
    arrays["scale"] = np.zeros_like(arrays["scale"])
    with pytest.raises(TamperedModel, match="not positive"):
        load_flat(dump_arrays(arrays), "logistic_regression", 4)


@pytest.mark.parametrize("rows", [np.zeros((3, 5)), np.zeros((3, 4), dtype=np.float32), np.zeros(4)])
def test_rows_of_another_shape_or_dtype_are_not_scored(rows):
    model = load(packed().files, sidecar(), expected_feature_schema_hash=SCHEMA_HASH)
    with pytest.raises(ValueError, match="4 features"):
        model.score(rows)


def test_no_rows_have_no_scores():
    model = load(packed().files, sidecar(), expected_feature_schema_hash=SCHEMA_HASH)
    assert model.score(np.empty((0, 4))).shape == (0,)


def test_packing_needs_enough_finite_golden_rows():
    with pytest.raises(ValueError, match="at least 64"):
        pack(trained().estimator, trained().golden_rows[:63])
    with pytest.raises(ValueError, match="finite"):
        pack(trained().estimator, np.full((64, 4), np.nan))


def fitted(estimator, classes=2):
    """Fit it on a few rows of three features; the flat forms of our families need no more."""
    X = np.random.default_rng(0).normal(size=(300, 3))
    return estimator.fit(X, np.digitize(X[:, 0], np.linspace(-0.5, 0.5, classes - 1)))


@pytest.mark.parametrize(
    ("estimator", "said"),
    [
        (object(), "no flat form for object: train with one of hist_gradient_boosting, logistic_regression"),
        (fitted(make_pipeline(RobustScaler(), LogisticRegression())), "Pipeline of RobustScaler and LogisticReg"),
        (fitted(make_pipeline(StandardScaler(with_std=False), LogisticRegression())), r"StandardScaler\(with_std=Fa"),
        (fitted(make_pipeline(StandardScaler(with_mean=False), LogisticRegression())), "subtracts a mean"),
        (fitted(make_pipeline(StandardScaler(), LogisticRegression()), classes=3), r"3 classes \(0, 1, 2\)"),
        (fitted(make_pipeline(StandardScaler(), LinearRegression())), "no flat form for Pipeline of StandardScaler"),
        (fitted(HistGradientBoostingClassifier(max_iter=2), classes=3), "3 classes"),
        (fitted(HistGradientBoostingRegressor(max_iter=2)), "no flat form for HistGradientBoostingRegressor"),
        (HistGradientBoostingClassifier(), "not fitted"),
        (make_pipeline(StandardScaler(), LogisticRegression()), "not fitted"),
    ],
)
def test_what_has_no_flat_form_is_refused_at_training_with_one_sentence(estimator, said):
    with pytest.raises(Unpackable, match=said):
        pack(estimator, np.zeros((64, 3)))


def test_a_coefficient_that_is_no_number_is_refused_at_training():
    spoilt = fitted(make_pipeline(StandardScaler(), LogisticRegression()))
    spoilt[-1].coef_[0, 1] = np.nan
    with pytest.raises(Unpackable, match="a coefficient is not finite"):
        pack(spoilt, np.zeros((64, 3)))


def test_every_refusal_is_one_tree():
    assert issubclass(TamperedModel, ModelRefusedError)
    assert issubclass(FeatureSchemaMismatch, ModelRefusedError)
    assert issubclass(GoldenRowsDiffer, ModelRefusedError)
