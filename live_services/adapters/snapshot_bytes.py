"""A state as bytes and back, exactly: a tree of plain values and arrays, never pickled.

The bytes are a zip as `numpy.savez` writes it: the arrays, and one JSON text that names them where they belong. Floats
keep their bits, integers their size, mappings their order.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from live_services.domain.snapshot import CorruptSnapshot, Joined, Tree

_TREE: Final = "tree"
_ARRAY: Final = "$array"


def pack(tree: Tree) -> bytes:
    """Write a tree; as `pack_into` does.

    Raises
    ------
    TypeError
    """
    whole = io.BytesIO()
    pack_into(whole, tree)
    return whole.getvalue()


def pack_into(file: BinaryIO, tree: Tree) -> None:
    """Write a tree to a file that stands at its beginning.

    Raises
    ------
    TypeError
        If it holds something else than plain values and arrays, an array of objects, or a mapping with a key that is
        no string or that begins with ``$``.
    """
    arrays: list[NDArray[Any]] = []
    text = json.dumps(_plain(tree, arrays), separators=(",", ":"))
    columns = {f"a{k}": array for k, array in enumerate(arrays)}
    np.savez(file, **{_TREE: np.frombuffer(text.encode(), dtype=np.uint8)}, **columns)  # type: ignore[arg-type]


def unpack(content: bytes) -> Tree:
    """Read what `pack` wrote; as `unpack_from` does.

    Raises
    ------
    CorruptSnapshot
    """
    return unpack_from(io.BytesIO(content))


def unpack_from(file: BinaryIO) -> Tree:
    """Read a file that `pack_into` wrote; a zip's checksums are checked.

    Raises
    ------
    CorruptSnapshot
    """
    try:
        with np.load(file, allow_pickle=False) as arrays:
            text = arrays[_TREE].tobytes().decode()
            whole: Tree = _whole(json.loads(text), {name: arrays[name] for name in arrays.files})
            return whole
    except Exception as damage:  # noqa: BLE001 - a damaged zip makes its readers fail in a dozen ways
        raise CorruptSnapshot(f"it is no snapshot, or a damaged one: {damage}") from None


def _plain(tree: Tree, arrays: list[NDArray[Any]]) -> Any:
    if tree is None or isinstance(tree, str | bool | int):
        return tree
    if isinstance(tree, float):
        return float(tree)  # a NumPy float is one too; JSON gives back the shortest digits that name the same bits
    if isinstance(tree, Joined):
        tree = tree.whole()
    if isinstance(tree, np.ndarray):
        if tree.dtype.hasobject:
            raise TypeError("a snapshot takes no array of objects")
        arrays.append(tree)
        return {_ARRAY: len(arrays) - 1}
    if isinstance(tree, Mapping):
        if odd := [key for key in tree if not isinstance(key, str) or key.startswith("$")]:
            raise TypeError(f"a snapshot takes names without $ for keys, not {odd[0]!r}")
        return {key: _plain(value, arrays) for key, value in tree.items()}
    if isinstance(tree, Sequence) and not isinstance(tree, bytes):
        return [_plain(value, arrays) for value in tree]
    raise TypeError(f"a snapshot takes plain values and arrays, not {type(tree).__name__}")


def _whole(plain: Any, arrays: Mapping[str, NDArray[Any]]) -> Any:
    if isinstance(plain, list):
        return [_whole(value, arrays) for value in plain]
    if isinstance(plain, dict):
        if _ARRAY in plain:
            return arrays[f"a{plain[_ARRAY]}"]
        return {key: _whole(value, arrays) for key, value in plain.items()}
    return plain
