"""Everything that runs on this machine for one home: which servers, which services, in which order.

Servers named by the settings are used, the others are started here; a setting is the only switch there is.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from live_services.adapters.progress_marks import process_name
from live_services.composition import ServiceEntry, processes, running_brokers, skipped
from live_services.domain.topics import Scope, all_topics
from live_services.home import mark_layout
from live_services.machine import research_servers
from live_services.machine.embedded import (
    LOOPBACK,
    PortInUse,
    ServerNotReady,
    ServerSpec,
    broker_answers,
    death,
    free_port,
    kafka_spec,
    listens,
    redis_answers,
    valkey_spec,
)
from live_services.machine.kafka_jars import Progress
from live_services.machine.orphans import stop_orphans
from live_services.machine.ports import port_of, taken_by
from live_services.machine.programs import KEEPER, SERVERS, SERVICES, Program, read_plan, write_private
from live_services.machine.supervision import AlreadyRunning, ProcessState, SupervisionError, Supervisor
from live_services.next_steps import of_home
from live_services.settings import Settings, config_file, endpoints_file, load_settings

_SERVER_BACK_SECONDS: Final = 120.0
_SERVICE_STOP_SECONDS: Final = 6.0
"""A service gives itself five, and then ends as if it were killed; what was not committed then is run again."""

Tell = Callable[[str], None]
"""Takes one line for the person who waits."""


@dataclass(frozen=True, slots=True)
class Desk:
    """Which processes run for whom, and what is left out and why (one line each)."""

    processes: tuple[tuple[ServiceEntry, Scope], ...]
    skipped: tuple[str, ...]


def desk(settings: Settings) -> Desk:
    """Decide from the settings what runs."""
    return Desk(processes(settings), skipped(settings))


@dataclass(frozen=True, slots=True)
class Ports:
    """Preferred ports of the embedded servers, used when they are free; 0 takes any."""

    kafka: int = 9092
    redis: int = 6379
    mlflow: int = 5000
    dagster: int = 3000


ANY_PORTS: Final = Ports(0, 0, 0, 0)


class Stack:
    """The servers and services of one home."""

    def __init__(self, settings: Settings) -> None:
        self.home = settings.alpha_panda_home.absolute()
        self.supervisor = Supervisor(self.home)
        self.desk = desk(settings)
        self.held_back: tuple[str, ...] = ()
        """What keeps the services from being started, one line each."""
        self._specs: tuple[ServerSpec, ...] = ()

    @property
    def environment(self) -> dict[str, str]:
        """What children need to read the same settings; secrets stay where they are (environment or file)."""
        configuration = config_file()
        named = {"ALPHA_PANDA_CONFIG": str(configuration.absolute())} if configuration.exists() else {}
        return {"ALPHA_PANDA_HOME": str(self.home)} | named | research_servers.python_environment()

    def start_servers(
        self, *, tell: Tell, ports: Ports = ANY_PORTS, progress: Progress | None = None
    ) -> tuple[ServerSpec, ...]:
        """Start the servers that no setting names, all at once, without waiting.

        Raises
        ------
        AlreadyRunning
            A stack runs on this home.
        live_services.home.OtherLayout
            What is kept in this home was written by another version.
        live_services.machine.embedded.EmbeddedServerError
            One could not be prepared (disk, port, jars).
        """
        if self.supervisor.running:
            raise AlreadyRunning(
                f"a stack is running on {self.home}: see `{of_home(self.home)} status`, stop it with "
                f"`{of_home(self.home)} down`"
            )
        mark_layout(self.home)
        left = stop_orphans(self.supervisor.socket_path)
        if left:
            tell(f"the supervisor of this home was killed; stopped what it had left running: {left}")
        endpoints = endpoints_file(self.home)
        endpoints.unlink(missing_ok=True)  # of a stack that was killed; what is external is decided without it
        settings = load_settings(alpha_panda_home=self.home)
        self._specs = self._embedded(settings, ports, tell, progress)
        write_private(endpoints, endpoints_toml(self._specs))
        with ThreadPoolExecutor() as pool:  # Kafka's formatting and Dagster's tables take seconds each
            list(pool.map(lambda spec: spec.prepare(), self._specs))
        groups = {
            SERVERS: [Program(s.name, s.argv, s.env, s.stop_seconds, port_of(s.endpoint)) for s in self._specs],
            SERVICES: [_service_program(entry, scope) for entry, scope in self.desk.processes],
        }
        present = {group: programs for group, programs in groups.items() if programs}
        self.supervisor.start(present, self.environment, settings.processes)
        if self._specs:
            self.supervisor.start_group(SERVERS)
        return self._specs

    def _embedded(
        self, settings: Settings, ports: Ports, tell: Tell, progress: Progress | None
    ) -> tuple[ServerSpec, ...]:
        specs: list[ServerSpec] = []
        if settings.kafka.bootstrap_servers:
            tell(f"Kafka: using {settings.kafka.bootstrap_servers}")
        else:
            specs.append(kafka_spec(self.home / "kafka", _port("kafka", ports.kafka, tell), progress=progress))
        if settings.redis.url.get_secret_value():
            tell("Redis: using the one that REDIS__URL names")
        else:
            specs.append(valkey_spec(self.home / "valkey", _port("redis", ports.redis, tell)))
        if settings.mlflow.tracking_uri:
            tell(f"MLflow: using {settings.mlflow.tracking_uri}")
        else:
            specs.append(research_servers.mlflow_spec(self.home, _port("mlflow", ports.mlflow, tell)))
        if settings.dagster.url:
            tell(f"Dagster: using {settings.dagster.url}")
        else:
            specs += research_servers.dagster_specs(
                self.home / "dagster", self.environment, _port("dagster", ports.dagster, tell)
            )
        return tuple(specs)

    def wait_ready(self, *names: str, tell: Tell) -> None:
        """Wait until the servers named (default: all that were started here) answer.

        Raises
        ------
        live_services.machine.embedded.EmbeddedServerError
            One died or did not answer within its budget.
        """
        started = time.monotonic()
        waiting = [s for s in self._specs if not names or s.name in names]
        while waiting:
            for spec in tuple(waiting):
                if spec.ready():
                    waiting.remove(spec)
                    tell(f"{spec.name} is ready{f' at {spec.endpoint}' if spec.endpoint else ''}")
                elif time.monotonic() - started > spec.ready_seconds:
                    raise ServerNotReady(
                        f"{spec.name} did not answer at {spec.endpoint} within {spec.ready_seconds:.0f} s; "
                        f"see {self.supervisor.log_of(spec.name)}"
                    )
            for process in self.supervisor.processes():
                if process.group == SERVERS and process.state == "FATAL":
                    raise death(process.name, self.supervisor.log_of(process.name), None)
            time.sleep(0.1)

    def down(self, group: str) -> tuple[ProcessState, ...]:
        """Give the processes of a group that do not run, in the order of the table."""
        order = {program_name(*process): place for place, process in enumerate(self.desk.processes)}
        idle = [p for p in self.supervisor.processes() if p.group == group and p.state not in {"RUNNING", "STARTING"}]
        return tuple(sorted(idle, key=lambda process: order.get(process.name, -1)))

    def bring_back_servers(self, *, tell: Tell) -> None:
        """Start the servers of a running stack that are down, and wait until they listen; the keeper is one too.

        Raises
        ------
        live_services.machine.embedded.PortInUse
            Another program listens on the port of one.
        live_services.machine.embedded.ServerNotReady
            One does not listen within two minutes.
        """
        self.supervisor.start_program(KEEPER, KEEPER)
        down, ports = self.down(SERVERS), {program.name: program.port for program in read_plan(self.home).programs}
        for process in down:
            port = ports[process.name]
            if port and (holder := taken_by(port, self.supervisor.socket_path, process.name)):
                raise PortInUse(f"{process.name}: its port {port} is taken by {holder}: end that and say `up` again")
            tell(f"{process.name} is down and is started again: {process.description or 'it was stopped'}")
        if down:
            self.supervisor.start_group(SERVERS)
        deadline = time.monotonic() + _SERVER_BACK_SECONDS
        for process in down:
            port = ports[process.name]
            while port and not listens(LOOPBACK, port):
                if time.monotonic() > deadline:
                    raise ServerNotReady(
                        f"{process.name} does not listen on port {port} after {_SERVER_BACK_SECONDS:.0f} s; see "
                        f"{self.supervisor.log_of(process.name)}"
                    )
                time.sleep(0.1)
            tell(f"{process.name} is back")

    def start_services(self) -> None:
        """Start the feed and every broker's services; the topics must be there."""
        self.supervisor.start_group(SERVICES)

    def stop(self) -> None:
        """Stop everything and forget the endpoints."""
        try:
            self.supervisor.shutdown()
        except SupervisionError:
            self.supervisor.kill()
        finally:
            stop_orphans(self.supervisor.socket_path)  # of a supervisord that was killed, or died while it stopped
            endpoints_file(self.home).unlink(missing_ok=True)

    def stop_own(self) -> None:
        """Stop everything, unless another command started what runs on this home."""
        if self.supervisor.started_here or not self.supervisor.running:
            self.stop()


