"""Warm start: a desk that steps the sessions before it says what a full history says, and says so when it cannot.

A hole in the market is what a gap record says; where stored bars stand in for it, nothing is lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from feature_store.bars.builder import bars_of_session
from feature_store.features.engine import feature_table
from feature_store.market.clocks import BarClock
from feature_store.market.types import Bars, Ticks
from live_services.domain.events import MarketGap, SignalGenerated
from live_services.domain.strategy.asked import Assignment
from live_services.domain.strategy.desk import StrategyDesk
from live_services.domain.strategy.history import HistoryUsed, SessionBars, SessionHistory
from live_services.domain.strategy.loaded_model import LoadedModel
from models_registry.specification import StrategySpec
from tests.history_world import HISTORY, TODAY, gap
from tests.live_world import MINUTE, OPEN, SECOND, SESSION, UNIVERSE, loaded_model, random_walk

FULL = Bars.concatenate([HISTORY.before, TODAY])
MODEL = loaded_model(names=["rsi", "momentum", "trend_slope@5m", "vwap_distance"], buy=-1e9, sell=-2e9)
SETTINGS = (StrategySpec(name="momentum", holding_bars=2),)


def desk(history: SessionHistory | None, model: LoadedModel = MODEL, *, of_bars: bool = True) -> StrategyDesk:
    on = StrategyDesk(UNIVERSE, SESSION, SETTINGS, bar_minutes=1, history=history, of_bars=of_bars)
    on.assign(Assignment(OPEN, "momentum", model))
    return on


def feed(on: StrategyDesk, bars: Bars) -> list[SignalGenerated]:
    signals: list[SignalGenerated] = []
    for end in np.unique(bars.end_ns).tolist():
        on.on_bars(bars[bars.end_ns == end])
        signals += on.advance(end + 1)  # type: ignore[arg-type]
    return signals


def rows_of_full_history() -> dict[tuple[int, int], bytes]:
    rows, warm = feature_table(FULL, MODEL.schema, UNIVERSE)
    keys = zip(FULL.instrument.tolist(), FULL.end_ns.tolist(), warm.tolist(), strict=True)
    return {(i, end): rows[k].tobytes() for k, (i, end, is_warm) in enumerate(keys) if is_warm}


def assert_rows_are_those_of_full_history(signals) -> None:  # type: ignore[no-untyped-def]
    full = rows_of_full_history()
    for signal in signals:
        key = (UNIVERSE.index_of_symbol[signal.symbol], signal.bar.end_ns)
        assert np.array(tuple(signal.features.values())).tobytes() == full[key]


def test_a_desk_with_history_opens_from_the_first_bar_on_with_the_rows_of_a_full_history() -> None:
    on = desk(HISTORY)
    assert on.warming() == (3, ())
    signals = feed(on, TODAY)
    assert signals[0].event_time_ns == OPEN + MINUTE
    assert len(signals) > 100
    assert_rows_are_those_of_full_history(signals)


def test_a_desk_without_history_is_warming_and_opens_nothing() -> None:
    on = desk(None)
    assert on.warming() == (3, ("AAA", "BBB", "CCC"))
    assert feed(on, TODAY) == []
    assert len(on.warming()[1]) == 3


def test_a_model_that_comes_in_the_middle_of_the_day_goes_on_from_history_too() -> None:
    on = StrategyDesk(UNIVERSE, SESSION, SETTINGS, bar_minutes=1, history=HISTORY)
    on.assign(Assignment(OPEN, "momentum", None))
    assert feed(on, TODAY[TODAY.end_ns <= OPEN + 100 * MINUTE]) == []
    on.assign(Assignment(OPEN + 100 * MINUTE, "momentum", MODEL))
    signals = feed(on, TODAY[TODAY.end_ns > OPEN + 100 * MINUTE])
    assert signals[0].event_time_ns == OPEN + 101 * MINUTE
    assert_rows_are_those_of_full_history(signals)


# --- gaps of a market that comes as bars ------------------------------------------------------------------------------


def test_a_first_bar_in_the_middle_of_the_session_is_no_gap() -> None:
    on = desk(HISTORY)
    signals = feed(on, TODAY[TODAY.end_ns > OPEN + 60 * MINUTE])
    assert (on.history_used.today_until_ns, on.history_used.broken) == (0, False)
    assert signals[0].event_time_ns == OPEN + 61 * MINUTE


def test_a_gap_at_the_open_is_filled_by_the_stored_bars_of_today_as_if_they_had_come() -> None:
    joined = OPEN + 60 * MINUTE
    on = desk(replace(HISTORY, today=TODAY[TODAY.end_ns <= joined + 5 * MINUTE]))
    assert on.on_gap(gap(0, 61)) == []
    signals = feed(on, TODAY[TODAY.end_ns > joined])
    assert (on.history_used.today_until_ns, on.history_used.broken) == (joined, False)
    assert on.history_used.digest == HISTORY.digest
    assert signals[0].event_time_ns == joined + MINUTE
    assert_rows_are_those_of_full_history(signals)


@pytest.mark.parametrize("stored_until", [0, 59])
def test_a_gap_at_the_open_without_them_lets_features_begin_anew_and_say_warming(stored_until: int) -> None:
    on = desk(replace(HISTORY, today=TODAY[TODAY.end_ns <= OPEN + stored_until * MINUTE]))
    assert on.warming() == (3, ())
    on.on_gap(gap(0, 61))
    signals = feed(on, TODAY[TODAY.end_ns > OPEN + 60 * MINUTE])
    assert on.history_used.broken
    assert signals == []  # two anchors of the recursive feature are days away
    assert len(on.warming()[1]) == 3


def test_behind_a_gap_windows_that_lie_behind_it_are_those_of_a_full_history() -> None:
    model = loaded_model(names=["momentum", "z_score"], buy=-1e9, sell=-2e9)
    on = desk(HISTORY, model)
    before = feed(on, TODAY[TODAY.end_ns < OPEN + 30 * MINUTE])
    on.on_gap(gap(30, 61))
    signals = feed(on, TODAY[TODAY.end_ns >= OPEN + 61 * MINUTE])
    assert on.history_used.broken
    assert len(before) > 50
    assert signals[0].event_time_ns > OPEN + 75 * MINUTE
    rows, _ = feature_table(FULL, model.schema, UNIVERSE)
    full = {(int(i), int(end)): row.tobytes() for i, end, row in zip(FULL.instrument, FULL.end_ns, rows, strict=True)}
    for signal in signals:
        row = np.array(tuple(signal.features.values())).tobytes()
        assert row == full[UNIVERSE.index_of_symbol[signal.symbol], signal.bar.end_ns]


def test_a_gap_decides_the_bars_that_were_over_before_it() -> None:
    on = desk(HISTORY)
    on.on_bars(TODAY[TODAY.end_ns <= OPEN + 2 * MINUTE])
    decided = on.on_gap(gap(2.5, 2.7))
    assert {proposal.event_time_ns for proposal in decided} == {OPEN + MINUTE, OPEN + 2 * MINUTE}
    assert not on.history_used.broken  # no bar ends in it


# --- gaps of a market that comes as ticks -----------------------------------------------------------------------------

WALK = random_walk(len(UNIVERSE), minutes=120, per_minute=6, seed=9)
TICKS = WALK[(WALK.instrument != 2) | (np.arange(len(WALK)) % 14 == 0)]  # the third trades every other minute
TICK_BARS = bars_of_session(TICKS, SESSION, len(UNIVERSE), BarClock.minutes(1))
ON_TICKS = replace(HISTORY, today=TICK_BARS)
VOLUMES = loaded_model(names=["vwap_distance", "momentum", "rsi", "relative_volume"], buy=-1e9, sell=-2e9)


def over_ticks(on: StrategyDesk, gaps: Sequence[MarketGap] = (), step: int = 41) -> list[SignalGenerated]:
    """Give a desk the ticks that no gap took, and the gaps in their place."""
    signals: list[SignalGenerated] = []

    def take(ticks: Ticks) -> None:
        for first in range(0, len(ticks), step):
            signals.extend(on.on_ticks(ticks[first : first + step]))  # type: ignore[arg-type]

    rest = TICKS
    for one in gaps:
        take(rest[rest.event_time_ns < one.event_time_ns])
        signals.extend(on.on_gap(one))  # type: ignore[arg-type]
        rest = rest[rest.event_time_ns >= one.until_ns]
    take(rest)
    return signals + on.advance(OPEN + 120 * MINUTE)  # type: ignore[operator,no-any-return]


def facts(signals: Sequence[SignalGenerated], after: float = 0) -> list[tuple[object, ...]]:
    late = [signal for signal in signals if signal.event_time_ns > OPEN + after * MINUTE]
    return [(s.symbol, s.event_time_ns, s.bar, tuple(s.features.values())) for s in late]


def test_a_first_tick_at_0916_without_a_gap_costs_no_signal() -> None:
    late = TICKS[TICKS.event_time_ns >= OPEN + 70 * SECOND]
    on = desk(ON_TICKS, of_bars=False)
    signals = [*on.on_ticks(late), *on.advance(OPEN + 120 * MINUTE)]
    assert not on.history_used.broken
    assert min(signal.event_time_ns for signal in signals) == OPEN + 2 * MINUTE
    assert len(signals) > 250


@pytest.mark.parametrize(
    "gaps",
    [
        [(0, 31)],
        [(0, 30.4)],
        [(12.3, 12.8)],
        [(40, 55)],
        [(20.5, 61.2), (80, 80.9)],
        [(20.2, 20.3), (20.6, 22.4)],
        [(0, 3.5), (3.6, 3.7), (3.8, 9.1)],
        [(110.5, 119.5)],
    ],
)
@pytest.mark.parametrize("step", [7, 100_000])
def test_stored_bars_stand_in_for_what_a_gap_took_bit_for_bit(gaps: list[tuple[float, float]], step: int) -> None:
    records = [gap(*one) for one in gaps]
    on = desk(ON_TICKS, VOLUMES, of_bars=False)
    signals = over_ticks(on, records, step)
    whole = over_ticks(desk(HISTORY, VOLUMES, of_bars=False))

    def inside(signal: SignalGenerated) -> bool:
        return any(one.event_time_ns < signal.bar.end_ns and signal.bar.start_ns < one.until_ns for one in records)

    assert facts(signals) == facts([signal for signal in whole if not inside(signal)])
    assert not on.history_used.broken


@pytest.mark.parametrize("gaps", [[(0, 20.5)], [(30, 45)], [(30.2, 30.4)], [(10, 20.1), (20.2, 20.3)]])
@pytest.mark.parametrize("names", [["momentum", "relative_volume"], ["momentum@5m"]])
def test_what_is_warm_behind_a_gap_that_nothing_fills_is_what_a_full_history_says(
    gaps: list[tuple[float, float]], names: list[str]
) -> None:
    model = loaded_model(names=names, buy=-1e9, sell=-2e9)
    on = desk(HISTORY, model, of_bars=False)
    signals = over_ticks(on, [gap(*one) for one in gaps])
    assert on.history_used.broken
    whole = facts(over_ticks(desk(HISTORY, model, of_bars=False)))
    assert set(facts(signals)) <= set(whole)
    behind = facts(signals, after=gaps[-1][1])
    assert 0 < len(behind) < len([fact for fact in whole if fact[1] > OPEN + gaps[-1][1] * MINUTE])  # type: ignore[operator]


@pytest.mark.parametrize("broken", [False, True])
def test_a_restart_has_the_bars_of_today_as_they_were_stored_at_the_open_or_of_others_those_that_were_taken(
    *, broken: bool
) -> None:
    history = replace(HISTORY, today=TODAY)
    until_ns, stored = OPEN + 3 * MINUTE, history.today_digest
    used = HistoryUsed(history.sessions, history.digest, until_ns, broken=broken, today_stored=stored)
    assert history.as_it_was(used).today_ends == history.today_ends
    more = replace(HISTORY, today=TODAY[: len(TODAY) // 2]).as_it_was(used)
    assert sorted(more.today_ends) == [OPEN + minute * MINUTE for minute in (1, 2, 3)]


def test_a_gap_outside_the_session_takes_nothing() -> None:
    on = desk(HISTORY, of_bars=False)
    signals = over_ticks(on, [gap(-10, 0)])
    on.on_gap(gap(375, 400))
    assert not on.history_used.broken
    assert facts(signals) == facts(over_ticks(desk(HISTORY, of_bars=False)))


@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize("gaps", [[(0, 31)], [(12.3, 40.8), (60, 61.1)]])
def test_a_session_in_one_step_stands_on_the_bars_of_one_that_was_lived_through(
    gaps: list[tuple[float, float]], stored: bool
) -> None:
    records, history = [gap(*one) for one in gaps], ON_TICKS if stored else HISTORY
    on = desk(history, of_bars=False)
    over_ticks(on, records)
    taken = np.zeros(len(TICKS), dtype=np.bool_)
    for one in records:
        taken |= (TICKS.event_time_ns >= one.event_time_ns) & (TICKS.event_time_ns < one.until_ns)
    again = SessionBars(history, SESSION, MINUTE)
    built = bars_of_session(TICKS[~taken], SESSION, len(UNIVERSE), BarClock.minutes(1))
    stretches = again.take_session(built, records)
    assert [stretch.after_ns for stretch in stretches[1:]] == [g.event_time_ns for g in records if not stored]
    assert Bars.concatenate(stretches[-1].bars).digest() == Bars.concatenate(on._bars.parts).digest()
    assert again.used == on.history_used
