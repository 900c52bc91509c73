"""What a runner says of the history that its features stand on, and what it does after a restart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import structlog

from feature_store.market.types import Session, Universe
from live_services.domain.basis import Stamp
from live_services.domain.events import StrategyHistoryUsed
from live_services.domain.log import EventRecord, LogPosition, MarketSlice, Readiness, TaskId
from live_services.domain.strategy.asked import Assignment, StrategyKey
from live_services.domain.strategy.history import SessionHistory
from live_services.runtime.service import Opening
from live_services.services.session_history import HistoryChanged
from live_services.services.strategy_runner import StrategyRunner
from live_services.settings import MarketSettings, Settings
from models_registry.specification import StrategySpec
from tests.history_world import HISTORY, TODAY, gap
from tests.live_world import MINUTE, OPEN, SESSION, UNIVERSE, loaded_model

TASK = TaskId("strategy_runner", "shared", 0)


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
