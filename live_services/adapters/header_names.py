r"""Records whose header names are not UTF-8: aiokafka ends the fetch of their partition, for every reader and for ever.

Kafka says that a header's name is UTF-8 and does not look (https://kafka.apache.org/documentation/#record). Where the
client's decoder fails, the batch is decoded once more with names in which such bytes are spelled ``\xff``, so that the
record comes in its place, and whoever cannot use it buries it there.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

from aiokafka.consumer import fetcher
from aiokafka.record.default_records import _DefaultRecordBatchPy
from aiokafka.record.memory_records import MemoryRecords

_BEFORE_BATCH: Final = struct.Struct(">qi")  # its base offset, and the length of what follows


def accept_any_header_name() -> None:
    """Let every consumer of this process read such records; one that is there already does so from its next fetch."""
    fetcher.MemoryRecords = FetchedRecords


class FetchedRecords:
    """The batches that one fetch of a partition brought, as `MemoryRecords` gives them.

    Parameters
    ----------
    buffer : bytes
        As the brokers answered.
    """

    def __init__(self, buffer: bytes) -> None:
        self._records = MemoryRecords(buffer)
        self._left = memoryview(buffer)

    def size_in_bytes(self) -> int:
        """Give the length of what was fetched."""
        return int(self._records.size_in_bytes())

    def has_next(self) -> bool:
        """Whether there is another whole batch."""
        return bool(self._records.has_next())

    def next_batch(self) -> Any:
        """Give the next batch."""
        batch = self._records.next_batch()
        _, length = _BEFORE_BATCH.unpack_from(self._left)
        raw, self._left = self._left[: _BEFORE_BATCH.size + length], self._left[_BEFORE_BATCH.size + length :]
        return batch if batch.is_control_batch else _Batch(batch, raw)


class _Batch:
    """A batch of records, read by the client's fast decoder as long as that can."""

    def __init__(self, batch: Any, raw: memoryview) -> None:
        self._batch = batch
        self._raw = raw

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __iter__(self) -> Iterator[Any]:
        read = 0
        try:
            for record in self._batch:
                yield record
                read += 1
        except UnicodeDecodeError:
            yield from islice(_AnyNames(self._raw), read, None)


class _AnyNames(_DefaultRecordBatchPy):  # type: ignore[misc]  # the client's own decoder, with another answer to one byte
    _buffer: bytearray

    def _maybe_uncompress(self) -> None:
        super()._maybe_uncompress()
        self._buffer = _Spelled(self._buffer)


class _Spelled(bytearray):
    """Bytes of which whatever is no text is spelled."""

    def __getitem__(self, place: Any) -> Any:
        part = super().__getitem__(place)
        return _Spelled(part) if isinstance(place, slice) else part

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return super().decode(encoding, "backslashreplace")
