"""What the gates ask for, rung by rung: ``[gates.champion]`` and ``[gates.live]`` of the settings."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class GateLimits(BaseModel):
    """The limits of one rung."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    minimum_test_rows: int = Field(default=5_000, ge=1)
    """Out-of-fold rows that the figures must stand on."""
    minimum_test_sessions: int = Field(default=5, ge=2)
    """Sessions that the figures, and those of a comparison with the champion, must stand on."""
    maximum_auc: float = Field(default=0.9, gt=0.5, le=1.0)
    """Nothing ranks the returns of the next minutes this well; a score that does has seen the label."""
    suspicious_auc: float = Field(default=0.57, ge=0.5, le=1.0)
    """From here on a score must show that it is no leak; below, a leak cannot be told from noise."""
    maximum_feature_importance: float = Field(default=5.0, gt=0)
    """What one feature may carry of the skill that no other tells, in fair shares: with 20 features, 5 of 20."""
    minimum_shift_retention: float = Field(default=0.7, ge=0.0, le=1.0)
    """What must be left of the skill, AUC less one half, when the same scores are held against the label of one bar
    later."""
    minimum_trades: int = Field(default=100, ge=1)
    """A mean over fewer trades says little: single minutes' trades scatter by about 30 bps, so 100 of them by 3."""
    minimum_net_expectancy_bps: float = 0.0
    """A trade must earn more than this after costs, basis points of its entry's notional."""
    minimum_deflated_sharpe: float = Field(default=0.95, ge=0.5, lt=1.0)
    """Probability that the Sharpe ratio is above what the best of so many tries would show by luck."""
    maximum_overfitting: float = Field(default=0.5, gt=0.0, le=1.0)
    """Probability that the best configuration of one half of the sessions is below the median in the other."""
    maximum_drawdown: float = Field(default=0.1, gt=0.0, le=1.0)
    """Deepest fall of the account from a height before, as a share of what it began with."""
    maximum_participation: float = Field(default=0.01, gt=0.0, le=1.0)
    """Share of the value traded in the bar of its entry that 95 in 100 trades may be; about a hundredth is taken to
    fill without moving the price."""


class GatesSettings(BaseModel):
    """Limits by rung; ``challenger`` is scored in shadow and asks for nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    champion: GateLimits = GateLimits()
    live: GateLimits = GateLimits(minimum_test_sessions=20, minimum_trades=300)
