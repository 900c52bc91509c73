"""The processes of the latency benchmark: ``python -m benchmarks.live_processes ROLE BOOTSTRAP_SERVERS MODEL``.

The feed, the strategy runner and the account are the platform's own, on a generated market; the two hops are the least
that any chain on Kafka does: read committed, say one small record, and commit it with the offsets.
"""

from __future__ import annotations

import asyncio
import pickle
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from aiokafka import AIOKafkaConsumer, OffsetAndMetadata, TopicPartition

from feature_store.features.engine import FeatureEngine
from feature_store.labels.forward_return import ForwardReturn
from feature_store.market.types import MINUTE_NS, Bars, Session, Ticks, Universe
from feature_store.sources.synthetic import SyntheticMarket, synthetic_market
from live_services.adapters.kafka import MAX_POLL_RECORDS, commit_together, connection, transactional_producer
from live_services.adapters.logs import configure_logging
from live_services.adapters.sessions import MarketSessions
from live_services.adapters.stored_market import Replay
from live_services.adapters.telemetry import NoTelemetry
from live_services.domain.basis import Stamp
from live_services.domain.limits import RiskLimits
from live_services.domain.strategy.history import SessionHistory
from live_services.domain.strategy.loaded_model import LoadedModel
from live_services.domain.topics import MARKET_TICKS, Topic
from live_services.runtime.chain import Chain
from live_services.runtime.loop import run_chain
from live_services.runtime.watchdog import stop_on_signals
from live_services.services.account import account_chain
from live_services.services.market_feed import run_market_feed
from live_services.services.model_loading import Candidate, ModelLoader
from live_services.services.strategy_runner import StrategyRunner
from live_services.settings import BrokersSettings, KafkaSettings, MarketSettings, Settings, TradingSettings
from models_registry.flat import FlatModel, flatten
from models_registry.refs import ModelIdentity
from models_registry.specification import StrategySpec

INSTRUMENTS: Final = 50
TICKS_PER_FRAME: Final = 200
FRAME_MS: Final = 3000
SPEED: Final = 150.0
"""A frame of 3 s of event time goes out every 20 ms, and a minute bar ends every 400 ms."""
HOP_TOPICS: Final = (Topic("bench.first_hop"), Topic("bench.second_hop"))
STRATEGY: Final = StrategySpec(name="momentum", holding_bars=3)
THREE: Final = ("momentum", "second", "third")
"""Strategies of a runner with three models; each asks the same hundred trees."""
_SESSIONS_BEFORE: Final = 8
_MINUTES: Final = 370  # more than any run plays
_OFTEN: Final = (0.92, 0.08)  # quantiles of scores, so that nearly every minute has a proposal


def settings_on(bootstrap_servers: str) -> Settings:
    """Give the settings of every process of the benchmark."""
    limits = RiskLimits(max_open_positions=1000, max_gross_notional_inr=1e9)
    return Settings(
        kafka=KafkaSettings(bootstrap_servers=bootstrap_servers),
        market=MarketSettings(frame_ms=FRAME_MS, speed=SPEED),
        strategies=(STRATEGY,),
        trading=BrokersSettings(paper=TradingSettings(enabled=True, starting_cash_inr=1e8, risk=limits)),
    )


# --- the market -------------------------------------------------------------------------------------------------------


@cache
def market() -> SyntheticMarket:
    """Sessions of bars to learn from, and the session that is played."""
    return synthetic_market(INSTRUMENTS, _SESSIONS_BEFORE, index=False, quotes=False)


class GeneratedTicks:
    """A session of ticks at an even pace, instruments at random, prices that walk as the bars before them did."""

    def sessions(self) -> tuple[Session, ...]:
        """Give the one session."""
        return market().tick_sessions

    def load(self, session: Session, told: Universe | None = None) -> Replay:
        """Generate it."""
        return Replay(session, told or market().universe, even_ticks(session, _MINUTES, seed=7))


def even_ticks(session: Session, minutes: int, *, seed: int) -> Ticks:
    """Generate ticks of so many minutes from a session's open, `TICKS_PER_FRAME` in `FRAME_MS` of event time."""
    bars, rng = market().bars[-1], np.random.Generator(np.random.PCG64(seed))
    step_ns = FRAME_MS * 1_000_000 // TICKS_PER_FRAME
    times = np.arange(session.open_ns, session.open_ns + minutes * MINUTE_NS, step_ns, dtype=np.int64)
    instrument = rng.integers(0, INSTRUMENTS, len(times)).astype(np.int32)
    price, per_minute = np.empty(len(times)), MINUTE_NS // step_ns / INSTRUMENTS
    for k in range(INSTRUMENTS):
        close, mine = bars.close[bars.instrument == k], instrument == k
        moves = rng.normal(0, np.log(close[1:] / close[:-1]).std() / np.sqrt(per_minute), int(mine.sum()))
        price[mine] = np.round(close[-1] * np.exp(moves.cumsum()), 2)
    volume = np.arange(1, len(times) + 1, dtype=np.int64) * 10
    return Ticks(instrument, times, price, volume)


class BarsBefore:
    """The sessions before, as history for features."""

    def of(
        self, session: Session, universe: Universe, sessions: Sequence[str] | None = None, needed: int = 0
    ) -> SessionHistory:
        """Give all of them."""
        made = market()
        return SessionHistory(universe, tuple(str(one.date) for one in made.sessions), Bars.concatenate(made.bars))


