"""Which servers a stack starts, and on which ports."""

import os
import socket
import ssl
import threading
from pathlib import Path
from typing import Any

import aiokafka.client
import pytest

from live_services.machine.research_servers import python_environment
from live_services.machine.stack import Ports, Stack, _service_program, require_external
from live_services.machine.supervision import SupervisionError
from live_services.settings import load_settings


def test_a_preferred_port_that_is_in_use_is_said_and_another_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALPHA_PANDA_HOME", str(tmp_path))
    settings = load_settings(
        kafka={"bootstrap_servers": "127.0.0.1:9"},
        mlflow={"tracking_uri": "http://127.0.0.1:9"},
        dagster={"url": "http://127.0.0.1:9"},
    )
    said: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        (valkey,) = Stack(settings)._embedded(settings, Ports(redis=port), said.append, None)
    assert not valkey.endpoint.endswith(f":{port}/0")
    assert any(line.startswith(f"redis: port {port} is in use, so it takes ") for line in said)


def test_an_external_kafka_is_asked_with_its_tls_and_password_at_every_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []

    class Client:
        def __init__(self, **arguments: Any) -> None:
            asked.append(arguments)
            self.cluster = self

        async def bootstrap(self) -> None: ...

        async def close(self) -> None: ...

        def brokers(self) -> set[int]:
            return {1}

    monkeypatch.setattr(aiokafka.client, "AIOKafkaClient", Client)
    monkeypatch.setenv("ALPHA_PANDA_HOME", str(tmp_path))
    kafka = {
        "bootstrap_servers": "127.0.0.1:1,127.0.0.1:2",  # nobody listens: no raw TCP probe may decide
        "security_protocol": "SASL_SSL",
        "sasl_username": "me",
        "sasl_password": "secret",
    }
    require_external(load_settings(kafka=kafka))
    assert asked[0]["bootstrap_servers"] == "127.0.0.1:1,127.0.0.1:2"
    assert asked[0]["security_protocol"] == "SASL_SSL"
    assert isinstance(asked[0]["ssl_context"], ssl.SSLContext)
    assert (asked[0]["sasl_plain_username"], asked[0]["sasl_plain_password"]) == ("me", "secret")


def test_an_external_kafka_over_tls_gets_a_tls_greeting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALPHA_PANDA_HOME", str(tmp_path))
    heard: list[bytes] = []

    def listen(server: socket.socket) -> None:
        client, _ = server.accept()
        with client:
            heard.append(client.recv(1))

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=listen, args=(server,))
        thread.start()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        settings = load_settings(kafka={"bootstrap_servers": address, "security_protocol": "SSL"})
        with pytest.raises(SupervisionError, match=r"no Kafka answers at .* over SSL"):
            require_external(settings)
        thread.join(5.0)
    assert heard == [b"\x16"]  # a TLS handshake record


def test_certificates_that_are_not_there_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALPHA_PANDA_HOME", str(tmp_path))
    kafka = {"bootstrap_servers": "127.0.0.1:1", "security_protocol": "SSL", "ssl_cafile": str(tmp_path / "ca.pem")}
    with pytest.raises(SupervisionError, match="KAFKA__SSL_CAFILE"):
        require_external(load_settings(kafka=kafka))


def test_services_are_started_as_plain_processes_with_their_broker_behind_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALPHA_PANDA_HOME", str(tmp_path))
    programs = [_service_program(entry, scope) for entry, scope in Stack(load_settings()).desk.processes]
    started = {program.name: program.argv[1:] for program in programs}
    assert started["market_feed"] == ("-m", "live_services.process", "market_feed")
    assert started["paper.account"] == ("-m", "live_services.process", "account", "paper")


def test_children_import_this_very_checkout() -> None:
    first = Path(python_environment()["PYTHONPATH"].split(os.pathsep)[0])
    assert (first / "dagster_project" / "definitions.py").is_file()
