import numpy as np
import pytest

from feature_store.labels.forward_return import ForwardReturn, forward_return
from feature_store.market.types import MINUTE_NS, Bars
from feature_store.sources.synthetic import synthetic_market

N, HORIZON = 3, 10


@pytest.fixture(scope="module")
def bars() -> Bars:
    """Two sessions with every twentieth bar missing."""
    market = synthetic_market(instruments=N, sessions=2, seed=5, index=False)
    joined = Bars.concatenate(market.bars)
    return joined[np.arange(len(joined)) % 20 != 7]


def test_a_label_is_the_return_to_the_close_of_the_tenth_bar_after(bars: Bars) -> None:
    returns, label_end_ns = forward_return(bars, HORIZON, N)
    date = bars.start_ns // (24 * 60 * MINUTE_NS)
    for day in np.unique(date):
        for i in range(N):
            rows = np.flatnonzero((bars.instrument == i) & (date == day))
            expected = bars.close[rows[HORIZON:]] / bars.close[rows[:-HORIZON]] - 1.0
            assert np.array_equal(returns[rows[:-HORIZON]], expected)
            assert np.array_equal(label_end_ns[rows[:-HORIZON]], bars.end_ns[rows[HORIZON:]])
            assert np.isnan(returns[rows[-HORIZON:]]).all()
            assert np.array_equal(label_end_ns[rows[-HORIZON:]], bars.end_ns[rows[-HORIZON:]])


def test_no_label_reaches_into_the_next_session(bars: Bars) -> None:
    _, label_end_ns = forward_return(bars, HORIZON, N)
    assert ((label_end_ns - bars.end_ns) < 375 * MINUTE_NS).all()


def test_a_label_names_its_horizon_and_refuses_none(bars: Bars) -> None:
    assert ForwardReturn(10).name == "forward_return_10_bars"
    assert np.array_equal(ForwardReturn(10).of(bars, N)[0], forward_return(bars, 10, N)[0], equal_nan=True)
    with pytest.raises(ValueError, match="at least 1"):
        forward_return(bars, 0, N)
