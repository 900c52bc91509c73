"""How the many values of a state are written down for its snapshot, and read back: events, rows and tables.

A list of thousands is one leaf of the tree, the JSON of all of them as bytes, or its columns: taking it apart would
hold up the task that is written down.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from functools import cache
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from feature_store.market.types import Bars, Ticks
from live_services.domain.events.envelope import Frozen
from live_services.domain.snapshot import CorruptSnapshot, Joined, Tree

Value = TypeVar("Value", bound=Frozen)
Table = TypeVar("Table", bound=Ticks | Bars)

_MOST_JOINED: Final = 2_500  # rows
_TABLES: Final[Mapping[str, type[Ticks | Bars]]] = {"ticks": Ticks, "bars": Bars}


def fields_of(kept: Tree) -> Mapping[str, Any]:
    """Give what stands in a snapshot by name.

    Raises
    ------
    CorruptSnapshot
        If there are no names.
    """
    if not isinstance(kept, Mapping):
        raise CorruptSnapshot(f"it has {type(kept).__name__} where a state's values by name belong")
    return kept


def written_rows(rows: Iterable[Any]) -> NDArray[np.uint8]:
    """Write rows of texts, numbers, None and lists of them; floats keep their bits, integers their size."""
    return np.frombuffer(json.dumps(list(rows), separators=(",", ":")).encode(), dtype=np.uint8)


def read_rows(kept: Any) -> list[Any]:
    """Read rows; a tuple came back as a list."""
    rows: list[Any] = json.loads(kept.tobytes())
    return rows


def written_values(kind: type[Value], values: Iterable[Value]) -> NDArray[np.uint8]:
    """Write events, or values of events, of one kind."""
    return WrittenOnce().values(kind, values)


class WrittenOnce:
    """Writes events as `written_values` does, those that were among the last ones as they were written then.

    An event never changes, and of thousands that an account holds few are new from one snapshot to the next.
    """

    def __init__(self) -> None:
        self._last: dict[type[Frozen], dict[int, tuple[Frozen, bytes]]] = {}
        """By kind and identity, which is the event's own as long as it is held here."""

    def values(self, kind: type[Value], values: Iterable[Value]) -> NDArray[np.uint8]:
        """Write events of one kind."""
        last, dump = self._last.get(kind, {}), kind.__pydantic_serializer__.to_json
        now = [last.get(id(value)) or (value, dump(value)) for value in values]
        self._last[kind] = {id(one[0]): one for one in now}
        return np.frombuffer(b"[%b]" % b",".join([text for _, text in now]), dtype=np.uint8)


def read_values(kind: type[Value], kept: Any) -> list[Value]:
    """Read events of one kind; each is validated.

    Raises
    ------
    pydantic.ValidationError
        If one is none of this kind.
    """
    values: list[Value] = _adapter(kind).validate_json(kept.tobytes())
    return values


@cache
def _adapter(kind: type[Frozen]) -> TypeAdapter[Any]:
    return TypeAdapter(list[kind])  # type: ignore[valid-type]


def written_tables(tables: Iterable[Ticks | Bars]) -> Tree:
    """Write tables as they are, neighbours with the same columns as one: nobody writes into those that are there."""
    runs: list[list[Ticks | Bars]] = []
    for table in tables:
        if runs and _are_alike(runs[-1][-1], table):
            runs[-1].append(table)
        else:
            runs.append([table])
    return [{"kind": "ticks" if isinstance(run[0], Ticks) else "bars", **_joined(run)} for run in runs]


def read_tables(kept: Any) -> list[Any]:
    """Read tables."""
    return [_TABLES[one["kind"]](*(_whole(one.get(f.name)) for f in fields(_TABLES[one["kind"]]))) for one in kept]


def _joined(run: Sequence[Ticks | Bars]) -> dict[str, Joined]:
    return {name: Joined(tuple(getattr(table, name) for table in run)) for name in _columns(run[0])}


def _whole(column: Any) -> Any:
    return column.whole() if isinstance(column, Joined) else column


def _columns(table: Ticks | Bars) -> dict[str, NDArray[Any]]:
    return {f.name: column for f in fields(table) if (column := getattr(table, f.name)) is not None}


def in_few_tables(tables: Sequence[Table]) -> list[Table]:
    """Give the same rows in order in few tables of some thousands; none is joined to one twice its length.

    Joined again and again while tables come behind it, a row is copied as often as its place has doublings, and not
    each time. A table of thousands stays as it is: copying a day of 3,000 instruments would hold up their task.
    """
    few: list[Table] = []
    for table in tables:
        few.append(table)
        kind: Any = type(table)
        while len(few) > 1 and len(few[-2]) <= min(2 * len(few[-1]), _MOST_JOINED) and _are_alike(few[-2], few[-1]):
            few[-2:] = [kind.concatenate(few[-2:])]
    return few


def _are_alike(one: Ticks | Bars, other: Ticks | Bars) -> bool:
    return _columns(one).keys() == _columns(other).keys() and type(one) is type(other)
