"""What the rows of each kind of stored file look like, and how bars and ticks become such columns and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from feature_store.market.types import Bars, Ticks, Universe, UnknownInstrument, UnreadableFile

Columns = dict[str, NDArray[Any]]
_Table = TypeVar("_Table", Bars, Ticks)


@dataclass(frozen=True)
class Layout:
    """What the rows of one kind of file look like."""

    columns: Mapping[str, str]
    """dtype by column, in order; ``instrument_token`` is one of them."""
    time: str
    """The column that orders the rows of an instrument; unique within it."""
    optional: Mapping[str, str] | None = None
    """More columns, there together or not at all."""
    floats: bool = False
    """Whether the rows are mostly floats without repeats; they are then stored byte by byte for speed."""

    def accepted(self) -> tuple[dict[str, str], ...]:
        """Every set of columns that a file may have."""
        base = dict(self.columns)
        return (base, {**base, **self.optional}) if self.optional else (base,)


LAYOUTS: Final[dict[str, Layout]] = {
    "bars": Layout(
        {
            "instrument_token": "int64",
            "start_ns": "int64",
            "end_ns": "int64",
            "open": "float64",
            "high": "float64",
            "low": "float64",
            "close": "float64",
            "volume": "int64",
            "tick_count": "int32",
            "spread_bps": "float64",
            "imbalance": "float64",
        },
        time="end_ns",
    ),
    "ticks": Layout(
        {
            "instrument_token": "int64",
            "arrival": "int32",  # the place in the session: ticks of one instant keep their order
            "event_time_ns": "int64",
            "last_price": "float64",
            "day_volume": "int64",
        },
        time="arrival",
        optional={"bid_price": "float64", "ask_price": "float64", "bid_quantity": "int64", "ask_quantity": "int64"},
    ),
}


def feature_layout(names: tuple[str, ...], history: tuple[str, ...]) -> Layout:
    """Give the layout of feature rows with these columns, and those that say how much history they need."""
    columns = {"instrument_token": "int64", "end_ns": "int64", "warm": "bool", **dict.fromkeys(history, "int16")}
    return Layout({**columns, **dict.fromkeys(names, "float64")}, time="end_ns", floats=True)


class TokenIndex:
    """Gives the index in a universe of each instrument token."""

    def __init__(self, universe: Universe) -> None:
        self._universe = universe

    def of(self, tokens: NDArray[np.int64]) -> NDArray[np.int32]:
        """Give indices, shape ``(n,)``.

        Raises
        ------
        UnknownInstrument
            If a token is not in the universe.
        """
        index = self._universe.indices_of(tokens)
        strange = index < 0
        if strange.any():
            raise UnknownInstrument(
                f"token {tokens[strange][0]} is not in the store's universe.json; write its session again"
            )
        return index


def columns_of(table: Bars | Ticks, universe: Universe) -> Columns:
    """Give a table's columns with instruments by token, as they are stored."""
    columns = {f.name: column for f in fields(table) if (column := getattr(table, f.name)) is not None}
    return {"instrument_token": universe.tokens[columns.pop("instrument")], **columns}


def table_of(kind: type[_Table], columns: Columns, index: TokenIndex) -> _Table:
    """Give stored columns as bars or ticks, in the order in which they lie."""
    rest = {name: column for name, column in columns.items() if name != "instrument_token"}
    return kind(instrument=index.of(columns["instrument_token"]), **rest)


def in_order(bars: Bars) -> NDArray[np.intp]:
    """Give the places that put bars in order of ``(end_ns, instrument)``."""
    return np.lexsort((bars.instrument, bars.end_ns))


def refuse_other_columns(where: Path, dtypes: Mapping[str, str], layout: Layout, way_out: str) -> None:
    """Refuse columns that are not, in order and dtype, one of the layout's sets.

    Raises
    ------
    UnreadableFile
        Naming the file and every column that differs.
    """
    accepted = layout.accepted()
    if any(list(dtypes.items()) == list(columns.items()) for columns in accepted):
        return
    nearest = min(accepted, key=lambda columns: len(set(columns) ^ set(dtypes)))
    missing = [name for name in nearest if name not in dtypes]
    added = [name for name in dtypes if name not in nearest]
    retyped = [f"{n} is {dtypes[n]}, not {t}" for n, t in nearest.items() if n in dtypes and dtypes[n] != t]
    wrong = [
        *(["missing " + ", ".join(missing)] if missing else []),
        *(["unknown " + ", ".join(added)] if added else []),
        *retyped,
    ]
    raise UnreadableFile(f"{where}: columns differ ({'; '.join(wrong) or 'another order'}); {way_out}")
