import numpy as np
import pytest
from pydantic import ValidationError

from feature_store.market.types import Instrument, Universe


def kite_universe(count: int, first: int = 1) -> Universe:
    """Instruments with the tokens of NSE shares: the exchange's number times 256, plus the segment 1."""
    return Universe(
        instruments=tuple(Instrument(instrument_token=256 * k + 1, symbol=f"S{k}") for k in range(first, first + count))
    )


def partitions_of(universe: Universe, partitions: int) -> dict[int, int]:
    """Partition of each token."""
    found = universe.partition_of(np.arange(len(universe), dtype=np.int32), partitions)
    return dict(zip(universe.tokens.tolist(), found.tolist(), strict=True))


def test_the_markets_index_comes_first_even_where_nobody_said_that_it_is_not_tradable() -> None:
    universe = Universe.from_symbols(["RELIANCE", "ADANIPORTS", "NIFTY 50"])
    assert [instrument.symbol for instrument in universe.instruments] == ["NIFTY 50", "ADANIPORTS", "RELIANCE"]


@pytest.mark.parametrize("partitions", [2, 3, 4, 8])
@pytest.mark.parametrize("count", [200, 3000])
def test_tokens_of_one_segment_are_shared_out_fairly(count: int, partitions: int) -> None:
    shares = np.bincount(list(partitions_of(kite_universe(count), partitions).values()), minlength=partitions)
    expected = count / partitions
    assert len(shares) == partitions
    assert ((shares - expected) ** 2 / expected).sum() < 24.3  # chi-square of 7 degrees of freedom, p = 0.001


def test_a_partition_is_a_function_of_the_token_alone() -> None:
    whole, part = kite_universe(300), kite_universe(60, first=120)
    turned = Universe(instruments=whole.instruments[::-1])
    assert partitions_of(turned, 4) == partitions_of(whole, 4)
    assert partitions_of(part, 4).items() <= partitions_of(whole, 4).items()


def test_the_hash_is_splitmix64_on_every_machine() -> None:
    """Outputs of splitmix64.c: the first of seed 0, and the first two of seed 1234567."""
    states = [0, 1234567, (1234567 + 0x9E3779B97F4A7C15) % 2**64 - 2**64]  # a token is signed, the hash is not
    outputs = [0xE220A8397B1DCDAF, 6457827717110365317, 3203168211198807973]
    universe = Universe(instruments=tuple(Instrument(instrument_token=s, symbol=str(s)) for s in states))
    for partitions in (2**31 - 1, 1000, 3, 1):
        assert list(partitions_of(universe, partitions).values()) == [output % partitions for output in outputs]


def changed(universe: Universe, **fields: object) -> Universe:
    """The universe with other facts of its first instrument."""
    first, *others = universe.instruments
    return Universe(instruments=(first.model_copy(update=fields), *others))


def test_a_digest_says_what_the_universe_is_whatever_its_order() -> None:
    universe = Universe.from_symbols(["RELIANCE", "ADANIPORTS", "NIFTY 50"], frozenset({"NIFTY 50"}))
    assert Universe(instruments=universe.instruments[::-1]).digest == universe.digest
    others = [
        Universe(instruments=universe.instruments[1:]),
        changed(universe, instrument_token=1),
        changed(universe, symbol="NIFTY BANK"),
        changed(universe, tradable=True),
        changed(universe, tick_size_inr=0.01),
    ]
    assert len({universe.digest, *(other.digest for other in others)}) == 1 + len(others)


def test_a_digest_is_the_same_in_every_process_and_release() -> None:
    universe = Universe.from_symbols(["RELIANCE", "NIFTY 50"], frozenset({"NIFTY 50"}))
    assert universe.digest == "366070aa16d8020c474bc1c8b932185a137f6b74d097a75c773fe70b95af0ff1"


def test_tokens_are_found_whatever_their_order_and_those_that_are_not_there_are_minus_one() -> None:
    universe = Universe.from_symbols(["ONE", "TWO", "THREE", "NIFTY 50"])
    some = universe.tokens[[2, 0, 2, 3]]
    assert universe.indices_of(some).tolist() == [2, 0, 2, 3]
    assert universe.indices_of(np.array([-1, some[0], 2**62])).tolist() == [-1, 2, -1]
    assert universe.indices_of(some[:0]).tolist() == []
    assert Universe(instruments=()).indices_of(some).tolist() == [-1] * 4


@pytest.mark.parametrize("token", [-(2**63) - 1, 2**63, 10**30])
def test_a_token_that_no_array_can_hold_names_no_instrument(token: int) -> None:
    with pytest.raises(ValidationError, match="instrument_token"):
        Instrument(instrument_token=token, symbol="AAA")


@pytest.mark.parametrize("name", ["NIFTY 50", "Nifty 50", "NIFTY_50", "NSE_INDEX|Nifty 50", "nifty"])
def test_the_markets_index_is_found_however_its_name_is_spelt(name: str) -> None:
    universe = Universe.from_symbols(["AAA", "NIFTY BANK", name], frozenset({"NIFTY BANK", name}))
    assert universe.market_index is not None
    assert universe.instruments[universe.market_index].symbol == name
