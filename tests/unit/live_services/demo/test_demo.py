"""What the demo takes from the person who runs it, and what it does not."""

from __future__ import annotations

import datetime as dt
import os

import pytest

from feature_store.sources.synthetic import synthetic_market
from live_services.adapters.kafka import StoredRecord
from live_services.demo.market_files import MarketFiles
from live_services.demo.replay_view import Tally, strategies_table, watched_topics
from live_services.demo.run import STRATEGIES, DemoOptions, check_files, configuration_toml, own_settings_only
from live_services.domain.events import PnlSnapshot, SignalRejected, headers_of, topic_of, value_of
from live_services.domain.frames import encode_tick_frame
from live_services.failures import CommandFailed
from live_services.settings import load_settings
from tests.account_log import two_sessions
from tests.live_world import OPEN, SECOND, SESSION, UNIVERSE, ticks


def test_settings_in_the_environment_are_not_the_demos(monkeypatch):
    settings = {
        "KAFKA__BOOTSTRAP_SERVERS": "kafka-1:9092",
        "KAFKA__SECURITY_PROTOCOL": "SASL_SSL",
        "trading__paper__enabled": "false",  # the environment is read without regard to case
        "ACTIVE_BROKERS": '["zerodha"]',
        "MARKET": "{}",
        "REDIS__URL": "",
    }
    others = {"ALPHA_PANDA_CONFIG": "x", "KAFKA_HEAP_OPTS": "y", "MARKETING__X": "z"}
    for name, value in (settings | others | {"ALPHA_PANDA_HOME": "home"}).items():
        monkeypatch.setenv(name, value)
    said: list[str] = []
    with own_settings_only(said.append):
        assert not [name for name in settings if name in os.environ]
        assert "ALPHA_PANDA_HOME" not in os.environ
        assert others.items() <= os.environ.items()
    assert settings.items() <= os.environ.items()
    (line,) = said
    assert line.endswith(
        ": ACTIVE_BROKERS, KAFKA__BOOTSTRAP_SERVERS, KAFKA__SECURITY_PROTOCOL, MARKET, trading__paper__enabled"
    )


def test_an_environment_without_settings_is_not_worth_a_word(monkeypatch):
    said: list[str] = []
    with own_settings_only(said.append):
        pass
    assert not said


def test_too_few_sessions_are_refused_before_anything_starts_and_the_least_number_is_named(tmp_path):
    check_files(DemoOptions(home=tmp_path, sessions=8))
    with pytest.raises(CommandFailed, match=r"--sessions 7: .* needs 6 sessions for its 4 folds.*; give 8 or more"):
        check_files(DemoOptions(home=tmp_path, sessions=7))


def test_its_strategies_stand_in_its_settings_file_in_full_and_are_read_back(tmp_path, monkeypatch):
    file = tmp_path / "alpha-panda.toml"
    file.write_text(
        configuration_toml(DemoOptions(home=tmp_path), MarketFiles(bar_minutes=5, train_through=dt.date(2026, 1, 9)))
    )
    monkeypatch.setenv("ALPHA_PANDA_CONFIG", str(file))
    settings = load_settings()
    assert settings.market.bar_minutes == 5
    assert settings.market.train_through == "2026-01-09"
    assert settings.strategies == tuple(spec.model_copy(update={"bar_minutes": 5}) for spec in STRATEGIES)
    assert all(f"holding_bars = {spec.holding_bars}" in file.read_text() for spec in STRATEGIES)


def test_totals_are_those_of_the_account_and_are_counted_for_each_strategy():
    events, tally = two_sessions(), Tally("ticks")
    for number, event in enumerate(events):
        tally.add(StoredRecord(topic_of(event).name, 0, number, 0, None, value_of(event), tuple(headers_of(event))))
    newest = [event for event in events if isinstance(event, PnlSnapshot)][-1]
    totals, of_strategies = tally.totals(), tally.of_strategies(["momentum", "patient", "idle"])
    assert totals["signals"] == totals["entries"] + totals["already_open"] + totals["signals_rejected"]
    assert totals["orders"] == totals["fills"] + totals["orders_cancelled"]
    assert totals["trades"] == sum(tally.exits.values()) == sum(total.trades for total in newest.strategies)
    assert set(tally.exits) == {"stop", "target", "time", "carried"}
    assert totals["charges_inr"] == round(newest.charges_inr_e4 / 10_000, 2)
    assert totals["net_of_the_last_session_inr"] == round(newest.net_today_inr, 2)
    assert totals["positions_left_open"] == len(tally.left_open) == len(newest.positions)
    for what in ("signals", "already_open", "entries", "fills", "trades"):
        assert sum(counts[what] for counts in of_strategies.values()) == totals[what]
    assert all(sum(of["exits_by_reason"].values()) == of["trades"] for of in of_strategies.values())
    assert set(of_strategies["momentum"]["exits_by_reason"]) >= {"stop", "target"}
    net_inr = sum(of["net_inr"] for of in of_strategies.values())
    assert net_inr == pytest.approx(totals["realized_inr"] - totals["charges_inr"], abs=0.03)
    idle = of_strategies["idle"]
    assert idle.pop("exits_by_reason") == {}
    assert set(idle.values()) == {0}
    shown = strategies_table(of_strategies | {"idle": of_strategies["idle"] | {"exits_by_reason": {}}}, "SYNTHETIC 1a")
    assert "SYNTHETIC 1a" in str(shown.title)
    assert shown.row_count == 3
    assert tally.last_filled is not None
    assert tally.last_filled.intent == "open"


def test_already_open_is_not_among_the_rejections_by_rule():
    passed_over = next(event for event in two_sessions() if isinstance(event, SignalRejected))
    tally = Tally("ticks")
    for number, rule in enumerate(("already_open", "gross_notional", "gross_notional")):
        event = passed_over.model_copy(update={"rule": rule})
        tally.add(StoredRecord("t", 0, number, 0, None, value_of(event), tuple(headers_of(event))))
    assert (tally.totals()["already_open"], tally.totals()["signals_rejected"]) == (1, 2)
    assert tally.rejections == {"gross_notional": 2}


def test_frames_are_counted_by_their_headers_alone():
    frame = encode_tick_frame(ticks((0, 1.0, 100.0), (1, 2.0, 50.0)), UNIVERSE, 0, OPEN + 3 * SECOND, SESSION)
    tally = Tally("ticks")
    tally.add(StoredRecord("market.ticks", 0, 0, 0, None, b"no body at all", tuple(frame.headers)))
    assert (tally.totals()["ticks"], tally.totals()["sessions"]) == (2, 1)


def test_what_is_watched_is_only_what_is_counted():
    watched = watched_topics("paper", "bars")
    assert "market.bars" in watched
    assert not {"market.ticks", "paper.control", "paper.gateway.events", "paper.signals.validated"} & set(watched)


def test_it_trains_through_the_session_before_the_one_that_it_replays(tmp_path, monkeypatch):
    file = tmp_path / "alpha-panda.toml"
    monkeypatch.setenv("ALPHA_PANDA_CONFIG", str(file))
    for chosen in (None, 12):
        file.write_text(configuration_toml(DemoOptions(home=tmp_path, sessions=chosen)))
        settings = load_settings()
        made = synthetic_market(**settings.market.synthetic.model_dump() | {"instruments": 2})
        assert settings.market.train_through == made.sessions[-1].date.isoformat()
        assert made.tick_sessions[0].date > made.sessions[-1].date
