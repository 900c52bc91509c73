"""A row of a table whose name no instrument has is found."""

import datetime as dt

from feature_store.market.corporate_actions import CorporateAction, CorporateActions
from feature_store.market.membership import MemberPeriod, Membership
from feature_store.market.types import Universe
from feature_store.market.unmatched_names import unmatched_names

DAY = dt.date(2026, 1, 5)
MARKET = Universe.from_symbols(["AAA", "BBB"])


def actions(*symbols: str) -> CorporateActions:
    return CorporateActions(tuple(CorporateAction(symbol, DAY, "split", 0.5) for symbol in symbols))


def test_names_of_each_table_that_no_instrument_has_are_given_in_order() -> None:
    members = Membership((MemberPeriod("BBB", DAY), MemberPeriod("bbb", DAY), MemberPeriod("AAA ", DAY)))
    found = unmatched_names(MARKET, actions("ZZZ", "AAA"), members, Universe.from_symbols(["AAA", "AAB"]))
    assert found == {"corporate_actions": ("ZZZ",), "membership": ("AAA ", "bbb"), "universe": ("AAB",)}


def test_tables_that_match_and_tables_that_are_not_there_say_nothing() -> None:
    assert unmatched_names(MARKET, actions("AAA"), None, None) == {}
    assert unmatched_names(MARKET, CorporateActions.none(), Membership((MemberPeriod("AAA", DAY),)), MARKET) == {}
