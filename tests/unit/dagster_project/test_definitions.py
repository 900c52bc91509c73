import datetime as dt
import subprocess
import sys

import dagster as dg
import pytest

from dagster_project.definitions import definitions, resources
from dagster_project.definitions import defs as defs_of_the_code_location
from live_services.settings import load_settings


@pytest.fixture
def settings(tmp_path, monkeypatch):
    (tmp_path / "empty.toml").touch()
    monkeypatch.setenv("ALPHA_PANDA_CONFIG", str(tmp_path / "empty.toml"))
    monkeypatch.setenv("ALPHA_PANDA_HOME", str(tmp_path))
    return load_settings(alpha_panda_home=tmp_path, strategies=[{"name": "momentum"}])


@pytest.fixture
def defs(settings):
    return definitions(settings, dt.date(2027, 1, 1))


def test_everything_a_person_sees_is_there_and_loads(defs):
    dg.Definitions.validate_loadable(defs)
    graph = defs.resolve_asset_graph()
    assert sorted(key.to_user_string() for key in graph.get_all_asset_keys()) == [
        "bars",
        "features",
        "labels",
        "live_model",
        "market_data",
        "market_day",
        "momentum_backtest",
        "momentum_champion",
        "momentum_model",
        "momentum_paths",
        "momentum_recipe",
        "momentum_report",
        "momentum_trades",
        "momentum_training_set",
        "momentum_version",
    ]
    assert sorted(f"{key.asset_key.to_user_string()}:{key.name}" for key in graph.asset_check_keys) == [
        "bars:bars_of_ticks_equal_the_vendors",
        "bars:no_day_is_thin",
        "bars:no_session_is_missing",
        "bars:outages_are_listed",
        "bars:prices_are_sane",
        "bars:prices_move_as_prices_do",
        "bars:sessions_are_covered",
        "bars:splits_are_explained",
        "features:features_pass_audit",
        "features:stored_rows_are_fresh",
        "live_model:live_features_equal_history",
        "market_day:day_volumes_rise",
        "market_day:seconds_are_not_repeated",
        "momentum_model:packed_model_equals_trained",
        "momentum_model:training_ends_before_replay",
        "momentum_training_set:labels_end_before_replay",
        "momentum_version:skill_gate",
    ]
    repository = defs.get_repository_def()
    assert sorted(job.name for job in repository.get_all_jobs() if not job.name.startswith("__")) == [
        "promote_job",
        "rollback_job",
        "train_momentum",
        "verify_live",
    ]
    assert {sensor.name: sensor.default_status.value for sensor in repository.sensor_defs} == {
        "promote_champion": "RUNNING",
        "live_model_observations": "RUNNING",
    }


def test_each_model_has_its_own_assets_checks_and_job_and_strategies_that_share_one_share_them(settings):
    strategies = [{"name": "momentum"}, {"name": "fade", "holding_bars": 5}, {"name": "large", "model": "fade"}]
    strategies[2]["holding_bars"] = 5
    defs = definitions(load_settings(**dict(settings, strategies=strategies)), dt.date(2027, 1, 1))
    dg.Definitions.validate_loadable(defs)
    graph = defs.resolve_asset_graph()
    groups = {}
    for key in graph.get_all_asset_keys():
        groups.setdefault(graph.get(key).group_name, set()).add(key.to_user_string())
    assert groups.keys() == {"market", "momentum", "fade", "live"}
    stages = ("training_set", "recipe", "model", "paths", "report", "trades", "version", "champion")
    assert groups["fade"] == {f"fade_{stage}" for stage in stages} | {"fade_backtest", "large_backtest"}
    assert {key.name for key in graph.asset_check_keys if key.asset_key.to_user_string().startswith("fade_")} == {
        "labels_end_before_replay",
        "training_ends_before_replay",
        "packed_model_equals_trained",
        "skill_gate",
    }
    assert {key.to_user_string() for key in graph.get(dg.AssetKey("live_model")).parent_keys} == {
        "momentum_champion",
        "fade_champion",
    }
    made = {key.to_user_string() for key in defs.resolve_job_def("train_fade").asset_layer.executable_asset_keys}
    assert made == {"market_data"} | groups["fade"] - {"fade_champion", "fade_paths", "fade_backtest", "large_backtest"}
    every = {key.to_user_string() for key in defs.resolve_job_def("train_all").asset_layer.executable_asset_keys}
    assert made < every
    assert every - made == {key for key in groups["momentum"] if not key.endswith(("_champion", "_paths", "_backtest"))}


