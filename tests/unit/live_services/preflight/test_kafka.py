"""What Kafka answers, judged; that it is away, refuses, or speaks otherwise is told apart."""

import socket
import ssl
import threading

import pytest
from aiokafka.errors import AuthenticationFailedError

from live_services.domain.topics import all_topics
from live_services.preflight.kafka import (
    KAFKA_CHECKS,
    compatibility,
    judged_skew,
    judged_topics,
    kafka_findings,
    own_topics,
    unreachable,
)
from live_services.settings import load_settings

EVERYTHING = dict.fromkeys(range(80), (0, 20))


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ALPHA_PANDA_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("ALPHA_PANDA_CONFIG", raising=False)


def test_without_a_kafka_everything_that_depends_on_it_is_not_started():
    found = kafka_findings(load_settings())
    assert [(f.check, f.status) for f in found] == [(check, "not started") for check in KAFKA_CHECKS]


def test_a_kafka_that_is_away_is_said_once_with_its_address():
    away = load_settings(kafka={"bootstrap_servers": "127.0.0.1:9"})
    (finding,) = kafka_findings(away)
    assert (finding.check, finding.status, finding.policy) == ("kafka", "failed", "always")
    assert finding.reason == "no Kafka answers at 127.0.0.1:9 (kafka.bootstrap_servers) over PLAINTEXT"
    assert "correct KAFKA__BOOTSTRAP_SERVERS" in finding.way_out
    assert own_topics(away) is None  # a process that starts again leaves that to the runtime


def test_a_refused_user_is_named_with_the_keys_of_the_credentials():
    kafka = {"bootstrap_servers": "k:9093", "security_protocol": "SASL_SSL", "sasl_username": "desk"}
    finding = unreachable(load_settings(kafka=kafka), AuthenticationFailedError("invalid credentials"))
    assert "refuses user 'desk' over SASL_SSL" in finding.reason
    assert "KAFKA__SASL_PASSWORD" in finding.way_out
    broken = unreachable(load_settings(kafka=kafka), ssl.SSLError("certificate verify failed"))
    assert "KAFKA__SSL_CAFILE" in broken.way_out


def test_kafka_over_tls_gets_a_tls_greeting_and_certificates_that_are_not_there_are_named(tmp_path):
    heard = []

    def listen(server):
        for _ in range(2):  # the second time it is asked why the first failed
            client, _ = server.accept()
            with client:
                heard.append(client.recv(1))

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=listen, args=(server,))
        thread.start()
        kafka = {"bootstrap_servers": f"127.0.0.1:{server.getsockname()[1]}", "security_protocol": "SSL"}
        (finding,) = kafka_findings(load_settings(kafka=kafka))
        thread.join(5.0)
    assert finding.status == "failed"
    assert "over SSL" in finding.reason
    assert heard == [b"\x16"] * 2  # a TLS handshake record
    (finding,) = kafka_findings(load_settings(kafka=kafka | {"ssl_cafile": tmp_path / "ca.pem"}))
    assert "KAFKA__SSL_CAFILE" in finding.reason


def test_a_broker_that_cannot_do_what_is_needed_is_named_request_by_request():
    assert [f.status for f in compatibility(EVERYTHING)] == ["ok"]
    old = EVERYTHING | {11: (0, 3)}
    del old[28]
    (finding,) = compatibility(old)
    assert (finding.check, finding.status, finding.policy) == ("kafka_runtime_compatibility", "failed", "always")
    assert "JoinGroupRequest is needed from version 5 on (static members" in finding.reason
    assert "the broker has no TxnOffsetCommitRequest" in finding.reason
    (newer,) = compatibility(EVERYTHING | {0: (14, 20)})  # as Kafka 4.0 no longer took what Kafka 3 did
    assert "ProduceRequest is needed from version 3 on" in newer.reason


def test_topics_that_are_missing_or_have_other_partitions_are_named():
    settings = load_settings(kafka={"market_partitions": 2})
    right = {t.name: t.partitions(2) for t in all_topics(("paper",))} | {t.dlq: 1 for t in all_topics(("paper",))}
    assert [f.status for f in judged_topics(settings, right, must_be_there=True)] == ["ok"]
    (wrong,) = judged_topics(settings, right | {"market.ticks": 1}, must_be_there=True)
    assert (wrong.status, wrong.policy) == ("failed", "always")
    assert wrong.reason == "partitions: market.ticks has 1 instead of 2"
    del right["paper.control"]
    for must, status in ((True, "failed"), (False, "warning")):
        (missing,) = judged_topics(settings, right, must_be_there=must)
        assert (missing.status, missing.reason) == (status, "1 are not there: paper.control")


def test_clocks_that_are_apart_are_said_with_the_side():
    assert judged_skew(-1999.0, 2000).status == "ok"
    apart = judged_skew(2500.0, 2000)
    assert (apart.status, apart.policy) == ("failed", "production")
    assert apart.reason == "the broker's clock is 2,500 ms ahead of this one, 2,000 are allowed"
