"""Preflight on real servers: what a newcomer breaks is named, and what works is not."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import redis

from live_services.adapters.health import TaskHealth, task_record
from live_services.adapters.kafka import create_topics
from live_services.chaos.log import remove_topics
from live_services.composition import SERVICES
from live_services.domain import keys
from live_services.domain.log import TaskId
from live_services.failures import CommandFailed
from live_services.machine.embedded import embedded_valkey, redis_answers, running, valkey_spec
from live_services.preflight.kafka import KAFKA_CHECKS, clock_skew_ms, kafka_findings
from live_services.preflight.observability import metrics_finding
from live_services.preflight.own_needs import require_own_needs
from live_services.preflight.servers import redis_finding
from live_services.settings import Settings, load_settings

pytestmark = pytest.mark.integration
NOBODY = "127.0.0.1:9"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ALPHA_PANDA_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("ALPHA_PANDA_CONFIG", raising=False)
    return tmp_path / "home"


async def ask(settings: Settings, *, must: bool = True) -> dict[str, tuple[str, str]]:
    found = await asyncio.to_thread(kafka_findings, settings, topics_must_be_there=must)
    return {finding.check: (finding.status, finding.reason) for finding in found}


async def test_a_real_kafka_is_asked_for_all_that_the_platform_needs(kafka_servers: str) -> None:
    settings = load_settings(kafka={"bootstrap_servers": kafka_servers})
    account = next(entry for entry in SERVICES if entry.name == "account")
    await remove_topics(settings.kafka)
    try:
        empty = await ask(settings, must=False)
        assert empty["topics"][0] == "warning"
        assert (await ask(settings))["topics"][0] == "failed"
        await create_topics(settings)
        found = await ask(settings)
        assert {check: status for check, (status, _) in found.items()} == dict.fromkeys(KAFKA_CHECKS, "ok"), found
        assert found["kafka_runtime_compatibility"][1].startswith("Kafka 4.1 or later, aiokafka ")
        assert abs(await clock_skew_ms(settings.kafka)) < 1000  # it is this computer's own clock
        other = load_settings(kafka={"bootstrap_servers": kafka_servers, "market_partitions": 2})
        assert "market.ticks has 1 instead of 2" in (await ask(other))["topics"][1]
    finally:
        await remove_topics(settings.kafka)
    with pytest.raises(CommandFailed, match=r"topics: .* are not there"):
        await asyncio.to_thread(require_own_needs, account, settings)


async def test_credentials_for_a_kafka_that_asks_for_none_are_not_a_kafka_that_is_away(kafka_servers: str) -> None:
    kafka = {"bootstrap_servers": kafka_servers, "security_protocol": "SASL_PLAINTEXT", "sasl_username": "desk"}
    found = await ask(load_settings(kafka=kafka))
    assert found["kafka"] == (
        "failed",
        f"Kafka at {kafka_servers} asks for no user on this port, and SASL_PLAINTEXT names one",
    )


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[str]:
    """A Valkey that wants a password, and lets one user only read."""
    spec = valkey_spec(tmp_path / "valkey")
    own = spec.endpoint.replace("//", "//:right@")
    with running(replace(spec, argv=(*spec.argv, "--requirepass", "right"), ready=partial(redis_answers, own))):
        with redis.Redis.from_url(own) as client:
            client.acl_setuser(
                "reader", enabled=True, passwords="+pass", keys="*", categories=["+@read", "+@connection"]
            )
        yield spec.endpoint


def test_a_redis_that_refuses_this_desk_is_not_one_that_is_away(guarded: str) -> None:
    def said(url: str) -> tuple[str, str]:
        (finding,) = redis_finding(load_settings(redis={"url": url}))
        return finding.status, finding.reason

    assert said(guarded.replace("//", "//:right@")) == ("ok", "it answers and can be written")
    for url in (guarded, guarded.replace("//", "//:wrong@"), guarded.replace("//", "//reader:pass@")):
        status, reason = said(url)
        assert status == "failed"
        assert reason.startswith("Redis refuses this desk: ")


def test_a_task_whose_metrics_port_is_silent_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with embedded_valkey(tmp_path / "valkey") as url, redis.Redis.from_url(url) as client:
        settings = load_settings(redis={"url": url})

        def found(pid: int, **changes: str) -> tuple[str, str]:
            task = TaskId("risk_manager", "paper", 0)
            health = TaskHealth(task, 0, "", True, 0, {}, 0, 0, 0, "", pid)
            key = keys.task_health("paper", "risk_manager", 0)
            client.set(key, key.write(task_record(health, port).model_copy(update=changes)))
            (finding,) = metrics_finding(settings)
            return finding.status, finding.reason

        assert found(os.getpid(), host="another computer") == ("ok", "a metrics port answers")
        silent = f"the metrics port of paper.risk_manager[0] (port {port}) does not answer"
        assert found(os.getpid()) == ("failed", silent)
        died = subprocess.Popen(("sleep", "0"))
        died.wait()
        assert found(died.pid) == ("ok", "a metrics port answers")
