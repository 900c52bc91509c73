"""Names in a desk's tables that no instrument has: such a row does nothing, and nobody would see it."""

from __future__ import annotations

from feature_store.market.corporate_actions import CorporateActions
from feature_store.market.membership import Membership
from feature_store.market.types import Universe


def unmatched_names(
    universe: Universe,
    actions: CorporateActions,
    membership: Membership | None,
    instruments: Universe | None,
) -> dict[str, tuple[str, ...]]:
    """Give the symbols of each table that the market does not have, in order.

    Parameters
    ----------
    universe : Universe
        The market's instruments.
    actions : CorporateActions
        The table of ``market.corporate_actions``.
    membership : Membership or None
        The table of ``market.membership``.
    instruments : Universe or None
        The table of ``market.universe``.

    Returns
    -------
    dict of str to tuple of str
        By the setting's name (``corporate_actions``, ``membership``, ``universe``); tables without such a name are
        left out.
    """
    named = {
        "corporate_actions": {action.symbol for action in actions.actions},
        "membership": set() if membership is None else membership.symbols,
        "universe": set() if instruments is None else instruments.index_of_symbol.keys(),
    }
    known = universe.index_of_symbol.keys()
    return {table: tuple(sorted(symbols - known)) for table, symbols in named.items() if symbols - known}
