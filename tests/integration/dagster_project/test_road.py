"""From a small synthetic market to a champion and back, on a real MLflow server and a real ledger."""

import dagster as dg
import pytest

from dagster_project.definitions import resources
from dagster_project.sensors.promotion import SENSOR, promote_champion
from models_registry.ledger_entries import done
from models_registry.refs import ModelRef
from tests.research_desk import ResearchDesk

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

CHAMPION = ModelRef(name="momentum", alias="champion")


@pytest.fixture(scope="module")
def desk(mlflow_server, tmp_path_factory):
    with dg.DagsterInstance.ephemeral() as instance:
        yield ResearchDesk(tmp_path_factory.mktemp("home"), mlflow_server.url, instance)


@pytest.fixture(scope="module")
def first_run(desk):
    return desk.launch("train_momentum")


def test_one_run_without_partition_or_configuration_ends_in_a_registered_version(desk, first_run):
    assert first_run.success
    assert {check.check_name: check.passed for check in first_run.get_asset_check_evaluations()} == {
        "seconds_are_not_repeated": True,
        "day_volumes_rise": True,
        "prices_are_sane": True,
        "splits_are_explained": True,
        "no_session_is_missing": True,
        "outages_are_listed": True,
        "no_day_is_thin": True,
        "sessions_are_covered": True,
        "prices_move_as_prices_do": True,
        "bars_of_ticks_equal_the_vendors": False,  # a generated session has bars or ticks: there is nothing to compare
        "features_pass_audit": True,
        "stored_rows_are_fresh": True,
        "labels_end_before_replay": True,
        "packed_model_equals_trained": True,
        "training_ends_before_replay": True,
        "skill_gate": True,
    }
    (version,) = desk.registry.versions("momentum")
    sidecar, _ = desk.registry.fetch("momentum", version.version)
    assert version.gate_verdict("champion") == "passed"
    assert version.tags["dagster_run_id"] == first_run.run_id
    assert sidecar.market.startswith("SYNTHETIC")
    assert sidecar.git_commit
    assert sidecar.run_id == first_run.run_id
    assert sidecar.market_details["instruments"] == 10
    models = ("momentum_model", "momentum_report", "momentum_version")
    for asset in ("market_data", "bars", "features", "labels", "momentum_training_set", *models):
        assert desk.metadata(asset)["market"].startswith("SYNTHETIC")
    digest = desk.metadata("momentum_training_set")["training_data_digest"]
    assert desk.metadata("momentum_version")["training_data_digest"] == digest


def test_the_run_fills_the_days_that_came_in(desk, first_run):
    for asset in ("market_day", "bars", "features", "labels"):
        days = desk.instance.get_materialized_partitions(dg.AssetKey(asset))
        assert len(days) == 13
        assert {"2026-01-05", "2026-01-21"} <= days


def test_a_range_of_days_is_one_run_and_a_generated_market_has_no_weekend(desk, first_run):
    span = {"dagster/asset_partition_range_start": "2026-01-09", "dagster/asset_partition_range_end": "2026-01-12"}
    events = desk.materialise("market_day", **span).get_asset_materialization_events()
    found = {event.partition: event.step_materialization_data.materialization.metadata for event in events}
    assert sorted(found) == ["2026-01-09", "2026-01-12"]
    assert found["2026-01-12"]["bars"].value == 11 * 375  # the index too


def test_the_sensor_promotes_and_a_rollback_stays_rolled_back(desk, first_run):
    assert desk.look() == [("momentum_champion", "1")]
    assert desk.registry.resolve(CHAMPION) == "1"
    assert desk.look() == []

    assert not desk.launch("rollback_job").success  # there is no version before the first

    # The same data again: no better than the champion, so the gate says no and the sensor does nothing.
    assert desk.launch("train_momentum").success
    assert desk.metadata("momentum_version")["gate_champion"] == "failed"
    first, again = (desk.registry.sidecar("momentum", version) for version in ("1", "2"))
    assert again.identity == first.identity
    assert again.run_id != first.run_id
    assert desk.look() == []
    assert desk.registry.resolve(CHAMPION) == "1"

    assert not desk.launch("promote_job").success
    nameless = {"override_reason": "to try it on paper"}
    assert not desk.launch("promote_job", promote_version=nameless).success
    assert desk.launch("promote_job", promote_version=nameless | {"promoted_by": "Asha"}).success
    assert desk.look() == [("momentum_champion", "2")]
    assert desk.registry.resolve(CHAMPION) == "2"

    assert desk.launch("rollback_job", roll_back_alias={"promoted_by": "Asha", "reason": "worse on paper"}).success
    assert desk.registry.resolve(CHAMPION) == "1"
    assert desk.look() == [("momentum_champion", "1")]
    assert desk.look() == []
    assert [(entry.by, entry.to_version) for entry in done(desk.ledger.history("momentum"), "champion")] == [
        (SENSOR, "1"),
        ("Asha", "2"),
        ("Asha", "1"),
    ]


def test_a_registry_that_does_not_answer_is_a_reason_to_skip(desk, tmp_path):
    lost = ResearchDesk(tmp_path, "http://127.0.0.1:9")
    context = dg.build_sensor_context(resources=resources(lost.settings), definitions=lost.definitions)
    answer = promote_champion(context)
    assert isinstance(answer, dg.SkipReason)
    assert "did not answer" in answer.skip_message


def test_without_a_registry_the_run_says_what_to_start(tmp_path):
    with dg.DagsterInstance.ephemeral() as instance:
        alone = ResearchDesk(tmp_path, "", instance)
        result = alone.launch("train_momentum")
    (failure,) = [event for event in result.all_events if event.event_type_value == "STEP_FAILURE"]
    assert failure.step_key == "momentum_version"
    assert "alpha-panda up" in failure.step_failure_data.user_failure_data.description
