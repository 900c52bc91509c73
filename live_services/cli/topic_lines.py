"""``topics``: which there are; committed records as JSON lines, frames as a line that sums them up."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from live_services.cli.errors import did_you_mean
from live_services.cli.output import Document, Field, FittingTable
from live_services.domain.events import event_or_none
from live_services.domain.frames import FRAME_TOPICS
from live_services.domain.money import RUPEE
from live_services.domain.topics import all_topics
from live_services.failures import CommandFailed
from live_services.next_steps import to_type
from live_services.settings import Settings

if TYPE_CHECKING:
    from rich.console import Console

    from live_services.adapters.kafka import StoredRecord

_SESSION_OPENED: Final = "market.session_opened"


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
        near = did_you_mean(topic, known)
        raise CommandFailed(
            f"there is no topic {topic!r}; {f'{near} ' if near else ''}{to_type('topics list')} names them all"
        )
    seen = 0
    async for record in follow(settings.kafka, [topic], from_beginning=from_beginning):
        if not watermarks and ("event_type", b"watermark") in record.headers:
            continue
        write.print(line_of(record), soft_wrap=True, markup=False)
        seen += 1
        if seen == limit:
            return


def topic_records(settings: Settings) -> list[Document]:
    """Say of every topic its scope, its partitions, and whether its producer forwards watermarks on it."""
    return [
        {
            "topic": topic.name,
            "scope": topic.scope,
            "partitions": topic.partitions(settings.kafka.market_partitions),
            "watermarked": topic.watermarked,
            "dead_letters": topic.dlq,
        }
        for topic in all_topics()
    ]


def topics_table(records: Sequence[Document]) -> FittingTable:
    """Lay the topics out."""
    fields = (Field("topic"), Field("scope"), Field("partitions", right=True), Field("watermarks"))
    table = FittingTable((*fields, Field("dead letters", leave_out=1)))
    for record in records:
        told = "yes" if record["watermarked"] else ""
        table.add_row(record["topic"], record["scope"], str(record["partitions"]), told, record["dead_letters"])
    return table


def line_of(record: StoredRecord) -> str:
    """Write one record as a JSON line with its place on the log.

    A frame is what its headers say; exact amounts stand in rupees, and a session's instruments are counted.
    """
    headers = {key: value.decode(errors="replace") for key, value in record.headers}
    place = f"{record.topic}[{record.partition}]@{record.offset}"
    if headers.get("event_type") in FRAME_TOPICS:
        return json.dumps({"at": place, **headers, "bytes": len(record.value)})
    if (said := event_or_none(record.value, record.headers)) is not None and not record.value:
        return json.dumps({"at": place, **said.model_dump(mode="json")})  # a watermark, which is headers alone
    return json.dumps({"at": place, **_document(record.value)})


def _document(value: bytes) -> dict[str, Any]:
    try:
        document = json.loads(value)
    except ValueError:
        return {"undecodable_bytes": value[:200].hex()}
    if not isinstance(document, dict):
        return {"value": document}
    if document.get("event_type") == _SESSION_OPENED and isinstance(document.get("instruments"), list):
        document["instruments"] = len(document["instruments"])
    shown: dict[str, Any] = _in_rupees(document)
    return shown


def _in_rupees(value: Any) -> Any:
    """Give integers of 1/10,000 rupee, whose fields end in ``_inr_e4``, as rupees under a name that ends in ``_inr``.

    A float prints every amount below a hundred thousand million rupees in full.
    """
    if isinstance(value, list):
        return [_in_rupees(one) for one in value]
    if not isinstance(value, dict):
        return value
    return dict(_field(name, content) for name, content in value.items())


def _field(name: str, content: Any) -> tuple[str, Any]:
    if name.endswith("_inr_e4") and (content is None or isinstance(content, int)):
        return name.removesuffix("_e4"), None if content is None else content / RUPEE
    return name, _in_rupees(content)
