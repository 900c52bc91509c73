import re
from typing import Any

import numpy as np
import pytest

from feature_store.bars.builder import bars_of_session
from feature_store.features.engine import feature_table
from feature_store.features.schema import feature_schema
from feature_store.labels.forward_return import ForwardReturn
from feature_store.market.calendar import nse_session
from feature_store.market.clocks import BarClock
from feature_store.market.corporate_actions import suspected_splits
from feature_store.market.types import SECOND_NS, Bars
from feature_store.sources.reading import known_sessions
from feature_store.sources.synthetic import (
    SyntheticMarket,
    market_sessions,
    synthetic_market,
)

MINUTE = BarClock.minutes(1)


@pytest.fixture(scope="module")
def market() -> SyntheticMarket:
    return synthetic_market()


def test_the_same_arguments_give_the_same_bytes(market: SyntheticMarket) -> None:
    again = synthetic_market()
    assert again.ticks[0].digest() == market.ticks[0].digest()
    assert [b.digest() for b in again.bars] == [b.digest() for b in market.bars]
    assert again.universe.digest == market.universe.digest
    (eight,), (nine,) = (synthetic_market(seed=seed, sessions=1).ticks for seed in (8, 9))
    assert eight.digest() != nine.digest()


def test_sessions_are_those_of_the_exchange_and_the_tick_session_comes_last(market: SyntheticMarket) -> None:
    calendar = (*market.sessions, *market.tick_sessions)
    assert len(calendar) == 31
    assert all(nse_session(s.date) == s for s in calendar)
    assert [s.date for s in calendar] == sorted({s.date for s in calendar})
    assert known_sessions(Bars.concatenate(market.bars)) == market.sessions
    assert known_sessions(market.ticks[0]) == market.tick_sessions
    assert synthetic_market(sessions=3, instruments=2, first_session="2026-01-10").sessions[0].date.isoformat() == (
        "2026-01-12"
    )


def test_the_market_says_that_it_is_synthetic(market: SyntheticMarket) -> None:
    assert re.fullmatch(r"SYNTHETIC [0-9a-f]{8}", market.name)
    assert (market.details["sessions"], market.details["seed"]) == (len(market.sessions), 7)
    assert [i.symbol for i in market.universe.instruments][:3] == ["SYN INDEX", "SYN001", "SYN002"]


def test_ticks_are_in_order_on_the_tick_size_with_growing_volume(market: SyntheticMarket) -> None:
    ticks = market.ticks[0]
    assert (np.diff(ticks.event_time_ns) >= 0).all()
    assert ticks.event_time_ns[0] >= market.tick_sessions[0].open_ns
    assert ticks.event_time_ns[-1] < market.tick_sessions[0].close_ns
    np.testing.assert_allclose(np.round(ticks.last_price * 20) / 20, ticks.last_price, rtol=1e-12)
    for i in range(len(market.universe)):
        assert (np.diff(ticks.day_volume[ticks.instrument == i]) >= 0).all()


