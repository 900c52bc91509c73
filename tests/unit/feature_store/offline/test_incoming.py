"""What came in, on the desk's clock, and which of its sessions are replayed and trained on."""

import datetime as dt
import hashlib
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from feature_store.market.clocks import BarClock
from feature_store.market.types import IST, MINUTE_NS, CollidingInstruments, Instrument, MarketDataError, Universe
from feature_store.offline.chosen_sessions import replayed_session, traded_bar_source, training_sessions
from feature_store.offline.incoming import bar_source_of, bars_on_clock, remove_vanished_sessions, source_store
from feature_store.offline.stages import store_arrival, store_bars
from feature_store.offline.store import OfflineStore
from feature_store.sources.arrivals import generated_arrival, read_market
from feature_store.sources.synthetic import synthetic_market

FIVE_MINUTES = BarClock.minutes(5)
SATURDAY = dt.date(2026, 1, 17)


@pytest.fixture(scope="module")
def arrival():
    return generated_arrival(synthetic_market(instruments=3, sessions=3, edge_bps=5.0))


@pytest.fixture(scope="module")
def store(tmp_path_factory, arrival):
    kept = OfflineStore(tmp_path_factory.mktemp("store"))
    sessions = list(store_arrival(kept, arrival))
    assert len(list(store_bars(kept, sessions, FIVE_MINUTES))) == 4
    return kept


def days(sessions):
    return [session.date.day for session in sessions]


def session_of(store, day):
    return next(session for session in store.sessions("bars") if session.date.day == day)


def test_bars_of_ticks_and_of_shorter_bars_are_on_the_desks_clock(store):
    for session in store.sessions("bars"):
        bars = store.read_bars([session])
        assert set(bars.end_ns - bars.start_ns) == {5 * MINUTE_NS}
        assert len(bars) == 4 * 75  # the index too


def test_every_session_of_ticks_of_a_generated_market_comes_in(tmp_path):
    made, kept = synthetic_market(instruments=2, sessions=2, tick_sessions=3), OfflineStore(tmp_path)
    arrived = generated_arrival(made)
    assert days(arrived.sessions) == [5, 6, 7, 8, 9]
    stored = list(store_bars(kept, list(store_arrival(kept, arrived)), FIVE_MINUTES))
    assert days(kept.sessions("ticks")) == [7, 8, 9]
    assert [(one.session.date.day, one.bar_source) for one in stored] == [(d, "ticks") for d in (5, 6, 7, 8, 9)]
    for session, ticks in zip(made.tick_sessions, made.ticks, strict=True):
        assert kept.read_ticks(session).digest() == ticks.digest()


def test_bars_that_do_not_add_up_to_the_desks_are_refused(store):
    session = store.sessions("bars")[0]
    wide = OfflineStore(store.root.parent / "wide")
    wide.write_universe(store.universe(), "SYNTHETIC wide")
    source_store(wide).write_bars(session, store.universe(), store.read_bars([session]), "SYNTHETIC wide")
    with pytest.raises(MarketDataError, match=r"5 minutes do not add up to bars of 3 .*multiple of the source's"):
        bars_on_clock(wide, session, BarClock.minutes(3))


def test_bars_say_who_made_them(store, tmp_path):
    session = store.sessions("bars")[0]
    assert bar_source_of(store, session) == "ticks"  # generated bars are those of their ticks
    other = OfflineStore(tmp_path)
    source_store(other).write_bars(
        session, store.universe(), store.read_bars([session]), "nse.csv", bar_source="vendor"
    )
    assert bar_source_of(other, session) == "vendor"
    assert bar_source_of(other, store.sessions("ticks")[0]) == "ticks"


def test_files_that_are_not_named_are_asked_for():
    with pytest.raises(MarketDataError, match=r"market\.bars_file"):
        read_market(None, None)


def test_only_the_days_asked_for_come_in(arrival):
    part = arrival.of_dates({dt.date(2026, 1, 6), dt.date(2026, 1, 10)})
    assert days(part.sessions) == [6]
    assert part.name.startswith("SYNTHETIC")


# --- which sessions -----------------------------------------------------------------------------------------------


def test_the_last_session_of_what_is_fed_is_replayed_unless_another_is_chosen(store):
    assert replayed_session(store, "ticks").date == dt.date(2026, 1, 8)
    assert replayed_session(store, "bars").date == dt.date(2026, 1, 8)
    assert replayed_session(store, "bars", dt.date(2026, 1, 6)).date == dt.date(2026, 1, 6)


def test_a_replayed_session_that_is_not_there_is_an_error(store, tmp_path):
    with pytest.raises(MarketDataError, match=r"market\.replay_session is 2026-01-17.*2026-01-05, .*2026-01-08"):
        replayed_session(store, "ticks", SATURDAY)
    with pytest.raises(MarketDataError, match="none yet"):
        replayed_session(OfflineStore(tmp_path), "ticks", SATURDAY)
    assert replayed_session(OfflineStore(tmp_path), "ticks") is None


def test_every_session_is_trained_on_unless_a_bound_is_given(store):
    assert days(training_sessions(store)) == [5, 6, 7, 8]
    assert days(training_sessions(store, through=dt.date(2026, 1, 6))) == [5, 6]
    assert days(training_sessions(store, through=SATURDAY)) == [5, 6, 7, 8]
    assert days(training_sessions(store, before=session_of(store, 7))) == [5, 6]


