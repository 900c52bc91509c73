from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from live_services.domain.engine import EngineConfig, assignments_at_open, run_session

from live_services.domain.strategy.desk import Assignment
from live_services.settings import RiskSettings, TradingSettings
from models_registry.specification import StrategySpec
from tests.live_world import MINUTE, OPEN, SECOND, SESSION, UNIVERSE, bars, loaded_model, random_walk

CONFIG = EngineConfig(
    UNIVERSE,
    strategies=(StrategySpec(name="momentum", holding_bars=2), StrategySpec(name="other", holding_bars=5)),
    trading=TradingSettings(enabled=True, pnl_interval_seconds=7, risk=RiskSettings(max_open_positions=2)),
)
ASSIGNED = (
    *assignments_at_open(SESSION, {"momentum": loaded_model(), "other": loaded_model("2", ["z_score"], 1.0, -1.0)}),
    Assignment(OPEN + 30 * MINUTE, "momentum", loaded_model("3", ["rsi"], 60.0, 40.0)),
    Assignment(OPEN + 35 * MINUTE, "other", None),
)
TICKS = random_walk(4, minutes=40, per_minute=15, seed=11)
BARS = bars(*((i, k, 100.0 + (k * (i + 3)) % 11, 100.0 + (k * (i + 5)) % 13) for i in range(3) for k in range(60)))
WHOLE = {id(market): run_session(market, SESSION, ASSIGNED, CONFIG) for market in (TICKS, BARS)}


@settings(deadline=None, max_examples=15)
@given(st.integers(min_value=3 * SECOND, max_value=400 * MINUTE), st.booleans())
def test_the_result_does_not_depend_on_the_size_of_the_frames(frame_ns: int, on_ticks: bool) -> None:
    market = TICKS if on_ticks else BARS
    events = run_session(market, SESSION, ASSIGNED, CONFIG, frame_ns=frame_ns)
    assert len(events) > 50
    assert events == WHOLE[id(market)]


def test_frames_on_minute_boundaries_give_the_same_result() -> None:
    for frame_ns in (MINUTE, 10 * SECOND, 5 * MINUTE):
        for market in (TICKS, BARS):
            assert run_session(market, SESSION, ASSIGNED, CONFIG, frame_ns=frame_ns) == WHOLE[id(market)]
