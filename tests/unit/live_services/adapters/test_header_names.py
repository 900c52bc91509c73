from __future__ import annotations

from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer.fetcher import READ_COMMITTED, PartitionRecords
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy
from aiokafka.record.memory_records import MemoryRecords

from live_services.adapters.header_names import FetchedRecords
from tests.strange_headers import BadName

PARTITION = TopicPartition("t", 0)
Headers = list[tuple[str, bytes]]


def batch(headers: list[Headers], base_offset: int = 0, compression: int = 0) -> bytes:
    builder = _DefaultRecordBatchBuilderPy(2, compression, 0, -1, -1, -1, 10**6)
    for number, of_record in enumerate(headers):
        builder.append(number, 1_000 + number, None, b"value %d" % number, of_record)
    built = bytearray(builder.build())
    built[:8] = base_offset.to_bytes(8, "big")
    return bytes(built)


def fetched(records: Any, offset: int = 0) -> list[Any]:
    given = PartitionRecords(PARTITION, records, None, offset, None, None, True, READ_COMMITTED)
    return list(given)


GOOD: Headers = [("event_type", b"x")]
BAD: Headers = [(BadName(b"\xff\xfename"), b"1"), ("event_type", b"y")]


def test_the_client_alone_ends_at_such_a_record() -> None:
    with pytest.raises(UnicodeDecodeError):
        fetched(MemoryRecords(batch([GOOD, BAD])))


@pytest.mark.parametrize("compression", [0, 1], ids=["plain", "gzip"])
@pytest.mark.parametrize("place", range(3))
def test_a_record_with_such_a_name_comes_in_its_place_with_its_bytes_spelled(place: int, compression: int) -> None:
    headers = [GOOD, GOOD, GOOD]
    headers[place] = BAD
    answered = batch(headers, 7, compression) + batch([GOOD], 10)
    found = fetched(FetchedRecords(answered), offset=7)
    assert [one.offset for one in found] == [7, 8, 9, 10]
    assert [one.value for one in found] == [b"value 0", b"value 1", b"value 2", b"value 0"]
    assert [one.timestamp for one in found] == [1_000, 1_001, 1_002, 1_000]
    spelled = (("\\xff\\xfename", b"1"), ("event_type", b"y"))
    assert [one.headers for one in found[:3]] == [spelled if k == place else tuple(GOOD) for k in range(3)]


def test_what_a_fetch_cut_off_is_left_to_the_next_one() -> None:
    whole = batch([GOOD])
    records = FetchedRecords(whole + batch([BAD], 1)[:-5])
    assert [one.offset for one in fetched(records)] == [0]
    assert records.size_in_bytes() > len(whole)
    assert not FetchedRecords(whole[:-1]).has_next()
