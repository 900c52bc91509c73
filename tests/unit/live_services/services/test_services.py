from __future__ import annotations

import asyncio

import pytest

from live_services.domain import keys
from live_services.domain.basis import Stamp
from live_services.domain.events import Event, OrderCancelled, PnlSnapshot
from live_services.domain.log import EventRecord, LogPosition, TaskId, TickSlice
from live_services.domain.topics import MARKET_TICKS
from live_services.runtime.service import Service
from live_services.services.paper_trading import PaperTrading
from live_services.services.portfolio_manager import PortfolioManager, publish_newest
from live_services.services.risk_manager import RiskManager
from live_services.settings import RiskSettings
from tests.live_world import OPEN, SECOND, SESSION, UNIVERSE, filled, snapshot, ticks, validated

AT = LogPosition("topic", 0, 7)
END = SESSION.close_ns + SECOND


def task(service: str) -> TaskId:
    return TaskId(service, "paper", 0)


def record(event: Event) -> EventRecord:
    return EventRecord(event, AT)


def test_what_a_service_does_not_take_is_an_error_that_names_it() -> None:
    manager = RiskManager(RiskSettings(), Stamp())
    state = manager.open_session(SESSION, task(manager.name))
    with pytest.raises(TypeError, match="risk_manager does not take"):
        manager.handle(record(validated()), state, OPEN)


def test_an_order_stands_on_the_record_it_came_from() -> None:
    trading = PaperTrading(UNIVERSE, MARKET_TICKS, 3.0, Stamp("digest", "commit"))
    state = trading.open_session(SESSION, task(trading.name))
    (order,) = trading.handle(record(validated()), state, OPEN)
    assert order.basis.input_positions == {"topic[0]": (7, 7)}  # type: ignore[attr-defined]
    assert order.basis.git_commit == "commit"  # type: ignore[attr-defined]


def test_unfilled_orders_are_cancelled_only_once_the_close_is_past() -> None:
    trading = PaperTrading(UNIVERSE, MARKET_TICKS, 3.0, Stamp())
    state = trading.open_session(SESSION, task(trading.name))
    trading.handle(record(validated()), state, OPEN)
    assert list(trading.advance(state, SESSION.close_ns)) == []
    (end,) = trading.advance(state, SESSION.close_ns + 1)
    assert isinstance(end, OrderCancelled)
    assert list(trading.advance(state, END)) == []


def test_a_snapshot_is_promised_at_most_once_for_an_instant() -> None:
    manager = PortfolioManager(UNIVERSE, MARKET_TICKS, 60)
    assert manager.promise(OPEN) == OPEN + 1
    assert PaperTrading(UNIVERSE, MARKET_TICKS, 3.0, Stamp()).promise(OPEN) == OPEN


def test_the_portfolio_speaks_with_the_watermark() -> None:
    manager = PortfolioManager(UNIVERSE, MARKET_TICKS, 60)
    state = manager.open_session(SESSION, task(manager.name))
    assert list(manager.handle(TickSlice(ticks((0, 1, 10.0)), AT), state, OPEN)) == []
    assert list(manager.handle(record(filled(0, 2, "BUY", 1, 10.0)), state, OPEN)) == []
    (first,) = manager.advance(state, OPEN + 3 * SECOND)
    assert manager.newest is first


async def test_the_newest_snapshot_is_published_again_after_a_failure_and_at_the_stop() -> None:
    manager, stop = PortfolioManager(UNIVERSE, MARKET_TICKS, 60), asyncio.Event()
    written: list[tuple[str, str]] = []
    failures = [ConnectionError("down")]

    async def write(key: str, value: str) -> None:
        if failures:
            raise failures.pop()
        written.append((key, value))

    manager.newest = snapshot(1, {0: 5})
    publishing = asyncio.create_task(publish_newest(manager, write, stop))
    async with asyncio.timeout(5):
        while not written:
            await asyncio.sleep(0.01)
    manager.newest = snapshot(2, {0: 6})
    stop.set()
    await publishing
    assert [key for key, _ in written] == [keys.portfolio("paper")] * 2
    assert PnlSnapshot.model_validate_json(written[-1][1]) == manager.newest


def test_every_service_names_its_topics() -> None:
    services: list[Service[object]] = [
        RiskManager(RiskSettings(), Stamp()),
        PaperTrading(UNIVERSE, MARKET_TICKS, 3.0, Stamp()),
        PortfolioManager(UNIVERSE, MARKET_TICKS, 60),
    ]  # type: ignore[list-item]
    for service in services:
        assert service.single_task
        assert all(one.topic.watermarked for one in service.inputs)
        assert not {one.topic for one in service.inputs} & set(service.outputs)
