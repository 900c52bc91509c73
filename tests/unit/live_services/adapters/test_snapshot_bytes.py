"""A state comes back from its bytes exactly, and damaged bytes are told from a state."""

from __future__ import annotations

import math
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from live_services.adapters.snapshot_bytes import pack, unpack
from live_services.domain.snapshot import CorruptSnapshot

LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
NAMES = st.text().filter(lambda name: not name.startswith("$"))
TREES = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(NAMES, inner), max_leaves=20)


def same(one: object, other: object) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return struct.pack("d", one) == struct.pack("d", other) or (math.isnan(one) and math.isnan(other))
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    return type(one) is type(other) and one == other


@given(TREES)
def test_plain_values_come_back_exactly(tree: object) -> None:
    assert same(unpack(pack(tree)), tree)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", ["float64", "float32", "int64", "int32", "int8", "bool", "uint8"])
@pytest.mark.parametrize("shape", [(0,), (3,), (2, 3), ()])
def test_arrays_come_back_with_dtype_and_shape(dtype: str, shape: tuple[int, ...]) -> None:
    array = np.arange(math.prod(shape), dtype=np.float64).reshape(shape).astype(dtype)
    again = unpack(pack({"inside": [array, 1]}))["inside"][0]  # type: ignore[call-overload, index]
    assert again.dtype == array.dtype
    assert again.shape == array.shape
    assert again.tobytes() == array.tobytes()


@pytest.mark.parametrize("odd", [{1: 2}, {"$array": 0}, b"bytes", object(), {"a": [object()]}, np.array([object()])])
def test_what_is_no_plain_value_is_refused(odd: object) -> None:
    with pytest.raises(TypeError, match="a snapshot takes"):
        pack(odd)  # type: ignore[arg-type]


@given(st.binary(max_size=200), st.integers(0, 10_000))
def test_damaged_bytes_are_told_from_a_state(noise: bytes, at: int) -> None:
    whole = pack({"a": np.arange(100), "b": "c"})
    for damaged in (noise, whole[: at % len(whole)]):
        with pytest.raises(CorruptSnapshot):
            unpack(damaged)


def test_a_flipped_bit_ends_in_a_corrupt_snapshot_and_in_nothing_else() -> None:
    whole = pack({"a": np.arange(3), "b": "c"})
    refused = 0
    for at in range(len(whole) * 8):
        damaged = bytearray(whole)
        damaged[at // 8] ^= 1 << at % 8
        try:
            unpack(bytes(damaged))  # what no checksum covers, such as a file's date, says nothing of the state
        except CorruptSnapshot:
            refused += 1
    assert refused > len(whole) * 4
