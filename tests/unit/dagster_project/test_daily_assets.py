"""Days of the market: a range is one run, whichever way a day came it is the same, and what is gone is gone."""

import datetime as dt

import dagster as dg
import numpy as np
import pandas as pd
import pytest

from dagster_project.desk import Desk
from feature_store.features.engine import FeatureEngine
from feature_store.offline.feature_rows import computed, read_features
from feature_store.offline.label_rows import StaleLabels, read_labels
from feature_store.offline.store import OfflineStore
from feature_store.sources import arrivals
from tests.market_frames import DAILY, Research, bars_frame, checks_of, date_of, days_of, generated

FIRST, LAST = "2026-01-05", "2026-01-09"
ALL_DAYS = [f"2026-01-{day:02}" for day in range(5, 10)]


@pytest.fixture(scope="module")
def frame():
    return bars_frame(generated())


@pytest.fixture
def research(tmp_path, frame):
    with dg.DagsterInstance.ephemeral() as instance:
        research = Research(tmp_path, instance)
        research.bring(frame)
        yield research


def training_set_of(research):
    (path,) = (research.settings.store_root / "training" / "momentum_training_set").iterdir()
    return pd.read_parquet(path)


def desk_of(research):
    return Desk(OfflineStore(research.settings.store_root), research.settings)


def test_a_range_of_days_is_one_run_through_all_four_assets(research):
    run = research.run(first=FIRST, last="2026-01-11")  # to a Sunday
    assert run.success
    for asset in DAILY:
        days = days_of(run, asset)
        assert [day for day, facts in days.items() if facts["session"] != "no session"] == ALL_DAYS
        assert set(days) == {*ALL_DAYS, "2026-01-10", "2026-01-11"}
        assert set(research.instance.get_materialized_partitions(dg.AssetKey(asset))) == set(days)
    assert days_of(run, "bars")["2026-01-07"]["dagster/row_count"] == 5 * 375
    assert days_of(run, "features")["2026-01-09"]["warm_rows"] == 5 * 375
    assert days_of(run, "labels")["2026-01-09"]["dagster/row_count"] == 5 * (365 - 10)


def test_progress_is_in_the_runs_log(research):
    run = research.run(first=FIRST, last=LAST)
    said = [record.user_message for record in research.instance.all_logs(run.run_id)]
    for stage in ("raw", "bars", "features", "labels"):
        assert f"{stage}: session 3 of 5, 2026-01-07, " in "\n".join(line for line in said if line.startswith(stage))


def test_a_file_is_read_once_however_many_days_are_wanted(research, monkeypatch):
    read, seen = arrivals.read_bars, []
    monkeypatch.setattr(arrivals, "read_bars", lambda *args, **kwargs: seen.append(args[1]) or read(*args, **kwargs))
    research.run("market_day", first=FIRST, last="2026-01-08", raise_on_error=True)
    assert len(seen) == 1
    assert dt.date(2026, 1, 9) not in seen[0]


def test_a_day_is_the_same_whichever_way_it_came(research, tmp_path_factory):
    assert research.run("market_data").success
    whole = desk_of(research)
    with dg.DagsterInstance.ephemeral() as instance:
        other = Research(tmp_path_factory.mktemp("other"), instance, bars_file=research.market["bars_file"])
        for day in ALL_DAYS:
            assert other.run(first=day).success
        daily = desk_of(other)
    for session in whole.bar_sessions():
        assert whole.store.manifest("bars", session)["digest"] == daily.store.manifest("bars", session)["digest"]
        ours, theirs = (read_features(s.store, session, s.schema) for s in (whole, daily))
        assert ours.X.tobytes() == theirs.X.tobytes()
        assert ours.warm.tobytes() == theirs.warm.tobytes()
        ours, theirs = (read_labels(s.store, session, *s.labels) for s in (whole, daily))
        assert ours.forward_return.tobytes() == theirs.forward_return.tobytes()
    assert research.instance.get_materialized_partitions(dg.AssetKey("features")) == set(ALL_DAYS)


def test_days_computed_from_their_history_equal_one_engine_stepped_through_all_of_them(research):
    assert research.run("market_data").success
    found = desk_of(research)
    engine = FeatureEngine(found.schema, found.store.universe())
    warm = 0
    for rows in computed(found.store, found.bar_sessions(), found.schema):
        values, is_warm = engine.step(rows.bars)
        assert np.array_equal(is_warm, rows.warm)
        assert values[is_warm].tobytes() == rows.X[is_warm].tobytes()
        warm += int(is_warm.sum())
    assert warm > 0


def test_a_session_that_its_corrected_file_lost_is_removed_from_every_stage(research, frame):
    assert research.run("market_data").success
    research.bring(frame[date_of(frame) != dt.date(2026, 1, 7)])
    run = research.run("market_data")
    assert days_of(run, "market_data")[None]["sessions_removed"] == ["2026-01-07"]
    found = desk_of(research)
    assert dt.date(2026, 1, 7) not in found.store.dates()
    assert not list(found.store.root.glob("*/**/session=2026-01-07/*"))


