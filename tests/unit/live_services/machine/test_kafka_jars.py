"""The jars of Kafka are the pinned ones, or they are refused."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from live_services.machine.kafka_jars import JarUnavailable, PinnedJar, WrongDigest, ensure_jars, read_lock

GENUINE = b"the genuine jar"
PINNED = (PinnedJar("org.example", "thing", "1.0", hashlib.sha256(GENUINE).hexdigest()),)


def _serves(content: bytes):
    served = []

    def fetch(jar: PinnedJar, repository: Path) -> None:
        served.append(str(jar))
        path = jar.path(repository)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    return fetch, served


def test_the_committed_lock_pins_kafka_and_the_log_binding_of_log4js_own_version():
    jars = {jar.artifact: jar for jar in read_lock()}
    assert jars["kafka_2.13"].version == "4.3.1"
    assert jars["kafka-clients"].version == "4.3.1"
    assert jars["log4j-slf4j-impl"].version == jars["log4j-core"].version
    assert all(len(jar.sha256) == 64 for jar in jars.values())


def test_a_genuine_jar_is_fetched_once(tmp_path):
    fetch, served = _serves(GENUINE)
    seen = []
    for _ in range(2):
        (path,) = ensure_jars(tmp_path, PINNED, fetch=fetch, progress=lambda here, total: seen.append((here, total)))
    assert path.read_bytes() == GENUINE
    assert served == ["org.example:thing:1.0"]
    assert seen == [(1, 1), (1, 1)]


def test_a_tampered_jar_is_refused_and_removed(tmp_path):
    fetch, _ = _serves(b"something else")
    with pytest.raises(WrongDigest, match=r"org\.example:thing:1\.0: SHA-256 is"):
        ensure_jars(tmp_path, PINNED, fetch=fetch)
    assert not PINNED[0].path(tmp_path / "maven").exists()


def test_a_jar_that_was_changed_in_the_cache_is_fetched_again(tmp_path):
    fetch, served = _serves(GENUINE)
    (path,) = ensure_jars(tmp_path, PINNED, fetch=fetch)
    path.write_bytes(b"changed by somebody")
    (path,) = ensure_jars(tmp_path, PINNED, fetch=fetch)
    assert path.read_bytes() == GENUINE
    assert len(served) == 2


def test_without_network_the_message_says_what_to_do(tmp_path, monkeypatch):
    import requests
    from jgo.maven import _resolver

    def unreachable(*_args, **_kwargs):
        raise requests.ConnectionError("network is unreachable")

    monkeypatch.setattr(_resolver.http, "get", unreachable)
    with pytest.raises(JarUnavailable, match="ALPHA_PANDA_CACHE"):
        ensure_jars(tmp_path, PINNED)
