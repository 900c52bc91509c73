"""Checks of Kafka: whether it answers and lets this desk in, what it can do, its topics, coordinators and clock."""

from __future__ import annotations

import asyncio
import ssl
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

from live_services.adapters.kafka import admin_client, connection
from live_services.adapters.retention import retention_ms, retention_text, retentions
from live_services.composition import running_brokers
from live_services.domain.topics import PREFLIGHT_CLOCK, all_topics
from live_services.preflight.configuration import groups, transactional_ids
from live_services.preflight.findings import Finding, Status, ok
from live_services.preflight.servers import not_started, start_again
from live_services.settings import KafkaSettings, Settings

if TYPE_CHECKING:
    from aiokafka.client import AIOKafkaClient

KAFKA_CHECKS: Final = ("kafka", "kafka_runtime_compatibility", "topics", "transactional_ids", "retention", "clock_skew")
_KEY: Final = "KAFKA__BOOTSTRAP_SERVERS"
_TIMEOUT_MS: Final = 5000
_TRIES_SECONDS: Final = 8.0
_TRY_AGAIN_SECONDS: Final = 0.25
_LISTED: Final = 5
_RELEASES: Final = {13: "4.1 or later", 12: "4.0", 11: "3.8 or 3.9", 10: "3.7", 9: "2.8 to 3.6"}
"""Kafka's release by the newest Produce request that it takes (``ProduceRequest.json`` of each release): brokers do not
say their release, only what they can do."""


@dataclass(frozen=True, slots=True)
class Needed:
    """A request that the platform sends, and since which version of it Kafka does what it is sent for."""

    request: str
    module: str
    version: int
    wherefore: str


NEEDED: Final = (
    Needed("MetadataRequest", "metadata", 1, "topics and partitions"),
    Needed("ProduceRequest", "produce", 3, "records with headers, in transactions"),
    Needed("FetchRequest", "fetch", 4, "reading committed records only"),
    Needed("OffsetRequest", "offset", 1, "where a log begins and ends"),
    Needed("OffsetCommitRequest", "commit", 2, "offsets of a group"),
    Needed("OffsetFetchRequest", "commit", 1, "offsets of a group"),
    Needed("FindCoordinatorRequest", "coordination", 1, "transactions"),
    Needed("JoinGroupRequest", "group", 5, "static members, so that a restart moves no other task"),
    Needed("InitProducerIdRequest", "transaction", 0, "transactions"),
    Needed("AddPartitionsToTxnRequest", "transaction", 0, "transactions"),
    Needed("AddOffsetsToTxnRequest", "transaction", 0, "outputs and offsets in one transaction"),
    Needed("EndTxnRequest", "transaction", 0, "transactions"),
    Needed("TxnOffsetCommitRequest", "transaction", 0, "outputs and offsets in one transaction"),
)
"""From KIP-98 (transactions, headers, read_committed), KIP-345 (static membership) and KIP-79 (offsets)."""


def kafka_findings(settings: Settings, *, topics_must_be_there: bool = True) -> Iterable[Finding]:
    """Ask Kafka, over one connection, all that the platform needs of it.

    Parameters
    ----------
    topics_must_be_there
        False before `up`, which creates them: then missing ones are only said.
    """
    kafka = settings.kafka
    if not kafka.bootstrap_servers:
        dependent = (Finding(check, "not started", "asked when Kafka runs") for check in KAFKA_CHECKS[1:])
        return (not_started(KAFKA_CHECKS[0], "Kafka", "always"), *dependent)
    try:
        arguments = connection(kafka)
    except OSError as problem:  # ssl.SSLError is one
        reason = f"the certificates in {kafka.ssl_cafile} (KAFKA__SSL_CAFILE) cannot be read: {problem}"
        return (Finding("kafka", "failed", reason, "Name the file of the authority that signed Kafka's", "always"),)
    return asyncio.run(_ask(settings, arguments, topics_must_be_there))


async def _ask(settings: Settings, arguments: Mapping[str, Any], must: bool) -> tuple[Finding, ...]:
    from aiokafka.client import AIOKafkaClient
    from aiokafka.errors import KafkaError

    client = AIOKafkaClient(**arguments, request_timeout_ms=_TIMEOUT_MS)
    try:
        await client.bootstrap()
        versions = await _versions(client)
        found = (
            ok("kafka", f"it answers at {settings.kafka.bootstrap_servers}, brokers: {len(client.cluster.brokers())}"),
            *compatibility(versions),
            *await _topics(client, settings, must),
            await _coordinators(client, settings),
        )
    except (KafkaError, OSError, ValueError) as problem:
        return (unreachable(settings, await _cause(settings.kafka, arguments) or problem),)
    finally:
        await client.close()
    return (*found, await _retention(settings), await _clock(settings))


