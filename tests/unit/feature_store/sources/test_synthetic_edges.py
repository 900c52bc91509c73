"""The planted edges beside bursts: what they do to a walk, and that each leaves the others' numbers alone."""

from typing import Any

import numpy as np
import pytest

from feature_store.features.engine import feature_table
from feature_store.labels.barrier_return import VOLATILITY
from feature_store.market.types import Bars
from feature_store.sources.synthetic import synthetic_market
from feature_store.sources.synthetic_edges import MINUTES, SLOTS, Planted, with_breakouts, with_overshoots
from models_registry.specification import StrategySpec
from models_registry.strategies import BREAKOUT, MEAN_REVERSION

QUIET = Planted(np.zeros((30, SLOTS)), np.ones((30, MINUTES)))


def walk(instruments: int = 30, seed: int = 4) -> Planted:
    steps = np.random.default_rng(seed).standard_normal((instruments, SLOTS)) * 12e-4 / np.sqrt(30)
    return Planted(np.cumsum(steps, axis=1), np.ones((instruments, MINUTES)))


def test_overshoots_come_back_at_their_edge_and_none_is_left_at_the_close() -> None:
    made = with_overshoots(np.random.default_rng(1), QUIET, 8.0)
    assert (np.abs(made.log_price[:, -1]) < 1e-12).all()
    moves = np.diff(made.log_price[:, 29::30], axis=1, prepend=0.0) * 1e4
    assert set(np.abs(moves).round(6).ravel()) == {0.0, 8.0, 40.0}
    moves = moves.round(6)
    assert ((np.abs(moves) > 10.0) == (made.volume < 1.0)).all()
    assert 0.2 < (moves != 0.0).mean() < 0.35
    assert abs(np.sign(moves[made.volume < 1.0]).mean()) < 0.25


def test_a_break_starts_a_drift_the_same_way_and_not_before_the_next_minute() -> None:
    plain = walk()
    made = with_breakouts(np.random.default_rng(1), plain, 3.0)
    added = (np.diff((made.log_price - plain.log_price)[:, 29::30], axis=1, prepend=0.0) * 1e4).round(6)
    assert set(np.abs(added).ravel()) == {0.0, 3.0}
    closes, seen = made.log_price[:, 29::30], 0
    for i, minute in np.argwhere((added[:, 1:] != 0.0) & (added[:, :-1] == 0.0)):
        before = closes[i, minute - 60 : minute]
        side = np.sign(added[i, minute + 1])
        assert side * closes[i, minute] > (side * before).max()
        assert (made.volume[i, minute : minute + 16] > 1.0).all()
        assert made.volume[i, minute - 1] == 1.0
        seen += 1
    assert seen > 30
    assert (added[:, :61] == 0.0).all()


def test_an_edge_of_nothing_moves_no_price() -> None:
    for plant in (with_overshoots, with_breakouts):
        np.testing.assert_array_equal(plant(np.random.default_rng(1), walk(), 0.0).log_price, walk().log_price)


EDGES = {"reversion_bps": 8.0, "breakout_bps": 3.0}


@pytest.mark.parametrize("option", EDGES)
def test_an_edge_does_not_move_the_numbers_of_the_bursts(option: str) -> None:
    plain, other = synthetic_market(3, 2, index=False), synthetic_market(3, 2, index=False, **{option: EDGES[option]})
    assert other.details == plain.details | {option: EDGES[option]}
    assert plain.name != other.name
    drift = [np.log(market.bars[0].close.reshape(375, 3)) for market in (plain, other)]
    apart = np.diff(drift[1] - drift[0], axis=0) * 1e4
    limit = 41.0 if option == "reversion_bps" else 4.0
    assert 0.0 < np.abs(apart).max() < limit  # the same walk, apart by the edge and the tick size


def gain_bps(strategy: StrategySpec, **edges: Any) -> float:
    """Mean gain before costs of what the strategy's rule proposes, with its barriers."""
    market = synthetic_market(10, 12, edge_bps=0.0, **edges)
    bars, schema = Bars.concatenate(market.bars), strategy.feature_schema()
    rows, warm = feature_table(bars, schema, market.universe)
    proposer = strategy.proposer()
    assert proposer is not None
    sides = np.where(warm & (bars.instrument > 0), proposer.sides(rows, schema), 0).astype(np.int8)
    label = strategy.label().of(
        bars, len(market.universe), market.sessions, sides, rows[:, schema.names.index(VOLATILITY)]
    )
    return float(np.nanmean(label.forward_return) * 1e4)


@pytest.mark.parametrize(
    ("strategy", "edge"), [(MEAN_REVERSION, "reversion_bps"), (BREAKOUT, "breakout_bps")], ids=["reversion", "breakout"]
)
def test_the_trades_of_a_built_in_strategy_gain_by_its_edge_and_by_nothing_else(
    strategy: StrategySpec, edge: str
) -> None:
    small = strategy.model_copy(update={"features": ("last_return",)})
    assert abs(gain_bps(small)) < 2.0
    assert gain_bps(small, **{edge: EDGES[edge]}) > 5.0
