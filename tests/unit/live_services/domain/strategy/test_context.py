"""The market's index travels in every partition: features see it everywhere, and it is counted once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import pytest

from feature_store.market.clocks import BarClock
from feature_store.market.types import SECOND_NS, Bars, Instrument, Session, Ticks, Universe
from live_services.adapters.kafka import StoredRecord
from live_services.backtest.engine import EngineConfig, MarketDay, assignments_at_open, run_session
from live_services.demo.replay_view import Tally
from live_services.domain.basis import Stamp
from live_services.domain.clock import watermark
from live_services.domain.events import headers_of, value_of
from live_services.domain.frames import encode_bar_frame, encode_tick_frame
from live_services.domain.limits import AccountConfig, RiskLimits
from live_services.domain.log import TaskId
from live_services.domain.partitions import own_rows, part_of
from live_services.domain.replay import cuts_of_session
from live_services.domain.strategy.asked import Assignment
from live_services.domain.strategy.desk import StrategyDesk
from live_services.domain.topics import market_topic
from live_services.runtime.chain import Chain
from live_services.runtime.merge import Source
from live_services.runtime.received import Received
from live_services.runtime.task import TaskRun
from live_services.services.account import account_chain
from live_services.services.strategy_runner import StrategyRunner
from live_services.settings import KafkaSettings, MarketSettings, Settings
from models_registry.specification import StrategySpec
from tests.live_world import SESSION, loaded_model, past_sessions, random_walk

UNIVERSE = Universe.ordered(
    [Instrument(instrument_token=300, symbol="SYN INDEX", tradable=False)]
    + [Instrument(instrument_token=101 + k, symbol=f"S{k}") for k in range(7)]
)
INDEX = UNIVERSE.market_index
TICKS = random_walk(len(UNIVERSE), minutes=30, per_minute=15, seed=21)
MODEL = loaded_model(names=["relative_strength", "momentum"], buy=5e-3, sell=-5e-3)
HISTORY = past_sessions(UNIVERSE, 4, minutes=80)
ACCOUNT = AccountConfig(pnl_interval_seconds=20, risk=RiskLimits(max_open_positions=3))


def minute_bars() -> Bars:
    from feature_store.bars.builder import bars_of_session

    return bars_of_session(TICKS, SESSION, len(UNIVERSE), BarClock.minutes(1))


def records(market: Ticks | Bars, partitions: int, session: Session = SESSION) -> Iterator[Received]:
    """Write what the feed puts on the market topic, as its readers get it."""
    topic = market_topic("ticks" if isinstance(market, Ticks) else "bars")
    offsets: dict[int, int] = defaultdict(int)
    for cut in cuts_of_session(market, session, UNIVERSE, partitions, frame_ms=7000, paced=False, frame_rows=1):
        for partition, part in enumerate(cut.parts):
            if not len(part):
                event = watermark(topic, partition, session, cut.watermark_ns, UNIVERSE.digest)
                value, headers = value_of(event), headers_of(event)
            elif isinstance(part, Ticks):
                value, headers = encode_tick_frame(part, UNIVERSE, cut.number, cut.watermark_ns, session)
            else:
                value, headers = encode_bar_frame(part, UNIVERSE, cut.number, cut.watermark_ns, session)
            yield Received(topic.name, partition, offsets[partition], None, value, tuple(headers))
            offsets[partition] += 1


def stored(record: Received) -> StoredRecord:
    return StoredRecord(
        record.topic, record.partition, record.offset, 0, record.key, record.value, tuple(record.headers)
    )


def test_the_universe_of_these_tests_has_an_index_that_one_of_several_partitions_owns() -> None:
    assert INDEX is not None
    assert not UNIVERSE.instruments[0].tradable


@pytest.mark.parametrize("partitions", [2, 3, 4])
def test_the_index_travels_in_every_part_in_order_and_the_own_rows_of_all_parts_are_the_market(partitions: int) -> None:
    parts = [part_of(TICKS, UNIVERSE, p, partitions) for p in range(partitions)]
    for part in parts:
        assert isinstance(part, Ticks)
        assert (part.instrument == INDEX).sum() == (TICKS.instrument == INDEX).sum()
        assert (np.diff(part.event_time_ns) >= 0).all()
    own = [own_rows(part, UNIVERSE, p, partitions) for p, part in enumerate(parts)]
    together = Ticks.concatenate(own)  # type: ignore[arg-type]
    assert together[np.argsort(together.event_time_ns, kind="stable")].digest() == TICKS.digest()


def test_one_partition_is_the_market_itself() -> None:
    assert part_of(TICKS, UNIVERSE, 0, 1) is TICKS
    assert own_rows(TICKS, UNIVERSE, 0, 1) is TICKS


@pytest.mark.parametrize("partitions", [1, 2, 3, 4])
def test_the_rows_of_a_replay_are_counted_once(partitions: int) -> None:
    cuts = list(cuts_of_session(TICKS, SESSION, UNIVERSE, partitions, frame_ms=1000, paced=False, frame_rows=1))
    assert sum(cut.rows for cut in cuts) == len(TICKS)


@pytest.mark.parametrize("partitions", [1, 3])
def test_the_view_of_a_replay_counts_the_index_in_each_partition_in_which_it_travels(partitions: int) -> None:
    for feed, market in (("ticks", TICKS), ("bars", minute_bars())):
        tally = Tally("ticks" if feed == "ticks" else "bars")
        for record in records(market, partitions):
            tally.add(stored(record))
        index = int((market.instrument == INDEX).sum())
        assert tally.rows == len(market) + (partitions - 1) * index


def signals_of(market: Ticks | Bars, partitions: int) -> list[dict[str, object]]:
    strategies = (StrategySpec(name="momentum", holding_bars=3),)
    config = EngineConfig(strategies, {"paper": ACCOUNT}, market_partitions=partitions)
    models = assignments_at_open(SESSION, {"momentum": MODEL})
    events = run_session(MarketDay(SESSION, UNIVERSE, market, models, HISTORY), config)
    facts = [event.model_dump(exclude={"basis"}) for event in events if event.event_type == "signal.generated"]
    return sorted(facts, key=lambda fact: (fact["event_time_ns"], str(fact["event_id"])))  # type: ignore[arg-type,return-value]


@pytest.mark.parametrize("on_ticks", [True, False])
@pytest.mark.parametrize("partitions", [2, 3, 4])
def test_any_number_of_partitions_gives_the_signals_of_one(partitions: int, on_ticks: bool) -> None:
    market = TICKS if on_ticks else minute_bars()
    one = signals_of(market, 1)
    assert len(one) > 20
    assert signals_of(market, partitions) == one


def task_of(chain: Chain, partition: int, partitions: int) -> TaskRun:
    mine = range(partitions) if chain.single_task else [partition]
    market = [(rank, one) for rank, one in enumerate(chain.inputs) if one.topic.name.startswith("market.")]
    sources = [Source(one.topic.name, p, rank) for rank, one in market for p in mine]
    starts = {(s.topic, s.partition): 0 for s in sources}
    task, universes = TaskId(chain.name, chain.scope, partition), {UNIVERSE.digest: UNIVERSE}
    return TaskRun(chain, task, sources, universes.get, starts=starts, market_partitions=partitions)


@pytest.mark.parametrize("partitions", [1, 2, 3])
@pytest.mark.parametrize("kind", ["ticks", "bars"])
def test_a_runner_and_an_account_count_the_index_once(partitions: int, kind: str) -> None:
    market = TICKS if kind == "ticks" else minute_bars()
    config = Settings(market=MarketSettings(feed=kind), kafka=KafkaSettings(market_partitions=partitions))  # type: ignore[arg-type]

    class Silent(StrategyRunner):
        def commands(self, state, now_ns):  # type: ignore[no-untyped-def]
            return iter(())

    def runner() -> Chain:
        return Chain("strategy_runner", (Silent(config, None, Stamp()),))  # type: ignore[arg-type]

    runners = [task_of(runner(), p, partitions) for p in range(partitions)]
    chain = account_chain("paper", market_topic(kind), ACCOUNT, Stamp())  # type: ignore[arg-type]
    account = task_of(chain, 0, partitions)
    for record in records(market, partitions):
        for run in (runners[record.partition], account):
            run.receive(record)
    for run in (*runners, account):
        run.step()
    assert sum(run.records_handled for run in runners) == len(market)
    assert account.records_handled - sum(account.outputs.values()) <= len(market) <= account.records_handled


def test_nothing_is_opened_on_context_even_if_it_may_be_traded() -> None:
    tradable = Universe(instruments=tuple(i.model_copy(update={"tradable": True}) for i in UNIVERSE.instruments))
    owner = int(UNIVERSE.partition_of(np.array([INDEX], dtype=np.int32), 2)[0])
    for partition in range(2):
        settings = (StrategySpec(name="momentum", holding_bars=3),)
        desk = StrategyDesk(tradable, SESSION, settings, bar_minutes=1, partition=partition, partitions=2)
        desk.assign(Assignment(SESSION.open_ns, "momentum", loaded_model()))
        part = part_of(TICKS, tradable, partition, 2)
        assert isinstance(part, Ticks)
        signals = desk.on_ticks(part) + desk.advance(SESSION.close_ns + SECOND_NS)
        assert any(signal.symbol == "SYN INDEX" for signal in signals) == (partition == owner)
