"""Evidence: everything that a check of a gate may look at, in plain values.

What it needs from the right, trades and the champion's frame, is brought by `dagster_project`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from models_registry.refs import FoldResult

if TYPE_CHECKING:
    from models_registry.gates.economics import Economics
    from models_registry.packing import Parity
    from models_registry.training import TrainedModel
    from models_registry.validation.plausibility import Plausibility


@dataclass(frozen=True, slots=True)
class FoldTrades:
    """The trades of one fold's sessions."""

    trades: int
    net_expectancy_bps: float
    """NaN without trades."""

    def metrics(self) -> dict[str, float]:
        """Give the figures that stand beside the fold's others."""
        return _numbers({"trades": float(self.trades), "trade_net_expectancy_bps": self.net_expectancy_bps})


@dataclass(frozen=True, slots=True, kw_only=True)
class TradeEvidence:
    """The trades that the account would have made in the sessions that each fold had not seen.

    A trade that is left open at a session's end counts at the last price, less what closing it there costs. Basis
    points are of a trade's notional at its entry, means are over trades; NaN without any.
    """

    candidate_sha256: str
    """Of the candidate whose trades they are, so that no other is judged by them."""
    sessions: int
    trades: int
    long_trades: int
    short_trades: int
    gross_expectancy_bps: float
    net_expectancy_bps: float
    """After the costs of entry and exit."""
    long_net_expectancy_bps: float
    short_net_expectancy_bps: float
    net_pnl_inr: float
    """Of all trades together, rupees."""
    left_open: int
    """Trades of which shares were open at a session's end."""
    entries_proposed: int
    entries_refused: Mapping[str, int] = field(default_factory=dict)
    """Of these, those that risk refused, by rule."""
    by_fold: Mapping[int, FoldTrades] = field(default_factory=dict)
    net_pnl_by_session: Mapping[str, float] = field(default_factory=dict)
    """What the account's equity gained, rupees, by date (``YYYY-MM-DD``), of every session that was traded."""
    exits: Mapping[str, int] = field(default_factory=dict)
    """Trades by what ended them."""
    turnover_a_session_inr: float = math.nan
    """Value bought and sold, the mean of all sessions."""
    median_participation: float = math.nan
    """What a trade's notional is of the value traded in the bar that it entered in; NaN where that is not known."""
    high_participation: float = math.nan
    """Of 95 in 100 trades it is no more than this; infinite where nothing was traded in that bar."""
    largest_notional_inr: float = math.nan
    """Notional of every trade at which one in 20 would be more than a hundredth of its bar's traded value."""

    def metrics(self) -> dict[str, float]:
        """Give the figures that a version is registered with; an expectancy of no trades is left out."""
        return _numbers(
            {
                "traded_sessions": float(self.sessions),
                "trades": float(self.trades),
                "long_trades": float(self.long_trades),
                "short_trades": float(self.short_trades),
                "trade_gross_expectancy_bps": self.gross_expectancy_bps,
                "trade_net_expectancy_bps": self.net_expectancy_bps,
                "long_trade_net_expectancy_bps": self.long_net_expectancy_bps,
                "short_trade_net_expectancy_bps": self.short_net_expectancy_bps,
                "trades_net_pnl_inr": self.net_pnl_inr,
                "trades_left_open": float(self.left_open),
                "entries_proposed": float(self.entries_proposed),
                "entries_refused": float(sum(self.entries_refused.values())),
                "turnover_a_session_inr": self.turnover_a_session_inr,
                "median_participation": self.median_participation,
                "high_participation": self.high_participation,
                "largest_notional_inr": self.largest_notional_inr,
            }
        )


def _numbers(found: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in found.items() if math.isfinite(value)}


@dataclass(frozen=True, slots=True, kw_only=True)
class ChampionComparison:
    """How a candidate stands against the version that holds the rung now."""

    outcome: Literal["nothing_to_beat", "compared", "not_better", "not_comparable"]
    """``compared``: by ``lower_bound``; ``not_better``: it cannot be better, and ``how`` says why."""
    how: str
    """What was compared with what, or why nothing was: a sentence without its full stop."""
    improvement: float = math.nan
    """The candidate's AUC less the champion's on the same rows; above 0 the candidate is better."""
    lower_bound: float = math.nan
    confidence: float = math.nan
    rows: int = 0
    sessions: int = 0


NO_CHAMPION = ChampionComparison(outcome="nothing_to_beat", how="no champion to beat")


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What the checks look at. What is None could not be made, and a check that needs it fails."""

    metrics: Mapping[str, float]
    """Over all out-of-fold rows; see `training.TrainedModel`."""
    folds: tuple[FoldResult, ...]
    embargo_sessions: int
    sessions: tuple[str, ...]
    """Dates of the sessions that it was trained on."""
    parity: Parity
    bar_source: str
    """What made the bars that it was trained on, ``ticks`` or a vendor's word."""
    trades_on: str
    """What will make the bars that it decides on, in the same words."""
    champion: ChampionComparison
    trades: TradeEvidence | None
    plausibility: Plausibility | None
    economics: Economics | None = None

    @classmethod
    def of(
        cls,
        trained: TrainedModel,
        *,
        parity: Parity,
        bar_source: str,
        trades_on: str,
        champion: ChampionComparison,
        trades: TradeEvidence | None,
        plausibility: Plausibility | None,
        economics: Economics | None = None,
    ) -> Evidence:
        """Take a trained model's measures, and what others found out about it."""
        return cls(
            metrics=trained.metrics,
            folds=trained.folds,
            embargo_sessions=trained.spec.embargo_sessions,
            sessions=tuple(sorted(trained.lineage.sessions)),
            parity=parity,
            bar_source=bar_source or "unknown",
            trades_on=trades_on,
            champion=champion,
            trades=trades,
            plausibility=plausibility,
            economics=economics,
        )
