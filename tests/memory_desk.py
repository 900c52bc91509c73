"""A desk on a log in memory: sessions of ticks or bars, strategies, and the live tasks driven in any order."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from feature_store.market.types import Bars, Instrument, Session, Ticks, Universe
from live_services.domain.basis import Stamp
from live_services.domain.clock import market_gap, watermark
from live_services.domain.events import (
    TradingStateCommanded,
    self_caused,
)
from live_services.domain.frames import encode_bar_frame, encode_tick_frame
from live_services.domain.limits import AccountConfig, RiskLimits
from live_services.domain.replay import cuts_of_session
from live_services.domain.strategy.history import SessionHistory
from live_services.domain.strategy.loaded_model import LoadedModel
from live_services.domain.topics import MARKET_SESSIONS, broker_topics, market_topic
from live_services.runtime.chain import Chain
from live_services.runtime.local import MemoryLog, MemoryTask, run_by_chance
from live_services.services.account import account_chain
from live_services.services.model_loading import Candidate, ModelLoader
from live_services.services.skew_monitor import SkewMonitor
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

    def known(self, name: str, version: str) -> LoadedModel | None:
        return MODELS.get(version)


def feed(of: Sequence[Day], frame_ms: int, partitions: int, lost: Sequence[range] = ()) -> MemoryLog:
    """Put sessions on a log; of each the frames of these numbers are lost, and a gap says so."""
    log = MemoryLog(partitions)
    for day in of:
        topic = market_topic("ticks" if isinstance(day.market, Ticks) else "bars")
        log.append_event(MARKET_SESSIONS, 0, session_opened(day.session, day.universe))
        cuts = [
            *cuts_of_session(
                day.market, day.session, day.universe, partitions, frame_ms=frame_ms, paced=False, frame_rows=1
            )
        ]
        begins = {hole.start: (cuts[hole.start - 1], cuts[hole.stop - 1]) for hole in lost if hole.stop < len(cuts)}
        for number, cut in enumerate(cuts):
            for partition in range(partitions) if number in begins else ():
                before, until = (one.watermark_ns for one in begins[number])
                log.append_event(topic, partition, market_gap(topic, partition, before, until, "a test"))
            if any(number in hole and hole.start in begins for hole in lost):
                continue
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


def desk_tasks(log: MemoryLog, loader: FixedModels, *, on_ticks: bool, monitor: bool = False) -> list[MemoryTask]:
    """Make the runner's tasks and the accounts', and the skew monitor's if it is asked for."""
    kind: Literal["ticks", "bars"] = "ticks" if on_ticks else "bars"
    partitions = log.market_partitions
    config = Settings(strategies=STRATEGIES, market=MarketSettings(feed=kind), kafka={"market_partitions": partitions})

    def runner() -> Chain:
        return Chain("strategy_runner", (StrategyRunner(config, loader, Stamp(), brokers=BROKERS, history=loader),))

    def skew() -> Chain:
        return Chain("skew_monitor", (SkewMonitor(config, loader, brokers=BROKERS),))

    def account(broker: Broker) -> Chain:
        return account_chain(broker, market_topic(kind), ACCOUNT, Stamp())

    tasks = [MemoryTask(runner, log, partition) for partition in range(partitions)]
    tasks += [MemoryTask(lambda: account("paper"), log), MemoryTask(lambda: account("zerodha"), log)]
    return tasks + [MemoryTask(skew, log, partition) for partition in range(partitions) if monitor]


def run_live(
    of: Sequence[Day],
    frame_ms: int,
    partitions: int,
    seed: int,
    kills: int,
    commands: int = 0,
    *,
    lost: Sequence[range] = (),
    monitor: bool = False,
    committed: Callable[[MemoryTask], None] = lambda _: None,
) -> MemoryLog:
    """Run sessions in an order that follows from the seed; ``committed`` hears of each commit.

    Who is killed goes on from the snapshot that was kept last, if one was.
    """
    choose, loader, log = random.Random(seed), FixedModels(of), feed(of, frame_ms, partitions, lost)
    tasks = desk_tasks(log, loader, on_ticks=isinstance(of[0].market, Ticks), monitor=monitor)

    def meanwhile() -> None:
        nonlocal commands
        if partitions == 1 and choose.random() < 0.05:  # or each task would see it at another time
            loader.candidates["momentum", "champion"] = Candidate(choose.choice([MODELS["1"], LONGER, None]), "moved")
        if commands and choose.random() < 0.1:
            commands -= 1
            command(choose, log)

    keeps = random.Random(seed)

    def heard(task: MemoryTask) -> None:
        if kills and keeps.random() < 0.3:
            task.keep()
        committed(task)

    run_by_chance(tasks, choose, most=60, kills=kills, meanwhile=meanwhile, committed=heard)
    return log
