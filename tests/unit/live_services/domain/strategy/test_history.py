"""Warm start: a desk that steps the sessions before it says what a full history says, and says so when it cannot.

A hole in the market is what a gap record says; where stored bars stand in for it, nothing is lost.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import structlog

from feature_store.bars.builder import aggregate_bars, bars_of_session
from feature_store.features.engine import feature_table
from feature_store.market.clocks import BarClock
from feature_store.market.types import Bars, Session, Ticks, Universe, UnreadableFile
from feature_store.offline.store import OfflineStore
from live_services.adapters.history import StoredHistory
from live_services.domain.basis import Stamp
from live_services.domain.events import MarketGap, SignalGenerated, StrategyHistoryUsed, self_caused
from live_services.domain.log import EventRecord, LogPosition, MarketSlice, Readiness, TaskId
from live_services.domain.strategy.asked import Assignment, StrategyKey
from live_services.domain.strategy.checks import WrongStrategy, strategy_schema
from live_services.domain.strategy.desk import StrategyDesk
from live_services.domain.strategy.history import SessionBars, SessionHistory
from live_services.domain.strategy.loaded_model import LoadedModel
from live_services.runtime.service import Opening
from live_services.services.session_history import HistoryChanged
from live_services.services.strategy_runner import StrategyRunner
from live_services.settings import MarketSettings, Settings
from models_registry.specification import StrategySpec
from tests.live_world import (
    MINUTE,
    OPEN,
    SECOND,
    SESSION,
    UNIVERSE,
    loaded_model,
    past_sessions,
    random_walk,
    session_bars,
)

TASK = TaskId("strategy_runner", "shared", 0)
HISTORY = past_sessions(UNIVERSE, 5)
TODAY = session_bars(SESSION, len(UNIVERSE), 200, seed=1)
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


def gap(begin_minutes: float, until_minutes: float) -> MarketGap:
    begin_ns, until_ns = (OPEN + round(minutes * MINUTE) for minutes in (begin_minutes, until_minutes))
    return MarketGap(
        **self_caused("gap", begin_ns),
        broker="shared",
        event_time_ns=begin_ns,
        until_ns=until_ns,
        reason="the feed was not there",
    )


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


# --- what is said of it -----------------------------------------------------------------------------------------------


def test_the_runner_says_once_that_instruments_are_warming_and_once_that_none_is() -> None:
    service = runner(Source(SessionHistory(UNIVERSE)))
    state = service.open_session(Opening(SESSION, UNIVERSE, TASK))
    state.desk.assign(Assignment(OPEN, "momentum", loaded_model(names=["momentum"])))
    with structlog.testing.capture_logs() as lines:
        for minute in range(1, 40):
            part = TODAY[TODAY.end_ns == OPEN + minute * MINUTE]
            service.handle(MarketSlice(part, LogPosition("market.bars", 0, minute)), state, OPEN + minute * MINUTE)
            service.advance(state, OPEN + minute * MINUTE + 1)
    said = [(line["event"], line["state"]) for line in lines if line["event"].startswith("features_")]
    assert said[0] == ("features_warming", "WARMING 3 of 3 (AAA, BBB, CCC)")
    assert said[-1] == ("features_warm", "all 3 warm")
    assert len(said) == len(set(said)) <= 4
    assert service.readiness(state) == Readiness(3)


def test_readiness_is_one_line_with_the_first_names() -> None:
    assert str(Readiness(3)) == "all 3 warm"
    assert str(Readiness(3, ("AAA", "CCC"))) == "WARMING 2 of 3 (AAA, CCC)"
    assert str(Readiness(9, tuple("ABCDEFG"))) == "WARMING 7 of 9 (A, B, C, D, E, …)"


# --- on the log -------------------------------------------------------------------------------------------------------


class Source:
    """A store whose content the test changes."""

    def __init__(self, history: SessionHistory) -> None:
        self.history = history
        self.asked: list[Sequence[str] | None] = []

    def of(
        self, session: Session, universe: Universe, sessions: Sequence[str] | None = None, needed: int = 0
    ) -> SessionHistory:
        self.asked.append(sessions)
        return self.history


class NoModels:
    outage = "no registry in this test"

    def __init__(self) -> None:
        self.candidates: dict[StrategyKey, object] = {}
        self.refusals: dict[StrategyKey, object] = {}
        self.strayed: dict[StrategyKey, object] = {}

    async def start(self) -> None: ...

    def check(self) -> None: ...


def runner(source: Source) -> StrategyRunner:
    settings = Settings(market=MarketSettings(feed="bars"), strategies=(StrategySpec(name="momentum"),))
    return StrategyRunner(settings, NoModels(), Stamp(), history=source)  # type: ignore[arg-type]


def logged(source: Source) -> StrategyHistoryUsed:
    service = runner(source)
    state = service.open_session(Opening(SESSION, UNIVERSE, TASK))
    (event,) = [e for e in service.commands(state, OPEN) if isinstance(e, StrategyHistoryUsed)]
    assert list(service.handle(EventRecord(event, LogPosition("strategies.control", 0, -1)), state, OPEN)) == []
    assert not [e for e in service.commands(state, OPEN) if isinstance(e, StrategyHistoryUsed)]
    return event


async def test_what_features_stand_on_is_logged_once_and_a_restart_asks_for_the_same_sessions() -> None:
    source = Source(HISTORY)
    event = logged(source)
    assert (event.digest, event.sessions) == (HISTORY.digest, HISTORY.sessions)
    again = runner(source)
    await again.prepare(TASK, [event])
    state = again.open_session(Opening(SESSION, UNIVERSE, TASK))
    assert source.asked == [None, HISTORY.sessions]
    again.handle(EventRecord(event, LogPosition("strategies.control", 0, 0)), state, OPEN)


async def test_a_restart_on_other_bars_ends_with_what_to_do() -> None:
    event = logged(Source(HISTORY))
    close = HISTORY.before.close.copy()
    close[17] += 0.01
    service = runner(Source(replace(HISTORY, before=replace(HISTORY.before, close=close))))
    await service.prepare(TASK, [event])
    state = service.open_session(Opening(SESSION, UNIVERSE, TASK))
    with pytest.raises(HistoryChanged, match=r"stored bars of 2025-12-31 to 2026-01-04.*Bring the bars"):
        service.handle(EventRecord(event, LogPosition("strategies.control", 0, 0)), state, OPEN)


async def test_a_gap_is_logged_and_a_restart_stands_on_what_stood_there_then() -> None:
    source = Source(replace(HISTORY, today=TODAY[TODAY.end_ns <= OPEN + 20 * MINUTE]))
    service = runner(source)
    state = service.open_session(Opening(SESSION, UNIVERSE, TASK))
    at = LogPosition("market.bars", 0, 0)
    control = []
    for told in (None, gap(0, 21), gap(30, 41)):
        if told is not None:
            service.handle(EventRecord(told, at), state, told.event_time_ns)
        (event,) = [e for e in service.commands(state, OPEN + len(control)) if isinstance(e, StrategyHistoryUsed)]
        service.handle(EventRecord(event, at), state, OPEN)
        control.append(event)
    assert [(e.today_until_ns, e.broken) for e in control] == [
        (0, False),
        (OPEN + 20 * MINUTE, False),
        (OPEN + 20 * MINUTE, True),
    ]
    assert len({event.event_id for event in control}) == 3

    source.history = replace(HISTORY, today=TODAY)  # by now the day's bars were stored
    again = runner(source)
    await again.prepare(TASK, control)
    state = again.open_session(Opening(SESSION, UNIVERSE, TASK))
    for event, told in zip(control, (gap(0, 21), gap(30, 41), None), strict=True):
        again.handle(EventRecord(event, at), state, OPEN)
        if told is not None:
            again.handle(EventRecord(told, at), state, told.event_time_ns)
    assert state.desk.history_used.broken


def test_the_digest_does_not_move_with_the_order_of_the_universe_and_does_with_any_value() -> None:
    other = Universe(instruments=tuple(reversed(UNIVERSE.instruments)))
    moved = replace(HISTORY.before, instrument=(len(UNIVERSE) - 1 - HISTORY.before.instrument).astype(np.int32))
    assert SessionHistory(other, HISTORY.sessions, moved).digest == HISTORY.digest
    for column in ("open", "volume", "end_ns", "spread_bps"):
        values = getattr(HISTORY.before, column).copy()
        values[3] = 7
        assert replace(HISTORY, before=replace(HISTORY.before, **{column: values})).digest != HISTORY.digest
    assert replace(HISTORY, sessions=HISTORY.sessions[1:]).digest != HISTORY.digest


# --- from the store ---------------------------------------------------------------------------------------------------


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    made = Settings(alpha_panda_home=tmp_path)
    store = OfflineStore(made.store_root)
    for k in range(5, -1, -1):
        session = Session.regular(SESSION.date - dt.timedelta(days=k))
        store.write_bars(session, UNIVERSE, session_bars(session, len(UNIVERSE), 60, seed=1), "TEST")
    return made


def stored_universe(settings: Settings) -> Universe:
    return OfflineStore(settings.store_root).universe()


def test_the_store_gives_the_last_sessions_before_a_session_and_its_own_stored_bars(settings: Settings) -> None:
    history = StoredHistory(settings).of(SESSION, stored_universe(settings))
    assert history.sessions == ("2026-01-02", "2026-01-03", "2026-01-04")
    universe = history.universe
    assert universe.tokens[history.before.instrument].size == len(history.before) > 400
    assert history.before.end_ns.max() < OPEN
    assert history.today.start_ns.min() == OPEN
    order = np.lexsort((history.before.instrument, history.before.end_ns))
    assert (order == np.arange(len(order))).all()


def test_the_sessions_that_the_log_names_are_taken_and_one_that_is_gone_is_named(settings: Settings) -> None:
    source, universe = StoredHistory(settings), stored_universe(settings)
    assert source.of(SESSION, universe, ("2026-01-01",)).sessions == ("2026-01-01",)
    assert source.of(SESSION, universe, needed=5).sessions[0] == "2025-12-31"
    with pytest.raises(UnreadableFile, match=r"2020-01-01.*bring them back"):
        source.of(SESSION, universe, ("2020-01-01",))


def test_shorter_stored_bars_become_bars_of_the_desk_and_longer_ones_are_left_out(settings: Settings) -> None:
    five = settings.model_copy(update={"market": MarketSettings(bar_minutes=5)})
    universe = OfflineStore(settings.store_root).universe()
    history = StoredHistory(five).of(SESSION, universe, ("2026-01-02",))
    session = Session.regular(dt.date(2026, 1, 2))
    stored = OfflineStore(settings.store_root).read_bars([session])
    assert history.before.digest() == aggregate_bars(stored, session, len(universe), BarClock.parse("5m")).digest()
    OfflineStore(settings.store_root).write_bars(session, universe, history.before, "TEST")
    assert len(StoredHistory(settings).of(SESSION, universe, ("2026-01-02",)).before) == 0


def test_a_universe_of_fewer_instruments_gets_its_own_bars_under_its_own_indices(settings: Settings) -> None:
    whole = OfflineStore(settings.store_root).universe()
    fewer = Universe(instruments=tuple(i for i in reversed(whole.instruments) if i.symbol != "BBB"))
    history, all_of_it = (StoredHistory(settings).of(SESSION, universe) for universe in (fewer, whole))
    mine = fewer.tokens[history.before.instrument] == 101
    theirs = whole.tokens[all_of_it.before.instrument] == 101
    assert (history.before.close[mine] == all_of_it.before.close[theirs]).all()
    assert len(history.before) == (whole.tokens[all_of_it.before.instrument] != 102).sum()


def test_an_empty_store_is_a_history_without_bars(tmp_path: Path) -> None:
    history = StoredHistory(Settings(alpha_panda_home=tmp_path)).of(SESSION, UNIVERSE)
    assert (history.sessions, len(history.before), len(history.today)) == ((), 0, 0)


def test_corporate_actions_of_the_settings_are_part_of_history(settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / "actions.csv"
    path.write_text("symbol,ex_date,kind,factor\nAAA,2026-01-05,split,0.5\n")
    with_actions = settings.model_copy(update={"market": MarketSettings(corporate_actions=path)})
    universe = OfflineStore(settings.store_root).universe()
    adjusted, raw = (StoredHistory(s).of(SESSION, universe) for s in (with_actions, settings))
    assert len(adjusted.actions) == 1
    assert adjusted.digest != raw.digest
    assert adjusted.before.digest() == raw.before.digest()


# --- the settings of a strategy ---------------------------------------------------------------------------------------


def test_a_strategy_picks_features_in_order_and_a_wrong_name_gets_its_neighbour() -> None:
    chosen = StrategySpec(name="momentum", features=("trend_slope@5m", "rsi"))
    assert strategy_schema(chosen).names == ("trend_slope@5m", "rsi")
    with pytest.raises(WrongStrategy, match=r"'momentum': .*did you mean .*rsi"):
        strategy_schema(StrategySpec(name="momentum", features=("rssi",)))
    with pytest.raises(WrongStrategy, match="90s"):
        strategy_schema(StrategySpec(name="momentum", features=("rsi@90s",)))
    assert "momentum" in strategy_schema(StrategySpec(name="momentum")).names


def test_a_feature_in_capitals_is_answered_with_its_name_in_small_letters() -> None:
    with pytest.raises(ValueError, match=r"'Rsi' is not how a feature is named: small letters.*; did you mean 'rsi'\?"):
        StrategySpec(name="momentum", features=("Rsi",))


@pytest.mark.parametrize("wrong", [("rsi", "rsi"), ("RSI",), ("rsi@",), ("",)])
def test_a_list_of_features_that_cannot_be_one_is_refused_with_the_settings(wrong: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="features"):
        StrategySpec(name="momentum", features=wrong)
