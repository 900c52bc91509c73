"""Sessions through the engine, and through the live tasks cut apart by topics: zero differences."""

from __future__ import annotations

import datetime as dt
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from hypothesis import example, given, settings
from hypothesis import strategies as st

from feature_store.market.types import Bars, Instrument, Session, Ticks, Universe
from live_services.backtest.engine import Engine, EngineConfig, MarketDay
from live_services.domain.basis import Stamp
from live_services.domain.clock import watermark
from live_services.domain.events import (
    Event,
    OrderFilled,
    SignalValidated,
    StrategyModelAssigned,
    TradingStateChanged,
    TradingStateCommanded,
    TradingStateInForce,
    self_caused,
    topic_of,
)
from live_services.domain.frames import encode_bar_frame, encode_tick_frame
from live_services.domain.limits import AccountConfig, RiskLimits
from live_services.domain.replay import cuts_of_session
from live_services.domain.strategy.desk import Assignment
from live_services.domain.strategy.history import SessionHistory
from live_services.domain.strategy.loaded_model import LoadedModel
from live_services.domain.topics import MARKET_SESSIONS, MODELS_LOADED, STRATEGIES_CONTROL, broker_topics, market_topic
from live_services.runtime.chain import Chain
from live_services.runtime.local import MemoryLog, MemoryTask
from live_services.services.account import account_chain
from live_services.services.model_loading import Candidate, ModelLoader
from live_services.services.strategy_runner import StrategyRunner
from live_services.settings import MarketSettings, Settings
from models_registry.specification import Broker, StrategySpec
from tests.live_world import OPEN, loaded_model, random_walk, session_bars
from tests.toy_chain import session_opened

ACCOUNT = AccountConfig(pnl_interval_seconds=20, risk=RiskLimits(max_open_positions=8))
BROKERS: tuple[Broker, ...] = ("paper", "zerodha")
SMALL = {"notional_per_trade_inr": 60_000}
STRATEGIES = (
    StrategySpec(name="momentum", holding_bars=2, brokers=BROKERS, stop_bps=20, target_bps=25, **SMALL),
    StrategySpec(name="other", holding_bars=4, priority=-1, **SMALL),
    StrategySpec(
        name="slow", holding_bars=9, product="CNC", target_bps=40, priority=-2, instruments=("S0", "S2"), **SMALL
    ),
    StrategySpec(
        name="judged",
        rule="stretch",
        rule_parameters={"threshold": 1.0},
        features=("z_score", "volatility"),
        holding_bars=5,
        priority=-3,
        sizing="risk_per_trade",
        **SMALL,
    ),
)
LONGER = loaded_model("2", ["rsi", "momentum", "trend_slope@5m", "vwap_distance"], 60.0, 40.0)
JUDGE = replace(loaded_model("3", ["z_score", "volatility"], -2.0), sell_threshold=None)  # accepts what is not too far
MODELS = {m.identity.model_version: m for m in (loaded_model("1"), LONGER, JUDGE)}
DATES = (dt.date(2026, 1, 5), dt.date(2026, 1, 6))
OF_DAY = tuple(
    # A listing on the second day, in the middle of the order of the instruments.
    Universe(instruments=tuple(Instrument(instrument_token=256 * k + 1, symbol=f"S{k}") for k in tokens))
    for tokens in ((0, 2, 3, 4), (0, 1, 2, 3, 4))
)


@dataclass(frozen=True)
class Day:
    session: Session
    universe: Universe
    market: Ticks | Bars
    history: SessionHistory


def days(on_ticks: bool) -> tuple[Day, ...]:
    made = []
    for k, (date, universe) in enumerate(zip(DATES, OF_DAY, strict=True)):
        session, n = Session.regular(date), len(universe)
        if on_ticks:
            walk = random_walk(n, minutes=30, per_minute=15, seed=21 + k)
            market: Ticks | Bars = replace(walk, event_time_ns=walk.event_time_ns + session.open_ns - OPEN)
        else:
            market = session_bars(session, n, minutes=45, seed=7)
        made.append(Day(session, universe, market, before(date, universe)))
    return tuple(made)


def before(date: dt.date, universe: Universe) -> SessionHistory:
    dates = [date - dt.timedelta(days=k) for k in range(4, 0, -1)]
    bars = [session_bars(Session.regular(one), len(universe), 40, seed=2) for one in dates]
    return SessionHistory(universe, tuple(one.isoformat() for one in dates), Bars.concatenate(bars))


TICK_DAYS, BAR_DAYS = days(on_ticks=True), days(on_ticks=False)


