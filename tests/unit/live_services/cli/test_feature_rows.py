"""``alpha-panda features show`` without Redis and Kafka: rows of the offline store."""

from __future__ import annotations

import datetime as dt
import json
import math
from dataclasses import replace
from pathlib import Path

from feature_store.market.types import DAY_NS, SECOND_NS, ist_ns
from feature_store.offline.feature_rows import compute_features, read_features, write_features
from feature_store.offline.store import OfflineStore
from feature_store.sources.dated_tables import read_corporate_actions
from feature_store.sources.synthetic import synthetic_market
from live_services.cli.feature_rows import FeatureRow, newest_row, row_record
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


def test_a_row_of_a_replay_says_how_long_ago_it_really_was_and_where_the_strategies_are() -> None:
    end_ns = ist_ns(dt.date(2026, 2, 17), dt.time(15, 30))
    row = FeatureRow(
        "online store",
        end_ns,
        end_ns + 281 * DAY_NS,
        end_ns + SECOND_NS,
        "0" * 64,
        False,
        {"rsi": 80.0, "gap": math.nan},
    )
    assert "(281 days ago, 1 s before the strategies' 2026-02-17 15:30:01 IST)" in row.title
    assert "(281 days ago)" in replace(row, market_ns=0).title
    assert json.loads(json.dumps(row_record(row, "A"), allow_nan=False))["values"] == {"rsi": 80.0, "gap": None}
