"""Risk: every raw signal becomes exactly one validated or one rejected signal.

A rule is a small callable ``(signal, view, limits) -> Rejection | None``. The portfolio it sees is the last snapshot
of a whole second before the signal, plus a reservation for everything accepted since and not yet settled.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from feature_store.market.types import Session, ist_text
from live_services.domain.basis import RiskVerdict, handed_on
from live_services.domain.events import (
    Basis,
    PnlSnapshot,
    Side,
    SignalGenerated,
    SignalRejected,
    SignalValidated,
    event_id,
)
from live_services.settings import RiskSettings

NOTHING_TO_REDUCE: Final = "nothing_to_reduce"
"""Rule that refuses a close without a position; the broker's reduce-only clamp uses the same word."""


def signed(side: Side, quantity: int) -> int:
    """Give the change of a position: positive for BUY, negative for SELL."""
    return quantity if side == "BUY" else -quantity


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why a rule refused a signal."""

    rule: str
    limit: str
    observed: str


@dataclass(frozen=True, slots=True)
class Holding:
    """One instrument as risk sees it: signed quantity with reservations, and a price in rupees."""

    quantity: int
    price: float

    @property
    def notional_inr(self) -> float:
        """Absolute value of the holding, rupees."""
        return abs(self.quantity) * self.price


@dataclass(frozen=True, slots=True)
class PortfolioView:
    """What the rules look at: the session, and the holdings that are not flat by instrument token."""

    session: Session
    holdings: Mapping[int, Holding]
    accepted: Mapping[tuple[str, int], int]
    """Signed quantity that was accepted for a strategy, by (strategy, instrument token): what it may close."""

    def quantity(self, instrument_token: int) -> int:
        """Signed quantity held or reserved; 0 when flat."""
        holding = self.holdings.get(instrument_token)
        return holding.quantity if holding else 0

    def others(self, instrument_token: int) -> Iterable[Holding]:
        """Holdings of every other instrument."""
        return (holding for token, holding in self.holdings.items() if token != instrument_token)


class Rule(Protocol):
    """A risk rule; ``__name__`` is the name it goes by in events."""

    __name__: str

    def __call__(self, signal: SignalGenerated, view: PortfolioView, limits: RiskSettings, /) -> Rejection | None:
        """Refuse the signal with a reason, or let it pass with None."""
        ...


def market_hours(signal: SignalGenerated, view: PortfolioView, _limits: RiskSettings) -> Rejection | None:
    """Refuse a decision outside the session: it could not fill."""
    session = view.session
    if session.open_ns <= signal.event_time_ns < session.close_ns:
        return None
    limit = f"decision within {ist_text(session.open_ns)} … {ist_text(session.close_ns)}"
    return Rejection("market_hours", limit, ist_text(signal.event_time_ns))


def nothing_to_reduce(signal: SignalGenerated, view: PortfolioView, _limits: RiskSettings) -> Rejection | None:
    """Refuse a close when there is no position on the other side."""
    held = view.quantity(signal.instrument_token)
    if reducible(signal, view) > 0:
        return None
    return Rejection(NOTHING_TO_REDUCE, f"a position that a {signal.side} reduces", f"position {held}")


def no_pyramiding(signal: SignalGenerated, view: PortfolioView, _limits: RiskSettings) -> Rejection | None:
    """Refuse to open on an instrument that already has a position or a reservation."""
    held = view.quantity(signal.instrument_token)
    return Rejection("no_pyramiding", "no position on the instrument", f"position {held}") if held else None


def quantity_per_instrument(signal: SignalGenerated, view: PortfolioView, limits: RiskSettings) -> Rejection | None:
    """Refuse a position of more shares than the limit."""
    after, limit = abs(_quantity_after(signal, view)), limits.max_quantity_per_instrument
    return Rejection("quantity_per_instrument", f"{limit} shares", f"{after} shares") if after > limit else None


def notional_per_instrument(signal: SignalGenerated, view: PortfolioView, limits: RiskSettings) -> Rejection | None:
    """Refuse a position worth more than the limit at the signal's reference price."""
    after = abs(_quantity_after(signal, view)) * signal.reference_price
    return _over("notional_per_instrument", after, limits.max_notional_per_instrument_inr)


def gross_notional(signal: SignalGenerated, view: PortfolioView, limits: RiskSettings) -> Rejection | None:
    """Refuse when the absolute values of all positions together would exceed the limit."""
    own = abs(_quantity_after(signal, view)) * signal.reference_price
    others = sum(holding.notional_inr for holding in view.others(signal.instrument_token))
    return _over("gross_notional", own + others, limits.max_gross_notional_inr)


