"""The dated tables that a desk keeps beside its market data, from Parquet and CSV files.

A row that is wrong refuses the whole file, with its number: half a table of splits is worse than none.
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Final

from feature_store.market.corporate_actions import CorporateAction, CorporateActions, refuse_wrong_actions
from feature_store.market.membership import MemberPeriod, Membership, refuse_wrong_periods
from feature_store.market.types import (
    CollidingInstruments,
    Instrument,
    InvalidRows,
    Universe,
    date_of_day,
    ist_day,
    ist_time_of_day,
)
from feature_store.sources.files import FileTable, read_file

_SYMBOL: Final = ("symbol", "tradingsymbol", "ticker")
_ACTION_COLUMNS: Final = {
    "symbol": _SYMBOL,
    "time": ("ex_date", "exdate", "ex date", "ex-date"),
    "kind": ("kind", "action", "type", "purpose"),
    "factor": ("factor", "adjustment_factor", "price_factor"),
}
_INSTRUMENT_COLUMNS: Final = {"symbol": _SYMBOL, "kind": ("kind", "type", "instrument_type")}
_INSTRUMENT_EXTRAS: Final = {
    "token": ("instrument_token", "token"),
    "tick_size": ("tick_size", "tick_size_inr"),
    "lot_size": ("lot_size", "lotsize"),
}
_MOST_LOT: Final = 10**6  # shares; more is a typing error
INSTRUMENT_KINDS: Final = ("equity", "etf", "index")
"""What an instrument can be; an index is context for features and is never traded."""
_MEMBER_COLUMNS: Final = {
    "symbol": _SYMBOL,
    "from": ("from", "from_date", "start", "start_date"),
    "to": ("to", "to_date", "end", "end_date"),
}


def read_corporate_actions(path: str | Path | None) -> CorporateActions:
    """Read corporate actions from a Parquet or CSV file; no file has no actions.

    Columns, whatever their case: ``symbol|tradingsymbol|ticker``, ``ex_date`` (a date, or text such as 2026-01-05),
    ``kind|action|type|purpose`` (one of `KINDS`, whatever its case) and ``factor``.

    Raises
    ------
    UnreadableFile
        If the file is missing, empty, truncated or of another kind.
    MissingColumn
        If a column is missing.
    InvalidRows
        If a row is wrong; the message names each such row and what is wrong with it.
    """
    if path is None:
        return CorporateActions.none()
    table = read_file(path, _ACTION_COLUMNS, text=("symbol", "time", "kind"))
    ex_dates = _dates(table, "time")
    symbols, kinds, factors = table.values("symbol"), table.values("kind"), table.numbers("factor")
    rows: list[tuple[int, CorporateAction]] = []
    problems = [(int(row), "too few or too many fields") for row in table.malformed["row"]]
    for k, row in enumerate(table.row_number.tolist()):
        ex_date = ex_dates[k]
        if isinstance(ex_date, dt.date):
            rows.append((row, CorporateAction(symbols[k], ex_date, kinds[k].lower(), float(factors[k]))))
        else:
            problems.append((row, "the ex-date is missing or no date; write it as 2026-01-05"))
    refuse_wrong_actions(str(path), rows, problems)
    return CorporateActions(tuple(action for _, action in rows))


def read_universe(path: str | Path) -> Universe:
    """Read what a table states of instruments, from a Parquet or CSV file.

    Columns, whatever their case: ``symbol|tradingsymbol|ticker``, ``kind|type|instrument_type`` (one of
    `INSTRUMENT_KINDS`), and maybe ``instrument_token|token`` (default: CRC-32 of the symbol), ``tick_size`` (rupees,
    default 0.05) and ``lot_size`` (shares, default 1).

    Raises
    ------
    UnreadableFile
        If the file is missing, empty, truncated or of another kind.
    MissingColumn
        If a column is missing.
    InvalidRows
        If a row is wrong; the message names each such row and what is wrong with it.
    CollidingInstruments
        If two rows have one symbol or one token.
    """
    table = read_file(path, _INSTRUMENT_COLUMNS, _INSTRUMENT_EXTRAS, text=("symbol", "kind"))
    symbols, kinds = table.values("symbol"), table.values("kind")
    nothing = [float("nan")] * len(symbols)
    tokens = table.numbers("token").tolist() if table.has("token") else nothing
    given = table.present("token").tolist() if table.has("token") else [False] * len(symbols)
    steps = table.numbers("tick_size").tolist() if table.has("tick_size") else nothing
    sized = table.present("tick_size").tolist() if table.has("tick_size") else [False] * len(symbols)
    lots = table.numbers("lot_size").tolist() if table.has("lot_size") else nothing
    lotted = table.present("lot_size").tolist() if table.has("lot_size") else [False] * len(symbols)
    instruments: list[Instrument] = []
    problems = [(int(row), "too few or too many fields") for row in table.malformed["row"]]
    for k, row in enumerate(table.row_number.tolist()):
        symbol, kind = symbols[k], kinds[k].lower()
        if not symbol:
            problems.append((row, "the symbol is missing"))
        elif kind not in INSTRUMENT_KINDS:
            problems.append((row, f"{symbol} is of kind {kinds[k]!r}; write one of {', '.join(INSTRUMENT_KINDS)}"))
        elif given[k] and not (0 < tokens[k] < 2**53 and tokens[k] == int(tokens[k])):
            problems.append((row, f"the instrument token of {symbol} is no whole number above 0"))
        elif sized[k] and not 0 < steps[k] < float("inf"):
            problems.append((row, f"the tick size of {symbol} is no number of rupees above 0"))
        elif lotted[k] and not (1 <= lots[k] <= _MOST_LOT and lots[k] == int(lots[k])):
            problems.append((row, f"the lot size of {symbol} is no whole number of shares above 0"))
        else:
            one = Universe.from_symbols([symbol], frozenset({symbol} if kind == "index" else ())).instruments[0]
            stated: dict[str, float] = {"instrument_token": int(tokens[k])} if given[k] else {}
            stated |= {"tick_size_inr": steps[k]} if sized[k] else {}
            stated |= {"lot_size": int(lots[k])} if lotted[k] else {}
            instruments.append(one.model_copy(update=stated))
    if problems:
        raise InvalidRows(str(path), sorted(problems))
    try:
        return Universe.ordered(instruments)
    except CollidingInstruments as error:
        raise CollidingInstruments(f"{path}: {error}") from error


def read_membership(path: str | Path, *, universe: Universe | None = None) -> Membership:
    """Read a membership table from a Parquet or CSV file.

    Columns, whatever their case: ``symbol|tradingsymbol|ticker``, ``from|from_date|start`` (first date as a member) and
    ``to|to_date|end`` (last date as a member; empty while it still is one).

    Parameters
    ----------
    universe : Universe, optional
        Refuse symbols outside it.

    Raises
    ------
    UnreadableFile
        If the file is missing, empty, truncated or of another kind.
    MissingColumn
        If a column is missing.
    InvalidRows
        If a row is wrong; the message names each such row and what is wrong with it.
    """
    table = read_file(path, _MEMBER_COLUMNS, text=tuple(_MEMBER_COLUMNS))
    symbols, firsts, lasts = table.values("symbol"), _dates(table, "from"), _dates(table, "to")
    rows: list[tuple[int, MemberPeriod]] = []
    problems = [(int(row), "too few or too many fields") for row in table.malformed["row"]]
    for row, symbol, first, last in zip(table.row_number.tolist(), symbols, firsts, lasts, strict=True):
        if not symbol:
            problems.append((row, "the symbol is missing"))
        elif universe is not None and symbol not in universe.index_of_symbol:
            problems.append((row, f"symbol {symbol!r} is not in the universe; correct it or drop the row"))
        elif not isinstance(first, dt.date):
            problems.append((row, f"'from' of {symbol} is missing or no date; write it as 2026-01-05"))
        elif isinstance(last, str):
            problems.append((row, f"'to' of {symbol} is no date; write it as 2026-01-05, or leave it empty"))
        else:
            rows.append((row, MemberPeriod(symbol, first, last)))
    refuse_wrong_periods(str(path), rows, problems)
    return Membership(tuple(period for _, period in rows))


def _dates(table: FileTable, name: str) -> list[dt.date | str | None]:
    """A date for each row; None where the file has nothing, ``unreadable`` where it has no date."""
    time_ns, readable = table.times(name)
    there = table.present(name)
    return [
        (date_of_day(ist_day(ns)) if ok and ist_time_of_day(ns) == 0 else "unreadable") if has else None
        for ns, ok, has in zip(time_ns.tolist(), readable.tolist(), there.tolist(), strict=True)
    ]
