"""What a traded session says of its models, and what the registry says of them: the same."""

from __future__ import annotations

import pytest
import requests

from feature_store.features.schema import MOMENTUM_FEATURES, feature_schema
from feature_store.offline.store import OfflineStore
from live_services.adapters.history import StoredHistory
from live_services.domain.events import (
    ModelLoaded,
    ModelStamped,
    SignalGenerated,
    StrategiesConfigured,
    StrategyHistoryUsed,
    StrategyModelAssigned,
)
from live_services.domain.topics import MODELS_LOADED, STRATEGIES_CONTROL
from tests.trading_desk import MODEL, PAPER, Log, OpenDesk, events

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

STAMPED = (
    PAPER.signals_raw,
    PAPER.signals_validated,
    PAPER.signals_rejected,
    PAPER.orders_submitted,
    PAPER.orders_filled,
)


@pytest.mark.parametrize("topic", STAMPED, ids=lambda topic: topic.name)
def test_every_signal_order_and_fill_names_a_version_and_the_schema_hash_that_mlflow_has_of_it(
    open_desk: OpenDesk, reference: Log, topic
) -> None:
    said = events(reference[topic.name])
    assert said
    assert all(isinstance(event, ModelStamped) for event in said)
    named = {(event.model_name, event.model_version, event.feature_schema_hash) for event in said}
    assert {name for name, _, _ in named} == {MODEL}
    for name, version, schema_hash in named:
        assert version == open_desk.versions.champion
        assert open_desk.desk.registry.sidecar(name, version).feature_schema_hash == schema_hash
        assert tags_in_mlflow(open_desk, name, version)["feature_schema_hash"] == schema_hash


def tags_in_mlflow(open_desk: OpenDesk, name: str, version: str) -> dict[str, str]:
    """Ask MLflow itself, past our own client."""
    address = f"{open_desk.desk.settings.mlflow.tracking_uri}/api/2.0/mlflow/model-versions/get"
    found = requests.get(address, params={"name": name, "version": version}, timeout=10).json()["model_version"]
    return {tag["key"]: tag["value"] for tag in found["tags"]}


def test_a_signal_has_the_features_of_its_version_in_their_order_and_its_thresholds(
    open_desk: OpenDesk, reference: Log
) -> None:
    sidecar = open_desk.desk.registry.sidecar(MODEL, open_desk.versions.champion)
    signals = events(reference[PAPER.signals_raw.name])
    for signal in signals:
        assert isinstance(signal, SignalGenerated)
        assert tuple(signal.features) == tuple(column.name for column in sidecar.feature_schema)
    assert {s.threshold for s in signals if isinstance(s, SignalGenerated)} <= {
        sidecar.buy_threshold,
        sidecar.sell_threshold,
    }
    assert signals


def test_each_stage_passes_on_the_model_of_the_signal_that_it_answers(reference: Log) -> None:
    stamped = {e.event_id: e for topic in STAMPED for e in events(reference[topic.name]) if isinstance(e, ModelStamped)}
    answers = [e for e in stamped.values() if e.causation_id != e.event_id]
    assert answers
    for event in answers:
        head = stamped[event.correlation_id]
        assert isinstance(head, SignalGenerated)
        assert event.causation_id in stamped
        for field in ("model_name", "model_version", "feature_schema_hash", "strategy", "instrument_token", "broker"):
            assert getattr(event, field) == getattr(head, field), (event.event_type, field)


def test_the_version_that_trades_was_assigned_and_announced_with_the_digest_of_its_file(
    open_desk: OpenDesk, reference: Log
) -> None:
    sidecar = open_desk.desk.registry.sidecar(MODEL, open_desk.versions.champion)
    desk = open_desk.desk
    assigned = [e for e in events(reference[STRATEGIES_CONTROL.name]) if isinstance(e, StrategyModelAssigned)]
    loaded = events(reference[MODELS_LOADED.name])
    strategies = [strategy.name for strategy in desk.settings.strategies]
    assert len(assigned) == len(loaded) == 2 * len(desk.sessions) * len(strategies), "one for each market partition"
    assert {(e.strategy, e.rung, e.model_version, e.event_time_ns) for e in assigned} == {
        (strategy, "champion", open_desk.versions.champion, session.open_ns)
        for strategy in strategies
        for session in desk.sessions
    }
    for event in loaded:
        assert isinstance(event, ModelLoaded)
        assert event.artifact_sha256 == sidecar.artifact_sha256["flat.npz"]
        assert event.causation_id in {a.event_id for a in assigned}


def test_each_partition_logged_once_and_first_the_stored_sessions_that_its_features_stand_on(
    open_desk: OpenDesk, reference: Log
) -> None:
    desk = open_desk.desk
    store = OfflineStore(desk.settings.store_root)
    stored = [one.date.isoformat() for one in store.sessions("bars")]
    for session in desk.sessions:
        before = [date for date in stored if date < session.date.isoformat()]
        history = StoredHistory(desk.settings).of(session, store.universe())
        assert len(before) > len(history.sessions) >= feature_schema(MOMENTUM_FEATURES, 1).history_sessions > 0
        for partition in range(desk.settings.kafka.market_partitions):
            records = [r for r in reference[STRATEGIES_CONTROL.name] if r.partition == partition]
            said = [e for e in events(records) if session.open_ns <= e.event_time_ns <= session.close_ns]
            first = [StrategiesConfigured, StrategyHistoryUsed]
            assert [type(event) for event in said] == [*first, *[StrategyModelAssigned] * 2]
            used = said[1]
            assert isinstance(used, StrategyHistoryUsed)
            assert list(used.sessions) == before[-len(history.sessions) :]
            assert (used.digest, used.today_until_ns, used.broken) == (history.digest, 0, False)