def open_positions(signal: SignalGenerated, view: PortfolioView, limits: RiskSettings) -> Rejection | None:
    """Refuse one more open position than the limit."""
    after, limit = sum(1 for _ in view.others(signal.instrument_token)) + 1, limits.max_open_positions
    return Rejection("open_positions", f"{limit} positions", f"{after} positions") if after > limit else None


OPEN_RULES: Final[tuple[Rule, ...]] = (
    market_hours,
    no_pyramiding,
    quantity_per_instrument,
    notional_per_instrument,
    gross_notional,
    open_positions,
)
CLOSE_RULES: Final[tuple[Rule, ...]] = (market_hours, nothing_to_reduce)
"""A close is never refused for its size: it makes the account smaller."""


def _over(rule: str, observed_inr: float, limit_inr: float) -> Rejection | None:
    if observed_inr <= limit_inr:
        return None
    return Rejection(rule, f"₹{limit_inr:,.2f}", f"₹{observed_inr:,.2f}")


def _quantity_after(signal: SignalGenerated, view: PortfolioView) -> int:
    return view.quantity(signal.instrument_token) + signed(signal.side, signal.quantity)


def reducible(signal: SignalGenerated, view: PortfolioView) -> int:
    """Shares that a signal can take off the position: never another strategy's; 0 when it would add to it."""
    held = view.quantity(signal.instrument_token)
    own = view.accepted.get((signal.strategy, signal.instrument_token), 0)
    return max(min(-held, -own) if signal.side == "BUY" else min(held, own), 0)


@dataclass(frozen=True, slots=True)
class _Reservation:
    instrument_token: int
    quantity: int
    price: float


@dataclass(slots=True)
class RiskState:
    """One broker's account for one session: the last snapshot and what was accepted since."""

    session: Session
    limits: RiskSettings
    snapshot: dict[int, Holding] = field(default_factory=dict)
    reservations: dict[str, _Reservation] = field(default_factory=dict)
    accepted: dict[tuple[str, int], int] = field(default_factory=dict)

    def view(self) -> PortfolioView:
        """Add the reservations to the snapshot."""
        holdings = dict(self.snapshot)
        for reservation in self.reservations.values():
            held = holdings.get(reservation.instrument_token, Holding(0, reservation.price))
            holdings[reservation.instrument_token] = Holding(held.quantity + reservation.quantity, held.price)
        not_flat = {token: holding for token, holding in holdings.items() if holding.quantity}
        return PortfolioView(self.session, not_flat, self.accepted)


def apply_snapshot(state: RiskState, snapshot: PnlSnapshot) -> None:
    """Take over a snapshot and drop the reservations it settles."""
    state.snapshot = {
        position.instrument_token: Holding(position.quantity, position.mark_price)
        for position in snapshot.positions
        if position.quantity
    }
    for signal_id in snapshot.settled_signal_ids:
        state.reservations.pop(signal_id, None)


def decide(state: RiskState, signal: SignalGenerated, basis: Basis | None = None) -> RiskVerdict:
    """Judge one raw signal and reserve what it may use.

    The verdict has the signal's event time. A close is capped at the position, reservations included.
    """
    view = state.view()
    rules = OPEN_RULES if signal.intent == "open" else CLOSE_RULES
    common = handed_on(signal) | {
        "event_time_ns": signal.event_time_ns,
        "basis": basis or Basis(),
        "signal_id": signal.event_id,
    }
    for rule in rules:
        rejection = rule(signal, view, state.limits)
        if rejection is not None:
            return SignalRejected(
                **common,
                event_id=event_id("rejected", signal.event_id),
                quantity=signal.quantity,
                rule=rejection.rule,
                limit=rejection.limit,
                observed=rejection.observed,
            )
    quantity = signal.quantity if signal.intent == "open" else min(signal.quantity, reducible(signal, view))
    change, owner = signed(signal.side, quantity), (signal.strategy, signal.instrument_token)
    state.reservations[signal.event_id] = _Reservation(signal.instrument_token, change, signal.reference_price)
    state.accepted[owner] = state.accepted.get(owner, 0) + change
    return SignalValidated(
        **common,
        event_id=event_id("validated", signal.event_id),
        quantity=quantity,
        reference_price=signal.reference_price,
        rules=tuple(rule.__name__ for rule in rules),
    )
