"""Whether what is joined from a side table was known at the decision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from feature_store.market.types import MissingColumn
from live_services.audit.findings import AuditReport, Finding, LeakKind, first_of_each


def side_table_was_known(
    join: Callable[[pd.DataFrame, pd.DataFrame], pd.DataFrame],
    rows: pd.DataFrame,
    side: pd.DataFrame,
    *,
    at: str,
    available_at: str = "available_at",
    cuts: int = 40,
    seed: int = 7,
) -> AuditReport:
    """Take away the side rows that were not known at a decision, and join again: no earlier row may move.

    Parameters
    ----------
    join : callable
        Takes decisions and the side table; gives the decisions, in their order, with columns of the side table.
    rows : pandas DataFrame
        Decisions.
    side : pandas DataFrame
        With the first instant at which each row was known.
    at : str
        Column of ``rows`` with the decision's time.
    available_at : str
        Column of ``side``, typed as ``at``.
    cuts : int
        Decisions, by lot.
    seed : int
        Of the lot.

    Raises
    ------
    MissingColumn
        If the side table does not say when its rows were known.
    """
    if available_at not in side.columns:
        raise MissingColumn(
            f"the side table has no column {available_at!r}, so nobody knows when its rows became known; it has "
            f"{list(side.columns)}"
        )
    guard, rng, values = "side rows known later", np.random.default_rng(seed), 0
    whole = join(rows.copy(), side.copy())
    joined = [name for name in whole.columns if name not in rows.columns]
    findings: list[Finding] = []
    times = np.unique(rows[at].to_numpy())
    for cut in np.sort(rng.permutation(times)[:cuts]):
        mine = (rows[at] <= cut).to_numpy()
        part = join(rows.copy(), side[side[available_at] < cut].copy())
        values += int(mine.sum()) * len(joined)
        for name in joined:
            moved = np.flatnonzero(mine & ~_equal_columns(whole[name], part[name]))
            if len(moved):
                findings.append(_of_side(guard, name, rows, at, int(moved[0]), (whole[name], part[name])))
    too_few = () if joined and len(times) else ("nothing is joined: give decisions and a side table that share keys",)
    return AuditReport("side table", {guard: values}, first_of_each(findings), too_few)


def _of_side(  # noqa: PLR0917
    guard: str, name: str, rows: pd.DataFrame, at: str, row: int, values: tuple[pd.Series[Any], pd.Series[Any]]
) -> Finding:
    with_future, without = (_plain(one.iloc[row]) for one in values)
    when = rows[at].iloc[row]
    time_ns = int(when.value) if isinstance(when, pd.Timestamp) else int(when)
    what = f"row {row} is joined to {with_future!r}; of what was known by then it would be {without!r}"
    symbol = str(rows["symbol"].iloc[row]) if "symbol" in rows.columns else ""
    kind = LeakKind.SIDE_TABLE_KNOWN_LATER
    return Finding(kind, guard, "side table", name, what, symbol, time_ns, with_future, without)


def _plain(value: Any) -> float | str:
    if pd.isna(value):
        return float("nan")
    return float(value) if isinstance(value, (int, float, np.number)) else str(value)


def _equal_columns(a: pd.Series[Any], b: pd.Series[Any]) -> NDArray[np.bool_]:
    x, y = a.reset_index(drop=True), b.reset_index(drop=True)
    both: NDArray[np.bool_] = ((x == y) | (x.isna() & y.isna())).to_numpy(dtype=np.bool_)
    return both
