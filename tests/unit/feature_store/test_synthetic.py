import numpy as np
import pytest

from feature_store.bars import bars_of_session
from feature_store.calendar import nse_session
from feature_store.clocks import BarClock
from feature_store.features import feature_schema, feature_table
from feature_store.labels import forward_return
from feature_store.market import Bars
from feature_store.sources import known_sessions
from feature_store.synthetic import (
    SyntheticMarket,
    _bars_of_path,
    _session_path,
    _ticks_of_path,
    synthetic_market,
    synthetic_sessions,
)

MINUTE = BarClock.minutes(1)


@pytest.fixture(scope="module")
def market() -> SyntheticMarket:
    return synthetic_market()


def test_the_same_arguments_give_the_same_bytes(market: SyntheticMarket) -> None:
    again = synthetic_market()
    assert again.ticks.digest() == market.ticks.digest()
    assert [b.digest() for b in again.bars] == [b.digest() for b in market.bars]
    assert again.universe.digest == market.universe.digest
    assert synthetic_market(seed=8, sessions=1).ticks.digest() != synthetic_market(seed=9, sessions=1).ticks.digest()


def test_sessions_are_those_of_the_exchange_and_the_tick_session_comes_last(market: SyntheticMarket) -> None:
    calendar = (*market.sessions, market.tick_session)
    assert len(calendar) == 31
    assert all(nse_session(s.date) == s for s in calendar)
    assert [s.date for s in calendar] == sorted({s.date for s in calendar})
    assert known_sessions(Bars.concatenate(market.bars)) == market.sessions
    assert known_sessions(market.ticks) == (market.tick_session,)
    assert synthetic_market(sessions=3, instruments=2, first_session="2026-01-10").sessions[0].date.isoformat() == (
        "2026-01-12"
    )


def test_the_market_says_that_it_is_synthetic(market: SyntheticMarket) -> None:
    assert market.name.startswith("SYNTHETIC")
    assert [i.symbol for i in market.universe.instruments][:2] == ["SYN001", "SYN002"]


def test_ticks_are_in_order_on_the_tick_size_with_growing_volume(market: SyntheticMarket) -> None:
    ticks = market.ticks
    assert (np.diff(ticks.event_time_ns) >= 0).all()
    assert ticks.event_time_ns[0] >= market.tick_session.open_ns
    assert ticks.event_time_ns[-1] < market.tick_session.close_ns
    np.testing.assert_allclose(np.round(ticks.last_price * 20) / 20, ticks.last_price, rtol=1e-12)
    for i in range(len(market.universe)):
        assert (np.diff(ticks.day_volume[ticks.instrument == i]) >= 0).all()


def test_training_bars_are_the_bars_of_their_ticks() -> None:
    rng = np.random.Generator(np.random.PCG64(1))
    (session,) = synthetic_sessions(synthetic_market(sessions=1).sessions[0].date, 1)
    prices, shares, _ = _session_path(rng, np.log(np.array([250.0, 1500.0])), np.array([100.0, 300.0]), 6.0)
    ticks = _ticks_of_path(rng, session, prices, shares)
    assert bars_of_session(ticks, session, 2, MINUTE).digest() == _bars_of_path(session, prices, shares).digest()


def out_of_sample(market: SyntheticMarket) -> tuple[float, float]:
    """AUC of a boosted model of ten-bar direction on the tick session, and the mean gain of its tails in bps."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.metrics import roc_auc_score

    schema, n = feature_schema(None, 1), len(market.universe)
    tick_bars = bars_of_session(market.ticks, market.tick_session, n, MINUTE)
    tables = []
    for bars in (Bars.concatenate(market.bars), tick_bars):
        rows, warm = feature_table(bars, schema, n)
        returns, _ = forward_return(bars, 10, n)
        kept = warm & np.isfinite(returns)
        tables.append((rows[kept], returns[kept]))
    (fit_rows, fit_returns), (rows, returns) = tables
    model = HistGradientBoostingClassifier(max_iter=100, learning_rate=0.05, max_leaf_nodes=15, random_state=0)
    score = model.fit(fit_rows, fit_returns > 0).predict_proba(rows)[:, 1]
    low, high = np.quantile(score, [0.05, 0.95])
    gain = (returns[score >= high].mean() - returns[score <= low].mean()) / 2
    return float(roc_auc_score(returns > 0, score)), float(gain * 1e4)


def test_the_planted_edge_can_be_learnt_and_outlives_costs(market: SyntheticMarket) -> None:
    auc, gain_bps = out_of_sample(market)
    assert 0.56 < auc < 0.66
    assert gain_bps > 15


def test_without_an_edge_there_is_nothing_to_learn() -> None:
    auc, gain_bps = out_of_sample(synthetic_market(edge_bps=0))
    assert 0.46 < auc < 0.54
    assert gain_bps < 10


def test_without_an_edge_returns_are_a_random_walk() -> None:
    bars = Bars.concatenate(synthetic_market(edge_bps=0, sessions=10).bars)
    close = bars.close.reshape(-1, 20)
    change = np.diff(np.log(close), axis=0)
    correlation = np.corrcoef(change[:-1].ravel(), change[1:].ravel())[0, 1]
    assert abs(correlation) < 0.02


def test_bars_of_training_and_of_ticks_have_the_same_statistics(market: SyntheticMarket) -> None:
    live = bars_of_session(market.ticks, market.tick_session, 20, MINUTE)
    past = Bars.concatenate(market.bars)
    for bars_statistic in (lambda b: (b.high - b.low) / b.close, lambda b: np.abs(b.close / b.open - 1)):
        assert abs(bars_statistic(live).mean() / bars_statistic(past).mean() - 1) < 0.05
