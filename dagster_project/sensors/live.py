"""What really runs: the live side's answers on Kafka become observations of the asset ``live_model``."""

import asyncio
import datetime as dt
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import dagster as dg

from dagster_project.resources import LedgerResource
from feature_store.market.types import IST, SECOND_NS, ist_text
from live_services.domain.events import Event, ModelLoaded, ModelRefused, NoEvent, decode_event
from live_services.domain.topics import MODELS_LOADED, MODELS_REFUSED
from live_services.settings import KafkaSettings, Settings

if TYPE_CHECKING:
    from live_services.adapters.kafka import StoredRecord
    from models_registry.ledger import PromotionLedger
    from models_registry.trials import TrialTable

LIVE_MODEL: Final = dg.AssetKey("live_model")

_BUDGET_SECONDS: Final = 20.0
"""Dagster gives a sensor 60 s; a broker that does not answer must not use them up."""


def live_model(champions: Iterable[dg.AssetKey]) -> dg.AssetSpec:
    """Describe the asset ``live_model``, which follows the champions of the desk's models."""
    return dg.AssetSpec(
        LIVE_MODEL,
        deps=list(champions),
        group_name="live",
        kinds={"kafka"},
        description="The model version that each strategy really runs, by the strategy runners' own word (topics "
        "models.loaded and models.refused). Each observation names version, strategy, task and the event time of the "
        "swap.",
    )


@dg.sensor(
    name="live_model_observations",
    minimum_interval_seconds=4,  # below the daemon's floor of 5 s, so it looks every 5 s instead of every 10
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Reads models.loaded and models.refused and records what runs as observations of live_model.",
)
def live_model_observations(
    context: dg.SensorEvaluationContext,
    settings: dg.ResourceParam[Settings],
    ledger: dg.ResourceParam[LedgerResource],
) -> dg.SensorResult | dg.SkipReason:
    """Observe what the strategy runners said since the last look."""
    from aiokafka.errors import KafkaError

    from live_services.adapters.kafka import KafkaSetupError
    from models_registry.ledger import LedgerError

    kafka = settings.kafka
    if not kafka.bootstrap_servers:
        return dg.SkipReason("No Kafka is set: `alpha-panda up` starts one, KAFKA__BOOTSTRAP_SERVERS names one.")
    seen: dict[str, int] = json.loads(context.cursor) if context.cursor else {}
    try:
        records = asyncio.run(_records_after(kafka, seen))
    except (KafkaSetupError, KafkaError, OSError, TimeoutError) as error:
        return dg.SkipReason(f"Kafka at {kafka.bootstrap_servers} could not be read: {error or type(error).__name__}")
    if not records:
        return dg.SkipReason("No strategy runner loaded or refused a model since the last look.")
    try:
        observations, cursor = observe(records, seen, partial(_market, ledger.ledger()))
        note_looks(ledger.trials(), replayed(records), time.time_ns())
    except LedgerError as error:
        return dg.SkipReason(f"What runs cannot be noted, and is read again at the next look: {error}")
    said = "; ".join(observation.description or "" for observation in observations)
    return dg.SensorResult(
        asset_events=observations, cursor=json.dumps(cursor), skip_reason=f"No run is needed. Observed: {said}"
    )


def observe(
    records: Sequence["StoredRecord"], seen: Mapping[str, int], market_of: Callable[[str, str], str]
) -> tuple[list[dg.AssetObservation], dict[str, int]]:
    """Turn records into observations of ``live_model``; a record that is no event is passed over.

    Parameters
    ----------
    market_of
        The market that ``(model name, version)`` was trained on: a generated one must be seen to be one.

    Returns
    -------
    observations : list of AssetObservation
        In order of event time.
    cursor : dict
        The last offset read, by ``topic[partition]``.
    """
    cursor = dict(seen) | {_place(record): record.offset for record in records}
    events = sorted(_events(records), key=lambda pair: pair[0].event_time_ns)
    found = [
        _observation(event, record, market_of(event.model_name, event.model_version))
        for event, record in events
        if isinstance(event, ModelLoaded | ModelRefused)
    ]
    return found, cursor


def _events(records: Sequence["StoredRecord"]) -> Iterator[tuple[Event, "StoredRecord"]]:
    for record in records:
        try:
            yield decode_event(record.value), record
        except NoEvent:
            continue