def test_a_day_brought_in_again_after_its_file_lost_it_says_that_it_is_gone(research, frame):
    assert research.run("market_data").success
    research.bring(frame[date_of(frame) != dt.date(2026, 1, 7)])
    run = research.run("market_day", first="2026-01-07", last="2026-01-08")
    assert days_of(run, "market_day")["2026-01-07"]["session"] == "gone from its source, and removed from the store"
    assert [date.day for date in desk_of(research).store.dates()] == [5, 6, 8, 9]  # other days are left alone


def test_a_corrected_day_makes_the_days_after_it_stale_and_the_check_names_them(research, frame):
    assert research.run("market_data").success
    corrected = frame.copy()
    corrected.loc[date_of(frame) == dt.date(2026, 1, 8), "volume"] += 100
    research.bring(corrected)
    fresh = checks_of(research.run(first="2026-01-08"))["stored_rows_are_fresh"]
    assert not fresh.passed
    assert "1 of 5 days, 2026-01-09 to 2026-01-09" in fresh.description
    assert checks_of(research.run("features", "labels", first="2026-01-08", last=LAST))["stored_rows_are_fresh"].passed


def test_stale_labels_are_refused(research, frame):
    assert research.run("market_data").success
    research.bring(frame.assign(volume=frame["volume"] + 1))
    assert research.run("market_day", "bars", first=FIRST).success
    found = desk_of(research)
    with pytest.raises(StaleLabels, match="materialise labels again"):
        read_labels(found.store, found.bar_sessions()[0], *found.labels)


def test_a_share_without_volume_on_a_day_is_still_traded(research, frame):
    assert research.run("market_data").success
    still = frame.copy()
    still.loc[(date_of(frame) == dt.date(2026, 1, 8)) & (frame["symbol"] == "SYN001"), "volume"] = 0
    research.bring(still)
    assert research.run("market_day", first="2026-01-08").success
    universe = desk_of(research).store.universe()
    assert universe.instruments[universe.index_of_symbol["SYN001"]].tradable


def test_refused_rows_are_kept_counted_and_drawn_and_a_day_leaves_the_list_of_the_whole_file_alone(research, frame):
    wrong = frame.copy()
    wrong.loc[[3, 5], "low"] = -1.0
    wrong.loc[len(frame) - 7, "close"] = np.nan
    research.bring(wrong)
    facts = days_of(research.run("market_data"), "market_data")[None]
    assert facts["quarantined"] == {"bars: non_positive_price": 2, "bars: not_a_number": 1}
    assert facts["quarantined_rows"] == 3
    assert "| bars | non_positive_price | 2 | 4 |" in facts["quarantine_reasons"]
    assert "data:image/svg+xml" in facts["quarantine_plot"]
    folder = research.settings.store_root / "quarantine"
    assert sorted(pd.read_parquet(folder / "bars.parquet")["row"]) == [4, 6, len(frame) - 6]
    facts = days_of(research.run("market_day", first=LAST), "market_day")[LAST]
    assert facts["quarantined"] == {"bars: not_a_number": 1}
    assert len(pd.read_parquet(folder / "bars.parquet")) == 3
    assert len(pd.read_parquet(folder / f"bars_{LAST}_{LAST}.parquet")) == 1
    research.run("market_data")
    assert [path.name for path in folder.iterdir()] == ["bars.parquet"]


def test_members_only_are_trained_on(research):
    members = research.home / "members.csv"
    members.write_text("symbol,from,to\nSYN001,2026-01-01,\nSYN002,2026-01-01,2026-01-06\n")
    research.market |= {"membership": members}
    assert research.run("market_data", "momentum_training_set").success
    frame = training_set_of(research)
    names = [i.symbol for i in desk_of(research).store.universe().instruments]
    assert {names[k] for k in frame["instrument"]} == {"SYN001"}  # the other's sessions as a member were warm-up


def test_the_strategys_own_ordered_features_are_stored_and_trained_on(research):
    research.strategies = [{"name": "momentum", "features": ["rsi", "trend_slope@5m"]}]
    assert research.run("market_data", "momentum_training_set").success
    assert desk_of(research).schema.names == ("rsi", "trend_slope@5m")
    frame = training_set_of(research)
    assert list(frame.columns[:2]) == ["rsi", "trend_slope@5m"]


def test_a_feature_that_there_is_not_fails_the_run_in_words(research):
    research.strategies = [{"name": "momentum", "features": ["rsy"]}]
    run = research.run("market_data")
    (failure,) = [event for event in run.all_events if event.event_type_value == "STEP_FAILURE"]
    assert "rsi" in failure.step_failure_data.user_failure_data.description
