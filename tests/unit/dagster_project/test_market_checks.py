"""Every check of market data passes on a sound market and fails on the fault that it is there for."""

import datetime as dt

import dagster as dg
import numpy as np
import pytest

from feature_store.offline import stages
from tests.market_frames import Research, bars_frame, checks_of, date_of, generated

FIRST, LAST, FAULTY = "2026-01-05", "2026-01-09", dt.date(2026, 1, 8)


@pytest.fixture(scope="module")
def frame():
    return bars_frame(generated())


@pytest.fixture
def research(tmp_path):
    with dg.DagsterInstance.ephemeral() as instance:
        yield Research(tmp_path, instance)


def minute(frame):
    return frame["timestamp"].dt.hour * 60 + frame["timestamp"].dt.minute


def without_a_session(frame):
    return frame[date_of(frame) != FAULTY]


def with_an_outage(frame):
    at = minute(frame)
    return frame[(date_of(frame) != FAULTY) | (at < 11 * 60) | (at >= 11 * 60 + 7)]


def with_a_thin_instrument(frame):
    own = np.random.default_rng(0).permutation(frame.index[frame["symbol"] == "SYN002"])  # a grid would be longer bars
    return frame.drop(own[len(own) // 4 :])


def with_a_frozen_price(frame):
    frozen = frame.copy()
    rows = (date_of(frame) == FAULTY) & (frame["symbol"] == "SYN002") & (minute(frame) >= 14 * 60)
    frozen.loc[rows, ["open", "high", "low", "close"]] = frame.loc[rows, "open"].iloc[0]
    return frozen


def with_a_wrong_print(frame):
    wrong = frame.copy()
    row = frame.index[(date_of(frame) == FAULTY) & (frame["symbol"] == "SYN002") & (minute(frame) == 12 * 60)][0]
    wrong.loc[row, "close"] *= 1.3
    wrong.loc[row, "high"] = wrong.loc[row, ["open", "close"]].max()
    return wrong


def with_a_thin_day(frame):
    return frame[(date_of(frame) != FAULTY) | (frame["symbol"] == "SYN002") | (minute(frame) < 10 * 60)]


def with_a_split(frame):
    split = frame.copy()
    rows = (date_of(frame) >= FAULTY) & (frame["symbol"] == "SYN002")
    split.loc[rows, ["open", "high", "low", "close"]] /= 5
    return split


def test_a_sound_market_passes_every_check(research, frame):
    research.bring(frame)
    checks = checks_of(research.run(first=FIRST, last=LAST))
    of_ticks = {"seconds_are_not_repeated", "day_volumes_rise", "bars_of_ticks_equal_the_vendors"}
    assert {name for name, check in checks.items() if check.passed} == {
        "prices_are_sane",
        "splits_are_explained",
        "no_session_is_missing",
        "outages_are_listed",
        "no_day_is_thin",
        "sessions_are_covered",
        "prices_move_as_prices_do",
        "features_pass_audit",
        "stored_rows_are_fresh",
    }
    for name in of_ticks:  # there are none, so these are not green
        assert checks[name].severity == dg.AssetCheckSeverity.WARN
        assert checks[name].description.startswith("nothing to look at: ")


@pytest.mark.parametrize(
    ("fault", "check"),
    [
        pytest.param(without_a_session, "no_session_is_missing", id="a session is missing"),
        pytest.param(with_an_outage, "outages_are_listed", id="the feed was out"),
        pytest.param(with_a_thin_instrument, "sessions_are_covered", id="an instrument is thin"),
        pytest.param(with_a_thin_day, "no_day_is_thin", id="a day is thin"),
        pytest.param(with_a_frozen_price, "prices_move_as_prices_do", id="a price stands still"),
        pytest.param(with_a_wrong_print, "prices_move_as_prices_do", id="a print is wrong"),
        pytest.param(with_a_split, "splits_are_explained", id="a split is not adjusted"),
    ],
)
def test_a_planted_fault_is_found(research, frame, fault, check):
    research.bring(fault(frame))
    run = research.run("market_day", "bars", first=FIRST, last=LAST)
    failed = {
        name
        for name, seen in checks_of(run).items()
        if not seen.passed and not seen.description.startswith("nothing to look at")
    }
    assert check in failed
    assert failed <= {check, "outages_are_listed", "sessions_are_covered", "no_day_is_thin"}


def test_prices_that_cannot_be_stop_the_run_before_features(research, frame, monkeypatch):
    research.bring(frame)
    made = stages.bars_on_clock

    def spoiled(*asked):
        bars = made(*asked)
        bars.low[100] = bars.high[100] + 1.0
        return bars

    monkeypatch.setattr(stages, "bars_on_clock", spoiled)
    run = research.run(first=FIRST)
    check = checks_of(run)["prices_are_sane"]
    assert not check.passed
    assert "price_sanity (rows " in check.description
    assert "wrong 1, examples row 100 at 2026-01-05" in check.description
    made_assets = {event.asset_key.to_user_string() for event in run.get_asset_materialization_events()}
    assert made_assets == {"market_day", "bars"}


def test_every_outage_is_listed_in_the_check_and_in_the_log(research, frame):
    research.bring(with_an_outage(frame))
    run = research.run("market_day", "bars", first=FIRST, last=LAST)
    metadata = checks_of(run)["outages_are_listed"].metadata
    assert "| 2026-01-08 | 11:00 | 11:07 | 7 | 5 | 5 | 5 | SYN INDEX, SYN001," in metadata["list"].value
    assert metadata["plot"].value.startswith("![")
    said = [record.user_message for record in research.instance.all_logs(run.run_id)]
    told = "2026-01-08 11:00 to 11:07: 5 of 5 instruments without a bar"
    assert f"outage {told} (SYN INDEX, SYN001, SYN002, SYN003, SYN004)" in said
    assert checks_of(run)["outages_are_listed"].description == f"1 outage in 1 of 5 sessions: {told}"


def test_coverage_is_a_map_of_instruments_by_session(research, frame):
    research.bring(with_a_thin_instrument(frame))
    metadata = checks_of(research.run("market_day", "bars", first=FIRST, last=LAST))["sessions_are_covered"].metadata
    assert "data:image/svg+xml" in metadata["map"].value
    assert "| SYN002 | 25.0% |" in metadata["thinnest"].value


def test_an_unexplained_split_stops_the_training_until_an_action_explains_it_or_a_person_allows_it(research, frame):
    research.bring(with_a_split(frame))

    def made(run):
        return {event.asset_key.to_user_string() for event in run.get_asset_materialization_events()}

    stopped = research.train()
    assert "momentum_training_set" not in made(stopped)
    check = checks_of(stopped)["splits_are_explained"]
    assert "SYN002 on 2026-01-08 (near 1:5, as of a split, a bonus or a demerger)" in check.description
    assert "market.corporate_actions" in check.description

    research.market |= {"allow_unexplained_jumps": True}
    allowed = research.train()
    assert "momentum_training_set" in made(allowed)
    assert not checks_of(allowed)["splits_are_explained"].passed

    actions = research.home / "actions.csv"
    actions.write_text("symbol,ex_date,kind,factor\nSYN002,2026-01-08,split,0.2\n")
    research.market |= {"allow_unexplained_jumps": False, "corporate_actions": actions}
    explained = research.train()
    assert "momentum_training_set" in made(explained)
    assert checks_of(explained)["splits_are_explained"].passed


def test_only_the_days_of_the_run_are_checked(research, frame):
    research.bring(with_an_outage(frame))
    assert checks_of(research.run("market_day", "bars", first=FIRST, last="2026-01-07"))["outages_are_listed"].passed


def test_a_jump_over_the_edge_of_the_range_is_seen(research, frame):
    research.bring(with_a_split(frame))
    assert research.run("market_day", "bars", first=FIRST, last="2026-01-07").success
    checks = checks_of(research.run("market_day", "bars", first="2026-01-08", last=LAST))
    assert not checks["splits_are_explained"].passed


def test_days_without_a_session_stop_nothing_and_are_not_green(research, frame):
    research.bring(frame)
    run = research.run("market_day", "bars", first="2026-01-10", last="2026-01-11")
    assert run.success
    assert not [name for name, check in checks_of(run).items() if check.passed]


def ticks_files(research, spoil=lambda bars: bars):
    """Write the session of ticks as a file, and the bars that our builder makes of it as the vendor's."""
    import pandas as pd

    from feature_store.bars.builder import bars_of_session
    from feature_store.market.clocks import BarClock
    from feature_store.market.types import IST

    made = generated(sessions=1)
    symbols = np.array([i.symbol for i in made.universe.instruments])
    ticks, session = made.ticks[0], made.tick_sessions[0]
    pd.DataFrame(
        {
            "timestamp": pd.to_datetime(ticks.event_time_ns, utc=True).tz_convert(IST),
            "symbol": symbols[ticks.instrument],
            "ltp": ticks.last_price,
            "volume": ticks.day_volume,
        }
    ).to_parquet(research.home / "ticks.parquet", index=False)
    built = bars_of_session(ticks, session, len(made.universe), BarClock.minutes(1))
    research.bring(spoil(bars_frame(type("OneSession", (), {"universe": made.universe, "bars": (built,)}))))
    research.market |= {"ticks_file": research.home / "ticks.parquet", "feed": "ticks"}
    return str(session.date)


def spoilt(bars):
    bars = bars.copy()
    bars.loc[10, "volume"] += 1
    return bars


def test_bars_of_ticks_are_compared_with_the_vendors(research):
    day = ticks_files(research)
    check = checks_of(research.run("market_day", "bars", first=day))["bars_of_ticks_equal_the_vendors"]
    assert check.passed
    assert check.metadata["compared"].value == 5 * 375


def test_a_vendors_bar_that_differs_is_shown(research):
    day = ticks_files(research, spoilt)
    check = checks_of(research.run("market_day", "bars", first=day))["bars_of_ticks_equal_the_vendors"]
    assert not check.passed
    assert "volume" in check.metadata["first_differences"].value
    assert "data:image/png" in check.metadata["plot"].value


def test_the_quantity_of_the_last_trade_in_place_of_a_day_volume_stops_the_run_in_words(research):
    import pandas as pd

    day = ticks_files(research)
    path = research.home / "ticks.parquet"
    ticks = pd.read_parquet(path)
    ticks.loc[ticks["symbol"] == "SYN002", "volume"] = np.arange((ticks["symbol"] == "SYN002").sum()) * 7919 % 500
    ticks.to_parquet(path, index=False)
    run = research.run("market_day", first=day)
    check = checks_of(run)["day_volumes_rise"]
    assert (run.success, check.passed) == (False, False)
    assert "the volume of SYN002 falls in " in check.description
    assert "so it is no day volume" in check.description
    assert "market.columns (volume = …)" in check.description
    assert "volume_decreases" in check.metadata["builder"].value


def test_ticks_of_a_day_volume_pass(research):
    check = checks_of(research.run("market_day", first=ticks_files(research)))["day_volumes_rise"]
    assert check.passed
    assert check.description.endswith("ticks of 1 session: nothing left out")


def test_a_file_of_ticks_joined_with_itself_is_found(research):
    import pandas as pd

    day = ticks_files(research)
    path = research.home / "ticks.parquet"
    ticks = pd.read_parquet(path)
    pd.concat([ticks, ticks]).sort_values("timestamp", kind="stable").to_parquet(path, index=False)
    check = checks_of(research.run("market_day", "bars", first=day))["seconds_are_not_repeated"]
    assert not check.passed
    assert day in check.description
