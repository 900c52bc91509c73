from __future__ import annotations

import numpy as np

from feature_store.features.engine import feature_table
from live_services.domain.strategy.asked import Assignment
from live_services.domain.strategy.desk import StrategyDesk
from live_services.domain.strategy.newest_rows import NewestRows
from models_registry.specification import StrategySpec
from tests.live_world import MINUTE, OPEN, SESSION, UNIVERSE, bars, loaded_model


def desk(partition: int = 0, partitions: int = 1) -> StrategyDesk:
    settings = (StrategySpec(name="momentum", holding_bars=5),)
    return StrategyDesk(UNIVERSE, SESSION, settings, bar_minutes=1, partition=partition, partitions=partitions)


def table(minutes: int = 40):  # type: ignore[no-untyped-def]
    return bars(*((i, k, 100.0 + k + i, 101.0 + k) for k in range(minutes) for i in range(3) if (k + i) % 4))


def test_the_desk_keeps_the_last_row_of_each_instrument_as_history_computes_it() -> None:
    on, market = desk(), table()
    on.assign(Assignment(OPEN, "momentum", loaded_model(names=["rsi", "momentum"])))
    for k in range(40):
        on.on_bars(market[market.start_ns == OPEN + k * MINUTE])
        on.advance(OPEN + (k + 1) * MINUTE + 1)
    ((schema, block),) = on.newest_rows()
    rows, warm = feature_table(market, schema, UNIVERSE)
    assert block.tokens.tolist() == sorted(block.tokens.tolist())
    assert len(block.tokens) == 3
    assert block.end_ns == on.decided_ns == int(market.end_ns[-1])
    for k, token in enumerate(block.tokens):
        last = np.flatnonzero(market.instrument == UNIVERSE.index_of_token[int(token)])[-1]
        assert block.rows[k].tobytes() == rows[last].tobytes()
        assert (block.bar_end_ns[k], block.warm[k]) == (market.end_ns[last], warm[last])


def test_a_model_that_comes_later_has_the_rows_of_the_bars_before_it() -> None:
    on, market = desk(), table()
    on.on_bars(market)
    on.advance(SESSION.close_ns)
    assert on.newest_rows() == []
    on.assign(Assignment(OPEN, "momentum", loaded_model()))
    ((_, block),) = on.newest_rows()
    assert len(block.tokens) == 3


def test_a_block_is_a_value_that_later_bars_do_not_change() -> None:
    schema = loaded_model().schema
    newest = NewestRows(schema, UNIVERSE, np.ones(len(UNIVERSE), dtype=np.bool_))
    market = table()
    rows, warm = feature_table(market, schema, UNIVERSE)
    newest.take(market[:50], rows[:50], warm[:50])
    block = newest.block(0)
    before = block.rows.tobytes()
    newest.take(market[50:], rows[50:], warm[50:])
    assert block.rows.tobytes() == before


def test_rows_of_instruments_of_other_partitions_are_not_among_them() -> None:
    on = desk(partition=1, partitions=2)
    on.assign(Assignment(OPEN, "momentum", loaded_model()))
    on.on_bars(table())
    on.advance(SESSION.close_ns)
    ((_, block),) = on.newest_rows()
    assert len(block.tokens)
    assert (block.tokens % 2 == 1).all()
