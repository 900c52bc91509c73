"""What is trained on and what is held out follows the settings, never which session is the newest."""

import datetime as dt

import pandas as pd
import pytest

from dagster_project.desk import Desk
from feature_store.market.types import MarketDataError
from feature_store.offline.stages import store_arrival, store_bars
from feature_store.offline.store import OfflineStore
from feature_store.sources.arrivals import generated_arrival
from feature_store.sources.synthetic import synthetic_market
from live_services.settings import MarketSettings, Settings

GENERATED = {"synthetic": {"instruments": 3, "sessions": 3, "edge_bps": 5.0}}
FILES = {"source": "files"}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    kept = OfflineStore(tmp_path_factory.mktemp("store"))
    desk = Desk(kept, Settings(market=MarketSettings.model_validate(GENERATED)))
    sessions = list(store_arrival(kept, desk.read_market()))
    assert len(list(store_bars(kept, sessions, desk.clock))) == 4
    return kept


def desk(store, market, **more):
    return Desk(store, Settings(market=MarketSettings.model_validate({**market, **more})))


def trained_on(store, market, **more):
    return [session.date.day for session in desk(store, market, **more).training_sessions()]


def test_the_last_session_of_a_generated_market_is_replayed_and_held_out(store):
    assert desk(store, GENERATED).held_out_session().date == dt.date(2026, 1, 8)
    assert trained_on(store, GENERATED) == [5, 6, 7]


def test_all_sessions_of_ticks_of_a_generated_market_are_held_out(tmp_path):
    kept, clock = OfflineStore(tmp_path), desk(None, GENERATED).clock
    arrival = generated_arrival(synthetic_market(instruments=3, sessions=2, tick_sessions=3))
    assert len(list(store_bars(kept, list(store_arrival(kept, arrival)), clock))) == 5
    assert desk(kept, GENERATED).held_out_session().date == dt.date(2026, 1, 7)
    assert trained_on(kept, GENERATED) == [5, 6]
    assert trained_on(kept, GENERATED, replay_session="2026-01-09") == [5, 6, 7, 8]


def test_every_session_of_files_is_trained_on_unless_a_setting_says_otherwise(store):
    assert desk(store, FILES).held_out_session() is None
    assert trained_on(store, FILES) == [5, 6, 7, 8]
    assert trained_on(store, FILES, train_through="2026-01-06") == [5, 6]
    assert trained_on(store, FILES, replay_session="2026-01-07") == [5, 6]
    assert trained_on(store, FILES, replay_session="2026-01-08", train_through="2026-01-05") == [5]


def test_a_replayed_session_that_is_not_there_is_no_reason_to_train_on_everything(store):
    with pytest.raises(MarketDataError, match=r"market\.replay_session is 2026-01-17"):
        desk(store, FILES, replay_session="2026-01-17").training_sessions()


def test_files_are_read_as_the_settings_say(tmp_path):
    times = pd.date_range("2026-01-05 09:16", periods=375, freq="min").strftime("%d-%m-%Y %H:%M")
    bars = pd.DataFrame({"Date Time": times, "ticker": "AAA", "O": 1.0, "high": 1.0, "low": 1.0, "close": 1.0})
    bars.assign(volume=5).to_csv(tmp_path / "a.CSV", index=False)
    market = {"source": "files", "bars_file": tmp_path / "a.CSV", "columns": {"time": "Date Time", "open": "O"}}
    said = {"time_format": "%d-%m-%Y %H:%M", "stamp": "end", "timezone": "Asia/Kolkata"}
    read = Desk(OfflineStore(tmp_path), Settings(market=MarketSettings.model_validate(market | said))).read_market()
    ((session, (_, table)),) = read.bars.items()
    assert (len(table), read.quarantined) == (375, {})
    assert table.start_ns[0] == session.open_ns
    assert read.recognised == {"bars": ()}
    with pytest.raises(MarketDataError, match="give --time-format"):
        Desk(OfflineStore(tmp_path), Settings(market=MarketSettings.model_validate(market))).read_market()


def test_training_through_the_replayed_session_is_refused_before_anything_runs():
    with pytest.raises(ValueError, match="train_through 2026-01-07 is not before replay_session 2026-01-07"):
        MarketSettings(train_through="2026-01-07", replay_session="2026-01-07")


@pytest.mark.parametrize("through", ["2026-01-08", "2026-02-01"])
def test_training_through_the_replayed_session_of_a_generated_market_is_refused(store, through):
    with pytest.raises(MarketDataError, match=rf"train_through \({through}\) is not before 2026-01-08, the session of"):
        trained_on(store, GENERATED, train_through=through)
    assert trained_on(store, GENERATED, train_through="2026-01-07") == [5, 6, 7]


def test_some_days_of_a_generated_market_are_part_of_the_whole(store):
    arrival = desk(store, GENERATED).read_market({dt.date(2026, 1, 6), dt.date(2026, 1, 10)})
    assert [session.date.day for session in arrival.sessions] == [6]


def test_the_files_of_a_market_are_of_the_market_that_is_named_and_its_table_says_what_instruments_are(tmp_path):
    (tmp_path / "a.csv").write_text(
        "timestamp,symbol,open,high,low,close,volume\n2026-01-05 09:15,NEW,1,1,1,1,5\n2026-01-05 09:15,OLD,1,1,1,1,5\n"
    )
    (tmp_path / "instruments.csv").write_text("symbol,kind,instrument_token\nNEW,index,7\n")
    arrival = desk(
        None, FILES, bars_file=tmp_path / "a.csv", universe=tmp_path / "instruments.csv", name="BSE"
    ).read_market()
    ((universe, _),) = arrival.bars.values()
    assert arrival.name == "BSE"
    assert [(i.symbol, i.tradable) for i in universe.instruments] == [("NEW", False), ("OLD", True)]
    assert universe.tokens[0] == 7
