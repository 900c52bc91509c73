"""The figures of a backtest: of daily returns by the usual definitions, and of its trades. Pure.

A daily return is the account's change from one session's end to the next, as a share of what it was. A year has 252
sessions. Sharpe and Sortino are of returns over nothing: an intraday account earns no interest here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models_registry.validation.sharpe import sharpe_ratio

SESSIONS_A_YEAR: Final = 252


@dataclass(frozen=True, slots=True)
class ReturnFigures:
    """Figures of daily returns; NaN where they do not exist. Returns are fractions."""

    sessions: int
    total_return: float
    annual_return: float
    """Compounded; NaN under a year, which is not annualised (CFA Institute, GIPS Standards for Firms)."""
    annual_volatility: float
    """Sample standard deviation of daily returns times √252."""
    sharpe: float
    """Mean over standard deviation of daily returns, times √252."""
    sharpe_error: float
    """Its standard error, for returns that need not be normal (Mertens 2002; Bailey and López de Prado 2012)."""
    sortino: float
    """Mean over the root of the mean squared loss, times √252."""
    max_drawdown: float
    """The deepest fall from an earlier height at a session's end; at most 0."""
    longest_drawdown: int
    """Sessions under an earlier height, at most."""
    best: float
    worst: float
    positive_share: float
    """Of the sessions that moved."""


@dataclass(frozen=True, slots=True)
class TradeFigures:
    """Figures of trades, after charges unless it says gross; NaN where there are none."""

    trades: int
    win_rate: float
    profit_factor: float
    """Rupees gained over rupees lost."""
    payoff: float
    """Mean gain over mean loss."""
    mean_net_bps: float
    mean_gross_bps: float
    median_holding_minutes: float
    net_inr: float
    gross_inr: float
    charges_inr: float
    turnover_inr: float
    """What was bought and what was sold, added up."""


def return_figures(returns: NDArray[np.float64]) -> ReturnFigures:
    """Measure daily returns, shape ``(sessions,)``, finite, in order."""
    n = len(returns)
    growth = float(np.prod(1.0 + returns)) if n else 1.0
    sharpe = sharpe_ratio(returns, sessions_a_year=SESSIONS_A_YEAR)
    spread = float(np.std(returns, ddof=1)) if n > 1 else np.nan
    mean = float(returns.mean()) if n else np.nan
    loss = float(np.sqrt(np.sum(np.minimum(returns, 0.0) ** 2) / n)) if n else np.nan
    year = np.sqrt(SESSIONS_A_YEAR)
    fall = drawdown(returns)
    moved = returns[returns != 0]
    return ReturnFigures(
        sessions=n,
        total_return=growth - 1.0,
        annual_return=growth ** (SESSIONS_A_YEAR / n) - 1.0 if n >= SESSIONS_A_YEAR and growth > 0 else np.nan,
        annual_volatility=spread * year,
        sharpe=sharpe.annual,
        sharpe_error=sharpe.annual_standard_error,
        sortino=_ratio(mean, loss) * year,
        max_drawdown=float(fall.min(initial=0.0)),
        longest_drawdown=_longest(fall < 0),
        best=float(returns.max()) if n else np.nan,
        worst=float(returns.min()) if n else np.nan,
        positive_share=float((moved > 0).mean()) if len(moved) else np.nan,
    )


def trade_figures(trades: pd.DataFrame) -> TradeFigures:
    """Measure trades, as `live_services.backtest.result` lays them out."""
    net = trades["net_inr"].to_numpy(dtype=np.float64)
    gains, losses = net[net > 0], net[net < 0]
    return TradeFigures(
        trades=len(trades),
        win_rate=float((net > 0).mean()) if len(net) else np.nan,
        profit_factor=_ratio(float(gains.sum()), -float(losses.sum())),
        payoff=_ratio(_mean(gains), -_mean(losses)),
        mean_net_bps=_mean(trades["net_bps"].to_numpy()),
        mean_gross_bps=_mean(trades["gross_bps"].to_numpy()),
        median_holding_minutes=float(trades["minutes"].median()) if len(trades) else np.nan,
        net_inr=float(net.sum()),
        gross_inr=float(trades["gross_inr"].sum()),
        charges_inr=float(trades["charges_inr"].sum()),
        turnover_inr=float((trades["quantity"] * (trades["entry_price"] + trades["exit_price"])).sum()),
    )


def drawdown(returns: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give how far below its highest earlier point the account is after each return; shape as given, at most 0."""
    wealth = np.cumprod(1.0 + returns)
    return np.asarray(wealth / np.maximum.accumulate(np.maximum(wealth, 1.0)) - 1.0, dtype=np.float64)


def months_of(returns: pd.Series[float]) -> pd.DataFrame:
    """Compound daily returns, indexed by date, to months: years by month (1 to 12), NaN where there is none."""
    dates = pd.DatetimeIndex(returns.index)
    table = (1.0 + returns).groupby([dates.year, dates.month]).prod() - 1.0
    return table.unstack().reindex(columns=range(1, 13))


def _longest(marked: NDArray[np.bool_]) -> int:
    longest = run = 0
    for one in marked.tolist():
        run = run + 1 if one else 0
        longest = max(longest, run)
    return longest


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _ratio(over: float, under: float) -> float:
    return over / under if under > 0 else float("nan")