class FixedModels(ModelLoader):
    """A loader whose aliases the test moves."""

    def __init__(self, of: Sequence[Day]) -> None:
        super().__init__(None, None, None, STRATEGIES, brokers=BROKERS, bar_minutes=1, poll_seconds=1)  # type: ignore[arg-type]
        self.candidates = {
            (s.name, rung): Candidate(JUDGE if s.judged else MODELS["1"], "at first")
            for s in STRATEGIES
            for rung in ("champion", "live")
        }
        self._history = {day.session.date: day.history for day in of}

    def of(
        self, session: Session, universe: Universe, sessions: Sequence[str] | None = None, needed: int = 0
    ) -> SessionHistory:
        return self._history[session.date]

    def loaded(self, name: str, version: str) -> LoadedModel:
        return MODELS[version]


def feed(of: Sequence[Day], frame_ms: int, partitions: int) -> MemoryLog:
    log = MemoryLog(partitions)
    for day in of:
        topic = market_topic("ticks" if isinstance(day.market, Ticks) else "bars")
        log.append_event(MARKET_SESSIONS, 0, session_opened(day.session, day.universe))
        for cut in cuts_of_session(
            day.market, day.session, day.universe, partitions, frame_ms=frame_ms, paced=False, frame_rows=1
        ):
            for partition, part in enumerate(cut.parts):
                frame = (day.universe, cut.number, cut.watermark_ns, day.session)
                if not len(part):
                    mark = watermark(topic, partition, day.session, cut.watermark_ns, day.universe.digest)
                    log.append_event(topic, partition, mark)
                elif isinstance(part, Ticks):
                    log.append(topic.name, partition, *encode_tick_frame(part, *frame))
                else:
                    log.append(topic.name, partition, *encode_bar_frame(part, *frame))
    return log


def command(choose: random.Random, log: MemoryLog) -> None:
    """Say what a person might: to a broker or to one of its strategies."""
    topic = broker_topics(choose.choice(BROKERS)).commands
    state, flatten = choose.choice((("ACTIVE", False), ("HALTED", False), ("REDUCING", False), ("REDUCING", True)))
    event = TradingStateCommanded(
        **self_caused("command", len(log.partitions[topic.name, 0])),
        broker=topic.scope,
        event_time_ns=1,
        commanded_at_ns=1,
        state=state,
        flatten=flatten,
        strategy=choose.choice((None, *(s.name for s in STRATEGIES))),
        reason="any",
        commanded_by="a person",
    )
    log.append_event(topic, 0, event)


def run_live(of: Sequence[Day], frame_ms: int, partitions: int, seed: int, kills: int, commands: int = 0) -> MemoryLog:
    kind = "ticks" if isinstance(of[0].market, Ticks) else "bars"
    choose, loader, log = random.Random(seed), FixedModels(of), feed(of, frame_ms, partitions)
    config = Settings(strategies=STRATEGIES, market=MarketSettings(feed=kind), kafka={"market_partitions": partitions})

    def runner() -> Chain:
        return Chain("strategy_runner", (StrategyRunner(config, loader, Stamp(), brokers=BROKERS, history=loader),))

    def account(broker: Broker) -> Chain:
        return account_chain(broker, market_topic(kind), ACCOUNT, Stamp())

    tasks = [MemoryTask(runner, log, partition) for partition in range(partitions)]
    tasks += [MemoryTask(lambda: account("paper"), log), MemoryTask(lambda: account("zerodha"), log)]
    idle = 0
    while idle < 8:
        progressed = False
        for task in choose.sample(tasks, len(tasks)):
            for key in task.next:
                progressed |= task.fetch(key, choose.randint(0, 60)) > 0 or task.is_behind
            if partitions == 1 and choose.random() < 0.05:  # or each task would see it at another time
                loader.candidates["momentum", "champion"] = Candidate(
                    choose.choice([MODELS["1"], LONGER, None]), "moved"
                )
            if commands and choose.random() < 0.1:
                commands -= 1
                command(choose, log)
            task.step()
            if kills and choose.random() < 0.1:
                kills -= 1
                task.kill()
                progressed = True
            elif choose.random() < 0.7:
                progressed |= task.commit()
            else:
                progressed |= bool(task.run.has_events or task.run.owes_watermark)
        idle = 0 if progressed else idle + 1
    return log


def run_engine(of: Sequence[Day], partitions: int, log: MemoryLog) -> dict[str, list[Event]]:
    assigned = [e for e in log.events(STRATEGIES_CONTROL) if isinstance(e, StrategyModelAssigned)]
    control = [event for broker in BROKERS for event in log.events(broker_topics(broker).control)]
    commanded = [event for event in control if isinstance(event, TradingStateChanged)]
    config = EngineConfig(STRATEGIES, dict.fromkeys(BROKERS, ACCOUNT), market_partitions=partitions)
    engine, events = Engine(config), defaultdict(list)
    for day, until_ns in zip(of, (*(day.session.open_ns for day in of[1:]), 2**62), strict=True):
        assignments = [
            Assignment(e.event_time_ns, e.strategy, MODELS.get(e.model_version or ""), e.rung)
            for e in assigned
            if day.session.open_ns <= e.event_time_ns <= day.session.close_ns
        ]
        states = [e for e in commanded if day.session.open_ns <= e.event_time_ns < until_ns]
        for event in engine.run(MarketDay(day.session, day.universe, day.market, assignments, day.history, states)):
            events[topic_of(event).name].append(event)
    return events


