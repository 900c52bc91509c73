"""What those who do not write an account's books may see of them."""

from __future__ import annotations

from typing import Protocol

from live_services.domain.account.orders import Order
from live_services.domain.account.trading_states import TradingStates
from live_services.domain.events import Position

PositionKey = tuple[str, int]
"""A strategy and an instrument token."""


class AccountView(Protocol):
    """What those who do not write the books may see of them."""

    @property
    def positions(self) -> dict[PositionKey, Position]:
        """What is open, by strategy and instrument token."""
        ...

    @property
    def orders(self) -> dict[str, Order]:
        """What is under way, by order id."""
        ...

    @property
    def epoch(self) -> int:
        """Changes when the books were opened anew from a record."""
        ...

    @property
    def trading_states(self) -> TradingStates:
        """Who may trade."""
        ...

    @property
    def handed_in(self) -> tuple[str, ...]:
        """Dead letters whose records were taken as new ones."""
        ...

    @property
    def open_positions(self) -> int:
        """Positions that are open, or will be once the orders under way have filled."""
        ...

    def is_taken(self, key: PositionKey) -> bool:
        """Whether a strategy holds an instrument or has an order under way there."""
        ...

    def is_closing(self, key: PositionKey) -> bool:
        """Whether an exit at the market is under way."""
        ...

    def is_protected(self, key: PositionKey) -> bool:
        """Whether a stop or a target rests."""
        ...

    def quantity(self, instrument_token: int) -> int:
        """Shares held or under way of an instrument, of all strategies, without netting."""
        ...

    def gross_notional_inr_e4(self) -> int:
        """Value of everything held or under way at its marks, without netting."""
        ...
