from __future__ import annotations

import dataclasses
import io

import numpy as np
import pytest

from models_registry.flat import load_flat
from models_registry.out_of_fold import dump_out_of_fold, load_out_of_fold, with_out_of_fold
from models_registry.refusals import ARTIFACT_FILES, OUT_OF_FOLD_FILE, TamperedModel, verify_digests
from models_registry.training import OutOfFold
from tests.models_registry_frames import NAMES, packed, trained


def rewritten(**changes: np.ndarray) -> bytes:
    with np.load(io.BytesIO(dump_out_of_fold(trained()))) as archive:
        arrays = {name: archive[name] for name in archive.files} | changes
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def test_rows_and_fold_models_come_back_as_they_were() -> None:
    model = trained()
    rows, folds = load_out_of_fold(dump_out_of_fold(model))
    for one in dataclasses.fields(OutOfFold):
        ours, theirs = getattr(rows, one.name), getattr(model.oof, one.name)
        assert ours.dtype == theirs.dtype
        assert ours.tobytes() == theirs.tobytes()
    for mine, fold in zip(folds, model.fold_models, strict=True):
        assert dataclasses.asdict(mine) == dataclasses.asdict(fold)
        load_flat(mine.arrays, mine.algorithm, len(NAMES))


def test_equal_models_give_equal_bytes() -> None:
    assert dump_out_of_fold(trained()) == dump_out_of_fold(trained())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format_version": np.array(9)}, "format 9"),
        ({"fold_model_bytes": np.array([1, 2, 3, 4])}, "does not add up"),
        ({"row_score": np.zeros(3)}, "rows"),
        ({"fold_algorithm": np.array(["pickle"] * 4, dtype="<U32")}, "no such estimator"),
        ({"row_score": np.array(["a"])}, "row_score is"),
        ({"more": np.zeros(1)}, "holds"),
    ],
)
def test_a_crafted_file_is_refused_and_says_in_what(changes: dict[str, np.ndarray], said: str) -> None:
    with pytest.raises(TamperedModel, match=said):
        load_out_of_fold(rewritten(**changes))


def test_a_file_that_is_no_archive_is_refused() -> None:
    with pytest.raises(TamperedModel, match="not a readable npz"):
        load_out_of_fold(b"not one")


def test_it_is_part_of_a_version_by_digest_and_live_may_leave_it_out() -> None:
    whole = with_out_of_fold(packed(), trained())
    verify_digests(whole.files, whole.sha256)
    live = {name: whole.files[name] for name in ARTIFACT_FILES}
    verify_digests(live, whole.sha256)
    with pytest.raises(TamperedModel, match=OUT_OF_FOLD_FILE):
        verify_digests(whole.files | {OUT_OF_FOLD_FILE: b"other"}, whole.sha256)
    with pytest.raises(TamperedModel, match="exactly"):
        verify_digests(whole.files, packed().sha256)
