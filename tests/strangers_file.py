"""A stranger's file of minute bars: names, times and decimals that no dialect of ours has."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from feature_store.market.types import IST
from feature_store.sources.synthetic import synthetic_market

TIME_FORMAT = "%d-%m-%Y %H:%M"
"""The one thing about the file that must be said."""


def write_strangers_file(path: Path, *, instruments: int, sessions: int, edge_bps: float, seed: int = 7) -> Path:
    """Write a generated market as ``Date,Ticker,Open,High,Low,Close,Volume`` with prices of four decimals."""
    market = synthetic_market(instruments, sessions, edge_bps=edge_bps, seed=seed, index=False)
    symbols = [instrument.symbol.replace("SYN", "STK") for instrument in market.universe.instruments]
    table = pd.concat(
        pd.DataFrame(
            {
                "Date": pd.to_datetime(part.start_ns, utc=True).tz_convert(IST).strftime(TIME_FORMAT),
                "Ticker": [symbols[k] for k in part.instrument],
                **{name.title(): (1.23457 * getattr(part, name)).round(4) for name in ("open", "high", "low", "close")},
                "Volume": part.volume,
            }
        )
        for part in market.bars
    )
    table.to_csv(path, index=False)
    return path
