"""Good files of market data and of small tables, which a test makes bad."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from feature_store.market.types import IST, Universe
from feature_store.sources.dated_tables import read_corporate_actions, read_membership, read_universe
from feature_store.sources.reading import SourceBars, SourceTicks, read_bars, read_ticks

UNIVERSE = Universe.from_symbols(["AAA", "BBB"])
MONDAY = "2026-01-05"


def bars(rows: int = 6) -> pd.DataFrame:
    times = pd.date_range(f"{MONDAY} 09:15", periods=rows, freq="min", tz=IST).strftime("%Y-%m-%d %H:%M:%S%z")
    frame = pd.DataFrame({"timestamp": times, "symbol": "AAA"})
    return frame.assign(open=100.0, high=102.0, low=99.0, close=101.0, volume=10).astype(object)


def ticks(rows: int = 6) -> pd.DataFrame:
    times = pd.date_range(f"{MONDAY} 09:15", periods=rows, freq="s", tz=IST).strftime("%Y-%m-%d %H:%M:%S%z")
    frame = pd.DataFrame({"timestamp": times, "symbol": "AAA", "ltp": 100.0, "volume": np.arange(rows) * 5})
    quote = {"bid_price": 99.95, "ask_price": 100.0, "bid_quantity": 10, "ask_quantity": 20}
    return frame.assign(**quote).astype(object)


def actions() -> pd.DataFrame:
    rows = [("AAA", "2026-01-05", "split", 0.5), ("BBB", "2026-01-06", "bonus", 0.2)]
    return pd.DataFrame(rows, columns=["symbol", "ex_date", "kind", "factor"]).astype(object)


def members() -> pd.DataFrame:
    rows = [("AAA", "2020-01-01", "2021-06-30"), ("AAA", "2023-01-02", None), ("BBB", "2022-01-03", "2022-01-03")]
    return pd.DataFrame(rows, columns=["symbol", "from", "to"]).astype(object)


def instruments() -> pd.DataFrame:
    rows = [("AAA", "equity", 101, 0.05), ("NEW INDEX", "INDEX", 102, None), ("BBB", "etf", None, 0.01)]
    return pd.DataFrame(rows, columns=["symbol", "kind", "instrument_token", "tick_size"]).astype(object)


GOOD: dict[str, tuple[Callable[[], pd.DataFrame], Callable[..., Any]]] = {
    "bars": (bars, read_bars),
    "ticks": (ticks, read_ticks),
    "actions": (actions, read_corporate_actions),
    "members": (members, read_membership),
    "instruments": (instruments, read_universe),
}


def save(frame: pd.DataFrame, path: Path) -> Path:
    if path.suffix == ".parquet":
        frame.to_parquet(path, index=False)
    else:
        frame.to_csv(path, index=False)
    return path


def rows_of(source: SourceBars | SourceTicks) -> int:
    return len(source.bars if isinstance(source, SourceBars) else source.ticks) + len(source.quarantine)


@dataclass(frozen=True)
class Row:
    """The third row with some values, and the reason that it must get."""

    reason: str
    values: dict[str, Any]


def told(row: Row) -> str:
    return f"{row.reason}: {row.values}"