class Replayed(NamedTuple):
    """A version that the live services ran in a session."""

    model_name: str
    date: dt.date
    version: str
    rung: str
    artifact_sha256: str


def replayed(records: Sequence["StoredRecord"]) -> tuple[Replayed, ...]:
    """Say which versions the live services ran in which sessions, each once.

    Every session that they run so far is a replay of a stored one, and whoever looks at its trades has looked at it.
    """
    loaded = (event for event, _ in _events(records) if isinstance(event, ModelLoaded))
    ran = (
        Replayed(
            one.model_name,
            dt.datetime.fromtimestamp(one.event_time_ns // SECOND_NS, IST).date(),
            one.model_version,
            one.rung,
            one.artifact_sha256,
        )
        for one in loaded
    )
    return tuple(dict.fromkeys(ran))


def note_looks(table: "TrialTable", ran: Iterable[Replayed], at_ns: int) -> None:
    """Note each session that a version was replayed in as one look, however often it was loaded there.

    Parameters
    ----------
    table : TrialTable
    ran : iterable of Replayed
    at_ns : int
        UTC epoch nanoseconds.
    """
    from models_registry.trials import HoldoutLook, config_digest

    known: dict[str, set[tuple[dt.date, str]]] = {}
    for one in ran:
        digest = config_digest({"version": one.version, "rung": one.rung, "artifact_sha256": one.artifact_sha256})
        if one.model_name not in known:
            looks = table.looks(one.model_name)
            known[one.model_name] = {(look.first_session, look.config_digest) for look in looks}
        if (one.date, digest) not in known[one.model_name]:
            table.look(
                HoldoutLook(
                    model_name=one.model_name,
                    first_session=one.date,
                    last_session=one.date,
                    what="replay",
                    by="the live services",
                    at_ns=at_ns,
                    config_digest=digest,
                )
            )


def _market(ledger: "PromotionLedger", name: str, version: str) -> str:
    entries = (entry for entry in ledger.history(name) if entry.to_version == version)
    return next((str(entry.evidence["market"]) for entry in entries if "market" in entry.evidence), "not recorded")


def _observation(event: ModelLoaded | ModelRefused, record: "StoredRecord", market: str) -> dg.AssetObservation:
    metadata: dict[str, Any] = {
        "state": "loaded" if isinstance(event, ModelLoaded) else "REFUSED",
        "model": f"{event.model_name}@{event.rung}",
        "version": event.model_version,
        "trained_on": market,
        "strategy": event.strategy,
        "task": event.task,
        "event_time": ist_text(event.event_time_ns),
        "record": f"{record.topic}[{record.partition}]@{record.offset}",
    }
    if isinstance(event, ModelLoaded):
        metadata |= {"feature_schema_hash": event.feature_schema_hash, "artifact_sha256": event.artifact_sha256}
        said = f"{event.strategy} runs {event.model_name} version {event.model_version} ({event.task})"
    else:
        metadata |= {"reason": event.reason, "running_version": event.running_version or "none"}
        said = f"{event.strategy} refused {event.model_name} version {event.model_version}: {event.reason}"
    return dg.AssetObservation(asset_key=LIVE_MODEL, description=said, metadata=metadata)


async def _records_after(kafka: KafkaSettings, seen: Mapping[str, int]) -> list["StoredRecord"]:
    from live_services.adapters.kafka import read_topic

    async with asyncio.timeout(_BUDGET_SECONDS):
        records = [r for topic in (MODELS_LOADED, MODELS_REFUSED) async for r in read_topic(kafka, topic.name)]
    return unseen(records, seen)


def unseen(records: Sequence["StoredRecord"], seen: Mapping[str, int]) -> list["StoredRecord"]:
    """Leave out what was read before; a log that ends before the cursor is a new one and is read from its beginning."""
    ends: dict[str, int] = {}
    for record in records:
        ends[_place(record)] = max(record.offset, ends.get(_place(record), -1))
    return [r for r in records if ends[_place(r)] < seen.get(_place(r), -1) or r.offset > seen.get(_place(r), -1)]


def _place(record: "StoredRecord") -> str:
    return f"{record.topic}[{record.partition}]"
