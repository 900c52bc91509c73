"""A restart in the middle of a session: other settings, a corrected store, a registry that is away change nothing."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import structlog

from feature_store.market.types import Session, Universe
from live_services.adapters.kept_histories import HistoryFiles
from live_services.adapters.model_files import ModelFiles
from live_services.domain.basis import Stamp
from live_services.domain.clock import session_end_ns, watermark
from live_services.domain.configuration import config_digest
from live_services.domain.events import (
    AccountOpened,
    Event,
    SignalValidated,
    StrategiesConfigured,
    StrategyModelAssigned,
)
from live_services.domain.frames import encode_tick_frame
from live_services.domain.limits import AccountConfig
from live_services.domain.strategy.history import SessionHistory
from live_services.domain.topics import MARKET_SESSIONS, MARKET_TICKS, STRATEGIES_CONTROL, broker_topics
from live_services.runtime.chain import Chain
from live_services.runtime.failures import DayDiffers
from live_services.runtime.local import MemoryLog, MemoryTask
from live_services.services.account import account_chain
from live_services.services.model_loading import ModelLoader
from live_services.services.session_history import HistoryChanged
from live_services.services.strategy_runner import StrategyRunner
from live_services.settings import Settings
from models_registry.packing import Packed
from models_registry.reconciliation import Standing
from models_registry.refs import Alias
from models_registry.registry import RegistryUnavailable
from models_registry.sample import sample_version
from models_registry.sidecar import Sidecar
from models_registry.specification import Broker, StrategySpec
from tests.account_world import limits
from tests.live_world import MINUTE, OPEN, SESSION, UNIVERSE, past_sessions, random_walk
from tests.toy_chain import frames_of, session_opened

SPEC = StrategySpec(name="momentum", features=("last_return",), holding_bars=2, brokers=("paper", "zerodha"))
OTHER = SPEC.model_copy(update={"notional_per_trade_inr": 20_000.0})
SECOND_SESSION = Session.regular(dt.date(2026, 1, 6))
PAPER = broker_topics("paper")
SAID = (PAPER.signals_raw, PAPER.signals_validated, PAPER.signals_rejected, PAPER.orders_filled, PAPER.pnl_snapshots)


def two_days() -> MemoryLog:
    log = MemoryLog()
    for session in (SESSION, SECOND_SESSION):
        walk = random_walk(3, minutes=20, per_minute=6, seed=2)
        market = replace(walk, event_time_ns=walk.event_time_ns + session.open_ns - OPEN)
        log.append_event(MARKET_SESSIONS, 0, session_opened(session, UNIVERSE))
        _mark(log, session, session.open_ns)
        for number, (part, cut) in enumerate(frames_of(market, MINUTE, session)[:30]):
            log.append(MARKET_TICKS.name, 0, *encode_tick_frame(part, UNIVERSE, number, cut, session))
        _mark(log, session, session_end_ns(session))
    return log


def _mark(log: MemoryLog, session: Session, at_ns: int) -> None:
    log.append_event(MARKET_TICKS, 0, watermark(MARKET_TICKS, 0, session, at_ns, UNIVERSE.digest))


@cache
def sample() -> tuple[Packed, Sidecar]:
    return sample_version(SPEC, created_by="a test", created_at_ns=1)


class Registry:
    """One version, champion, behind a switch."""

    def __init__(self) -> None:
        self.is_away = False

    def fetch(self, name: str, version: str) -> tuple[Sidecar, Mapping[str, bytes]]:
        self._answer()
        packed, sidecar = sample()
        return sidecar, packed.files

    def standings(self, name: str) -> Mapping[Alias, Standing]:
        self._answer()
        return {"champion": Standing("1", "1", None), "live": Standing("1", "1", None)}

    def _answer(self) -> None:
        if self.is_away:
            raise RegistryUnavailable("MLflow does not answer")


class Store:
    """Bars of the sessions before, which somebody may correct."""

    def __init__(self) -> None:
        self.history = past_sessions(UNIVERSE, 2)

    def of(
        self, session: Session, universe: Universe, sessions: Sequence[str] | None = None, needed: int = 0
    ) -> SessionHistory:
        return self.history

    def correct(self) -> None:
        close = self.history.before.close.copy()
        close[7] += 0.05
        self.history = replace(self.history, before=replace(self.history.before, close=close))


class Desk:
    """A runner and an account on one log; each start is a new process with the settings of the moment."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.registry, self.store = Registry(), Store()
        self.strategies: tuple[StrategySpec, ...] = (SPEC,)
        self.config = limits(max_open_positions=2)
        self.loaders: list[ModelLoader] = []
        self.brokers: tuple[Broker, ...] = ("paper",)
        self.keeps_history = True
        self.log = two_days()
        self.runner = MemoryTask(self._runner, self.log)
        self.account = MemoryTask(self._account, self.log)

    def _runner(self) -> Chain:
        loader = ModelLoader(
            self.registry,
            self.registry.standings,
            lambda _name, _version, _rung: None,
            self.strategies,
            brokers=self.brokers,
            bar_minutes=1,
            poll_seconds=600,
            kept=ModelFiles(self.home / "models"),
        )
        self.loaders.append(loader)
        kept = HistoryFiles(self.home / "kept") if self.keeps_history else None
        opened = [e for e in self.log.events(STRATEGIES_CONTROL) if isinstance(e, StrategiesConfigured)]
        runner = StrategyRunner(
            Settings(strategies=self.strategies),
            loader,
            Stamp("d", "commit"),
            brokers=self.brokers,
            opened_for=opened[-1].config.brokers if opened else (),
            history=self.store,
            kept=kept,
        )
        return Chain("strategy_runner", (runner,))

    def _account(self) -> Chain:
        return account_chain("paper", MARKET_TICKS, self.config, Stamp("d", "commit"))

    async def start(self) -> None:
        await self.runner.prepare()

    async def restart(self) -> None:
        self.runner.kill()
        self.account.kill()
        await self.start()

    def trade(self, records: int) -> None:
        """Let both take so many records of the market more, and commit."""
        for _ in range(records):
            for task in (self.runner, self.account):
                for key in task.next:
                    task.fetch(key, 1 if key[0] == MARKET_TICKS.name else 1000)
                task.step()
                task.commit()

    def catch_up(self) -> None:
        while self.runner.is_behind or self.account.is_behind:
            self.trade(1)
        self.trade(2)

    async def stop(self) -> None:
        for loader in self.loaders:
            await loader.stop()

    @property
    def said(self) -> dict[str, list[dict[str, object]]]:
        return {t.name: [event.model_dump(exclude={"basis"}) for event in self.log.events(t)] for t in SAID}

    def of_first_session(self, said: Mapping[str, list[dict[str, object]]]) -> dict[str, list[dict[str, object]]]:
        return {
            t: [e for e in events if int(str(e["event_time_ns"])) < SECOND_SESSION.open_ns]
            for t, events in said.items()
        }

    def control(self, kind: type[Event]) -> list[Event]:
        return [
            e for topic in (STRATEGIES_CONTROL, PAPER.control) for e in self.log.events(topic) if isinstance(e, kind)
        ]