HARD = {
    "volatility_regimes": True,
    "overnight_gap_bps": 80.0,
    "opening_auction": True,
    "halts": 2,
    "outages": 1,
    "splits": 2,
}
OPTIONS = {
    "as it is": {},
    "without index and quotes": {"index": False, "quotes": False},
    "hard": HARD,
    **{name: {name: value} for name, value in HARD.items()},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_training_bars_are_the_bars_of_their_ticks(options: dict[str, Any]) -> None:
    # a market one session longer has, as bars, the session that the shorter one has as ticks
    ticked, barred = synthetic_market(4, 4, **options), synthetic_market(4, 5, **options)
    assert barred.sessions[-1] == ticked.tick_sessions[0]
    built = bars_of_session(ticked.ticks[0], ticked.tick_sessions[0], len(ticked.universe), MINUTE)
    assert built.digest() == barred.bars[-1].digest()
    assert [bars.digest() for bars in ticked.bars] == [bars.digest() for bars in barred.bars[:-1]]


@pytest.mark.parametrize("options", [{}, HARD], ids=["as it is", "hard"])
def test_more_sessions_of_ticks_change_nothing_in_those_before_them(options: dict[str, Any]) -> None:
    one, three = synthetic_market(4, 3, **options), synthetic_market(4, 3, tick_sessions=3, **options)
    assert (three.sessions, three.tick_sessions[:1]) == (one.sessions, one.tick_sessions)
    assert [bars.digest() for bars in three.bars] == [bars.digest() for bars in one.bars]
    assert three.ticks[0].digest() == one.ticks[0].digest()
    longer = synthetic_market(4, 6, **options)
    for session, ticks, bars in zip(three.tick_sessions, three.ticks, longer.bars[3:], strict=True):
        assert known_sessions(ticks) == (session,)
        assert bars_of_session(ticks, session, len(three.universe), MINUTE).digest() == bars.digest()
    assert three.details == one.details | {"tick_sessions": 3}
    assert market_sessions(3, tick_sessions=3) == (*three.sessions, *three.tick_sessions)


@pytest.mark.parametrize("option", [*HARD, "index", "quotes"])
def test_every_option_changes_the_data_and_the_name(option: str) -> None:
    value = HARD.get(option, False)
    plain, other = synthetic_market(4, 5), synthetic_market(4, 5, **{option: value})
    assert plain.name != other.name
    assert other.details == plain.details | {option: value}
    assert Bars.concatenate(plain.bars).digest() != Bars.concatenate(other.bars).digest()


def test_the_index_is_the_mean_of_the_instruments_moves_and_not_tradable() -> None:
    market = synthetic_market(6, 3)
    assert market.universe.market_index == 0
    assert [(i.symbol, i.tradable) for i in market.universe.instruments][:2] == [("SYN INDEX", False), ("SYN001", True)]
    close = np.log(Bars.concatenate(market.bars).close.reshape(-1, 7))
    moves = close - close[0]
    np.testing.assert_allclose(moves[:, 0], moves[:, 1:].mean(axis=1), atol=2e-4)  # of the tick size
    index = market.ticks[0][market.ticks[0].instrument == 0]
    assert len(index) == 375 * 30
    assert index.day_volume.max() == 0
    assert np.isnan(index.bid_price).all()


def test_an_index_tick_comes_after_the_ticks_that_it_sums_up() -> None:
    market = synthetic_market(6, 1)
    since_slot_ns = (market.ticks[0].event_time_ns - market.tick_sessions[0].open_ns) % (2 * SECOND_NS)
    assert (since_slot_ns[market.ticks[0].instrument == 0] == 2 * SECOND_NS - SECOND_NS // 1000).all()


def test_quotes_hold_the_price_widen_with_volatility_and_lean_to_bursts() -> None:
    market = synthetic_market(8, 1, edge_bps=12.0)
    ticks = market.ticks[0][market.ticks[0].instrument > 0]
    assert ((ticks.bid_price < ticks.ask_price) & (ticks.bid_quantity > 0) & (ticks.ask_quantity > 0)).all()
    assert ((ticks.last_price == ticks.bid_price) | (ticks.last_price == ticks.ask_price)).mean() > 0.999
    calm, wild = (
        np.nanmean(Bars.concatenate(synthetic_market(8, 3, opening_auction=on).bars).spread_bps[: 9 * 5])
        for on in (False, True)
    )
    assert wild > 1.1 * calm
    bars = bars_of_session(market.ticks[0], market.tick_sessions[0], 9, MINUTE)
    move = np.log(bars.close / bars.open).reshape(-1, 9)[:, 1:]
    lean = bars.imbalance.reshape(-1, 9)[:, 1:]
    assert 0.02 < np.corrcoef(move.ravel(), lean.ravel())[0, 1] < 0.5


def test_halts_and_outages_leave_no_tick_and_are_told() -> None:
    market = synthetic_market(5, 2, halts=2, outages=1)
    inside = [i for i in market.interruptions if i.start_ns >= market.tick_sessions[0].open_ns]
    assert sorted(i.symbol is None for i in inside) == [False, False, True]
    for stop in inside:
        ticks = market.ticks[0]
        if stop.symbol is not None:
            ticks = ticks[ticks.instrument == market.universe.index_of_symbol[stop.symbol]]
        assert not ((ticks.event_time_ns >= stop.start_ns) & (ticks.event_time_ns < stop.end_ns)).any()
        assert (ticks.event_time_ns < stop.start_ns).any()
        assert (ticks.event_time_ns >= stop.end_ns).any()


def test_splits_are_raw_in_the_bars_found_as_suspects_and_explained_by_the_actions() -> None:
    market = synthetic_market(5, 12, splits=3)
    assert len(market.actions) == 3
    bars = Bars.concatenate(market.bars)
    suspects = suspected_splits(bars, market.universe)
    planted = [(a.symbol, a.ex_date) for a in market.actions.actions if a.ex_date <= market.sessions[-1].date]
    assert sorted(zip(suspects["symbol"], suspects["date"], strict=True)) == sorted(planted)
    assert len(suspected_splits(bars, market.universe, market.actions)) == 0
    adjusted = market.actions.adjust(bars, market.universe, market.tick_sessions[0].date)
    assert len(suspected_splits(adjusted, market.universe)) == 0


def test_regimes_and_auctions_are_seen_in_the_bars() -> None:
    def ranges(**options: Any) -> np.ndarray:
        bars = Bars.concatenate(synthetic_market(10, 12, index=False, **options).bars)
        return np.log(bars.high / bars.low).reshape(12 * 15, 25, 10).mean(axis=(1, 2))

    plain, regimes = ranges(), ranges(volatility_regimes=True)
    assert regimes.std() / regimes.mean() > 3 * plain.std() / plain.mean()
    auction = synthetic_market(10, 3, index=False, opening_auction=True).bars[1]
    volume = auction.volume.reshape(375, 10).sum(axis=1)
    assert volume[0] > 5 * np.median(volume)


def out_of_sample(market: SyntheticMarket) -> tuple[float, float]:
    """AUC of a boosted model of ten-bar direction on the tick session, and the mean gain of its tails in bps."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.metrics import roc_auc_score

    schema, n = feature_schema(None, 1), len(market.universe)
    tick_bars = bars_of_session(market.ticks[0], market.tick_sessions[0], n, MINUTE)
    bars = Bars.concatenate([*market.bars, tick_bars])
    features, warm = feature_table(bars, schema, market.universe)
    change = ForwardReturn(10).of(bars, n, [*market.sessions, *market.tick_sessions]).forward_return
    tradable = np.array([i.tradable for i in market.universe.instruments])[bars.instrument]
    kept = warm & np.isfinite(change) & tradable
    before = kept & (bars.start_ns < market.tick_sessions[0].open_ns)
    fit_rows, fit_returns = features[before], change[before]
    rows, returns = features[kept & ~before], change[kept & ~before]
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
    bars = Bars.concatenate(synthetic_market(edge_bps=0, sessions=10, index=False).bars)
    close = bars.close.reshape(-1, 20)
    change = np.diff(np.log(close), axis=0)
    correlation = np.corrcoef(change[:-1].ravel(), change[1:].ravel())[0, 1]
    assert abs(correlation) < 0.02


def test_bars_of_training_and_of_ticks_have_the_same_statistics(market: SyntheticMarket) -> None:
    live = bars_of_session(market.ticks[0], market.tick_sessions[0], 21, MINUTE)
    past = Bars.concatenate(market.bars)
    for bars_statistic in (lambda b: (b.high - b.low) / b.close, lambda b: np.abs(b.close / b.open - 1)):
        assert abs(bars_statistic(live).mean() / bars_statistic(past).mean() - 1) < 0.05
