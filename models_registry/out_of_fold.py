"""What walk-forward said of rows that its models had not seen, and these models, as one file that a version keeps.

A backtest runs each of these sessions with the model of the fold that had not seen it, so that a strategy is judged as
a whole without a training per day. Live code never asks for it. Pure: arrays without pickle, in bytes.
"""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from models_registry.flat import dump_arrays, load_arrays
from models_registry.packing import Packed
from models_registry.refusals import OUT_OF_FOLD_FILE, TamperedModel, sha256_of
from models_registry.specification import ESTIMATORS, Estimator
from models_registry.training import FoldModel, OutOfFold

if TYPE_CHECKING:
    from models_registry.training import TrainedModel

_FORMAT: Final = 1
_ROWS: Final = {
    "score": "<f8", "up": "<f8", "forward_return": "<f8", "side": "|i1", "decision_ns": "<i8", "label_end_ns": "<i8",
    "instrument": "<i4", "day": "<i8", "weight": "<f8", "base_rate": "<f8", "gain": "<f8", "base_gain": "<f8",
    "fold": "<i8",
}  # fmt: skip
_FOLDS: Final = {
    "fold_number": "<i8", "fold_algorithm": "<U32", "fold_buy_threshold": "<f8", "fold_sell_threshold": "<f8",
    "fold_model_bytes": "<i8", "fold_sessions": "<i8",
}  # fmt: skip
_LAYOUT: Final = {
    "format_version": ("<i8", 0),
    **{f"row_{name}": (dtype, 1) for name, dtype in _ROWS.items()},
    **{name: (dtype, 1) for name, dtype in _FOLDS.items()},
    "models": ("|u1", 1),  # the folds' flat models, one after the other
    "sessions": ("<U10", 1),  # the folds' dates, one after the other
}


def dump_out_of_fold(trained: TrainedModel) -> bytes:
    """Write the out-of-fold rows of a model and the model of each fold; equal arguments give equal bytes.

    Parameters
    ----------
    trained : TrainedModel
        Its ``oof`` (arrays of shape ``(m,)``) and its ``fold_models`` are written.
    """
    folds, dates = trained.fold_models, [date for fold in trained.fold_models for date in fold.sessions]
    models = np.frombuffer(b"".join(fold.arrays for fold in folds), dtype=np.uint8)
    columns: dict[str, list[Any]] = {
        "fold_number": [fold.number for fold in folds],
        "fold_algorithm": [fold.algorithm for fold in folds],
        "fold_buy_threshold": [fold.buy_threshold for fold in folds],
        "fold_sell_threshold": [np.nan if fold.sell_threshold is None else fold.sell_threshold for fold in folds],
        "fold_model_bytes": [len(fold.arrays) for fold in folds],
        "fold_sessions": [len(fold.sessions) for fold in folds],
    }
    arrays: dict[str, NDArray[Any]] = {"format_version": np.array(_FORMAT, dtype=np.int64)}
    arrays |= {f"row_{one.name}": getattr(trained.oof, one.name) for one in fields(OutOfFold)}
    arrays |= {name: np.array(values, dtype=_FOLDS[name]) for name, values in columns.items()}
    arrays |= {"models": models, "sessions": np.array(dates, dtype="<U10")}
    return dump_arrays(arrays, compressed=True)


def load_out_of_fold(value: bytes) -> tuple[OutOfFold, tuple[FoldModel, ...]]:
    """Read what `dump_out_of_fold` wrote; the folds' models are checked by `models_registry.flat.load_flat`.

    Raises
    ------
    TamperedModel
        If it is no npz without pickle, or not of this layout; says what is wrong.
    """
    found = load_arrays(value, _LAYOUT, OUT_OF_FOLD_FILE)
    if int(found["format_version"]) != _FORMAT:
        raise TamperedModel(f"{OUT_OF_FOLD_FILE} has format {int(found['format_version'])}, this code reads {_FORMAT}")
    if problem := _problem(found):
        raise TamperedModel(f"{OUT_OF_FOLD_FILE}: {problem}")
    ends = np.cumsum(found["fold_model_bytes"]).tolist()
    last = np.cumsum(found["fold_sessions"]).tolist()
    folds = tuple(
        FoldModel(
            number=int(found["fold_number"][k]),
            algorithm=cast("Estimator", str(found["fold_algorithm"][k])),
            arrays=found["models"][ends[k] - int(found["fold_model_bytes"][k]) : ends[k]].tobytes(),
            buy_threshold=float(found["fold_buy_threshold"][k]),
            sell_threshold=None if np.isnan(sell := float(found["fold_sell_threshold"][k])) else sell,
            sessions=tuple(found["sessions"][last[k] - int(found["fold_sessions"][k]) : last[k]].tolist()),
        )
        for k in range(len(ends))
    )
    return OutOfFold(**{name: found[f"row_{name}"] for name in _ROWS}), folds


def with_out_of_fold(packed: Packed, trained: TrainedModel) -> Packed:
    """Give a packed model with its out-of-fold rows and fold models among its files."""
    value = dump_out_of_fold(trained)
    return Packed(packed.files | {OUT_OF_FOLD_FILE: value}, packed.sha256 | {OUT_OF_FOLD_FILE: sha256_of(value)})


def _problem(found: dict[str, NDArray[Any]]) -> str | None:
    rows = {len(found[f"row_{name}"]) for name in _ROWS}
    folds = {len(found[name]) for name in _FOLDS}
    if len(rows) != 1 or len(folds) != 1:
        return f"its columns have {sorted(rows)} rows and {sorted(folds)} folds; each is one number"
    for sizes, whole in (("fold_model_bytes", "models"), ("fold_sessions", "sessions")):
        if (found[sizes] < 0).any() or int(found[sizes].sum()) != len(found[whole]):
            return f"{sizes} does not add up to {whole}"
    if strange := sorted(set(found["fold_algorithm"].tolist()) - set(ESTIMATORS)):
        return f"no such estimator: {', '.join(strange)}"
    if len(set(found["sessions"].tolist())) != len(found["sessions"]):
        return "a session is tested by two folds"
    return None
