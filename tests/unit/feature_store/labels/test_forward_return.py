import datetime as dt

import numpy as np
import pytest

from feature_store.labels.forward_return import ForwardReturn, Labels
from feature_store.market.types import MINUTE_NS, Bars, MarketDataError, Session, UnknownInstrument, ist_ns
from feature_store.sources.synthetic import SyntheticMarket, synthetic_market
from tests.live_world import SESSION, bars

N, HORIZON = 3, 10
LABEL = ForwardReturn(HORIZON)
CLOSE_BAR = 375
LAST_EXIT = CLOSE_BAR - LABEL.exit_minutes_before_close
DAY = dt.date(2026, 1, 5)
MUHURAT = Session(DAY, ist_ns(DAY, dt.time(18, 0)), ist_ns(DAY, dt.time(19, 0)))


def minutes(*starts: int, instrument: int = 0) -> Bars:
    """Bars that open at 100 plus their minute, and close far from it."""
    return bars(*((instrument, k, 100.0 + k, 7.0) for k in starts))


def of(table: Bars, label: ForwardReturn = LABEL, sessions: tuple[Session, ...] = (SESSION,)) -> Labels:
    return label.of(table, N, sessions)


def minute(time_ns: np.int64) -> int:
    return int((time_ns - SESSION.open_ns) // MINUTE_NS)


@pytest.fixture(scope="module")
def market() -> SyntheticMarket:
    return synthetic_market(instruments=N, sessions=2, seed=5, index=False)


def test_a_label_goes_from_the_next_open_to_the_first_open_at_the_horizon() -> None:
    table = minutes(*range(30))
    labels = of(table)
    assert minute(table.end_ns[0]) == 1
    assert labels.forward_return[0] == 111.0 / 101.0 - 1.0
    assert (minute(labels.entry_ns[0]), minute(labels.label_end_ns[0])) == (1, 11)
    assert np.isfinite(labels.forward_return).sum() == 30 - 11


def test_on_a_market_with_gaps_it_is_what_a_search_in_the_instruments_own_bars_finds(market: SyntheticMarket) -> None:
    joined = Bars.concatenate(market.bars)
    table = joined[np.random.default_rng(3).random(len(joined)) < 0.4]
    labels = LABEL.of(table, N, market.sessions)
    for i in range(N):
        for session in market.sessions:
            rows = np.flatnonzero((table.instrument == i) & (table.start_ns // 86_400e9 == session.open_ns // 86_400e9))
            start = table.start_ns[rows]
            for row in rows:
                due_ns = table.end_ns[row] + HORIZON * MINUTE_NS
                entries, exits = rows[start >= table.end_ns[row]], rows[start >= due_ns]
                last_exit_ns = session.close_ns - 10 * MINUTE_NS
                there = len(exits) and table.start_ns[entries[0]] < due_ns and table.start_ns[exits[0]] <= last_exit_ns
                if there:
                    assert labels.forward_return[row] == table.open[exits[0]] / table.open[entries[0]] - 1.0
                    assert labels.entry_ns[row] == table.start_ns[entries[0]]
                    assert labels.label_end_ns[row] == table.start_ns[exits[0]]
                else:
                    assert np.isnan(labels.forward_return[row])
                    assert labels.entry_ns[row] == labels.label_end_ns[row] == table.end_ns[row]


def test_the_horizon_is_time_and_not_the_instruments_own_bars() -> None:
    labels = of(minutes(0, 3, 6, 9, 12, 15, 18))
    assert (minute(labels.entry_ns[0]), minute(labels.label_end_ns[0])) == (3, 12)
    assert labels.forward_return[0] == 112.0 / 103.0 - 1.0


def test_without_a_bar_to_enter_at_before_the_horizon_there_is_no_label() -> None:
    assert np.isnan(of(minutes(0, 11, 12, 25)).forward_return[0])
    assert np.isfinite(of(minutes(0, 10, 11, 12, 25)).forward_return[0])


def test_a_label_may_end_at_the_last_exit_and_not_after_it() -> None:
    table = minutes(*range(CLOSE_BAR))
    labelled = np.flatnonzero(np.isfinite(of(table).forward_return))
    assert labelled.tolist() == list(range(LAST_EXIT - HORIZON))
    assert minute(of(table).label_end_ns[labelled[-1]]) == LAST_EXIT
    late = minutes(*(k for k in range(CLOSE_BAR) if k != LAST_EXIT))
    assert np.isnan(of(late).forward_return[LAST_EXIT - HORIZON - 1])


def test_the_last_exit_is_at_least_one_bar_before_the_close() -> None:
    label, hour = ForwardReturn(1, bar_minutes=60), 60 * MINUTE_NS
    table = bars(*((0, k, 100.0 + k, 1.0) for k in range(6)), bar_ns=hour)
    assert label.last_exit_ns(SESSION) == SESSION.close_ns - hour
    assert np.isfinite(of(table, label).forward_return).tolist() == [True] * 4 + [False] * 2


def test_nothing_is_held_over_night_or_beyond_a_sessions_own_hours() -> None:
    evening = minutes(*range(525, 585))
    table = Bars.concatenate([minutes(*range(360)), evening])
    whole = of(table, sessions=(Session(DAY, SESSION.open_ns, SESSION.close_ns), MUHURAT))
    assert np.isnan(whole.forward_return[349:360]).all()
    labelled = np.flatnonzero(np.isfinite(whole.forward_return[360:]))
    assert labelled.tolist() == list(range(60 - 10 - HORIZON))


def test_a_bar_of_no_session_or_out_of_order_or_of_no_instrument_is_refused() -> None:
    with pytest.raises(MarketDataError, match=r"bar 0 \(2026-01-05 09:15:00 IST .* none of the 1 sessions"):
        of(minutes(0, 1), sessions=(MUHURAT,))
    with pytest.raises(MarketDataError, match="none of the 0 sessions"):
        of(minutes(0), sessions=())
    with pytest.raises(MarketDataError, match=r"bar 1 .*each once"):
        of(minutes(4, 5)[np.array([1, 0])])
    with pytest.raises(UnknownInstrument, match="outside 0…2"):
        of(minutes(0, instrument=3))
    assert len(of(minutes()).forward_return) == 0


def test_a_label_is_named_by_all_that_decides_it() -> None:
    others = (ForwardReturn(5), ForwardReturn(10, 5), ForwardReturn(10, 1, 15))
    assert LABEL.name == "forward_return_v2_10x1m_exit10m"
    assert len({LABEL.name, *(other.name for other in others)}) == 4
    assert all(other.identity() != LABEL.identity() for other in others)
    assert LABEL.identity()["entry"] == "next_open"


@pytest.mark.parametrize("arguments", [(0,), (1, 0), (1, 1, 0)])
def test_a_label_that_looks_at_nothing_is_refused(arguments: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        ForwardReturn(*arguments)
