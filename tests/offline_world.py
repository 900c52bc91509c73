"""A small market, and a store that holds its sessions."""

from pathlib import Path

import pytest

from feature_store.features.schema import MOMENTUM_FEATURES, feature_schema
from feature_store.market.types import Ticks
from feature_store.offline.store import OfflineStore
from feature_store.sources.synthetic import SyntheticMarket, synthetic_market

SCHEMA = feature_schema(MOMENTUM_FEATURES, 1)
N = 30  # enough instruments for more than one row group


@pytest.fixture(scope="module")
def market() -> SyntheticMarket:
    return synthetic_market(instruments=N, sessions=4, seed=1, index=False)


@pytest.fixture
def store(market: SyntheticMarket, tmp_path: Path) -> OfflineStore:
    store = OfflineStore(tmp_path / "store")
    for session, bars in zip(market.sessions, market.bars, strict=True):
        store.write_bars(session, market.universe, bars, market.name, bar_source="ticks")
    return store


def data_file(store: OfflineStore, market: SyntheticMarket, k: int = 0) -> Path:
    (path,) = (store.root / "bars" / f"session={market.sessions[k].date}").glob("data-*.parquet")
    return path


def first_ticks(market: SyntheticMarket, depth: bool = False) -> Ticks:
    ticks = market.ticks[0][:20_000]
    return ticks.with_depth() if depth else ticks
