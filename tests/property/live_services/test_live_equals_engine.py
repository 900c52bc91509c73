"""One session through the engine, and through the live services cut apart by topics: zero differences."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st
from live_services.domain.engine import EngineConfig, run_session

from feature_store.market.types import Bars, Session, Ticks
from live_services.adapters.kafka import headers_of, value_of
from live_services.domain.basis import Stamp
from live_services.domain.clock import watermark
from live_services.domain.events import Event, StrategyHistoryUsed, StrategyModelAssigned, decode_event, topic_of
from live_services.domain.frames import encode_bar_frame, encode_tick_frame
from live_services.domain.replay import cuts_of_session
from live_services.domain.strategy.desk import Assignment, LoadedModel
from live_services.domain.strategy.history import SessionHistory
from live_services.domain.topics import MODELS_LOADED, broker_topics, market_topic
from live_services.services.model_loading import Candidate, ModelLoader
from live_services.services.paper_trading import PaperTrading
from live_services.services.portfolio_manager import PortfolioManager
from live_services.services.risk_manager import RiskManager
from live_services.services.strategy_runner import StrategyRunner
from live_services.settings import MarketSettings, RiskSettings, Settings, TradingSettings
from models_registry.specification import StrategySpec
from tests.live_world import SESSION, bars, loaded_model, past_sessions, random_walk
from tests.toy_chain import UNIVERSE, MemoryLog, MemoryTask

TRADING = TradingSettings(enabled=True, pnl_interval_seconds=20, risk=RiskSettings(max_open_positions=2))
STRATEGIES = (StrategySpec(name="momentum", holding_bars=2), StrategySpec(name="other", holding_bars=4))
LONGER = loaded_model("2", ["rsi", "momentum", "trend_slope@5m", "vwap_distance"], 60.0, 40.0)
MODELS = {m.identity.model_version: m for m in (loaded_model("1"), LONGER)}
HISTORY = past_sessions(UNIVERSE, 4, minutes=40, seed=2)
TICKS = random_walk(4, minutes=30, per_minute=15, seed=21)
BARS = bars(
    *(
        (i, k, 100.0 + (k * (i + 3)) % 11, 100.0 + (k * (i + 5)) % 13)
        for i in range(4)
        for k in range(45)
        if (k * 7 + i) % 5  # positions of instruments that miss a bar close on time all the same
    )
)


class FixedModels(ModelLoader):
    """A loader whose aliases the test moves."""

    def __init__(self) -> None:
        super().__init__(None, None, STRATEGIES, bar_minutes=1, poll_seconds=1)  # type: ignore[arg-type]
        self.candidates = {s.name: Candidate(MODELS["1"], "at first") for s in STRATEGIES}

    def of(self, session: Session, sessions: Sequence[str] | None = None, needed: int = 0) -> SessionHistory:
        assert sessions in (None, HISTORY.sessions)
        return HISTORY

    def loaded(self, name: str, version: str) -> LoadedModel:
        return MODELS[version]


def feed(market: Ticks | Bars, frame_ms: int) -> MemoryLog:
    log, topic = MemoryLog(), market_topic("ticks" if isinstance(market, Ticks) else "bars")
    for cut in cuts_of_session(market, SESSION, UNIVERSE, 1, frame_ms=frame_ms, paced=False):
        (part,) = cut.parts
        if not len(part):
            event = watermark(topic, 0, SESSION, cut.watermark_ns)
            log.append(topic.name, value_of(event), headers_of(event))
        elif isinstance(part, Ticks):
            log.append(topic.name, *encode_tick_frame(part, UNIVERSE, cut.number, cut.watermark_ns, SESSION))
        else:
            log.append(topic.name, *encode_bar_frame(part, UNIVERSE, cut.number, cut.watermark_ns, SESSION))
    return log


def run_live(market: Ticks | Bars, frame_ms: int, seed: int, kills: int) -> dict[str, list[Event]]:
    kind = "ticks" if isinstance(market, Ticks) else "bars"
    choose, loader, log = random.Random(seed), FixedModels(), feed(market, frame_ms)
    config = Settings(strategies=STRATEGIES, market=MarketSettings(feed=kind))
    services = (
        StrategyRunner(config, UNIVERSE, loader, Stamp(), history=loader),
        RiskManager(TRADING.risk, Stamp()),
        PaperTrading(UNIVERSE, market_topic(kind), TRADING.costs_bps, Stamp()),
        PortfolioManager(UNIVERSE, market_topic(kind), TRADING.pnl_interval_seconds),
    )
    tasks = [MemoryTask(service, log) for service in services]
    idle = 0
    while idle < 8:
        progressed = False
        for task in choose.sample(tasks, len(tasks)):
            for topic in task.next:
                progressed |= task.fetch(topic, choose.randint(0, 40)) > 0 or task.behind
            if choose.random() < 0.05:
                loader.candidates["momentum"] = Candidate(choose.choice([*MODELS.values(), None]), "moved")
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
    return {
        name: [decode_event(r.value) for r in records if dict(r.headers)["event_type"] != b"watermark"]
        for name, records in log.topics.items()
        if name not in ("market.ticks", "market.bars")
    }


def run_engine(market: Ticks | Bars, control: list[Event]) -> dict[str, list[Event]]:
    assignments = [
        Assignment(e.event_time_ns, e.strategy, MODELS.get(e.model_version or ""))
        for e in control
        if isinstance(e, StrategyModelAssigned)
    ]
    events: dict[str, list[Event]] = defaultdict(list)
    config = EngineConfig(UNIVERSE, STRATEGIES, TRADING)
    for event in run_session(market, SESSION, assignments, config, history=HISTORY):
        events[topic_of(event).name].append(event)
    return events


def facts(events: list[Event]) -> list[dict[str, object]]:
    return [event.model_dump(exclude={"basis"}) for event in events]


@settings(max_examples=12, deadline=None)
@given(
    on_ticks=st.booleans(),
    frame_ms=st.sampled_from([500, 1000, 7000, 60_000, 600_000]),
    seed=st.integers(0, 10_000),
    kills=st.integers(0, 5),
)
def test_the_live_services_and_the_engine_say_the_same_whatever_the_frames_the_order_and_the_kills(
    on_ticks: bool, frame_ms: int, seed: int, kills: int
) -> None:
    market = TICKS if on_ticks else BARS
    live = run_live(market, frame_ms, seed, kills)
    topics = broker_topics("paper")
    engine = run_engine(market, live[topics.control.name])
    for topic in topics:
        if topic != topics.control:
            assert facts(live.get(topic.name, [])) == facts(engine[topic.name]), topic.name
    loaded = live[MODELS_LOADED.name]
    assigned = [e for e in live[topics.control.name] if isinstance(e, StrategyModelAssigned) and e.model_version]
    assert [e.causation_id for e in loaded] == [e.event_id for e in assigned]
    assert not any(name.endswith(".dlq") for name in live)


def test_a_session_on_ticks_trades_enough_for_the_comparison_to_mean_something() -> None:
    live = run_live(TICKS, 1000, seed=1, kills=0)
    assert len(live["paper.orders.filled"]) > 10
    (used,) = [e for e in live["paper.control"] if isinstance(e, StrategyHistoryUsed)]
    assert (used.digest, used.sessions, used.broken) == (HISTORY.digest, HISTORY.sessions, False)
    assert len(live["paper.signals.rejected"]) > 5
    assert live["paper.pnl.snapshots"][-1].event_time_ns > SESSION.close_ns
