import json

import dagster as dg
import numpy as np
import pyarrow.parquet as pq
import pytest

from dagster_project.training_frames import read_frame, write_frame
from feature_store.features.schema import feature_schema
from feature_store.labels.forward_return import ForwardReturn
from feature_store.offline.training_frames import TrainingFrame


def small_frame() -> TrainingFrame:
    schema = feature_schema(["momentum", "rsi"], 5)
    return TrainingFrame(
        X=np.arange(6.0).reshape(3, 2),
        forward_return=np.array([0.0, 1e-3, -1e-3]),
        side=np.array([1, 1, -1], dtype=np.int8),
        decision_ns=np.array([1, 2, 3]),
        entry_ns=np.array([2, 3, 4]),
        label_end_ns=np.array([5, 6, 7]),
        instrument=np.array([0, 0, 2], dtype=np.int32),
        schema=schema,
        label=ForwardReturn(3, 5, 15),
        digest="d" * 64,
        start_ns=0,
        end_ns=9,
        market="SYNTHETIC test",
        bar_source="ticks",
        instruments=("A", "C"),
        sessions={"2026-01-05": "e" * 64},
        left_out={"not_warm": 4},
        manifests={"2026-01-04": "f" * 64, "2026-01-05": "0" * 64},
        market_details={"instruments": 3, "edge_bps": 6.0},
        membership_digest="m" * 64,
        actions_digest="a" * 64,
    )


def test_a_frame_is_read_as_it_was_written(tmp_path):
    frame, path = small_frame(), tmp_path / "training_set.parquet"
    write_frame(path, frame)
    read = read_frame(path)
    for name, value in vars(frame).items():
        held = getattr(read, name)
        assert np.array_equal(held, value) if isinstance(value, np.ndarray) else held == value, name


def test_a_frame_whose_label_is_another_by_now_is_made_again(tmp_path):
    path = tmp_path / "training_set.parquet"
    write_frame(path, small_frame())
    table = pq.read_table(path)
    facts = json.loads(table.schema.metadata[b"alpha_panda"])
    facts["label_identity"]["version"] = 1
    pq.write_table(table.replace_schema_metadata({b"alpha_panda": json.dumps(facts).encode()}), path)
    with pytest.raises(dg.Failure, match=r"label has changed.*materialise it again"):
        read_frame(path)
