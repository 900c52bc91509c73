import datetime as dt

import numpy as np
import pytest

from dagster_project.market import (
    bar_source_of,
    bring_in,
    keep_session,
    replayed_session,
    session_bars,
    source_store,
    traded_bar_source,
    training_sessions,
)
from feature_store.labels.quality import labels_end_in_time
from feature_store.market.types import MINUTE_NS, MarketDataError
from feature_store.offline.store import OfflineStore
from live_services.settings import MarketSettings

SMALL = {"synthetic": {"instruments": 3, "sessions": 3, "edge_bps": 5.0}}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    kept = OfflineStore(tmp_path_factory.mktemp("store"))
    market = MarketSettings.model_validate(SMALL)
    arrival = bring_in(market)
    for session in arrival.sessions:
        keep_session(arrival, session, kept)
    for session in (*kept.sessions("ticks"), *OfflineStore(kept.root / "source").sessions()):
        kept.write_bars(session, kept.universe(), session_bars(kept, session, 5), kept.market())
    return kept


def test_bars_of_ticks_and_of_shorter_bars_are_on_the_desks_clock(store):
    for session in store.sessions("bars"):
        bars = store.read_bars([session])
        assert set(bars.end_ns - bars.start_ns) == {5 * MINUTE_NS}
        assert len(bars) == 4 * 75  # the index too


def test_bars_that_do_not_add_up_to_the_desks_are_refused(store):
    five_minutes = OfflineStore(store.root)
    session = five_minutes.sessions("bars")[0]
    wide = OfflineStore(store.root.parent / "wide")
    keep_wide = OfflineStore(wide.root / "source")
    wide.write_universe(store.universe(), "SYNTHETIC wide")
    keep_wide.write_bars(session, store.universe(), store.read_bars([session]), "SYNTHETIC wide")
    with pytest.raises(MarketDataError, match="multiple of the source's"):
        session_bars(wide, session, 3)


def test_the_replayed_session_is_the_last_and_is_never_trained_on(store):
    market = MarketSettings.model_validate(SMALL)
    replayed = replayed_session(store, market)
    assert replayed is not None
    assert replayed.date == dt.date(2026, 1, 8)
    assert [s.date.day for s in training_sessions(store, market)] == [5, 6, 7]


def test_a_replayed_session_can_be_chosen_and_nothing_from_it_on_is_trained_on(store):
    market = MarketSettings.model_validate({**SMALL, "feed": "bars", "replay_session": "2026-01-07"})
    assert [s.date.day for s in training_sessions(store, market)] == [5, 6]


def test_nothing_before_the_replayed_session_is_said_in_words(store):
    market = MarketSettings.model_validate({**SMALL, "feed": "bars", "replay_session": "2026-01-05"})
    with pytest.raises(MarketDataError, match="replay_session"):
        training_sessions(store, market)


def test_a_replayed_session_that_is_not_there_is_an_error_and_not_a_reason_to_train_on_everything(store):
    market = MarketSettings.model_validate({**SMALL, "replay_session": "2026-01-17"})
    for ask in (replayed_session, training_sessions):
        with pytest.raises(MarketDataError, match=r"market\.replay_session is 2026-01-17.*2026-01-05, .*2026-01-08"):
            ask(store, market)


def test_a_replayed_session_of_an_empty_store_is_an_error(tmp_path):
    market = MarketSettings.model_validate({**SMALL, "replay_session": "2026-01-05"})
    with pytest.raises(MarketDataError, match="none yet"):
        replayed_session(OfflineStore(tmp_path), market)


def test_bars_say_who_made_them(store, tmp_path):
    session = store.sessions("bars")[0]
    assert bar_source_of(store, session) == "ticks"  # generated bars are those of their ticks
    other = OfflineStore(tmp_path)
    source_store(other).write_bars(
        session, store.universe(), store.read_bars([session]), "nse.csv", bar_source="vendor"
    )
    assert bar_source_of(other, session) == "vendor"
    assert bar_source_of(other, store.sessions("ticks")[0]) == "ticks"


def test_what_makes_the_bars_that_are_traded_on_follows_the_feed(store, tmp_path):
    ticks, bars = (MarketSettings.model_validate({**SMALL, "feed": feed}) for feed in ("ticks", "bars"))
    assert traded_bar_source(store, ticks) == "ticks"
    assert traded_bar_source(store, bars) == "ticks"
    assert traded_bar_source(OfflineStore(tmp_path), bars) == "vendor"


def test_files_that_are_not_named_are_asked_for():
    with pytest.raises(MarketDataError, match=r"market\.bars_file"):
        bring_in(MarketSettings(source="files"))


def test_only_the_days_asked_for_come_in():
    arrival = bring_in(MarketSettings.model_validate(SMALL), {dt.date(2026, 1, 6), dt.date(2026, 1, 10)})
    assert [session.date.day for session in arrival.sessions] == [6]
    assert arrival.name.startswith("SYNTHETIC")


HOUR_NS = 60 * MINUTE_NS
NOON_NS = 12 * HOUR_NS


@pytest.mark.parametrize(
    ("decision_ns", "end_ns", "replay_ns", "passed"),
    [
        pytest.param(NOON_NS, NOON_NS + 1, None, True, id="a label after its decision"),
        pytest.param(NOON_NS, NOON_NS, None, False, id="a label at its decision"),
        pytest.param(NOON_NS, NOON_NS + 24 * HOUR_NS, None, False, id="a label over night"),
        pytest.param(NOON_NS, NOON_NS + 1, NOON_NS + 1, True, id="a label that ends as the replay opens"),
        pytest.param(NOON_NS, NOON_NS + 2, NOON_NS + 1, False, id="a label inside the replayed session"),
    ],
)
def test_labels_end_where_they_must(decision_ns, end_ns, replay_ns, passed):
    assert labels_end_in_time(np.array([decision_ns]), np.array([end_ns]), replay_ns).passed is passed


def test_no_labels_at_all_do_not_pass():
    nothing = np.array([], dtype=np.int64)
    assert not labels_end_in_time(nothing, nothing, None).passed
