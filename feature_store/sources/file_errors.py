"""What is said of a file whose columns do not tell what its rows are: the option and the setting that do."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from feature_store.market.types import MissingColumn
from feature_store.sources.files import FileHead, FileTable, plain_name
from feature_store.sources.stamps import Kind
from feature_store.sources.times import Times

_LIKELY: Final = {
    "time": ("date_time", "dt", "ts", "time_stamp", "trade_time", "candle_time", "bar_time", "trade_date", "tradedate"),
    "open": ("o", "op"),
    "high": ("h", "hi"),
    "low": ("l", "lo"),
    "close": ("c", "cl", "last", "ltp", "price"),
    "volume": ("v", "vol", "qty", "quantity", "traded_qty", "traded_quantity", "shares", "tottrdqty"),
    "price": ("last", "rate", "last_traded_price", "trade_price", "close", "p"),
}
"""Names that other exports use for ours; proposed, never taken for granted."""
_IDENTIFYING: Final = frozenset({
    "name", "code", "company", "company_name", "stock_name", "instrument_key", "instrument_token", "instrument_id",
    "token", "symboltoken", "symbol_token", "scrip_code", "security_code", "security_id", "isin", "tckrsymb", "asset",
    "contract",
})  # fmt: skip
_OF_A_QUOTE: Final = re.compile("buy|sell|bid|ask|depth", re.IGNORECASE)  # what is offered, never what was traded
_LEVELS_APART: Final = 0.05  # of consecutive prices: one instrument does not jump so in a quarter of its rows
_JUMPING: Final = 0.25
_REPEATED: Final = 3  # times with several prices, of which a correction or two are not


def missing_columns(head: FileHead, found: Mapping[str, str], missing: Mapping[str, tuple[str, ...]]) -> str:
    """Say which columns a file lacks, what it has, and the option and setting that name them.

    Parameters
    ----------
    found : mapping of str
        The file's name of each of our columns that it has.
    missing : mapping of str
        Names by which each of the others was looked for.
    """
    if not_a_header := _not_a_header(head):
        return f"{head.path} has no column with a name: {not_a_header}"
    free = [name for name in head.columns if name not in found.values() and not _OF_A_QUOTE.search(name)]
    pairs: dict[str, str] = {}
    for ours, candidates in missing.items():
        theirs = _likely(ours, candidates, [name for name in free if name not in pairs.values()])
        pairs[ours] = theirs or "COLUMN"
    lacking = " and no column ".join(" or ".join(repr(name) for name in names) for names in missing.values())
    option = shlex.quote(",".join(f"{ours}={theirs}" for ours, theirs in pairs.items()))
    setting = ", ".join(f'{ours} = "{theirs}"' for ours, theirs in pairs.items())
    return (
        f"{head.path} has no column {lacking}; it has {head.columns}. Add it, rename one of them, or say which it is: "
        f"--columns {option} (setting market.columns = {{ {setting} }})"
    )


def _not_a_header(head: FileHead) -> str:
    """Say why a file's first line does not name its columns, and what to do; empty if it may."""
    numbers = sum(bool(re.fullmatch(r"-?\d+\.\d+|\d{5,}", name.strip())) for name in head.columns)
    if 2 * numbers > len(head.columns):
        return (
            f"its first line, {head.columns}, is a row of data; write names such as timestamp, symbol, open, high, "
            "low, close, volume into a line above it"
        )
    if head.rows and sum(map(bool, head.columns)) < 3 <= len(head.rows[0]):  # a title, or Excel's sep=
        return f"its first line is {head.columns}, and the next is {head.rows[0]}; remove the first"
    return ""


def _likely(ours: str, candidates: tuple[str, ...], free: list[str]) -> str | None:
    by_name = {plain_name(name): name for name in free}
    names = (*candidates, *_LIKELY.get(ours, ()))
    exact = next((by_name[name] for name in names if name in by_name), None)
    if exact is not None:
        return exact
    holding = [name for plain, name in by_name.items() if any(len(c) > 2 and c in plain for c in names)]
    near = get_close_matches(ours, by_name, n=1, cutoff=0.6)
    return holding[0] if holding else by_name[near[0]] if near else None


def identifying_columns(head: FileHead) -> dict[str, str]:
    """Columns that no file needs, but that tell instruments apart where there are several, each by its own name."""
    return {
        f"identity {name}": name
        for name, kind in zip(head.columns, head.types, strict=True)
        if plain_name(name) in _IDENTIFYING and not (kind is not None and pa.types.is_nested(kind))
    }


def refuse_several_instruments(table: FileTable, when: Times, kind: Kind) -> None:
    """Refuse rows of one symbol that plainly are of several instruments.

    They are if a column that tells instruments apart has several values, if most of a file's times are there with
    several opens and several closes (a corrected bar keeps one of them), or if a quarter of the steps from one price to
    the next, in order of time, are wider than a share is ever seen to jump.

    Raises
    ------
    MissingColumn
        If they are; the message names two of the rows.
    """
    for name in table.columns:
        if not name.startswith("identity "):
            continue
        _, values = table.texts(name)
        if len(told := [value for value in values if value]) > 1:
            theirs = table.names[name]
            raise MissingColumn(
                f"{table.path} plainly holds several instruments: its column {theirs!r} has {len(told):,} values "
                f"({told[0]!r}, {told[1]!r}); add a column for the symbol, or say that it is this one: "
                f"--columns symbol={shlex.quote(theirs)} (setting market.columns)"
            )
    time_ns, readable = when
    price = table.numbers("close" if kind == "bars" else "price")
    rows = np.flatnonzero(readable & np.isfinite(price) & (price > 0))
    rows = rows[np.argsort(time_ns[rows], kind="stable")]
    if len(rows) < 2:
        return
    times, prices = time_ns[rows], price[rows]
    jumps, at_once = np.abs(np.diff(np.log(prices))) > _LEVELS_APART, np.diff(times) == 0
    several = len(jumps) >= _REPEATED and bool(np.count_nonzero(jumps) > _JUMPING * len(jumps))
    if kind == "bars":  # of ticks, several in one second are real
        starts = np.flatnonzero(np.diff(times, prepend=times[0] - 1))
        twice = _differ(prices, starts) & _differ(table.numbers("open")[rows], starts)
        repeated = np.count_nonzero(twice) >= _REPEATED or bool(np.any(jumps & at_once))
        several = (several and bool(at_once.any())) or (repeated and bool(2 * np.count_nonzero(twice) > len(starts)))
    if not several:
        return
    at = int(np.flatnonzero(jumps if jumps.any() else (np.diff(prices) != 0) & at_once)[0])
    first, second = (f"{prices[k]:g} in row {table.row_number[rows[k]]}" for k in (at, at + 1))
    raise MissingColumn(
        f"{table.path} plainly holds several instruments ({first}, {second}) but no column for the symbol; add one, or "
        "say which of its columns it is: --columns symbol=COLUMN (setting market.columns)"
    )


def _differ(prices: NDArray[np.float64], starts: NDArray[np.intp]) -> NDArray[np.bool_]:
    """At which of some times, by the place of their first rows, not all prices are equal."""
    return np.asarray(np.fmax.reduceat(prices, starts) > np.fmin.reduceat(prices, starts), dtype=np.bool_)
