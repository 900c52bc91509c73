"""``topics tail``: committed records as JSON lines; frames as a line that sums them up."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from live_services.cli.errors import did_you_mean
from live_services.domain.frames import FRAME_TOPICS
from live_services.domain.topics import all_topics
from live_services.failures import CommandFailed
from live_services.next_steps import to_type
from live_services.settings import Settings

if TYPE_CHECKING:
    from rich.console import Console

    from live_services.adapters.kafka import StoredRecord


async def tail(
    settings: Settings, topic: str, *, from_beginning: bool, limit: int | None, watermarks: bool, write: Console
) -> None:
    """Write a topic's committed records, one JSON line each, until ``limit`` or Ctrl-C.

    Raises
    ------
    CommandFailed
        If the platform has no such topic.
    """
    from live_services.adapters.kafka import follow

    known = [name for t in all_topics() for name in (t.name, t.dlq)]
    if topic not in known:
        raise CommandFailed(
            f"there is no topic {topic!r}; {did_you_mean(topic, known)} {to_type('topics list')} names them all"
        )
    seen = 0
    async for record in follow(settings.kafka, [topic], from_beginning=from_beginning):
        if not watermarks and ("event_type", b"watermark") in record.headers:
            continue
        write.print(line_of(record), soft_wrap=True, markup=False)
        seen += 1
        if seen == limit:
            return


def line_of(record: StoredRecord) -> str:
    """Write one record as a JSON line with its place on the log."""
    headers = {key: value.decode(errors="replace") for key, value in record.headers}
    place = f"{record.topic}[{record.partition}]@{record.offset}"
    if headers.get("event_type") in FRAME_TOPICS:
        return json.dumps({"at": place, **headers, "rows": _rows(record.value), "bytes": len(record.value)})
    return json.dumps({"at": place, **_document(record.value)})


def _rows(body: bytes) -> int | None:
    try:
        return int(pa.ipc.open_stream(body).read_next_batch().num_rows)
    except (pa.ArrowInvalid, StopIteration):
        return None


def _document(value: bytes) -> dict[str, Any]:
    try:
        document = json.loads(value)
    except ValueError:
        return {"undecodable_bytes": value[:200].hex()}
    return document if isinstance(document, dict) else {"value": document}
