from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from feature_store.online.blocks import Block, DamagedBlock, ForeignSchema, block_key, pack, unpack

HASH, OTHER = "ab" * 32, "cd" * 32
NAMES = ("momentum", "rsi")
END = 1_767_586_500_000_000_000


def block(n: int = 3, features: int = 2) -> Block:
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(n, features))
    if n:
        rows[0, 0] = np.nan
    return Block(HASH, 1, END, np.arange(n, dtype=np.int64) * 7 + 5, np.full(n, END), rng.random(n) < 0.5, rows)


@pytest.mark.parametrize("n", [0, 1, 7, 8, 9])
def test_a_block_comes_back_bit_for_bit(n: int) -> None:
    written = block(n)
    read = unpack(pack(written, NAMES), "key", HASH, NAMES)
    assert (read.schema_hash, read.partition, read.end_ns) == (HASH, 1, END)
    for name in ("tokens", "bar_end_ns", "warm", "rows"):
        assert getattr(read, name).tobytes() == getattr(written, name).tobytes()


def test_any_arrow_library_reads_a_block() -> None:
    written = block()
    with pa.ipc.open_stream(pack(written, NAMES)) as reader:
        table = reader.read_all()
    assert table.column_names == ["instrument_token", "bar_end_ns", "warm", *NAMES]
    assert table["rsi"].to_pylist() == written.rows[:, 1].tolist()
    assert table.schema.metadata[b"feature_schema_hash"].decode() == HASH


def test_a_block_with_any_one_bit_flipped_is_refused_or_has_other_values_in_the_same_rows() -> None:
    data = pack(block(), NAMES)
    for at in range(len(data)):
        changed = bytearray(data)
        changed[at] ^= 1 << (at % 8)
        try:
            read = unpack(bytes(changed), "key", HASH, NAMES)
        except (DamagedBlock, ForeignSchema) as refused:
            assert "key" in str(refused)
        else:
            assert read.rows.shape == (len(read.tokens), 2)
            assert len(read.bar_end_ns) == len(read.warm) == len(read.tokens)


def test_a_torn_block_is_refused_wherever_it_ends() -> None:
    data = pack(block(), NAMES)
    for end in range(len(data)):
        with pytest.raises(DamagedBlock, match="key"):
            unpack(data[:end], "key", HASH, NAMES)
    for whole in (data[:-8], data + b"\0"):
        with pytest.raises(DamagedBlock, match="torn"):
            unpack(whole, "key", HASH, NAMES)


def test_rows_of_another_schema_are_refused_by_name() -> None:
    with pytest.raises(ForeignSchema, match=f"{HASH[:12]}.*not of {OTHER[:12]}"):
        unpack(pack(block(), NAMES), "key", OTHER, NAMES)
    with pytest.raises(ForeignSchema, match=r"\(momentum, rsi\), not of .*\(rsi, momentum\)"):
        unpack(pack(block(), NAMES), "key", HASH, NAMES[::-1])


def test_a_stream_that_is_no_block_is_refused() -> None:
    with pa.ipc.open_stream(pack(block(), NAMES)) as reader:
        table = reader.read_all()
    for other, message in (
        (table.drop_columns(["warm"]), "which no block has"),
        (table.take([1, 0, 2]), "do not ascend"),
        (table.replace_schema_metadata({"feature_schema_hash": HASH, "partition": "x"}), "partition and time"),
        (pa.concat_tables([table, table]), "2 record batches"),
    ):
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, other.schema) as writer:
            writer.write_table(other)
        with pytest.raises(DamagedBlock, match=message):
            unpack(sink.getvalue().to_pybytes(), "key", HASH, NAMES)


def test_what_is_no_block_cannot_be_packed() -> None:
    for wrong in (
        replace(block(), schema_hash="ab"),
        replace(block(), tokens=np.array([3, 2, 1])),
        replace(block(), rows=np.zeros((2, 2))),
    ):
        with pytest.raises(ValueError, match=r"SHA-256|ascend|shape"):
            pack(wrong, NAMES)


def test_a_key_carries_the_schema_and_the_bar_time() -> None:
    key = block_key(HASH, 3, END)
    assert HASH in key
    assert key.endswith(f":3:{END}")
