"""Halts on a real Kafka: while the market stalls, over a kill, and while no account runs."""

from __future__ import annotations

import asyncio
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from live_services.adapters.feed_producer import FeedProducer
from live_services.adapters.groups import groups_begin
from live_services.adapters.scrape_targets import read_targets
from live_services.cli import answers
from live_services.cli.trading_commands import command_trading_state
from live_services.domain.clock import watermark
from live_services.domain.events import (
    Event,
    OrderFilled,
    OrderSubmitted,
    SignalRejected,
    TradingStateChanged,
)
from live_services.domain.frames import encode_tick_frame
from live_services.domain.topics import MARKET_TICKS, Topic, broker_topics, consumer_group
from live_services.failures import CommandFailed
from live_services.settings import Settings
from tests.kafka_desk import Runner, account, empty_desk, said
from tests.live_world import OPEN, SECOND, SESSION, UNIVERSE, signal, ticks
from tests.toy_chain import session_opened

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]
PAPER = broker_topics("paper")


@pytest.fixture
async def desk(kafka_servers: str, tmp_path: Path) -> Settings:
    return await empty_desk(kafka_servers, tmp_path)


class Desk:
    """What the feed and the strategies say, by seconds after the open."""

    def __init__(self, producer: FeedProducer) -> None:
        self._producer = producer
        self._runner = Runner(producer, OPEN)
        self._frames = 0

    async def open(self) -> None:
        self._producer.say(session_opened(SESSION, UNIVERSE))
        await self.until(0)

    async def until(self, seconds: float, *rows: tuple[int, float, float], proposals: tuple[Event, ...] = ()) -> None:
        """Say what came, and that nothing earlier will come any more."""
        at_ns = OPEN + round(seconds * SECOND)
        for proposal in proposals:
            self._runner.say(proposal)
        if rows:
            frame = encode_tick_frame(ticks(*rows), UNIVERSE, self._frames, at_ns, SESSION)
            self._producer.say_frame(MARKET_TICKS, 0, frame)
            self._frames += 1
        else:
            self._producer.say_on(MARKET_TICKS, 0, watermark(MARKET_TICKS, 0, SESSION, at_ns, UNIVERSE.digest))
        self._runner.say(watermark(PAPER.signals_raw, 0, SESSION, at_ns, UNIVERSE.digest))
        await self._producer.flush()


async def until_said(desk: Settings, topic: Topic, wanted: Callable[[Event], bool]) -> Event:
    async with asyncio.timeout(30):
        while True:
            found = [event for event in await said(desk, topic) if wanted(event)]
            if found:
                return found[0]
            await asyncio.sleep(0.1)


async def until_shown(desk: Settings, strategy: str, strictness: float) -> None:
    """Wait until the account's process says at its ``/metrics`` what is in force."""

    def shown() -> float | None:
        (where,) = [address for _, _, address in read_targets(desk.alpha_panda_home)]
        with suppress(OSError), urllib.request.urlopen(f"http://{where}/metrics", timeout=5) as answer:
            for family in text_string_to_metric_families(answer.read().decode()):
                for sample in family.samples:
                    if sample.name == "alpha_panda_trading_state" and sample.labels["strategy"] == strategy:
                        return float(sample.value)
        return None  # it has not begun

    async with asyncio.timeout(30):
        while await asyncio.to_thread(shown) != strictness:
            await asyncio.sleep(0.2)


async def exits(desk: Settings) -> list[tuple[str, float]]:
    orders = [order for order in await said(desk, PAPER.orders_submitted) if isinstance(order, OrderSubmitted)]
    return [(order.reason, (order.event_time_ns - OPEN) / SECOND) for order in orders if order.intent == "close"]


async def test_a_halt_is_in_force_and_shown_while_the_market_stalls_and_over_a_kill_and_is_lifted_by_one_sent_meanwhile(
    desk: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async with FeedProducer(desk.kafka, 10_000) as producer:
        market = Desk(producer)
        async with account(desk):
            group = consumer_group("account", "paper")
            await groups_begin(desk.kafka, MARKET_TICKS, [group], asyncio.Event())
            await market.open()
            await market.until(60.5, proposals=(signal(),))
            await market.until(100, (0, 61, 100.0))
            await until_said(desk, PAPER.orders_filled, lambda event: isinstance(event, OrderFilled))
            begun = time.time_ns()
            assert await command_trading_state(desk, "halt", "fills look wrong", strategy="momentum") == ""
            (halted,) = [e for e in await said(desk, PAPER.control) if isinstance(e, TradingStateChanged)]
            assert halted.in_force.since_ns == OPEN + 100 * SECOND, "the market has come no further"
            assert begun < halted.in_force.commanded_at_ns < time.time_ns()
            assert "momentum at paper: HALTED is in force from the watermark" in capsys.readouterr().out
            with pytest.raises(CommandFailed, match="there is no strategy 'momentun' at paper; did you mean momentum"):
                await command_trading_state(desk, "halt", "any", strategy="momentun")
        async with account(desk):
            await until_shown(desk, "momentum", 2.0)
            await until_shown(desk, "all", 0.0)
            await market.until(700, (1, 650, 9.0), proposals=(signal(1, 200),))
            refused = await until_said(desk, PAPER.signals_rejected, lambda event: isinstance(event, SignalRejected))
            assert isinstance(refused, SignalRejected)
            assert refused.rule == "trading_state"
            assert await exits(desk) == []
        monkeypatch.setattr(answers, "ANSWER_SECONDS", 0.1)
        assert await command_trading_state(desk, "resume", "explained", strategy="momentum") == ""
        assert "nothing runs on this home; it stands on the log" in capsys.readouterr().out
        async with account(desk):
            raised = await until_said(desk, PAPER.orders_submitted, lambda e: getattr(e, "intent", "") == "close")
            assert await exits(desk) == [("time", 700.0)], "the market has come no further"
            await until_shown(desk, "momentum", 0.0)
            await market.until(720, (0, 710, 101.0))
            closed = await until_said(desk, PAPER.orders_filled, lambda e: getattr(e, "intent", "") == "close")
            assert closed.event_time_ns > raised.event_time_ns
    changes = [event for event in await said(desk, PAPER.control) if isinstance(event, TradingStateChanged)]
    assert [(one.in_force.state, one.command_offset) for one in changes] == [("HALTED", 0), ("ACTIVE", 1)]


async def test_a_broker_that_never_ran_here_is_commanded_nothing_and_up_is_not_promised_to_change_it(
    desk: Settings,
) -> None:
    with pytest.raises(CommandFailed, match=r"zerodha is skipped \(it is not in ACTIVE_BROKERS: paper\), and no desk"):
        await command_trading_state(desk, "reduce", "too fast", broker="zerodha")
