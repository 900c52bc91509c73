"""The online store on a real Valkey: what is written is read bit for bit, what is stale, foreign or torn is refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import redis

from feature_store.features.schema import FeatureSchema, feature_schema
from feature_store.market.types import MINUTE_NS, SECOND_NS, Universe
from feature_store.online.blocks import DIRECTORY_KEY, Block, DamagedBlock, ForeignSchema, block_key, newest_key
from feature_store.online.store import BLOCK_TTL_SECONDS, NoRows, OnlineStore
from live_services.machine.embedded import embedded_valkey

pytestmark = pytest.mark.integration

SCHEMA, OTHER = feature_schema(["rsi", "momentum"], 1), feature_schema(["momentum"], 1)
UNIVERSE = Universe.from_symbols([f"S{k:03d}" for k in range(20)])
END = 1_767_586_500_000_000_000


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    directory: Path = tmp_path_factory.mktemp("valkey")
    with embedded_valkey(directory) as address:
        yield address


@pytest.fixture
def client(url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(url) as connected:
        connected.flushdb()
        yield connected


@pytest.fixture
def store(client: redis.Redis) -> OnlineStore:
    return OnlineStore(client)


def block(end_ns: int = END, partition: int = 0, partitions: int = 1, schema: FeatureSchema = SCHEMA) -> Block:
    tokens = np.sort(UNIVERSE.tokens[UNIVERSE.tokens % partitions == partition])
    rows = np.random.default_rng(end_ns % 1000 + partition).normal(size=(len(tokens), len(schema.names)))
    n = len(tokens)
    return Block(schema.hash, partition, end_ns, tokens, np.full(n, end_ns), np.ones(n, dtype=np.bool_), rows)


def read(store: OnlineStore, now_ns: int = END, max_age_ns: int = 3 * MINUTE_NS):  # type: ignore[no-untyped-def]
    return store.read(SCHEMA, UNIVERSE.instruments, now_ns=now_ns, max_age_ns=max_age_ns)


def test_rows_of_all_partitions_come_back_bit_for_bit_in_the_order_asked(store: OnlineStore) -> None:
    written = [block(partition=p, partitions=3) for p in range(3)]
    for one in written:
        store.write(SCHEMA, one)
    rows = read(store)
    assert rows.reasons == {}
    assert rows.usable.all()
    by_token = {int(t): one.rows[k].tobytes() for one in written for k, t in enumerate(one.tokens)}
    assert [row.tobytes() for row in rows.rows] == [by_token[i.instrument_token] for i in UNIVERSE.instruments]


def test_the_newest_block_stays_and_the_one_before_it_expires(store: OnlineStore, client: redis.Redis) -> None:
    store.write(SCHEMA, block(END))
    store.write(SCHEMA, block(END + MINUTE_NS))
    assert 0 < client.ttl(block_key(SCHEMA.hash, 0, END)) <= BLOCK_TTL_SECONDS
    assert client.ttl(block_key(SCHEMA.hash, 0, END + MINUTE_NS)) == -1


def test_a_task_that_runs_again_does_not_put_old_rows_in_the_place_of_new_ones(
    store: OnlineStore, client: redis.Redis
) -> None:
    newest = block(END)
    store.write(SCHEMA, newest)
    store.write(SCHEMA, block(END - MINUTE_NS))
    store.write(SCHEMA, newest)
    assert set(read(store).end_ns.tolist()) == {END}
    assert client.ttl(block_key(SCHEMA.hash, 0, END)) == -1
    assert client.ttl(block_key(SCHEMA.hash, 0, END - MINUTE_NS)) > 0


def test_a_stale_row_is_refused_with_its_bar_time_and_the_others_are_read(store: OnlineStore) -> None:
    written = block()
    ends = written.bar_end_ns.copy()
    ends[0] -= 10 * MINUTE_NS
    store.write(SCHEMA, replace(written, bar_end_ns=ends))
    rows = read(store, END + SECOND_NS)
    (symbol, reason), *others = rows.reasons.items()
    assert not others
    assert "stale" in reason
    assert "601 s ago" in reason
    at = UNIVERSE.index_of_symbol[symbol]
    assert UNIVERSE.tokens[at] == written.tokens[0]
    assert np.isnan(rows.rows[at]).all()
    assert rows.usable.sum() == len(UNIVERSE) - 1
    assert rows.frame().loc[symbol, "refused"] == reason


def test_rows_from_the_future_and_unknown_instruments_are_refused(store: OnlineStore) -> None:
    store.write(SCHEMA, block())
    assert "future" in next(iter(read(store, END - 1).reasons.values()))
    stranger = Universe.from_symbols(["STRANGER"]).instruments
    rows = store.read(SCHEMA, stranger, now_ns=END, max_age_ns=MINUTE_NS)
    assert "missing" in rows.reasons["STRANGER"]
    assert not rows.usable.any()


def test_a_row_that_is_warming_is_shown_as_such(store: OnlineStore) -> None:
    written = block()
    warm = written.warm.copy()
    warm[3] = False
    store.write(SCHEMA, replace(written, warm=warm))
    rows = read(store)
    assert rows.reasons == {}
    assert rows.usable.sum() == len(UNIVERSE) - 1


def test_an_empty_store_and_one_of_another_schema_say_what_is_there(store: OnlineStore) -> None:
    with pytest.raises(NoRows, match="alpha-panda status"):
        read(store)
    with pytest.raises(NoRows):
        store.schema()
    store.write(OTHER, block(schema=OTHER))
    with pytest.raises(ForeignSchema, match=rf"{OTHER.hash[:12]}.*\(momentum\)"):
        read(store)
    assert store.schema() == OTHER


def test_the_schema_written_last_is_the_one_that_is_given(store: OnlineStore) -> None:
    store.write(OTHER, block(END, schema=OTHER))
    store.write(SCHEMA, block(END + MINUTE_NS))
    assert store.schema() == SCHEMA


def test_a_schema_of_other_code_is_refused_by_name(store: OnlineStore, client: redis.Redis) -> None:
    store.write(SCHEMA, block())
    described = client.hget(DIRECTORY_KEY, SCHEMA.hash)
    client.delete(DIRECTORY_KEY)
    client.hset(DIRECTORY_KEY, "ab" * 32, described)
    with pytest.raises(ForeignSchema, match="run the code that wrote them"):
        store.schema()
    client.hset(DIRECTORY_KEY, "ab" * 32, b'{"bar_clock": "time:60s", "names": ["phase_of_the_moon"]}')
    with pytest.raises(ForeignSchema, match="phase_of_the_moon"):
        store.schema()


def test_a_torn_a_foreign_and_a_lost_block_are_refused_with_their_key(store: OnlineStore, client: redis.Redis) -> None:
    store.write(SCHEMA, block())
    key = block_key(SCHEMA.hash, 0, END)
    whole = client.get(key)
    assert isinstance(whole, bytes)
    client.set(key, whole[:-8])
    with pytest.raises(DamagedBlock, match="torn"):
        read(store)
    client.set(key, b"APFR, of the format before Arrow")
    with pytest.raises(DamagedBlock, match="no Arrow stream"):
        read(store)
    client.delete(key)
    with pytest.raises(DamagedBlock, match="noeviction"):
        read(store)
    assert client.exists(newest_key(SCHEMA.hash))
