"""Real servers for the integration tests, started once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from live_services.machine.embedded import embedded_kafka


@pytest.fixture(scope="session")
def kafka_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Bootstrap servers of an embedded Apache Kafka that lives as long as the test session."""
    directory: Path = tmp_path_factory.mktemp("kafka")
    with embedded_kafka(directory) as servers:
        yield servers