def own_topics(settings: Settings) -> Finding | None:
    """Say which topics of this desk are missing or have other partitions; None if none, or if nobody answers."""
    from aiokafka.client import AIOKafkaClient
    from aiokafka.errors import KafkaError

    async def ask() -> tuple[Finding, ...]:
        client = AIOKafkaClient(**connection(settings.kafka), request_timeout_ms=_TIMEOUT_MS)
        try:
            await client.bootstrap()
            return await _topics(client, settings, must=True)
        except (KafkaError, OSError):
            return ()
        finally:
            await client.close()

    found = asyncio.run(ask()) if settings.kafka.bootstrap_servers else ()
    return next((finding for finding in found if finding.status == "failed"), None)


def unreachable(settings: Settings, problem: Exception) -> Finding:
    """Say why Kafka could not be asked: the address, credentials, certificates, or nobody there."""
    from aiokafka.errors import AuthenticationFailedError, IllegalSaslStateError, UnsupportedSaslMechanismError

    servers, protocol = settings.kafka.bootstrap_servers, settings.kafka.security_protocol
    causes = _causes(problem)
    if any(isinstance(c, AuthenticationFailedError | UnsupportedSaslMechanismError) for c in causes):
        reason = f"Kafka at {servers} refuses user {settings.kafka.sasl_username!r} over {protocol}: {problem}"
        way_out = "Correct KAFKA__SASL_USERNAME, KAFKA__SASL_PASSWORD and KAFKA__SASL_MECHANISM"
    elif any(isinstance(cause, IllegalSaslStateError) for cause in causes):
        reason = f"Kafka at {servers} asks for no user on this port, and {protocol} names one"
        way_out = "Correct the port, or KAFKA__SECURITY_PROTOCOL"
    elif any(isinstance(c, ssl.SSLError) for c in causes):
        reason = f"no TLS connection to Kafka at {servers}: {problem}"
        way_out = "Correct KAFKA__SSL_CAFILE, the port, or KAFKA__SECURITY_PROTOCOL"
    else:
        reason = f"no Kafka answers at {servers} (kafka.bootstrap_servers) over {protocol}"
        way_out = f"{start_again(settings, _KEY)}; an address is HOST:PORT, over KAFKA__SECURITY_PROTOCOL"
    return Finding("kafka", "failed", reason, way_out, "always")


async def _cause(kafka: KafkaSettings, arguments: Mapping[str, Any]) -> Exception | None:
    """Connect once more and keep why it fails: the client logs that, and says only that it failed."""
    from aiokafka.conn import collect_hosts, create_conn
    from aiokafka.errors import KafkaError

    how = {key: value for key, value in arguments.items() if key != "bootstrap_servers"}
    cause: Exception | None = None
    for host, port, _ in collect_hosts(kafka.bootstrap_servers):
        try:
            (await create_conn(host, port, request_timeout_ms=_TIMEOUT_MS, **how)).close()
        except (KafkaError, OSError) as problem:  # TimeoutError is one
            cause = problem
    return cause


def _causes(problem: BaseException | None) -> tuple[BaseException, ...]:
    return () if problem is None else (problem, *_causes(problem.__cause__ or problem.__context__))


# --- what it can do -------------------------------------------------------------------------------------------------

Versions = Mapping[int, tuple[int, int]]
"""By the key of an API: the oldest and the newest version of its request that the broker takes."""


async def _versions(client: AIOKafkaClient) -> Versions:
    from aiokafka.protocol.admin import ApiVersionRequest

    answer = await client.send(client.get_random_node(), ApiVersionRequest())
    return {key: (oldest, newest) for key, oldest, newest in answer.api_versions}


