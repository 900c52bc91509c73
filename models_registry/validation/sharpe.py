"""The Sharpe ratio of a record of sessions: how sure it is, and what is left of it after many tries.

A record has one figure for each session, zero where nothing was traded: leaving those out makes the ratio larger.
Everything is per session unless it says ``annual``; the ratio has no unit, so rupees and fractions of a fixed capital
give the same.

All of it takes sessions as independent and alike. A record of overlapping positions, or of a strategy that was changed
on the way, is neither; `Sharpe.autocorrelation` shows the first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import scipy
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SESSIONS_A_YEAR: Final = 250
"""About what NSE holds."""
FEWEST_SESSIONS: Final = 3
"""A ratio of fewer is NaN."""
_EULER_MASCHERONI: Final = 0.5772156649015329


@dataclass(frozen=True)
class Sharpe:
    """A Sharpe ratio and what its error depends on; NaN where the record is shorter than three or does not vary."""

    per_session: float
    annual: float
    """``per_session × √sessions_a_year``, which autocorrelated sessions do not scale by (Lo 2002)."""
    standard_error: float
    """Of ``per_session``."""
    n: int
    """Sessions."""
    skew: float
    kurtosis: float
    """3 for a normal distribution."""
    autocorrelation: float
    """Of one session with the next."""

    @property
    def annual_standard_error(self) -> float:
        """Of ``annual``."""
        return self.standard_error * (self.annual / self.per_session if self.per_session else math.nan)


def sharpe_ratio(daily_pnl: Floats, *, sessions_a_year: int = SESSIONS_A_YEAR) -> Sharpe:
    """Mean over standard deviation of a record, with its standard error.

    Parameters
    ----------
    daily_pnl : ndarray of float64, shape (n,)
        Net profit of each session in its order, rupees or a fraction of a fixed capital.
    sessions_a_year : int
        For ``annual``.

    Raises
    ------
    ValueError
        If a session's figure is not finite.

    Notes
    -----
    The standard error is ``√((1 − γ₃·SR + (γ₄ − 1)/4·SR²) / (n − 1))`` with the record's skew γ₃ and kurtosis γ₄
    (Mertens 2002; Bailey & López de Prado, "The Sharpe Ratio Efficient Frontier", Journal of Risk 15(2), 2012);
    for normal records that is Lo's (Financial Analysts Journal 58(4), 2002). Moments are those of the sample as it
    stands, uncorrected, since then the expression cannot be negative.
    """
    pnl = np.asarray(daily_pnl, dtype=np.float64)
    if not np.all(np.isfinite(pnl)):
        raise ValueError("a session's profit is not a finite number; a session without trades has 0")
    n = len(pnl)
    # a constant record differs from its mean by rounding only
    if n < FEWEST_SESSIONS or np.ptp(pnl) <= 1e-12 * np.abs(pnl).max():
        return Sharpe(math.nan, math.nan, math.nan, n, math.nan, math.nan, math.nan)
    ratio = float(pnl.mean() / pnl.std(ddof=1))
    centred = pnl - pnl.mean()
    variance = float(np.mean(centred**2))
    skew, kurtosis = float(np.mean(centred**3)) / variance**1.5, float(np.mean(centred**4)) / variance**2
    return Sharpe(
        per_session=ratio,
        annual=ratio * math.sqrt(sessions_a_year),
        standard_error=math.sqrt(_variance_factor(ratio, skew, kurtosis) / (n - 1)),
        n=n,
        skew=skew,
        kurtosis=kurtosis,
        autocorrelation=float(np.mean(centred[1:] * centred[:-1])) / variance,
    )


def probabilistic_sharpe(sharpe: Sharpe, benchmark: float = 0.0) -> float:
    """Probability that the true ratio lies above a benchmark; NaN if there is no ratio.

    Parameters
    ----------
    sharpe : Sharpe
    benchmark : float
        Per session.

    Notes
    -----
    Bailey & López de Prado (2012): the normal distribution at the distance in standard errors.
    """
    return float(scipy.stats.norm.cdf((sharpe.per_session - benchmark) / sharpe.standard_error))


def expected_maximum_sharpe(variance_of_trials: float, n_trials: float) -> float:
    """Give the ratio that the best of so many trials without any edge is expected to show, per session.

    Parameters
    ----------
    variance_of_trials : float
        Variance of the trials' ratios per session (`trial_variance`).
    n_trials : float
        How many independent ones (`trials_count.effective_trials`); at one or fewer there was no choice: 0.

    Notes
    -----
    Bailey & López de Prado, "The Deflated Sharpe Ratio", Journal of Portfolio Management 40(5), 2014: an
    approximation that is within 3 % of the exact expectation from 3 trials on, and 8 % below it at 2. Between one and
    two trials it grows in proportion.
    """
    if n_trials < 2.0:
        return max(n_trials - 1.0, 0.0) * expected_maximum_sharpe(variance_of_trials, 2.0)
    highest = scipy.stats.norm.ppf([1.0 - 1.0 / n_trials, 1.0 - 1.0 / (n_trials * math.e)])
    weights = np.array([1.0 - _EULER_MASCHERONI, _EULER_MASCHERONI])
    return math.sqrt(variance_of_trials) * float(weights @ highest)


def trial_variance(trials: Floats) -> float:
    """Variance of the Sharpe ratios of trials, and no less than luck alone makes of unrelated ones.

    Parameters
    ----------
    trials : ndarray of float64, shape (sessions, trials)
        Net profit of each session.

    Notes
    -----
    Ratios of trials that hang together lie close to each other, and `trials_count.effective_trials` has counted them as
    fewer for it. Counted twice, correlation made the best of ten noise strategies that share nine tenths of their
    profits pass in 9 of 100 cases. Luck's own variance is ``1/(n − 1)`` (Lo 2002 at a ratio of 0).
    """
    pnl = np.asarray(trials, dtype=np.float64)
    ratios = np.array([sharpe_ratio(column).per_session for column in pnl.T])
    known = ratios[np.isfinite(ratios)]
    observed = float(known.var(ddof=1)) if len(known) >= 2 else 0.0
    return max(observed, 1.0 / max(len(pnl) - 1, 1))


@dataclass(frozen=True)
class DeflatedSharpe:
    """A ratio held against the best that so many trials without an edge would show."""

    probability: float
    """That the true ratio lies above ``benchmark``; NaN if there is no ratio."""
    benchmark: float
    """Per session."""
    sharpe: Sharpe
    n_trials: float
    variance_of_trials: float


def deflated_sharpe(daily_pnl: Floats, *, n_trials: float, variance_of_trials: float) -> DeflatedSharpe:
    """Hold a record against the number of tries behind it.

    Parameters
    ----------
    daily_pnl : ndarray of float64, shape (n,)
        Of the trial that was chosen, net profit by session.
    n_trials : float
        Independent trials behind the choice, this one included.
    variance_of_trials : float
        Of their ratios per session (`trial_variance`).

    Notes
    -----
    Bailey & López de Prado (2014). What it assumes beyond the module's: that every trial is counted, and that the
    spread of the trials' ratios is luck. How often it is wrong where there is no edge stands in ``docs/validation.md``.
    """
    sharpe, benchmark = sharpe_ratio(daily_pnl), expected_maximum_sharpe(variance_of_trials, n_trials)
    return DeflatedSharpe(probabilistic_sharpe(sharpe, benchmark), benchmark, sharpe, n_trials, variance_of_trials)


def minimum_track_record_sessions(
    sharpe: Sharpe, benchmark: float = 0.0, confidence: float = 0.95, *, n_trials: float = 1.0
) -> float:
    """Give the number of sessions after which this ratio would be above the benchmark with the confidence.

    Parameters
    ----------
    sharpe : Sharpe
    benchmark : float
        Per session, whatever the length of the record.
    confidence : float
        One-sided.
    n_trials : float
        Independent trials behind the choice: the best of them is lucky, and the less so the longer the record is.

    Returns
    -------
    float
        A whole number; infinite for a ratio that is not above the benchmark, NaN if there is none.

    Notes
    -----
    Bailey & López de Prado (2012), with what luck makes of ``n_trials`` unrelated trials, whose ratios have the
    variance ``1/(n − 1)``, added to the distance that is asked (`expected_maximum_sharpe`). It takes the record's
    ratio, skew and kurtosis for the true ones, so it is a rough figure while the record is short, and too small for a
    ratio that was picked because it is large.
    """
    if math.isnan(sharpe.per_session):
        return math.nan
    if sharpe.per_session <= benchmark:
        return math.inf
    factor = _variance_factor(sharpe.per_session, sharpe.skew, sharpe.kurtosis)
    asked = float(scipy.stats.norm.ppf(confidence)) * math.sqrt(factor) + expected_maximum_sharpe(1.0, n_trials)
    return float(math.ceil(1.0 + (asked / (sharpe.per_session - benchmark)) ** 2))


def _variance_factor(ratio: float, skew: float, kurtosis: float) -> float:
    return 1.0 - skew * ratio + (kurtosis - 1.0) / 4.0 * ratio**2
