import datetime as dt

from dagster_project.sensors.live import note_looks, observe, replayed, unseen
from live_services.adapters.kafka import StoredRecord
from live_services.domain.events import ModelLoaded, ModelRefused
from models_registry.trials import TrialTable
from tests.live_world import SESSION

_SHARED = {"correlation_id": "c", "causation_id": "c", "strategy": "momentum"}
_MODEL = {"model_name": "momentum", "model_version": "3", "rung": "champion", "task": "shared.strategy_runner[0]"}


def _loaded(time_ns):
    return ModelLoaded(
        event_id=f"loaded-{time_ns}",
        event_time_ns=time_ns,
        feature_schema_hash="f" * 64,
        artifact_sha256="a" * 64,
        **_SHARED,
        **_MODEL,
    )


def _refused(time_ns):
    return ModelRefused(
        event_id=f"refused-{time_ns}",
        event_time_ns=time_ns,
        reason="its digest differs",
        running_version="2",
        **_SHARED,
        **_MODEL,
    )


def _record(topic, offset, event=None):
    value = event.model_dump_json().encode() if event else b"not an event"
    return StoredRecord(topic, 0, offset, 0, None, value, ())


def test_answers_become_observations_in_order_of_event_time():
    records = [_record("models.loaded", 4, _loaded(2_000)), _record("models.refused", 0, _refused(1_000))]
    observations, cursor = observe(records, {}, lambda name, version: f"SYNTHETIC {name} {version}")
    assert [o.metadata["state"].value for o in observations] == ["REFUSED", "loaded"]
    assert {o.asset_key.to_user_string() for o in observations} == {"live_model"}
    assert observations[0].metadata["reason"].value == "its digest differs"
    assert observations[1].metadata["version"].value == "3"
    assert observations[1].metadata["trained_on"].value == "SYNTHETIC momentum 3"
    assert observations[1].metadata["event_time"].value.endswith(" IST")
    assert cursor == {"models.loaded[0]": 4, "models.refused[0]": 0}


def test_a_record_that_is_no_event_is_passed_over_and_not_read_again():
    observations, cursor = observe([_record("models.loaded", 7)], {"models.loaded[0]": 3}, lambda _name, _version: "")
    assert observations == []
    assert cursor == {"models.loaded[0]": 7}


def test_a_session_that_was_replayed_with_a_version_is_one_look_however_often_it_was_loaded(tmp_path):
    table = TrialTable(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    monday, tuesday = SESSION.open_ns, SESSION.open_ns + 86_400 * 10**9
    records = [_record("models.loaded", k, _loaded(at)) for k, at in enumerate((monday, monday + 10**9, tuesday))]
    for once_more in (records, records[1:], [_record("models.refused", 9, _refused(monday))]):
        note_looks(table, replayed(once_more), at_ns=1)
    looks = table.looks("momentum")
    assert [(one.first_session, one.last_session, one.what) for one in looks] == [
        (SESSION.date, SESSION.date, "replay"),
        (SESSION.date + dt.timedelta(days=1), SESSION.date + dt.timedelta(days=1), "replay"),
    ]


def test_only_what_follows_the_cursor_is_new():
    records = [_record("models.loaded", offset) for offset in range(4)]
    assert [r.offset for r in unseen(records, {"models.loaded[0]": 1})] == [2, 3]


def test_a_log_that_ends_before_the_cursor_is_a_new_one():
    records = [_record("models.loaded", offset) for offset in range(2)]
    assert [r.offset for r in unseen(records, {"models.loaded[0]": 40})] == [0, 1]
