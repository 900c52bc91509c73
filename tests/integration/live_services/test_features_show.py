"""``alpha-panda features show`` on a real Valkey: the online store first, and why not when it is passed over."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import redis
from pydantic import SecretStr

from feature_store.features.schema import feature_schema
from feature_store.market.types import MINUTE_NS, UnknownInstrument
from feature_store.offline.store import OfflineStore
from feature_store.online.blocks import DIRECTORY_KEY, Block
from feature_store.online.store import OnlineStore
from live_services.adapters.health import TaskHealth
from live_services.adapters.telemetry import LiveTelemetry
from live_services.cli import feature_rows
from live_services.cli.feature_rows import newest_row
from live_services.domain.log import TaskId
from live_services.failures import CommandFailed
from live_services.machine.embedded import embedded_valkey
from live_services.settings import RedisSettings, Settings
from tests.live_world import OPEN, UNIVERSE

pytestmark = pytest.mark.integration

SCHEMA = feature_schema(["rsi", "momentum"], 1)
END = OPEN + 30 * MINUTE_NS


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    with embedded_valkey(tmp_path / "valkey") as url:
        made = Settings(alpha_panda_home=tmp_path, redis=RedisSettings(url=SecretStr(url)))
        OfflineStore(made.store_root).write_universe(UNIVERSE, "TEST")
        yield made


async def report_watermark(settings: Settings, watermark_ns: int) -> None:
    async with LiveTelemetry(settings, "strategy_runner") as telemetry:
        telemetry.report(
            TaskHealth(TaskId("strategy_runner", "shared", 0), watermark_ns, "2026-01-05", True, 1, {}, 0, 0, 0, "", 1)
        )
        await asyncio.sleep(0)  # the writer has begun, so it writes once more when it is stopped


def write(settings: Settings, *, warm: bool = True, schema_hash: str = SCHEMA.hash) -> None:
    n = len(UNIVERSE) - 1
    rows = np.arange(2.0 * n).reshape(n, 2)
    block = Block(schema_hash, 0, END, UNIVERSE.tokens[:n], np.full(n, END), np.full(n, warm), rows)
    OnlineStore.connect(settings.redis.url.get_secret_value()).write(SCHEMA, block)


async def test_a_row_of_the_online_store_says_bar_time_age_schema_and_that_it_is_warm(settings: Settings) -> None:
    write(settings)
    await report_watermark(settings, END + 20 * 10**9)
    row = await newest_row(settings, "paper", "BBB")
    assert row.values == {"rsi": 2.0, "momentum": 3.0}
    assert row.passed_over == ()
    for part in (
        "online store",
        "09:45:00 IST",
        "20 s before the strategies' 2026-01-05 09:45:20 IST",
        SCHEMA.hash[:12],
        "warm",
    ):
        assert part in row.title
    write(settings, warm=False)
    assert "WARMING" in (await newest_row(settings, "paper", "BBB")).title


async def test_a_stale_a_missing_and_a_foreign_row_are_passed_over_with_the_reason(settings: Settings) -> None:
    with pytest.raises(CommandFailed, match="no rows yet"):
        await newest_row(settings, "paper", "AAA")
    write(settings)
    await report_watermark(settings, END + 10 * MINUTE_NS)
    with pytest.raises(CommandFailed, match=r"stale.*alpha-panda status"):
        await newest_row(settings, "paper", "AAA")
    with pytest.raises(CommandFailed, match="missing"):
        await newest_row(settings, "paper", "INDEX")
    url = settings.redis.url.get_secret_value()
    with redis.Redis.from_url(url) as client:
        client.flushdb()
        client.hset(DIRECTORY_KEY, "ab" * 32, '{"bar_clock": "time:60s", "names": ["rsi"]}')
    with pytest.raises(CommandFailed, match="run the code that wrote them"):
        await newest_row(settings, "paper", "AAA")


async def test_what_is_passed_over_is_named_beside_the_row_that_was_found(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = feature_rows.FeatureRow("offline store", END, END, END, SCHEMA.hash, False, {"rsi": 1.0})
    monkeypatch.setattr(feature_rows, "_from_store", lambda *_: found)
    row = await newest_row(settings, "paper", "AAA")
    assert row.values == {"rsi": 1.0}
    assert len(row.passed_over) == 1
    assert "no rows yet" in row.passed_over[0]


async def test_a_redis_that_is_down_does_not_stop_the_search(settings: Settings) -> None:
    gone = settings.model_copy(update={"redis": RedisSettings(url=SecretStr("redis://127.0.0.1:1/0"))})
    with pytest.raises(CommandFailed, match="Redis does not answer"):
        await newest_row(gone, "paper", "AAA")


async def test_a_symbol_that_nobody_knows_names_its_neighbour(settings: Settings) -> None:
    with pytest.raises(UnknownInstrument, match="AAA"):
        await newest_row(settings, "paper", "AA")
