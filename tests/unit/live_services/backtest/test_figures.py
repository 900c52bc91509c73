from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

from live_services.backtest.figures import drawdown, months_of, return_figures, trade_figures
from live_services.backtest.report import BacktestResult

DATES = pd.bdate_range("2025-11-03", periods=300)
RETURNS = pd.Series(np.random.default_rng(4).normal(0.0006, 0.011, 300), index=DATES)


def test_figures_of_returns_are_those_of_quantstats_where_they_mean_the_same() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own, of the libraries that it draws with
        from quantstats import stats
    ours = return_figures(RETURNS.to_numpy())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = {
            "total_return": stats.comp(RETURNS),
            "annual_return": stats.cagr(RETURNS, periods=252),
            "annual_volatility": stats.volatility(RETURNS, periods=252),
            "sharpe": stats.sharpe(RETURNS, periods=252),
            "sortino": stats.sortino(RETURNS, periods=252),
            "max_drawdown": stats.max_drawdown(RETURNS),
            "best": stats.best(RETURNS),
            "worst": stats.worst(RETURNS),
            "positive_share": stats.win_rate(RETURNS),
        }
    assert {name: getattr(ours, name) for name in theirs} == pytest.approx({k: float(v) for k, v in theirs.items()})


def test_the_standard_error_of_a_sharpe_ratio_is_about_the_spread_of_many() -> None:
    random = np.random.default_rng(1)
    many = [return_figures(random.normal(0.001, 0.01, 250)) for _ in range(400)]
    assert np.mean([one.sharpe_error for one in many]) == pytest.approx(np.std([one.sharpe for one in many]), rel=0.1)


def test_a_drawdown_counts_from_the_beginning_and_its_length_in_sessions() -> None:
    returns = np.array([-0.1, 0.05, 0.2, -0.5, 0.1])
    assert drawdown(returns) == pytest.approx([-0.1, -0.055, 0.0, -0.5, -0.45])
    found = return_figures(returns)
    assert found.max_drawdown == pytest.approx(-0.5)
    assert found.longest_drawdown == 2


def test_a_return_of_less_than_a_year_is_not_annualised_and_of_no_sessions_nothing_is_stated() -> None:
    assert np.isnan(return_figures(np.full(251, 0.01)).annual_return)
    empty = return_figures(np.array([]))
    assert empty.total_return == 0.0
    assert np.isnan([empty.sharpe, empty.best, empty.annual_volatility]).all()


def test_months_compound_the_sessions_in_them() -> None:
    table = months_of(RETURNS)
    assert list(table.columns) == list(range(1, 13))
    assert table.loc[2025, 11] == pytest.approx((1 + RETURNS["2025-11"]).prod() - 1)
    assert np.isnan(table.loc[2025, 1])


def test_figures_of_trades_are_sums_over_them(result: BacktestResult) -> None:
    found, trades = trade_figures(result.trades), result.trades
    gains, losses = trades.net_inr[trades.net_inr > 0], trades.net_inr[trades.net_inr < 0]
    assert found.profit_factor == pytest.approx(gains.sum() / -losses.sum())
    assert found.payoff == pytest.approx(gains.mean() / -losses.mean())
    assert found.gross_inr - found.charges_inr == pytest.approx(found.net_inr)
    assert np.isnan(trade_figures(trades.iloc[:0]).win_rate)