def facts(events: Sequence[Event]) -> list[dict[str, object]]:
    return [event.model_dump(exclude={"basis"}) for event in events]


def assert_obeyed(log: MemoryLog, broker: Broker) -> None:
    """What risk let through was allowed by a state that was in force in its instant."""
    topics = broker_topics(broker)
    changes = [e.in_force for e in log.events(topics.control) if isinstance(e, TradingStateChanged)]
    for verdict in log.events(topics.signals_validated):
        assert isinstance(verdict, SignalValidated)
        before = [one for one in changes if one.since_ns < verdict.event_time_ns]
        within = [one for one in changes if one.since_ns == verdict.event_time_ns]
        states = [in_force(before + within[:k], verdict.strategy) for k in range(len(within) + 1)]
        if verdict.intent == "open":
            assert states[-1] == {"ACTIVE"}
        elif verdict.reason == "flatten":
            assert any(one.flatten for one in changes if one.since_ns <= verdict.event_time_ns)
        elif verdict.reason != "bracket":
            assert any("HALTED" not in state for state in states)


def in_force(changes: Sequence[TradingStateInForce], strategy: str) -> set[str]:
    """The states of the broker and the strategy, once these changes were made in order."""
    last = {change.strategy: change.state for change in changes}
    return {last.get(None, "ACTIVE"), last.get(strategy, "ACTIVE")}


def in_order(events: Sequence[Event]) -> list[Event]:
    """Of a topic with several partitions: by time, and by id within an instant."""
    return sorted(events, key=lambda event: (event.event_time_ns, event.event_id))


@settings(max_examples=6, deadline=None)
@given(
    on_ticks=st.booleans(),
    frame_ms=st.sampled_from([500, 1000, 7000, 60_000, 600_000]),
    partitions=st.sampled_from([1, 2, 4]),
    seed=st.integers(0, 10_000),
    kills=st.integers(0, 5),
    commands=st.integers(0, 12),
)
@example(on_ticks=True, frame_ms=1000, partitions=2, seed=4, kills=5, commands=12)
def test_the_live_services_and_the_engine_say_the_same_whatever_the_frames_the_order_the_kills_and_the_commands(
    on_ticks: bool, frame_ms: int, partitions: int, seed: int, kills: int, commands: int
) -> None:
    of = TICK_DAYS if on_ticks else BAR_DAYS
    log = run_live(of, frame_ms, partitions, seed, kills, commands)
    engine = run_engine(of, partitions, log)
    for broker in BROKERS:
        assert_obeyed(log, broker)
        topics = broker_topics(broker)
        answered = [e.command_offset for e in log.events(topics.control) if isinstance(e, TradingStateChanged)]
        assert answered == [*range(len(log.events(topics.commands)))]
        for topic in set(topics) - {topics.commands}:
            live, expected = log.events(topic), engine[topic.name]
            if topic.per_market_partition:
                live, expected = in_order(live), in_order(expected)
            assert facts(live) == facts(expected), topic.name
    loaded = log.events(MODELS_LOADED)
    assigned = [e for e in log.events(STRATEGIES_CONTROL) if isinstance(e, StrategyModelAssigned) and e.model_version]
    assert sorted(e.causation_id for e in loaded) == sorted(e.event_id for e in assigned)
    assert not any(name.endswith(".dlq") for name in log.topics)


def test_two_sessions_trade_enough_for_the_comparison_to_mean_something() -> None:
    log = run_live(TICK_DAYS, 1000, 2, seed=5, kills=0, commands=12)
    fills = [event for event in log.events("paper.orders.filled") if isinstance(event, OrderFilled)]
    assert {"entry", "stop", "target", "time", "flatten"} <= {fill.reason for fill in fills}
    assert {fill.strategy for fill in fills} == {"momentum", "other", "slow", "judged"}
    rejected = {event.rule for event in log.events("paper.signals.rejected")}  # type: ignore[attr-defined]
    assert {"already_open", "open_positions", "trading_state"} <= rejected
    assert not log.events("zerodha.orders.submitted")
    assert log.events("zerodha.signals.validated")
    assert not {e.event_id for e in log.events("paper.signals.raw")} & {
        e.event_id for e in log.events("zerodha.signals.raw")
    }
