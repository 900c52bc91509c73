"""By which limits an account trades; the settings have these as they are, and a session is opened with them."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from live_services.domain.money import LARGEST_INR, MOST_SHARES


class RiskLimits(BaseModel):
    """Limits of one broker's account; what is under way counts as if it were filled."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    max_quantity_per_instrument: int = Field(default=10_000, ge=1, le=MOST_SHARES)
    """Shares of all strategies together, without netting."""
    max_notional_per_instrument_inr: float = Field(default=250_000.0, gt=0, le=LARGEST_INR)
    max_gross_notional_inr: float = Field(default=1_000_000.0, gt=0, le=LARGEST_INR)
    max_open_positions: int = Field(default=10, ge=1)
    """Each strategy's position in an instrument is one."""


class AccountConfig(BaseModel):
    """One broker's account."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    starting_cash_inr: float = Field(default=1_000_000.0, gt=0, le=LARGEST_INR)
    """What a new account begins with; one that is there goes on with what it has."""
    pnl_interval_seconds: int = Field(default=60, ge=1, le=86_400)
    """A snapshot comes at least this often in event time while positions are open, and after every order's end."""
    square_off_minutes_before_close: int = Field(default=5, ge=1, le=1_440)
    """MIS positions that are still open are then closed by a market order, and none is opened any more."""
    slippage_bps: float = Field(default=0.0, ge=0, lt=1000)
    """Basis points by which the paper exchange fills market orders and stops worse than at the price that they take. A
    target is a limit order and fills at its price. A real broker's account has what it gets."""
    risk: RiskLimits = RiskLimits()
