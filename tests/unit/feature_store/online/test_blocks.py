from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from feature_store.online.blocks import Block, DamagedBlock, ForeignSchema, block_key, pack, unpack

HASH, OTHER = "ab" * 32, "cd" * 32
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
    read = unpack(pack(written), "key", HASH, 2)
    assert (read.schema_hash, read.partition, read.end_ns) == (HASH, 1, END)
    for name in ("tokens", "bar_end_ns", "warm", "rows"):
        assert getattr(read, name).tobytes() == getattr(written, name).tobytes()


def test_a_block_with_any_one_bit_flipped_is_refused() -> None:
    data = pack(block())
    for at in range(len(data)):
        if 60 <= at < 64:
            continue  # padding behind the checksum
        changed = bytearray(data)
        changed[at] ^= 1 << (at % 8)
        with pytest.raises((DamagedBlock, ForeignSchema)):
            unpack(bytes(changed), "key", HASH, 2)


def test_a_torn_block_is_refused_wherever_it_ends() -> None:
    data = pack(block())
    for end in range(len(data)):
        with pytest.raises(DamagedBlock, match="key"):
            unpack(data[:end], "key", HASH, 2)
    with pytest.raises(DamagedBlock, match="torn"):
        unpack(data + b"\0", "key", HASH, 2)


def test_rows_of_another_schema_are_refused_by_name() -> None:
    with pytest.raises(ForeignSchema, match=f"{HASH[:12]}.*not of {OTHER[:12]}"):
        unpack(pack(block()), "key", OTHER, 2)
    with pytest.raises(ForeignSchema, match="2 features"):
        unpack(pack(block()), "key", HASH, 3)


def test_what_is_no_block_cannot_be_packed() -> None:
    for wrong in (
        replace(block(), schema_hash="ab"),
        replace(block(), tokens=np.array([3, 2, 1])),
        replace(block(), rows=np.zeros((2, 2))),
    ):
        with pytest.raises(ValueError, match=r"SHA-256|ascend|shape"):
            pack(wrong)


def test_a_key_carries_the_schema_and_the_bar_time() -> None:
    key = block_key(HASH, 3, END)
    assert HASH in key
    assert key.endswith(f":3:{END}")