def _port(server: str, preferred: int, tell: Tell) -> int:
    port = free_port(preferred)
    if preferred not in (0, port):
        tell(f"{server}: port {preferred} is in use, so it takes {port}")
    return port


def program_name(entry: ServiceEntry, scope: Scope) -> str:
    """Name a process of the table for supervisord."""
    return process_name(entry.name, scope)


def _service_program(entry: ServiceEntry, scope: Scope) -> Program:
    broker = () if scope == "shared" else (scope,)
    argv = (sys.executable, "-m", "live_services.process", entry.name, *broker)
    return Program(program_name(entry, scope), argv, stop_seconds=_SERVICE_STOP_SECONDS, may_be_over=entry.may_be_over)


def servers_away(settings: Settings) -> str:
    """Name a server that live services cannot do without and that does not answer; empty if all of them do."""
    url, uri = settings.redis.url.get_secret_value(), settings.mlflow.tracking_uri
    if settings.kafka.bootstrap_servers and not broker_answers(_kafka_connection(settings), 3.0):
        return "Kafka"
    if url and not redis_answers(url):
        return "Redis"
    if uri and not research_servers.http_answers(f"{uri}/health"):
        return "MLflow"
    return ""


def _kafka_connection(settings: Settings) -> Mapping[str, Any]:
    from live_services.adapters.kafka import connection

    try:
        return connection(settings.kafka)
    except OSError as problem:  # ssl.SSLError is one
        raise SupervisionError(
            f"the certificates in {settings.kafka.ssl_cafile} (KAFKA__SSL_CAFILE) cannot be read: {problem}"
        ) from problem


def endpoints_toml(specs: tuple[ServerSpec, ...]) -> str:
    """Write the addresses chosen, under the keys of the settings."""
    keys = {
        "kafka": "kafka.bootstrap_servers",
        "valkey": "redis.url",
        "mlflow": "mlflow.tracking_uri",
        "dagster-web": "dagster.url",
    }
    lines = [f'{keys[s.name]} = "{s.endpoint}"\n' for s in specs if s.name in keys]
    return "# written by `alpha-panda up`; gone when it stops\n" + "".join(lines)


async def create_topics(settings: Settings) -> None:
    """Create every topic of the shared market and of the brokers that run."""
    from live_services.adapters.kafka import create_topics as create

    await create(settings, all_topics(running_brokers(settings)))


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for a block, so that settings and children read the same."""
    before = {key: os.environ.get(key) for key in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value
