"""What a session comes to depends on the market, not on how it was cut into frames and partitions."""

from __future__ import annotations

import dataclasses

from hypothesis import given, settings
from hypothesis import strategies as st

from live_services.backtest.engine import EngineConfig, MarketDay, assignments_at_open, run_session
from live_services.domain.limits import AccountConfig, RiskLimits
from live_services.domain.strategy.asked import Assignment
from models_registry.specification import StrategySpec
from tests.live_world import MINUTE, OPEN, SECOND, SESSION, UNIVERSE, bars, loaded_model, random_walk

ACCOUNT = AccountConfig(pnl_interval_seconds=7, risk=RiskLimits(max_open_positions=2))
CONFIG = EngineConfig(
    (
        StrategySpec(name="momentum", holding_bars=2),
        StrategySpec(name="other", holding_bars=5, stop_bps=10, target_bps=15, priority=-1),
    ),
    {"paper": ACCOUNT},
)
ASSIGNED = (
    *assignments_at_open(SESSION, {"momentum": loaded_model(), "other": loaded_model("2", ["z_score"], 1.0, -1.0)}),
    Assignment(OPEN + 30 * MINUTE, "momentum", loaded_model("3", ["rsi"], 60.0, 40.0)),
    Assignment(OPEN + 35 * MINUTE, "other", None),
)
TICKS = random_walk(4, minutes=40, per_minute=15, seed=11)
BARS = bars(*((i, k, 100.0 + (k * (i + 3)) % 11, 100.0 + (k * (i + 5)) % 13) for i in range(3) for k in range(60)))
DAYS = [MarketDay(SESSION, UNIVERSE, market, ASSIGNED) for market in (TICKS, BARS)]
WHOLE = [run_session(day, CONFIG) for day in DAYS]


@settings(deadline=None, max_examples=15)
@given(
    st.integers(min_value=3 * SECOND, max_value=400 * MINUTE),
    st.sampled_from([0, 1]),
    st.sampled_from([1, 2, 4]),
)
def test_the_result_does_not_depend_on_the_size_of_the_frames_or_the_number_of_partitions(
    frame_ns: int, kind: int, partitions: int
) -> None:
    events = run_session(DAYS[kind], dataclasses.replace(CONFIG, market_partitions=partitions), frame_ns)
    assert len(events) > 50
    assert events == WHOLE[kind]


def test_frames_on_minute_boundaries_give_the_same_result() -> None:
    for frame_ns in (MINUTE, 10 * SECOND, 5 * MINUTE):
        for day, whole in zip(DAYS, WHOLE, strict=True):
            assert run_session(day, CONFIG, frame_ns) == whole
