# ruff: noqa: N806
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from models_registry.packing import TamperedModel, load, pack, parity
from models_registry.refusals import ARTIFACT_FILES
from tests.models_registry_frames import SCHEMA_HASH, packed, sidecar

TREES = (
    HistGradientBoostingClassifier(max_iter=8, max_leaf_nodes=9, min_samples_leaf=5, early_stopping=False),
    RandomForestClassifier(n_estimators=7, min_samples_leaf=3, random_state=0),
)
data = {
    "seed": st.integers(0, 2**32 - 1),
    "features": st.integers(1, 8),
    "missing": st.sampled_from([0.0, 0.1, 0.6]),
    "levels": st.sampled_from([0, 3]),
    "scale": st.sampled_from([1e-9, 1.0, 1e6]),
}


def rows(random, n, features, levels, scale):
    X = random.normal(size=(n, features)) * scale
    return np.round(X / scale * levels) * scale if levels else X


@settings(max_examples=25, deadline=None)
@given(**data)
def test_flat_trees_equal_scikit_learn_bit_for_bit(seed, features, missing, levels, scale):
    random = np.random.default_rng(seed)
    X = rows(random, 400, features, levels, scale)
    holes = X.copy()
    holes[random.random(X.shape) < missing] = np.nan
    up = X[:, 0] + scale * random.normal(size=400) > 0
    with threadpool_limits(1):
        model = TREES[seed % 2].fit(holes, up)
    agreement = parity(pack(model, X[:64]), model, rows(random, 300, features, levels, scale))
    assert agreement.bit_equal
    assert parity(pack(model, X[:64]), model, holes).bit_equal


@settings(max_examples=25, deadline=None)
@given(**{name: data[name] for name in ("seed", "features", "scale")})
def test_a_flat_linear_model_is_within_1e_12_of_scikit_learn(seed, features, scale):
    random = np.random.default_rng(seed)
    X = rows(random, 400, features, 0, scale)
    up = X[:, 0] + scale * random.normal(size=400) > 0
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, up)
    agreement = parity(pack(model, X[:64]), model, rows(random, 300, features, 0, scale))
    assert agreement.holds
    assert agreement.largest_difference <= 1e-12


@settings(max_examples=150, deadline=None)
@given(name=st.sampled_from(ARTIFACT_FILES), where=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_a_flipped_byte_anywhere_is_refused(name, where, flip):
    files = dict(packed().files)
    value = bytearray(files[name])
    value[int(where * len(value))] ^= flip
    files[name] = bytes(value)
    with pytest.raises(TamperedModel):
        load(files, sidecar(), expected_feature_schema_hash=SCHEMA_HASH)


@settings(max_examples=100, deadline=None)
@given(name=st.sampled_from(ARTIFACT_FILES), keep=st.floats(0, 1, exclude_max=True), tail=st.binary(max_size=20))
def test_a_shortened_or_lengthened_file_is_refused(name, keep, tail):
    files = dict(packed().files)
    cut = files[name][: int(keep * len(files[name]))] + tail
    if cut == files[name]:
        return
    files[name] = cut
    with pytest.raises(TamperedModel):
        load(files, sidecar(), expected_feature_schema_hash=SCHEMA_HASH)


@settings(max_examples=150, deadline=None)
@given(where=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_a_flipped_byte_whose_digest_was_forged_never_reaches_the_walker_unsafely(where, flip):
    """Whoever rewrites the sidecar too still meets the structure's guard or the golden rows, or changed nothing."""
    from models_registry.packing import ModelRefusedError
    from models_registry.refusals import FLAT_FILE, sha256_of

    files = dict(packed().files)
    value = bytearray(files[FLAT_FILE])
    value[int(where * len(value))] ^= flip
    files[FLAT_FILE] = bytes(value)
    forged = sidecar().model_copy(update={"artifact_sha256": {n: sha256_of(v) for n, v in files.items()}})
    try:
        model = load(files, forged, expected_feature_schema_hash=SCHEMA_HASH)
    except ModelRefusedError:
        return
    assert np.isfinite(model.score(np.zeros((2, 4)))).all()
