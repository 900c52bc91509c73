"""Blocks of the online store: the newest feature row of every instrument of a task, as Arrow. Pure: no Redis.

A block is an Arrow IPC stream of one record batch, as the frames on Kafka are, so any Arrow library reads it: columns
``instrument_token``, ``bar_end_ns``, ``warm``, then one for each feature under its name; the stream's metadata has the
feature schema hash, the partition and the end of the newest bar. What is not exactly such a stream, of exactly the
schema asked for, is refused; nothing is read from the rest of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from feature_store.market.types import MarketDataError

PREFIX: Final = "alpha-panda"
_KEYS: Final = [("instrument_token", pa.int64()), ("bar_end_ns", pa.int64()), ("warm", pa.bool_())]
_END_OF_STREAM: Final = b"\xff\xff\xff\xff\0\0\0\0"  # Arrow reads a stream without it as well: one that was torn
_TIME_DIGITS: Final = 19  # of every time from 2001 to 2262, so that times compare as texts too


class OnlineStoreError(MarketDataError):
    """The online store cannot give what was asked for; the message says why and what to do."""


class DamagedBlock(OnlineStoreError):
    """Bytes that are no whole block: torn, or of another format."""


class ForeignSchema(OnlineStoreError):
    """Rows that mean something else: their feature schema is not the one asked for."""


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """The newest rows of a task's instruments, in order of their tokens."""

    schema_hash: str
    """The ``feature_schema_hash``, 64 hexadecimal digits."""
    partition: int
    """Market partition of the task."""
    end_ns: int
    """The decision instant: end of the newest bar in it."""
    tokens: NDArray[np.int64]
    """Instrument tokens, ascending, shape ``(n,)``."""
    bar_end_ns: NDArray[np.int64]
    """End of the bar of each row, shape ``(n,)``; an instrument without a newer bar keeps its last row."""
    warm: NDArray[np.bool_]
    """Whether the row equals that of a full-history run, shape ``(n,)``."""
    rows: NDArray[np.float64]
    """Feature rows in schema order, shape ``(n, n_features)``; NaN where the live row was NaN."""


DIRECTORY_KEY: Final = f"{PREFIX}:shared:feature_schemas"
"""Hash of what is known of each feature schema that has rows: JSON of its bar clock and columns."""


def newest_key(schema_hash: str) -> str:
    """Hash of the newest block's time (19 digits) by partition; rows are computed once, for all brokers."""
    return f"{PREFIX}:shared:features:{{{schema_hash}}}"


def block_key(schema_hash: str, partition: int, end_ns: int) -> str:
    """Key of one block: it carries the feature schema hash and the bar time."""
    return f"{newest_key(schema_hash)}:{partition}:{time_text(end_ns)}"


def time_text(time_ns: int) -> str:
    """Write a time with 19 digits, so that texts are in the order of the times."""
    return f"{time_ns:0{_TIME_DIGITS}d}"


def pack(block: Block, names: Sequence[str]) -> bytes:
    """Write a block as an Arrow IPC stream.

    Parameters
    ----------
    block : Block
    names : sequence of str
        Of its features, in schema order.

    Raises
    ------
    ValueError
        If tokens are not strictly ascending, the arrays differ in length, or the hash is no SHA-256.
    """
    n = len(block.tokens)
    if len(bytes.fromhex(block.schema_hash)) != 32:
        raise ValueError(f"feature schema hash {block.schema_hash!r} is no SHA-256")
    if {len(block.bar_end_ns), len(block.warm)} != {n} or block.rows.shape != (n, len(names)):
        raise ValueError(f"{n} tokens and {len(names)} features with rows of shape {block.rows.shape}")
    if not _ascending(block.tokens):
        raise ValueError("the tokens of a block ascend")
    facts = {"feature_schema_hash": block.schema_hash, "partition": str(block.partition), "end_ns": str(block.end_ns)}
    schema = pa.schema([*_KEYS, *((name, pa.float64()) for name in names)], metadata=facts)
    columns = [block.tokens, block.bar_end_ns, block.warm, *np.ascontiguousarray(block.rows.T)]
    batch = pa.record_batch([pa.array(c, type=f.type) for c, f in zip(columns, schema, strict=True)], schema=schema)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_batch(batch)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def unpack(data: bytes, key: str, schema_hash: str, names: Sequence[str]) -> Block:
    """Read a block.

    Parameters
    ----------
    key : str
        Where it stood, for messages.
    schema_hash, names
        The schema that is asked for, and its columns.

    Raises
    ------
    DamagedBlock
        If it is no Arrow stream of a block, or not the whole of one.
    ForeignSchema
        If the block is of another schema.
    """
    way_out = "the next closed bar replaces it; if that does not help, delete the key"
    batch = _batch(data, key, way_out)
    facts = {
        name.decode(errors="replace"): fact.decode(errors="replace")
        for name, fact in (batch.schema.metadata or {}).items()
    }
    found, columns = facts.get("feature_schema_hash", ""), batch.schema.names[len(_KEYS) :]
    if batch.schema.remove_metadata() != pa.schema([*_KEYS, *((name, pa.float64()) for name in columns)]):
        raise DamagedBlock(f"{key} has the columns {', '.join(batch.schema.names)}, which no block has; {way_out}")
    if found != schema_hash or columns != list(names):
        raise ForeignSchema(
            f"{key} holds rows of feature schema {found[:12]}… ({', '.join(columns)}), not of {schema_hash[:12]}… "
            f"({', '.join(names)}); ask for the schema of the model that runs"
        )
    tokens, bar_end_ns, warm, *rows = (column.to_numpy(zero_copy_only=False) for column in batch.columns)
    if not _ascending(tokens):
        raise DamagedBlock(f"{key} names instruments that do not ascend; {way_out}")
    try:
        partition, end_ns = int(facts["partition"]), int(facts["end_ns"])
    except (KeyError, ValueError) as error:
        raise DamagedBlock(f"{key} does not say its partition and time ({error}); {way_out}") from error
    rows = np.column_stack(rows) if rows else np.empty((len(tokens), 0))
    return Block(found, partition, end_ns, tokens, bar_end_ns, warm, rows)


def _batch(data: bytes, key: str, way_out: str) -> Any:
    try:
        with pa.ipc.open_stream(data) as reader:
            batches, _names = list(reader), reader.schema.names
        for batch in batches:
            batch.validate(full=True)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DamagedBlock(f"{key} holds {len(data)} bytes that are no Arrow stream ({error}); {way_out}") from error
    if len(batches) != 1 or any(column.null_count for column in batches[0].columns):
        raise DamagedBlock(f"{key} holds {len(batches)} record batches, or missing values; {way_out}")
    if data[-len(_END_OF_STREAM) :] != _END_OF_STREAM:
        raise DamagedBlock(f"{key} is torn: its stream does not end; {way_out}")
    return batches[0]


def _ascending(tokens: NDArray[np.int64]) -> bool:
    return bool((tokens[1:] > tokens[:-1]).all())
