import numpy as np
import pytest

from feature_store.sources.null_markets import NULL_KINDS, null_market


@pytest.mark.parametrize("kind", NULL_KINDS)
def test_the_same_arguments_give_the_same_bars_and_another_seed_others(kind):
    market, again, other = null_market(kind, 1, sessions=3), null_market(kind, 1, sessions=3), null_market(kind, 2)
    assert market.name.startswith("SYNTHETIC")
    np.testing.assert_array_equal(market.bars.close, again.bars.close)
    assert not np.array_equal(market.bars.close[:100], other.bars.close[:100])


@pytest.mark.parametrize("kind", NULL_KINDS)
def test_bars_are_whole_ordered_and_on_the_tick_size(kind):
    market = null_market(kind, 3, sessions=4, instruments=5)
    bars = market.bars
    assert len(bars) == 4 * 75 * 6
    assert (np.diff(bars.end_ns) >= 0).all()
    assert (bars.low <= np.minimum(bars.open, bars.close)).all()
    assert (bars.high >= np.maximum(bars.open, bars.close)).all()
    shares = bars.instrument > 0
    assert (bars.low > 0).all()
    assert (bars.volume[shares] > 0).all()
    np.testing.assert_allclose(bars.close[shares] * 20, np.round(bars.close[shares] * 20), atol=1e-6)
    assert bars.start_ns[0] == market.sessions[0].open_ns
    assert bars.end_ns[-1] == market.sessions[-1].close_ns


def moves(kind: str, **options: object) -> tuple[np.ndarray, np.ndarray]:
    """Log moves from close to close and from open to the next bar's open, inside sessions; (sessions, bars, n)."""
    market = null_market(kind, 11, sessions=60, **options)
    shape = (60, 75, len(market.universe))
    close, opened = (np.log(prices).reshape(shape)[:, :, 1:] for prices in (market.bars.close, market.bars.open))
    return np.diff(close, axis=1), np.diff(opened, axis=1)


def correlation(before: np.ndarray, after: np.ndarray) -> float:
    return float(np.corrcoef(before.ravel(), after.ravel())[0, 1])


@pytest.mark.parametrize("kind", NULL_KINDS)
def test_the_last_move_says_nothing_about_what_can_be_traded(kind):
    close, opened = moves(kind)
    # decided at the close of bar k, entered at the open of k + 1, left at the open of k + 2
    assert abs(correlation(close[:, :-2], opened[:, 2:])) < 0.02


def test_bounces_make_closes_revert_and_say_nothing_about_trades():
    close, _ = moves("bid-ask bounce")
    assert correlation(close[:, :-1], close[:, 1:]) < -0.03
    assert abs(correlation(*(moves("random walk")[0][:, s] for s in (slice(0, -1), slice(1, None))))) < 0.02


def test_one_factor_moves_everything_at_once_with_fat_tails():
    close, _ = moves("one factor")
    together = np.corrcoef(close.reshape(-1, close.shape[2]).T)
    assert together[np.triu_indices(10, 1)].mean() > 0.3
    standard = close / close.std()
    assert (standard**4).mean() > 5.0


@pytest.mark.parametrize(("edge", "sign"), [("momentum", 1), ("reversal", -1), ("market momentum", 1)])
def test_an_edge_drifts_as_it_says(edge, sign):
    close, _ = moves("random walk", edge=edge, edge_bps=5.0)
    past = sum(close[:, 9 - k : 73 - k] for k in range(10))
    if edge == "market momentum":
        past = np.broadcast_to(past.mean(axis=2, keepdims=True), past.shape)
    assert sign * correlation(past, close[:, 10:]) > 0.08