def compatibility(versions: Versions) -> Iterator[Finding]:
    """Compare what the broker takes with what aiokafka speaks and the platform needs, request by request."""
    check, release = "kafka_runtime_compatibility", _RELEASES.get(min(versions.get(0, (0, 0))[1], 13), "older than 2.8")
    ours = f"aiokafka {version('aiokafka')} on Python {'.'.join(map(str, sys.version_info[:3]))}"
    lacking = [line for needed in NEEDED if (line := _lacking(needed, versions))]
    if lacking:
        reason = f"Kafka {release} and {ours} do not go together: {'; '.join(lacking)}"
        way_out = "Use Kafka 2.4 or later, or another version of aiokafka"
        yield Finding(check, "failed", reason, way_out, "always")
    elif not _is_compiled():
        reason = f"{ours} has no compiled parts for this Python: every record costs several times as much"
        yield Finding(check, "warning", reason, "Install aiokafka's wheel for this Python", "advice")
    else:
        yield ok(check, f"Kafka {release}, {ours}")


def _lacking(needed: Needed, versions: Versions) -> str:
    from importlib import import_module

    request = getattr(import_module(f"aiokafka.protocol.{needed.module}"), needed.request)
    spoken = {one.API_VERSION for one in request._CLASSES}  # what aiokafka itself chooses from
    if request.API_KEY not in versions:
        return f"the broker has no {needed.request} ({needed.wherefore})"
    oldest, newest = versions[request.API_KEY]
    if max((v for v in spoken if oldest <= v <= newest), default=-1) >= needed.version:
        return ""
    return (
        f"{needed.request} is needed from version {needed.version} on ({needed.wherefore}), the broker takes {oldest} "
        f"to {newest}, aiokafka speaks {', '.join(map(str, sorted(spoken)))}"
    )


def _is_compiled() -> bool:
    from aiokafka.record.default_records import DefaultRecordBatch

    return "_crecords" in DefaultRecordBatch.__module__


# --- topics and coordinators ----------------------------------------------------------------------------------------


async def _topics(client: AIOKafkaClient, settings: Settings, must: bool) -> tuple[Finding, ...]:
    metadata = await client.fetch_all_metadata()
    known = {topic: len(metadata.partitions_for_topic(topic) or ()) for topic in metadata.topics()}
    return tuple(judged_topics(settings, known, must_be_there=must))


def judged_topics(settings: Settings, known: Mapping[str, int], *, must_be_there: bool) -> Iterator[Finding]:
    """Compare the topics of this desk with those on Kafka.

    Parameters
    ----------
    known
        Number of partitions by topic.
    """
    wanted = {
        name: count
        for topic in all_topics(running_brokers(settings))
        for name, count in ((topic.name, topic.partitions(settings.kafka.market_partitions)), (topic.dlq, 1))
    }
    wrong = [f"{n} has {known[n]} instead of {count}" for n, count in wanted.items() if known.get(n, count) != count]
    missing = [name for name in wanted if name not in known]
    if wrong:
        way_out = "Set kafka.market_partitions to what exists, or use another Kafka: instruments have fixed partitions"
        yield Finding("topics", "failed", f"partitions: {_few(wrong)}", way_out, "always")
    if missing:
        way_out = (
            "`up` creates them; let this user create topics, or create them so (`topics list` has their partitions)"
        )
        status: Status = "failed" if must_be_there else "warning"
        yield Finding("topics", status, f"{len(missing)} are not there: {_few(missing)}", way_out, "always")
    if not wrong and not missing:
        yield ok("topics", f"{len(wanted)}, with the partitions that they should have")


