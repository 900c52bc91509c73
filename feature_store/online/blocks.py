"""Blocks of the online store: the newest feature row of every instrument of a task, as packed bytes. Pure: no Redis.

    header   64 bytes: magic, version, counts, partition, newest bar's end, feature schema hash, CRC-32
    body     tokens int64 · end_ns int64 · warm uint8 (padded to 8 bytes) · rows float64, row by row; little-endian

What is not exactly such a block, of exactly the schema asked for, is refused; nothing is read from the rest of it.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from feature_store.market.types import MarketDataError

PREFIX: Final = "alpha-panda"
_MAGIC: Final = b"APFR"
_VERSION: Final = 1
_HEADER: Final = struct.Struct("<4sHHIIq32sI4x")
_CRC_AT: Final = _HEADER.size - 8
_TIME_DIGITS: Final = 19  # of every time from 2001 to 2262, so that times compare as texts too


class OnlineStoreError(MarketDataError):
    """The online store cannot give what was asked for; the message says why and what to do."""


class DamagedBlock(OnlineStoreError):
    """Bytes that are no whole block: torn, changed, or of another format."""


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


def pack(block: Block) -> bytes:
    """Write a block as bytes.

    Raises
    ------
    ValueError
        If tokens are not strictly ascending, the arrays differ in length, or the hash is no SHA-256.
    """
    n, schema = len(block.tokens), bytes.fromhex(block.schema_hash)
    if len(schema) != 32:
        raise ValueError(f"feature schema hash {block.schema_hash!r} is no SHA-256")
    if block.rows.ndim != 2 or {len(block.bar_end_ns), len(block.warm), len(block.rows)} != {n}:
        raise ValueError(f"{n} tokens with rows of shape {block.rows.shape}")
    if n > 1 and (np.diff(block.tokens) <= 0).any():
        raise ValueError("the tokens of a block ascend")
    warm = np.zeros(_padded(n), dtype=np.uint8)
    warm[:n] = block.warm
    body = b"".join(
        [
            np.ascontiguousarray(block.tokens, dtype="<i8").tobytes(),
            np.ascontiguousarray(block.bar_end_ns, dtype="<i8").tobytes(),
            warm.tobytes(),
            np.ascontiguousarray(block.rows, dtype="<f8").tobytes(),
        ]
    )
    head = _HEADER.pack(_MAGIC, _VERSION, block.rows.shape[1], n, block.partition, block.end_ns, schema, 0)
    crc = zlib.crc32(body, zlib.crc32(head[:_CRC_AT]))
    return head[:_CRC_AT] + struct.pack("<I4x", crc) + body


def unpack(data: bytes, key: str, schema_hash: str, n_features: int) -> Block:
    """Read a block; its arrays are views of ``data``.

    Parameters
    ----------
    key : str
        Where it stood, for messages.
    schema_hash, n_features
        The schema that is asked for.

    Raises
    ------
    DamagedBlock
        If a byte is missing, too many or changed.
    ForeignSchema
        If the block is of another schema.
    """
    way_out = "the next closed bar replaces it; if that does not help, delete the key"
    if len(data) < _HEADER.size or data[:4] != _MAGIC:
        raise DamagedBlock(f"{key} holds {len(data)} bytes that are no feature block; {way_out}")
    _, version, features, n, partition, end_ns, schema, crc = _HEADER.unpack_from(data)
    if version != _VERSION:
        raise DamagedBlock(f"{key} is a feature block of format {version}, this code reads {_VERSION}; upgrade it")
    expected = _HEADER.size + 16 * n + _padded(n) + 8 * n * features
    if len(data) != expected:
        raise DamagedBlock(f"{key} is torn: {len(data)} bytes instead of {expected}; {way_out}")
    if zlib.crc32(memoryview(data)[_HEADER.size :], zlib.crc32(data[:_CRC_AT])) != crc:
        raise DamagedBlock(f"{key} was changed: its checksum does not fit; {way_out}")
    if (found := schema.hex()) != schema_hash or features != n_features:
        raise ForeignSchema(
            f"{key} holds rows of feature schema {found[:12]}… ({features} features), not of {schema_hash[:12]}… "
            f"({n_features}); ask for the schema of the model that runs"
        )
    ends = _HEADER.size + 8 * n
    warm = ends + 8 * n
    rows = warm + _padded(n)
    return Block(
        schema_hash=found,
        partition=partition,
        end_ns=end_ns,
        tokens=np.frombuffer(data, "<i8", n, _HEADER.size),
        bar_end_ns=np.frombuffer(data, "<i8", n, ends),
        warm=np.frombuffer(data, np.bool_, n, warm),
        rows=np.frombuffer(data, "<f8", n * features, rows).reshape(n, features),
    )


def _padded(n: int) -> int:
    return -(-n // 8) * 8
