"""A training frame between assets, as one Parquet file."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from dagster_project.stored_by_run import StoredByRun

if TYPE_CHECKING:
    from feature_store.offline.training_frames import TrainingFrame

_FACTS = b"alpha_panda"
_COLUMNS = ("forward_return", "side", "decision_ns", "entry_ns", "label_end_ns", "instrument")
_PLAIN = ("digest", "start_ns", "end_ns", "market", "bar_source", "sessions", "left_out")
_ORIGIN = ("market_details", "manifests", "membership_digest", "actions_digest")


class TrainingFrameStore(StoredByRun):
    """Keeps training frames, each in a Parquet file that a notebook can read."""

    extension = ".parquet"

    def write(self, path: Path, value: TrainingFrame) -> None:
        """Write a frame."""
        write_frame(path, value)

    def read(self, path: Path) -> TrainingFrame:
        """Read a frame. Raises dagster.Failure as `read_frame`."""
        return read_frame(path)


def write_frame(path: Path, frame: TrainingFrame) -> None:
    """Write a frame; features are columns by name, its facts are in the file's metadata."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from feature_store.offline.session_files import columns_digest

    columns = {name: frame.X[:, k] for k, name in enumerate(frame.schema.names)}
    columns |= {name: getattr(frame, name) for name in _COLUMNS}
    facts = {
        "names": frame.schema.names,
        "bar_clock": frame.schema.bar_clock,
        "feature_schema_hash": frame.schema.hash,
        "label": asdict(frame.label),
        "label_identity": frame.label.identity(),
        "instruments": frame.instruments,
        **{name: getattr(frame, name) for name in (*_PLAIN, *_ORIGIN)},
    }
    facts["columns_sha256"] = columns_digest(columns)
    table = pa.table(columns).replace_schema_metadata({_FACTS: json.dumps(facts).encode()})
    pq.write_table(table, str(path))


def read_frame(path: Path) -> TrainingFrame:
    """Read a frame that ``write_frame`` wrote.

    Raises
    ------
    dagster.Failure
        If its features are not those that this code computes, or its content is not what was written.
    """
    import numpy as np
    import pyarrow.parquet as pq

    from feature_store.features.schema import feature_schema
    from feature_store.labels.barrier_return import BarrierReturn
    from feature_store.labels.forward_return import ForwardReturn
    from feature_store.offline.session_files import columns_digest
    from feature_store.offline.training_frames import TrainingFrame

    table = pq.read_table(str(path))
    facts = json.loads(table.schema.metadata[_FACTS])
    schema = feature_schema(facts["names"], facts["bar_clock"])
    if schema.hash != facts["feature_schema_hash"]:
        raise dg.Failure("The features have changed since the training set was made: materialise it again.")
    kind = {"forward_return": ForwardReturn, "barrier_return": BarrierReturn}.get(facts["label_identity"]["kind"])
    label = kind(**facts["label"]) if kind is not None else None
    if label is None or label.identity() != facts["label_identity"]:
        raise dg.Failure("The label has changed since the training set was made: materialise it again.")
    if columns_digest({name: table[name].to_numpy() for name in table.column_names}) != facts["columns_sha256"]:
        raise dg.Failure(f"{path} is not what was written there: materialise it again.", allow_retries=False)
    return TrainingFrame(
        X=np.column_stack([table[name].to_numpy() for name in schema.names]),
        **{name: table[name].to_numpy() for name in _COLUMNS},
        schema=schema,
        label=label,
        instruments=tuple(facts["instruments"]),
        **{name: facts[name] for name in (*_PLAIN, *_ORIGIN)},
    )