# --- the model --------------------------------------------------------------------------------------------------------


def trained_model() -> LoadedModel:
    """Fit a hundred trees on the sessions before; thresholds by quantiles of what they say there.

    Its pickle is the MODEL that the runner reads.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier

    made, schema = market(), STRATEGY.feature_schema()
    bars = Bars.concatenate(made.bars)
    rows, warm = FeatureEngine(schema, made.universe).step(bars)
    forward = ForwardReturn(STRATEGY.holding_bars).of(bars, INSTRUMENTS, made.sessions).forward_return
    kept = warm & np.isfinite(forward)
    trees = HistGradientBoostingClassifier(max_iter=100, early_stopping=False, random_state=7)
    kind, arrays = flatten(trees.fit(rows[kept], forward[kept] > 0))
    model = FlatModel(kind, rows.shape[1], arrays)
    buy, sell = np.quantile(model.score(np.ascontiguousarray(rows[kept])), _OFTEN)
    identity = ModelIdentity(model_name=STRATEGY.name, model_version="1", feature_schema_hash=schema.hash)
    return LoadedModel(identity, schema, model, float(buy), float(sell), artifact_sha256="benchmark")


class OneModel(ModelLoader):
    """Knows one version, which every strategy runs, and asks nobody."""

    def __init__(self, model: LoadedModel, settings: Settings) -> None:
        super().__init__(None, None, None, settings.strategies, bar_minutes=1, poll_seconds=60)  # type: ignore[arg-type]
        self.candidates = {
            (one.name, "champion"): Candidate(_under(one.model, model), "the benchmark's model")
            for one in settings.strategies
        }
        self._model = model

    async def start(self) -> None:
        """Know it already."""

    def loaded(self, name: str, version: str) -> LoadedModel:
        """Give it."""
        return _under(name, self._model)


def _under(name: str, model: LoadedModel) -> LoadedModel:
    return replace(model, identity=model.identity.model_copy(update={"model_name": name}))


# --- the processes ----------------------------------------------------------------------------------------------------


async def _feed(settings: Settings, stop: asyncio.Event) -> None:
    await run_market_feed(settings, stop, source=GeneratedTicks())


async def _runner(model: Path, settings: Settings, stop: asyncio.Event) -> None:
    loader = OneModel(pickle.loads(model.read_bytes()), settings)
    runner = StrategyRunner(settings, loader, Stamp(), history=BarsBefore())
    await _run(Chain("strategy_runner", (runner,)), settings, stop)


async def _runner_of_three(model: Path, settings: Settings, stop: asyncio.Event) -> None:
    three = tuple(STRATEGY.model_copy(update={"name": name}) for name in THREE)
    await _runner(model, settings.model_copy(update={"strategies": three}), stop)


async def _account(settings: Settings, stop: asyncio.Event) -> None:
    await _run(account_chain("paper", MARKET_TICKS, settings.trading.paper, Stamp()), settings, stop)


async def _run(chain: Chain, settings: Settings, stop: asyncio.Event) -> None:
    await run_chain(chain, settings, MarketSessions(settings.kafka), NoTelemetry(), stop)


async def _first_hop(settings: Settings, stop: asyncio.Event) -> None:
    await _hop(settings, stop, MARKET_TICKS, HOP_TOPICS[0])


async def _second_hop(settings: Settings, stop: asyncio.Event) -> None:
    await _hop(settings, stop, *HOP_TOPICS)


async def _hop(settings: Settings, stop: asyncio.Event, source: Topic, target: Topic) -> None:
    """Hand on, for each minute, the event time of the first record that has reached its end."""
    consumer = AIOKafkaConsumer(
        source.name,
        **connection(settings.kafka),
        group_id=target.name,
        isolation_level="read_committed",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_poll_records=MAX_POLL_RECORDS,
    )
    minute = 0
    async with consumer, transactional_producer(settings.kafka, target.name, 10_000) as producer:
        while not stop.is_set():
            for partition, records in (await consumer.getmany(timeout_ms=50)).items():
                for record in records:
                    reached_ns = reached_by(record)
                    if reached_ns // MINUTE_NS == minute:
                        continue
                    minute, value = reached_ns // MINUTE_NS, str(reached_ns).encode()
                    outputs = [(target.name, 0, value, [(_REACHED, value)])]
                    offsets = {TopicPartition(*partition): OffsetAndMetadata(record.offset + 1, "")}
                    await commit_together(producer, outputs, offsets, target.name)


def reached_by(record: Any) -> int:
    """Event time that a frame, a watermark or a hop's record has reached."""
    headers = dict(record.headers)
    return int(headers.get(_REACHED) or headers["event_time_ns"])


_REACHED: Final = "watermark_ns"


async def main(role: str, bootstrap_servers: str, model: str) -> None:
    """Run one of them until SIGTERM."""
    roles: dict[str, Callable[[Settings, asyncio.Event], Awaitable[None]]] = {
        "feed": _feed,
        "runner": partial(_runner, Path(model)),
        "runner_of_three": partial(_runner_of_three, Path(model)),
        "account": _account,
        "first_hop": _first_hop,
        "second_hop": _second_hop,
    }
    await roles[role](settings_on(bootstrap_servers), stop_on_signals())


if __name__ == "__main__":
    configure_logging(sys.argv[1])
    asyncio.run(main(*sys.argv[1:]))
