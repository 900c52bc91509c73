"""The rows of a frame: how they are laid out in bytes, and which of them can be trusted."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from feature_store.market.types import Bars, Session, Ticks, Universe
from live_services.domain.money import HIGHEST_PRICE_INR

_WHOLE: Final = "<i8"
_REAL: Final = "<f8"
_TICK_COLUMNS: Final = {
    "instrument_token": _WHOLE,
    "event_time_ns": _WHOLE,
    "last_price": _REAL,
    "day_volume": _WHOLE,
}
_QUOTED_TICK_COLUMNS: Final = {
    **_TICK_COLUMNS,
    "bid_price": _REAL,
    "ask_price": _REAL,
    "bid_quantity": _WHOLE,
    "ask_quantity": _WHOLE,
}
_BAR_COLUMNS: Final = {
    "instrument_token": _WHOLE,
    "start_ns": _WHOLE,
    "end_ns": _WHOLE,
    "open": _REAL,
    "high": _REAL,
    "low": _REAL,
    "close": _REAL,
    "volume": _WHOLE,
    "tick_count": _WHOLE,
    "spread_bps": _REAL,
    "imbalance": _REAL,
}
_NUMBER_BYTES: Final = 8
_QUOTE: Final = [*_QUOTED_TICK_COLUMNS][len(_TICK_COLUMNS) :]
_MOST_ROWS: Final = 1_000_000  # so that a header cannot ask for all of the memory
MOST_ROWS_TOLD: Final = 20
"""Of those that a frame lost: one with a million of them says as much with its first ones."""
# LZ4 takes a third to a half off, for 3 µs of decoding at 150 ticks; zstd would take a third more, for 13 µs.
_LZ4: Final = pa.Codec("lz4")
_MOST_TICKS_OF_A_BAR: Final = 2**31 - 1
_LOWEST_PRICE_INR: Final = 1e-4  # below it a price is no exact money
_PRICE: Final = f"a price between 0.0001 and {HIGHEST_PRICE_INR:,} rupees"
# Sums of a session's volumes must stay in 64 bits.
_MOST_SHARES: Final = 10**15
_SHARES: Final = "between 0 and 1,000,000,000,000,000"
_NO_QUOTE: Final = tuple(np.frombuffer(b"", kind) for kind in (_REAL, _REAL, _WHOLE, _WHOLE))


class BadFrame(Exception):
    """A frame of which nothing can be used; the message names the header, or the row whose time runs backwards."""


@dataclass(frozen=True, slots=True)
class RefusedRow:
    """A row that was left out of its frame."""

    row: int
    """Its place in the frame, from 0."""
    instrument_token: int
    column: str
    value: str
    reason: str
    """What the value is not."""

    def __str__(self) -> str:
        return f"row {self.row} (instrument_token {self.instrument_token}): {self.column} {self.value} is {self.reason}"


def columns_of(market: Ticks | Bars) -> Mapping[str, str]:
    """Give the columns that a table travels in: names, and types as numpy spells them."""
    if isinstance(market, Bars):
        return _BAR_COLUMNS
    return _QUOTED_TICK_COLUMNS if market.has_depth else _TICK_COLUMNS


def written(market: Ticks | Bars, columns: Mapping[str, str], universe: Universe) -> bytes:
    """Lay the rows of a table out in these columns; instruments by their token."""
    there = (universe.tokens[market.instrument] if n == "instrument_token" else getattr(market, n) for n in columns)
    plain = b"".join(np.asarray(c, dtype=kind).tobytes() for c, kind in zip(there, columns.values(), strict=True))
    body: bytes = _LZ4.compress(plain, asbytes=True)
    return body


def read_ticks(
    value: bytes, columns: str, rows: str, *, universe: Universe, session: Session, watermark_ns: int
) -> tuple[Ticks, tuple[RefusedRow, ...], bool]:
    """Read ticks that :func:`written` wrote.

    Parameters
    ----------
    value
    columns, rows
        What the headers say of it.
    universe, session
        What its ticks must be of.
    watermark_ns
        What all of them should come before.

    Returns
    -------
    Ticks
        Those that can be trusted.
    tuple of RefusedRow
        The first of the others, in order.
    bool
        Whether times ascend and come before the watermark; False: it was not looked at.

    Raises
    ------
    BadFrame
        If nothing of it can be read.
    """
    there = _columns(value, columns, rows, (_TICK_COLUMNS, _QUOTED_TICK_COLUMNS))
    quote = tuple(there[name] for name in _QUOTE if name in there)
    fields = there["event_time_ns"], there["last_price"], there["day_volume"], *quote
    if "numba" in sys.modules:  # who looks at a frame now and then need not load 130 MB for it
        fine, instrument = kernel_of_ticks()(
            there["instrument_token"],
            *(fields if quote else (*fields, *_NO_QUOTE)),
            *universe.token_slots,
            session.open_ns,
            min(session.close_ns, watermark_ns),
            _LOWEST_PRICE_INR,
            HIGHEST_PRICE_INR,
            _MOST_SHARES,
        )
        if fine:
            return Ticks(instrument, *fields), (), True
    found = _Rows(there)
    instrument = _instruments(found, universe)
    _require_prices(found, "last_price")
    _require_shares(found, "day_volume")
    if quote:
        for name in ("bid_price", "ask_price"):
            good = _is_price(there[name]) | np.isnan(there[name])
            found.require(good, name, f"neither {_PRICE} nor NaN")
        _require_shares(found, "bid_quantity", "ask_quantity")
    times = there["event_time_ns"]
    found.require((times >= session.open_ns) & (times < session.close_ns), "event_time_ns", _hours(session))
    return found.good_of(Ticks(instrument, *fields)), found.refused, False


def read_bars(
    value: bytes, columns: str, rows: str, *, universe: Universe, session: Session
) -> tuple[Bars, tuple[RefusedRow, ...]]:
    """Read bars that :func:`written` wrote, as :func:`read_ticks` reads ticks; their times are not looked at."""
    there = _columns(value, columns, rows, (_BAR_COLUMNS,))
    found = _Rows(there)
    instrument = _instruments(found, universe)
    _require_prices(found, "open", "high", "low", "close")
    opens, high, low, close = (there[name] for name in ("open", "high", "low", "close"))
    inside = (low <= np.minimum(opens, close)) & (high >= np.maximum(opens, close))
    found.require(inside, "low", "above open or close, or high is below them")
    _require_shares(found, "volume")
    counts, imbalance = there["tick_count"], there["imbalance"]
    found.require((counts >= 0) & (counts <= _MOST_TICKS_OF_A_BAR), "tick_count", "negative, or no bar has so many")
    found.require(there["start_ns"] < there["end_ns"], "start_ns", "not earlier than its end")
    found.require(~np.isinf(there["spread_bps"]), "spread_bps", "neither finite nor NaN")
    found.require(np.isnan(imbalance) | (np.abs(imbalance) <= 1), "imbalance", "neither between -1 and 1 nor NaN")
    found.require(there["start_ns"] >= session.open_ns, "start_ns", _hours(session))
    found.require(there["end_ns"] <= session.close_ns, "end_ns", _hours(session))
    found.require(_is_first(instrument, there["end_ns"]), "end_ns", "that of an earlier bar of its instrument")
    fields = there | {"tick_count": counts.astype(np.int32)}
    del fields["instrument_token"]
    return found.good_of(Bars(instrument=instrument, **fields)), found.refused


def _columns(value: bytes, columns: str, rows: str, known: tuple[Mapping[str, str], ...]) -> dict[str, NDArray[Any]]:
    layout = next((one for one in known if " ".join(one) == columns), None)
    if layout is None:
        expected = " or ".join(repr(" ".join(one)) for one in known)
        raise BadFrame(f"header columns is {columns[:200]!r}, not {expected}")
    if not rows.isdecimal() or len(rows) > len(str(_MOST_ROWS)) or int(rows) > _MOST_ROWS:
        raise BadFrame(f"header rows is {rows[:40]!r}, not a number up to {_MOST_ROWS:,}")
    n, expected_bytes = int(rows), int(rows) * len(layout) * _NUMBER_BYTES
    try:
        # A codec that is told a length takes the memory behind a shorter body for the rest of it.
        body = pa.CompressedInputStream(pa.BufferReader(value), "lz4").read(expected_bytes + 1)
    except (pa.ArrowException, OSError) as cause:
        raise BadFrame(f"the body is no LZ4 frame: {cause}") from cause
    if len(body) != expected_bytes:
        raise BadFrame(
            f"the body has {'more' if len(body) > expected_bytes else len(body)} bytes instead of {expected_bytes}: "
            f"{n} rows of {len(layout)} numbers"
        )
    return {
        name: np.frombuffer(body, kind, n, place * n * _NUMBER_BYTES)
        for place, (name, kind) in enumerate(layout.items())
    }


@cache
def kernel_of_ticks() -> Any:
    """Give the compiled look at ticks, loaded from disk or compiled at the first call.

    A process that will read frames calls it when it starts; without numba frames are looked at column by column, which
    comes to the same.
    """
    from live_services.domain.frame_kernels import look_at_ticks

    return look_at_ticks


_Table = TypeVar("_Table", Ticks, Bars)


class _Rows:
    """The columns of a frame, and which of its rows were refused."""

    def __init__(self, columns: Mapping[str, NDArray[Any]]) -> None:
        self.columns: Final = columns
        self._good = np.ones(len(columns["instrument_token"]), dtype=np.bool_)
        self._first: list[RefusedRow] = []

    def require(self, good: NDArray[np.bool_], column: str, reason: str) -> None:
        """Refuse the rows in which a column is not good; one reason is enough for each."""
        if good.all():
            return
        tokens, values = self.columns["instrument_token"], self.columns[column]
        for row in np.flatnonzero(self._good & ~good)[:MOST_ROWS_TOLD].tolist():
            self._first.append(RefusedRow(row, int(tokens[row]), column, str(values[row]), reason))
        self._good &= good

    @property
    def refused(self) -> tuple[RefusedRow, ...]:
        """The first of the rows that were refused, in order."""
        return tuple(sorted(self._first, key=lambda one: one.row)[:MOST_ROWS_TOLD])

    def good_of(self, table: _Table) -> _Table:
        """Give the rows of a table that were not refused."""
        return table if not self._first else table[self._good]


def _is_price(price: NDArray[np.float64]) -> NDArray[np.bool_]:
    good: NDArray[np.bool_] = (price >= _LOWEST_PRICE_INR) & (price <= HIGHEST_PRICE_INR)  # NaN is neither
    return good


def _require_prices(rows: _Rows, *columns: str) -> None:
    for column in columns:
        rows.require(_is_price(rows.columns[column]), column, f"not {_PRICE}")


def _require_shares(rows: _Rows, *columns: str) -> None:
    for column in columns:
        shares = rows.columns[column]
        rows.require((shares >= 0) & (shares <= _MOST_SHARES), column, f"not {_SHARES}")


def _instruments(rows: _Rows, universe: Universe) -> NDArray[np.int32]:
    index = universe.indices_of(rows.columns["instrument_token"])
    rows.require(index >= 0, "instrument_token", "not in the universe of its session")
    return index


def _is_first(instrument: NDArray[np.int32], end_ns: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Say of each bar whether none before it is of the same instrument and end; features would take it for disorder."""
    order = np.lexsort((instrument, end_ns))  # stable: of equal ones the first stays first
    again = (np.diff(instrument[order]) == 0) & (np.diff(end_ns[order]) == 0)
    first = np.ones(len(instrument), dtype=np.bool_)
    first[order[1:][again]] = False
    return first


def _hours(session: Session) -> str:
    return f"outside the session of {session.date}, [{session.open_ns}, {session.close_ns})"
