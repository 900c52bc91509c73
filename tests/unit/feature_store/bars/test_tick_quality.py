import dataclasses

import numpy as np
import pytest

from feature_store.bars import tick_quality
from feature_store.market.types import Ticks
from feature_store.sources.synthetic import SyntheticMarket, synthetic_market


@pytest.fixture(scope="module")
def market() -> SyntheticMarket:
    return synthetic_market(instruments=3, sessions=1, seed=2, index=False)


@pytest.fixture(scope="module")
def ticks(market: SyntheticMarket) -> Ticks:
    return market.ticks[0][:6000]


def test_ticks_of_a_day_volume_have_nothing_to_count(ticks: Ticks, market: SyntheticMarket) -> None:
    counts = tick_quality.builder_counts(ticks, market.tick_sessions[0], 3)
    assert counts["ticks"] == 6000
    assert counts["volume_decreases"] == counts["volume_resets"] == counts["late"] == counts["outside_session"] == 0
    assert tick_quality.falling_volumes(ticks, market.universe).empty


def test_the_quantity_of_the_last_trade_is_no_day_volume(ticks: Ticks, market: SyntheticMarket) -> None:
    mine = ticks.instrument == 1
    quantities = np.random.default_rng(1).integers(1, 500, len(ticks))
    wrong = dataclasses.replace(ticks, day_volume=np.where(mine, quantities, ticks.day_volume))
    assert tick_quality.builder_counts(wrong, market.tick_sessions[0], 3)["volume_decreases"] > 0
    (row,) = tick_quality.falling_volumes(wrong, market.universe).to_dict("records")
    assert (row["symbol"], row["ticks"], row["no_day_volume"]) == ("SYN002", mine.sum(), True)
    assert row["share"] > 0.9


def test_a_value_that_a_source_repeats_once_is_counted_and_is_no_other_volume(
    ticks: Ticks, market: SyntheticMarket
) -> None:
    volume = ticks.day_volume.copy()
    row = np.flatnonzero(ticks.instrument == 0)[1000]
    volume[row] = 0
    found = tick_quality.falling_volumes(dataclasses.replace(ticks, day_volume=volume), market.universe)
    assert found[["symbol", "falls", "no_day_volume"]].to_numpy().tolist() == [["SYN001", 1, False]]


def test_a_handful_of_ticks_says_nothing(ticks: Ticks, market: SyntheticMarket) -> None:
    few = dataclasses.replace(ticks[:12], day_volume=np.arange(12, 0, -1))
    assert not tick_quality.falling_volumes(few, market.universe)["no_day_volume"].any()