def _few(names: list[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more


async def _coordinators(client: AIOKafkaClient, settings: Settings) -> Finding:
    """Ask for the coordinator of every transactional id and group, which takes nothing over from anybody."""
    from aiokafka.client import CoordinationType
    from aiokafka.errors import KafkaError

    asked = [(CoordinationType.TRANSACTION, name) for name in transactional_ids(settings)]
    asked += [(CoordinationType.GROUP, name) for name in groups(settings)]
    deadline, check = time.monotonic() + _TRIES_SECONDS, "transactional_ids"
    for kind, name in asked:
        try:
            await _until_answered(partial(client.coordinator_lookup, kind, name), deadline)
        except KafkaError as problem:
            reason = f"Kafka has no coordinator for {name}: {type(problem).__name__}"
            way_out = (
                "Let this user write with transactional ids and read with groups that begin with `alpha-panda.`; "
                "if it may, wait for the brokers"
            )
            return Finding(check, "failed", reason, way_out, "always")
    return ok(check, f"{len(asked)} ids and groups have coordinators, none twice")


async def _until_answered(ask: Callable[[], Awaitable[Any]], deadline: float) -> Any:
    """Ask again while the coordinators of a Kafka that has just started are on their way."""
    from aiokafka.errors import GroupCoordinatorNotAvailableError, GroupLoadInProgressError

    while True:
        try:
            return await ask()
        except (GroupCoordinatorNotAvailableError, GroupLoadInProgressError):
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(_TRY_AGAIN_SECONDS)


# --- how long it keeps records ---------------------------------------------------------------------------------------


async def _retention(settings: Settings) -> Finding:
    from aiokafka.errors import KafkaError

    names = [name for topic in all_topics(running_brokers(settings)) for name in (topic.name, topic.dlq)]
    try:
        async with admin_client(settings.kafka) as admin:
            there = set(await admin.list_topics())
            found = await retentions(admin, [name for name in names if name in there])
    except (KafkaError, OSError) as problem:
        reason = f"how long topics keep records cannot be read: {type(problem).__name__}"
        return Finding("retention", "warning", reason, "Let this user describe the settings of topics", "advice")
    return judged_retention(settings.kafka, found)


def judged_retention(kafka: KafkaSettings, found: Mapping[str, int]) -> Finding:
    """Compare for how long topics keep records, in milliseconds by name, with the setting."""
    wrong = [f"{n} {retention_text(ms)}" for n, ms in sorted(found.items()) if ms != retention_ms(kafka, n)]
    if wrong:
        reason = f"kafka.retention_hours is {kafka.retention_hours}, 0 being for ever, and {_few(wrong)}"
        way_out = "`up` sets it: let this user alter the settings of topics, or set retention.ms on them so"
        return Finding("retention", "warning", reason, way_out, "advice")
    if not kafka.retention_hours:
        return ok("retention", "topics keep their records for ever (kafka.retention_hours)")
    told = retention_text(kafka.retention_hours * 3_600_000)
    return ok("retention", f"topics keep their records for {told}; sessions, control and dead letters for ever")


# --- its clock ------------------------------------------------------------------------------------------------------


async def _clock(settings: Settings) -> Finding:
    from aiokafka.errors import KafkaError

    try:
        async with asyncio.timeout(_TRIES_SECONDS):
            skew_ms = await clock_skew_ms(settings.kafka)
    except (KafkaError, OSError, TimeoutError) as problem:
        reason = f"the broker's clock could not be read: {type(problem).__name__} on {PREFLIGHT_CLOCK.name}"
        return Finding("clock_skew", "warning", reason, "Let this user create and write that topic", "advice")
    return judged_skew(skew_ms, settings.preflight.max_clock_skew_ms)


def judged_skew(skew_ms: float, most_ms: int) -> Finding:
    """Judge by how much the broker's clock is ahead of this computer's, in milliseconds."""
    where = "ahead of" if skew_ms > 0 else "behind"
    reason = f"the broker's clock is {abs(skew_ms):,.0f} ms {where} this one"
    if abs(skew_ms) <= most_ms:
        return ok("clock_skew", reason)
    way_out = "Let both computers follow a time server (`timedatectl set-ntp true`)"
    return Finding("clock_skew", "failed", f"{reason}, {most_ms:,} are allowed", way_out)


async def clock_skew_ms(kafka: KafkaSettings) -> float:
    """Give by how much a broker's clock is ahead, in milliseconds: it stamps a record that is written for this.

    Right to half of the time that the record takes.
    """
    from aiokafka import AIOKafkaProducer
    from aiokafka.admin import AIOKafkaAdminClient, NewTopic

    stamped = {"message.timestamp.type": "LogAppendTime", "retention.ms": "3600000"}
    admin = AIOKafkaAdminClient(**connection(kafka))
    await admin.start()
    try:
        await admin.create_topics([NewTopic(PREFLIGHT_CLOCK.name, 1, 1, topic_configs=stamped)])  # or it is there
    finally:
        await admin.close()
    producer = AIOKafkaProducer(**connection(kafka))
    await producer.start()
    try:
        await producer.send_and_wait(PREFLIGHT_CLOCK.name, b"", partition=0)  # the first waits for metadata
        before = time.time_ns()
        stamp_ms = (await producer.send_and_wait(PREFLIGHT_CLOCK.name, b"", partition=0)).timestamp
        return float(stamp_ms) - (before + time.time_ns()) / 2e6
    finally:
        await producer.stop()
