"""What many values of a state are written as comes back as it was, and a day's tables stay few."""

from __future__ import annotations

import math

import numpy as np
import pytest

from feature_store.market.types import Bars, Ticks
from live_services.adapters.snapshot_bytes import pack, unpack
from live_services.domain.events import OrderSubmitted
from live_services.domain.snapshot import CorruptSnapshot
from live_services.domain.written import (
    WrittenOnce,
    fields_of,
    in_few_tables,
    read_rows,
    read_tables,
    read_values,
    written_rows,
    written_tables,
    written_values,
)
from tests.live_world import bars, submitted, ticks, validated


def columns(table: Ticks | Bars) -> list[bytes]:
    return [column.tobytes() for column in vars(table).values() if column is not None]


def test_rows_come_back_to_the_bit_and_of_any_size() -> None:
    rows = [["₹ \ud800", 2**200, -0.0, 5e-324, None, True], [], [["a", 1]]]
    assert read_rows(written_rows(rows)) == rows
    assert math.copysign(1, read_rows(written_rows([-0.0]))[0]) == -1
    assert math.isnan(read_rows(written_rows([math.nan]))[0])


def test_events_come_back_validated() -> None:
    orders = [submitted(validated(k, 60 + k, price=0.1 + 0.2, stop_inr=0.05)) for k in range(3)]
    again = read_values(OrderSubmitted, written_values(OrderSubmitted, orders))
    assert again == orders
    assert [order.model_dump_json() for order in again] == [order.model_dump_json() for order in orders]


def test_events_that_were_written_before_are_written_the_same_among_others() -> None:
    once, orders = WrittenOnce(), [submitted(validated(k, 60 + k, strategy="₹")) for k in range(3)]
    for now in ([], orders[:2], orders[::-1], [orders[0].model_copy()], orders):
        assert once.values(OrderSubmitted, now).tobytes() == written_values(OrderSubmitted, now).tobytes()


def test_tables_come_back_with_and_without_their_optional_columns() -> None:
    tables = [ticks((0, 1, 100.0)), ticks((1, 2, 50.0)).with_depth(), bars((0, 0, 1.0, 2.0))]
    again = read_tables(written_tables(tables))
    assert [type(table) for table in again] == [Ticks, Ticks, Bars]
    assert [columns(table) for table in again] == [columns(table) for table in tables]
    assert [table.has_depth for table in again[:2]] == [False, True]


@pytest.mark.parametrize("parts", [0, 1, 2, 7, 500])
def test_the_tables_of_a_day_are_few_and_hold_the_same_rows_in_order(parts: int) -> None:
    tables = [bars(*((k % 3, k, 100.0 + k, 100.0) for _ in range(1 + k % 4))) for k in range(parts)]
    few: list[Bars] = []
    for table in tables:
        few = in_few_tables([*few, table])
    assert len(few) <= 1 + math.log2(parts + 1)
    if tables:
        assert columns(Bars.concatenate(few)) == columns(Bars.concatenate(tables))


def test_a_table_of_thousands_is_joined_to_no_other_and_neighbours_are_written_as_one() -> None:
    minutes = [bars(*((k, minute, 100.0, 100.0) for k in range(3_000))) for minute in range(4)]
    assert [len(table) for table in in_few_tables(minutes)] == [3_000] * 4
    (again,) = read_tables(unpack(pack({"tables": written_tables(minutes)}))["tables"])
    assert columns(again) == columns(Bars.concatenate(minutes))


def test_tables_with_depth_are_not_joined_to_those_without() -> None:
    plain = ticks((0, 1, 100.0))
    assert [len(table) for table in in_few_tables([plain, plain, plain.with_depth(), plain])] == [2, 1, 1]


def test_a_list_where_names_belong_is_no_state() -> None:
    with pytest.raises(CorruptSnapshot, match="it has list where"):
        fields_of([np.zeros(1)])
