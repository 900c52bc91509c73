"""What a candidate's trades are worth, after so many tries: the figures that the gate for real money looks at. Pure.

*How many tries* is counted from the table of trials, by configuration: whoever trains again, on the same sessions or
with one more, or deletes runs, has not tried less. Trials that have the candidate's very sessions stand beside it in
one matrix, where those that made the same profits on the same days count as fewer (`validation.trials_count`) and in
which the probability of overfitting is asked. Every other configuration counts one: those that were traded on other
sessions only, and the tries of a search, which were never traded and have a score alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models_registry.validation.drawdown import Drawdown, drawdown
from models_registry.validation.overfitting import NotApplicable, Overfitting, probability_of_overfitting
from models_registry.validation.sharpe import (
    DeflatedSharpe,
    deflated_sharpe,
    minimum_track_record_sessions,
    sharpe_ratio,
    trial_variance,
)
from models_registry.validation.trials_count import effective_trials

Floats = NDArray[np.float64]

CONFIDENCE = 0.95
"""One-sided, of the track record."""


@dataclass(frozen=True, slots=True)
class Tried:
    """A configuration that was tried, as `models_registry.trials.Trial` has it."""

    config_digest: str
    daily_pnl_inr: Mapping[str, float]
    """Net profit out of fold by session; empty if it was never traded."""


@dataclass(frozen=True, slots=True)
class Look:
    """How often sessions that a candidate was not trained on were looked at, and how."""

    times: int
    by_kind: Mapping[str, int]
    since: str
    """Date of the last session that it was trained on; what is later is held out."""


@dataclass(frozen=True, slots=True, eq=False)
class Economics:
    """What the trades of unseen sessions are worth."""

    deflated: DeflatedSharpe
    """The Sharpe ratio of the sessions, held against the tries."""
    track_record_sessions: float
    """How many sessions a ratio like this needs to be above what the tries would show by luck; infinite if it is not,
    NaN if there is no ratio."""
    overfitting: Overfitting | NotApplicable
    drawdown: Drawdown
    capital_inr: float
    """What the account began with."""
    configurations: int
    """That were tried, this one included."""
    compared: int
    """Of these, those that were traded on the same sessions."""
    looks: Look

    @property
    def sessions(self) -> int:
        """Sessions of the record."""
        return self.deflated.sharpe.n

    @property
    def sessions_missing(self) -> float:
        """How many more sessions the record needs; infinite where no number would do, NaN if there is no ratio."""
        return max(self.track_record_sessions - self.sessions, 0.0)

    @property
    def drawdown_share(self) -> float:
        """The deepest fall as a share of the capital."""
        return self.drawdown.largest_inr / self.capital_inr

    def metrics(self) -> dict[str, float]:
        """Give the figures that a version is registered with; those that do not exist are left out."""
        sharpe = self.deflated.sharpe
        found = {
            "sharpe_per_session": sharpe.per_session,
            "sharpe_standard_error": sharpe.standard_error,
            "sharpe_annual": sharpe.annual,
            "sharpe_annual_standard_error": sharpe.annual_standard_error,
            "deflated_sharpe_probability": self.deflated.probability,
            "deflated_sharpe_benchmark": self.deflated.benchmark,
            "minimum_track_record_sessions": self.track_record_sessions,
            "configurations_tried": float(self.configurations),
            "effective_trials": self.deflated.n_trials,
            "max_drawdown_inr": self.drawdown.largest_inr,
            "max_drawdown_share": self.drawdown_share,
            "holdout_looks": float(self.looks.times),
        }
        if isinstance(self.overfitting, Overfitting):
            found["overfitting_probability"] = self.overfitting.probability
        return {name: value for name, value in found.items() if math.isfinite(value)}


def economics(
    daily_pnl_inr: Mapping[str, float],
    tried: Iterable[Tried],
    *,
    config_digest: str,
    capital_inr: float,
    looks: Look,
) -> Economics:
    """Judge the record of a candidate.

    Parameters
    ----------
    daily_pnl_inr : mapping
        The candidate's net profit by session (``YYYY-MM-DD``), rupees; 0 where it did not trade.
    tried : iterable of Tried
        Every trial of its model's name; whether the candidate is among them makes no difference.
    config_digest : str
        The candidate's configuration.
    capital_inr : float
        What its account begins with.
    looks : Look
        At the hold-out.

    Notes
    -----
    Of a configuration that was traded on these sessions more than once, with other data, the newest counts. Where
    tries cannot be compared by their profits, the spread of their ratios is not known: it is then taken for at least
    what luck alone makes of one ratio, its squared standard error.
    """
    sessions = sorted(daily_pnl_inr)
    ours = _record(daily_pnl_inr, sessions)
    others = [one for one in tried if one.config_digest != config_digest]
    beside = {one.config_digest: one.daily_pnl_inr for one in others if set(sessions) <= one.daily_pnl_inr.keys()}
    alone = {one.config_digest for one in others} - beside.keys()
    matrix = np.stack([ours, *(_record(pnl, sessions) for pnl in beside.values())], axis=1)
    deflated = _deflated(ours, matrix, len(alone))
    return Economics(
        deflated=deflated,
        track_record_sessions=minimum_track_record_sessions(deflated.sharpe, deflated.benchmark, CONFIDENCE),
        overfitting=_overfitting(matrix),
        drawdown=drawdown(np.cumsum(ours)),
        capital_inr=capital_inr,
        configurations=matrix.shape[1] + len(alone),
        compared=matrix.shape[1],
        looks=looks,
    )


def _record(pnl: Mapping[str, float], sessions: Sequence[str]) -> Floats:
    return np.array([pnl[date] for date in sessions], dtype=np.float64)


def _deflated(ours: Floats, matrix: Floats, alone: int) -> DeflatedSharpe:
    number = effective_trials(matrix).number + alone if len(ours) else float(matrix.shape[1] + alone)
    variance = trial_variance(matrix)
    if alone:
        error = sharpe_ratio(ours).standard_error
        variance = max(variance, error**2 if math.isfinite(error) else 0.0)
    return deflated_sharpe(ours, n_trials=number, variance_of_trials=variance)


def _overfitting(matrix: Floats) -> Overfitting | NotApplicable:
    return probability_of_overfitting(matrix) if len(matrix) else NotApplicable("no session was traded")
