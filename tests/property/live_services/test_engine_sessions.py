"""An engine that goes on from session to session says what one says that steps the history of each."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

from hypothesis import example, given, settings
from hypothesis import strategies as st

from feature_store.bars.builder import bars_of_session
from feature_store.market.clocks import BarClock
from feature_store.market.types import Bars, Session, Universe
from feature_store.sources.synthetic import synthetic_market
from live_services.backtest.engine import Engine, EngineConfig, MarketDay, fills_of
from live_services.domain.events import Event, SignalGenerated
from live_services.domain.limits import AccountConfig, RiskLimits
from live_services.domain.strategy.asked import Assignment
from live_services.domain.strategy.history import SessionHistory
from models_registry.specification import StrategySpec
from tests.live_world import MINUTE, SECOND, UNIVERSE, loaded_model, session_bars

SESSIONS = [Session.regular(dt.date(2026, 1, day)) for day in (5, 6, 7, 8)]
STRATEGIES = (
    StrategySpec(name="momentum", holding_bars=20, stop_bps=15),
    StrategySpec(name="other", holding_bars=7, product="CNC"),
)
CONFIG = EngineConfig(STRATEGIES, {"paper": AccountConfig(risk=RiskLimits(max_open_positions=3))})
SIMPLE = loaded_model("1", ["momentum", "session_return"], 4e-4, -4e-4)
RECURSIVE = loaded_model("2", ["ema_spread"], 2e-4, -2e-4)
OF_SESSIONS = loaded_model("3", ["overnight_gap", "rsi"], 1e-4, -1e-4)

models = st.sampled_from([SIMPLE, RECURSIVE, OF_SESSIONS, None])
assigned = st.lists(st.tuples(models, models, st.none() | models), min_size=4, max_size=4)


def history(before: Sequence[Session], tables: list[Bars], universe: Universe) -> SessionHistory:
    dates = tuple(session.date.isoformat() for session in before)
    return SessionHistory(universe, dates, Bars.concatenate([tables[0][:0], *tables[: len(before)]]))


def swaps(session: Session, chosen: tuple[object, object, object]) -> tuple[Assignment, ...]:
    open_ns = session.open_ns
    first, second, later = chosen
    found = [Assignment(open_ns, "momentum", first), Assignment(open_ns, "other", second)]  # type: ignore[arg-type]
    if later is not None:
        found.append(Assignment(open_ns + 31 * MINUTE, "momentum", later))  # type: ignore[arg-type]
    return tuple(found)


@example(  # over a session in which nobody ran a model, the desk forgot what the features of the next one stand on
    chosen=[(SIMPLE, SIMPLE, None), (None, None, None), (SIMPLE, RECURSIVE, None), (SIMPLE, SIMPLE, None)],
    seed=0,
    partitions=1,
)
@settings(deadline=None, max_examples=12)
@given(assigned, st.integers(0, 1000), st.sampled_from([1, 2, 4]))
def test_going_on_equals_stepping_history_whatever_runs_when(
    chosen: list[tuple[object, object, object]], seed: int, partitions: int
) -> None:
    tables = [session_bars(session, 3, 375, seed) for session in SESSIONS]
    config = EngineConfig(STRATEGIES, CONFIG.accounts, market_partitions=partitions)
    going_on, stepping = Engine(config), Engine(CONFIG)
    for number, session in enumerate(SESSIONS):
        swapped, before = swaps(session, chosen[number]), history(SESSIONS[:number], tables, UNIVERSE)
        on = going_on.run(MarketDay(session, UNIVERSE, tables[number], swapped))
        assert on == stepping.run(MarketDay(session, UNIVERSE, tables[number], swapped, before))


def test_going_on_equals_stepping_history_on_ticks_with_schemas_that_are_new_on_the_way() -> None:
    made = synthetic_market(instruments=3, sessions=3, edge_bps=6.0, seed=1, tick_sessions=4)
    universe, clock = made.universe, BarClock.minutes(1)
    tables = [bars_of_session(t, s, len(universe), clock) for t, s in zip(made.ticks, made.tick_sessions, strict=True)]
    chosen = [
        (SIMPLE, SIMPLE, None),
        (SIMPLE, RECURSIVE, OF_SESSIONS),
        (OF_SESSIONS, None, None),
        (SIMPLE, RECURSIVE, None),
    ]
    going_on, stepping = Engine(CONFIG), Engine(CONFIG)
    said: list[Event] = []
    for number, session in enumerate(made.tick_sessions):
        swapped, market = swaps(session, chosen[number]), made.ticks[number]
        on = going_on.run(MarketDay(session, universe, market, swapped), 60 * SECOND)
        before = history(made.tick_sessions[:number], tables, universe)
        assert on == stepping.run(MarketDay(session, universe, market, swapped, before))
        said += on
    assert {e.model_version for e in said if isinstance(e, SignalGenerated)} == {"1", "2", "3"}
    assert fills_of(said)
