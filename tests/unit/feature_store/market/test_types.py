from feature_store.market.types import Universe


def test_the_markets_index_comes_first_even_where_nobody_said_that_it_is_not_tradable() -> None:
    universe = Universe.from_symbols(["RELIANCE", "ADANIPORTS", "NIFTY 50"])
    assert [one.symbol for one in universe.instruments] == ["NIFTY 50", "ADANIPORTS", "RELIANCE"]
    assert universe.market_index == 0