def test_nothing_left_to_train_on_is_said_in_words(store, tmp_path):
    with pytest.raises(MarketDataError, match=r"market\.train_through \(2026-01-04\): there are 2026-01-05, "):
        training_sessions(store, through=dt.date(2026, 1, 4))
    with pytest.raises(MarketDataError, match=r"before the replayed one \(2026-01-05\).*replay_session"):
        training_sessions(store, before=session_of(store, 5))
    with pytest.raises(MarketDataError, match="materialise market_data"):
        training_sessions(OfflineStore(tmp_path))


def test_what_makes_the_bars_that_are_traded_on_follows_the_feed(store):
    assert traded_bar_source(store, "ticks", None) == "ticks"
    assert traded_bar_source(store, "bars", session_of(store, 6)) == "ticks"
    assert traded_bar_source(store, "bars", None) == "vendor"


# --- a market is what it is, whatever its files are called -----------------------------------------------------------


def bars_file(folder: Path, name: str, days: list[int], **columns: object) -> Path:
    """A file of four minutes of AAA and of an index on some days of January 2026."""
    starts = [pd.Timestamp(f"2026-01-{day:02} 09:15", tz=IST) for day in days]
    times = [start + pd.Timedelta(minutes=k) for start in starts for k in range(4)]
    frame = pd.DataFrame([(t, s) for t in times for s in ("AAA", "NEWTHING")], columns=["timestamp", "symbol"])
    folder.mkdir(exist_ok=True)
    frame.assign(**({"open": 100.0, "high": 102.0, "low": 99.0, "close": 101.0, "volume": 10} | columns)).to_csv(
        folder / name, index=False
    )
    return folder / name


def bring(store: OfflineStore, path: Path, **options: Any) -> list[int]:
    """Bring in all that a file has; the days that the store then holds."""
    came = read_market(path, None, **options)
    list(store_bars(store, list(store_arrival(store, came)), BarClock.minutes(1)))
    remove_vanished_sessions(store, came)
    return [date.day for date in store.dates("bars")]


def test_next_months_file_adds_its_sessions_and_a_corrected_one_takes_away_its_own(tmp_path):
    kept = OfflineStore(tmp_path / "store")
    assert bring(kept, bars_file(tmp_path, "first.csv", [5, 6, 7])) == [5, 6, 7]
    assert bring(kept, bars_file(tmp_path, "second.csv", [8, 9])) == [5, 6, 7, 8, 9]
    assert bring(kept, bars_file(tmp_path / "new", "second.csv", [12])) == [5, 6, 7, 8, 9, 12]
    assert bring(kept, bars_file(tmp_path, "first.csv", [5, 7])) == [5, 7, 8, 9, 12]
    assert kept.market() == "NSE"


def test_a_market_tells_what_it_is_made_of(tmp_path, store):
    kept = OfflineStore(tmp_path / "store")
    paths = [bars_file(tmp_path, name, [5]) for name in ("first.csv", "second.csv")]
    for path in paths:
        bring(kept, path)
    sha256 = hashlib.sha256(paths[0].read_bytes()).hexdigest()
    facts = {"bytes": paths[0].stat().st_size, "sha256": sha256}
    assert kept.market_details() == {"bars of first.csv": facts, "bars of second.csv": facts}
    assert OfflineStore(tmp_path / "none").market_details() == {}
    assert (store.market_details()["edge_bps"], store.market_details()["sessions"]) == (5.0, 3)


def test_a_store_of_one_market_refuses_another_by_name(tmp_path, store):
    kept, path = OfflineStore(tmp_path / "store"), bars_file(tmp_path, "first.csv", [5])
    bring(kept, path, name="BSE")
    with pytest.raises(MarketDataError, match="holds the market 'BSE', not 'NSE'"):
        bring(kept, path)
    with pytest.raises(MarketDataError, match=r"holds the market 'SYNTHETIC [0-9a-f]{8}', not 'NSE'"):
        bring(store, path)


def test_what_an_instrument_is_is_judged_again_with_more_days_unless_it_was_stated(tmp_path):
    def traded(*paths, **options):
        kept = OfflineStore(tmp_path / f"store {'-'.join(path.stem for path in paths)} {len(options)}")
        for path in paths:
            bring(kept, path, **(options if path is paths[-1] else {}))
        return {i.symbol: i.tradable for i in kept.universe().instruments}

    plain = bars_file(tmp_path, "plain.csv", [5])
    said = bars_file(tmp_path, "said.csv", [6], segment=["NSE", "INDICES"] * 4)
    table = Universe.from_symbols(["NEWTHING"])
    assert traded(plain) == {"AAA": True, "NEWTHING": True}
    assert traded(plain, said) == {"AAA": True, "NEWTHING": False}
    assert traded(said, plain) == {"AAA": True, "NEWTHING": False}
    assert traded(said, plain, instruments=table) == {"AAA": True, "NEWTHING": True}


def test_an_instrument_keeps_the_token_that_the_store_began_with(tmp_path):
    kept, path = OfflineStore(tmp_path / "store"), bars_file(tmp_path, "first.csv", [5])
    table = Universe(instruments=(Instrument(instrument_token=7, symbol="AAA"),))
    bring(kept, path, instruments=table)
    with pytest.raises(CollidingInstruments, match=r"knows 'AAA' by the instrument token 7, not \d+"):
        bring(kept, path)
