"""``alpha-panda features show`` without Redis and Kafka: rows of the offline store."""

from __future__ import annotations

from pathlib import Path

from feature_store.offline.feature_rows import compute_features, read_features, write_features
from feature_store.offline.store import OfflineStore
from feature_store.sources.dated_tables import read_corporate_actions
from feature_store.sources.synthetic import synthetic_market
from live_services.cli.feature_rows import newest_row
from live_services.domain.strategy.checks import stored_schema
from live_services.settings import MarketSettings, Settings


async def test_stored_rows_are_found_with_corporate_actions_and_stale_ones_are_passed_over(tmp_path: Path) -> None:
    market = synthetic_market(instruments=2, sessions=5)
    file = tmp_path / "actions.csv"
    file.write_text(f"symbol,ex_date,kind,factor\nSYN001,{market.sessions[1].date},split,0.5\n")
    settings = Settings(alpha_panda_home=tmp_path, market=MarketSettings(corporate_actions=file))
    store, schema = OfflineStore(settings.store_root), stored_schema(settings.strategies)
    actions = read_corporate_actions(file)
    for session, bars in zip(market.sessions, market.bars, strict=True):
        store.write_bars(session, market.universe, bars, market.name)
    for session in market.sessions[3:]:
        write_features(
            store, session, schema, compute_features(store, session, schema, actions=actions), actions=actions
        )
    found = await newest_row(settings, "paper", "SYN001")
    assert str(market.sessions[4].date) in found.origin
    *_, last = read_features(store, market.sessions[4], schema, ["SYN001"], actions=actions).X
    assert list(found.values.values()) == last.tolist()

    store.write_bars(market.sessions[4], market.universe, market.bars[4][:-1], market.name)
    assert str(market.sessions[3].date) in (await newest_row(settings, "paper", "SYN001")).origin