_UNDISTURBED: dict[str, list[dict[str, object]]] = {}


async def undisturbed(home: Path) -> dict[str, list[dict[str, object]]]:
    if not _UNDISTURBED:
        desk = Desk(home / "undisturbed")
        await desk.start()
        desk.catch_up()
        await desk.stop()
        _UNDISTURBED.update(desk.said)
        assert all(_UNDISTURBED.values()), {name: len(events) for name, events in _UNDISTURBED.items()}
    return _UNDISTURBED


async def test_a_session_is_opened_with_its_configuration_its_digest_and_the_commit(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    await desk.start()
    desk.trade(2)
    await desk.stop()
    configured, opened = desk.control(StrategiesConfigured)[0], desk.control(AccountOpened)[0]
    assert isinstance(configured, StrategiesConfigured)
    assert isinstance(opened, AccountOpened)
    assert (configured.config.strategies, configured.config.brokers) == ((SPEC,), ("paper",))
    assert (configured.config_digest, configured.git_commit) == (config_digest(configured.config), "commit")
    assert (opened.config_digest, opened.git_commit) == (config_digest(opened.config), "commit")
    assert desk.log.events(STRATEGIES_CONTROL)[0] == configured


async def test_other_limits_and_strategies_at_a_restart_hold_from_the_next_session_on_and_are_said(
    tmp_path: Path,
) -> None:
    reference, desk = await undisturbed(tmp_path), Desk(tmp_path)
    await desk.start()
    desk.trade(15)
    desk.strategies, desk.config = (OTHER,), limits(max_open_positions=1)
    with structlog.testing.capture_logs() as lines:
        await desk.restart()
        desk.trade(20)
    waiting = [line["changes"] for line in lines if line["event"] == "settings_wait"]
    assert ("risk.max_open_positions: 2 now, 1 then",) in waiting
    assert ("strategies.momentum.notional_per_trade_inr: 100000.0 now, 20000.0 then",) in waiting
    assert desk.account.run.settings_wait == ("risk.max_open_positions: 2 now, 1 then",)
    await desk.restart()  # and once more, from commits behind the change
    desk.catch_up()
    await desk.stop()
    assert desk.of_first_session(desk.said) == desk.of_first_session(reference)
    first, second = (event.config for event in desk.control(AccountOpened) if isinstance(event, AccountOpened))
    assert (first.risk.max_open_positions, second.risk.max_open_positions) == (2, 1)
    configured = [event.config.strategies for event in desk.control(StrategiesConfigured)]  # type: ignore[attr-defined]
    assert configured == [(SPEC,), (OTHER,)]
    assert desk.account.run.settings_wait == desk.runner.run.settings_wait == ()
    quantities = {
        e.quantity
        for e in desk.log.events(PAPER.signals_validated)
        if isinstance(e, SignalValidated) and e.intent == "open" and e.event_time_ns > SECOND_SESSION.open_ns
    }
    assert quantities
    assert max(quantities) * 80 < 20_000


async def test_a_registry_that_is_away_holds_up_no_restart_in_a_session_at_its_end_or_at_the_next_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("live_services.services.model_loading._FIRST_WAIT_SECONDS", 0.0)
    reference, desk = await undisturbed(tmp_path), Desk(tmp_path)
    await desk.start()
    desk.trade(10)
    desk.registry.is_away = True
    stops = []
    for records in (20, 32, 33, 9):  # from the session's open on: in it, at its end, at the next one's open, in that
        await desk.restart()
        desk.trade(records)
        assert desk.runner.run.live
        stops.append(desk.runner.run.now_ns)
    assert stops[0] < SESSION.close_ns < stops[1] < stops[2] == SECOND_SESSION.open_ns < stops[3]
    desk.catch_up()
    await desk.stop()
    assert desk.said == reference
    assert {e.model_version for e in desk.control(StrategyModelAssigned)} == {"1"}  # type: ignore[attr-defined]


async def test_bars_that_are_corrected_in_mid_session_change_nothing_of_it(tmp_path: Path) -> None:
    reference, desk = await undisturbed(tmp_path), Desk(tmp_path)
    await desk.start()
    desk.trade(15)
    desk.store.correct()
    await desk.restart()
    desk.trade(25)
    await desk.stop()
    said = desk.said
    assert said == {topic: events[: len(said[topic])] for topic, events in reference.items()}
    assert len(said[PAPER.signals_raw.name]) > 10


async def test_without_the_kept_bars_a_corrected_store_is_noticed(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.keeps_history = False
    desk.runner.kill()
    await desk.start()
    desk.trade(15)
    desk.store.correct()
    await desk.restart()
    with pytest.raises(HistoryChanged, match="not kept on this machine"):
        desk.trade(5)
    await desk.stop()


async def test_a_broker_that_is_taken_out_hears_proposals_to_the_end_of_its_session(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.brokers = ("paper", "zerodha")
    desk.runner.kill()
    await desk.start()
    desk.trade(10)
    before = len(desk.log.events(broker_topics("zerodha").signals_raw))
    desk.brokers = ("paper",)
    await desk.restart()
    desk.catch_up()
    await desk.stop()
    heard = desk.log.events(broker_topics("zerodha").signals_raw)
    paper = desk.log.events(PAPER.signals_raw)
    assert len(heard) > before > 0
    assert len(heard) == len([event for event in paper if event.event_time_ns < SECOND_SESSION.open_ns])


async def test_code_that_decides_otherwise_ends_with_the_first_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk(tmp_path)
    await desk.start()
    desk.trade(15)
    monkeypatch.setattr("live_services.domain.strategy.desk.shares", lambda *_args, **_kwargs: 3)
    await desk.restart()
    with pytest.raises(DayDiffers, match=r"paper\.signals\.raw at offset \d+, field quantity: said \d+, would say 3\."):
        desk.trade(20)
    await desk.stop()


def test_account_configurations_differ_by_what_decides() -> None:
    assert config_digest(AccountConfig()) == config_digest(AccountConfig())
    assert config_digest(AccountConfig()) != config_digest(limits(max_open_positions=1))