def test_the_launchpad_offers_the_strategys_own_values(settings):
    strategies = [{"name": "fade", "estimator": "logistic_regression", "seed": 3, "folds": 5}]
    defs = definitions(load_settings(**dict(settings, strategies=strategies)), dt.date(2027, 1, 1))
    fields = defs.get_assets_def("fade_recipe").op.config_schema.config_type.fields
    assert {name: field.default_value for name, field in fields.items()} == {
        "estimator": "logistic_regression",
        "seed": 3,
        "folds": 5,
        "search_tries": 0,
    }


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (
            '[[strategies]]\nname = "a"\nfeatures = ["rsy"]\n',
            "features of 'a': no feature is named 'rsy'; did you",
        ),
        ('[[strategies]]\nname = "a"\n[[strategies]]\nname = "a"\n', "two strategies are named 'a'"),
        ("[market]\nbar_minute = 5\n", "there is no such setting; did you mean bar_minutes?"),
    ],
)
def test_wrong_settings_are_one_clear_message_of_the_code_location(tmp_path, monkeypatch, content, told):
    (tmp_path / "alpha-panda.toml").write_text(content)
    monkeypatch.setenv("ALPHA_PANDA_CONFIG", str(tmp_path / "alpha-panda.toml"))
    with pytest.raises(dg.DagsterInvalidDefinitionError) as caught:
        defs_of_the_code_location()
    assert told in str(caught.value)


def test_a_models_page_is_linked_from_its_definition_so_the_link_is_of_the_ports_of_now(settings):
    now = load_settings(**dict(settings, mlflow={"tracking_uri": "http://127.0.0.1:5123"}))
    graph = definitions(now, dt.date(2027, 1, 1)).resolve_asset_graph()
    for name in ("momentum_version", "momentum_champion"):
        page = graph.get(dg.AssetKey(name)).metadata["mlflow"].value
        assert page == "http://127.0.0.1:5123/#/models/momentum?workflowType=machine_learning"
    assert "mlflow" not in graph.get(dg.AssetKey("momentum_model")).metadata


def test_what_would_train_wrongly_stops_the_run(defs):
    graph = defs.resolve_asset_graph()
    blocking = {key.name for key in graph.asset_check_keys if graph.get(key).blocking}
    assert blocking == {
        "day_volumes_rise",
        "prices_are_sane",
        "splits_are_explained",
        "features_pass_audit",
        "labels_end_before_replay",
        "packed_model_equals_trained",
        "training_ends_before_replay",
    }


def test_raw_bars_features_and_labels_have_days_and_a_range_of_them_is_one_run(defs):
    graph = defs.resolve_asset_graph()
    for name in ("market_day", "bars", "features", "labels"):
        asset = graph.get(dg.AssetKey(name))
        assert isinstance(asset.partitions_def, dg.DailyPartitionsDefinition)
        assert asset.backfill_policy == dg.BackfillPolicy.single_run()


def test_the_training_looks_through_every_check_of_the_daily_assets(defs):
    asked = {key.name for key in defs.resolve_job_def("train_momentum").asset_layer.asset_graph.asset_check_keys}
    assert asked == {key.name for key in defs.resolve_asset_graph().asset_check_keys} - {"live_features_equal_history"}


def test_training_needs_no_partition(defs):
    assert defs.resolve_job_def("train_momentum").partitions_def is None


@pytest.mark.parametrize("today", [dt.date(2025, 11, 3), dt.date(2026, 2, 1), dt.date(2027, 1, 1)])
def test_days_of_a_generated_market_exist_whatever_the_clock_says(settings, today):
    days = definitions(settings, today).resolve_asset_graph().get(dg.AssetKey("market_day")).partitions_def
    keys = days.get_partition_keys(current_time=dt.datetime.combine(today, dt.time(6), dt.UTC))
    assert keys[0] == settings.market.synthetic.first_session
    assert keys[-1] == "2026-02-17"  # the session of ticks
    assert len(keys) == settings.market.synthetic.sessions + 1  # no holiday waits for ever as a missing day
    assert "2026-02-01" in keys  # a Sunday with a session


def test_a_day_without_a_session_in_the_files_says_so(tmp_path):
    bars = tmp_path / "bars.csv"
    row = "{}T09:15:00+05:30,AAA,100,101,99,100,500"
    rows = [row.format(day) for day in ("2026-01-09", "2026-01-12")]
    bars.write_text("\n".join(["timestamp,symbol,open,high,low,close,volume", *rows]))
    settings = load_settings(alpha_panda_home=tmp_path, market={"source": "files", "bars_file": bars})
    asset = definitions(settings, dt.date(2026, 2, 1)).get_assets_def("market_day")
    span = {"dagster/asset_partition_range_start": "2026-01-09", "dagster/asset_partition_range_end": "2026-01-10"}
    with dg.DagsterInstance.ephemeral() as instance:
        done = dg.materialize([asset], instance=instance, resources=resources(settings), tags=span)
    found = {
        e.partition: e.step_materialization_data.materialization.metadata
        for e in done.get_asset_materialization_events()
    }
    assert found["2026-01-09"]["bars"].value == 1
    assert found["2026-01-10"]["session"].value == "no session"


def test_the_launchpad_shows_no_address_and_no_path(settings):
    configurable = dg.ConfigurableResource | dg.ConfigurableIOManager
    assert not [name for name, value in resources(settings).items() if isinstance(value, configurable)]


def test_loading_the_code_location_imports_no_heavy_library():
    heavy = {"mlflow", "sklearn", "matplotlib", "pandas", "pyarrow", "numba", "aiokafka"}
    code = f"import sys, dagster_project.definitions; print(sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
