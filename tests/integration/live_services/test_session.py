"""One recorded session, traded again by real processes: faster, in other frames, and with processes dying under it."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from live_services.adapters.kafka import StoredRecord
from live_services.domain.events import FeatureSkewMeasured
from live_services.domain.topics import MARKET_TICKS
from tests.trading_desk import PAPER, Log, OpenDesk, events, facts

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

TRADING = tuple(topic for topic in PAPER if topic != PAPER.feature_skew)
FEED, RUNNER, RISK = "market_feed", "paper.strategy_runner", "paper.risk_manager"
TRADER, PORTFOLIO = "paper.paper_trading", "paper.portfolio_manager"


def assert_said_the_same(log: Mapping[str, list[StoredRecord]], reference: Mapping[str, list[StoredRecord]]) -> None:
    said, expected = facts(dict(log)), facts(dict(reference))
    assert said.keys() == expected.keys()
    for topic, partitions in expected.items():
        assert said[topic] == partitions, topic


def counts(log: Mapping[str, list[StoredRecord]]) -> dict[str, int]:
    return {topic.name: len(events(log[topic.name])) for topic in TRADING}


def test_the_reference_session_has_signals_rejections_orders_fills_and_profit_or_loss(reference: Log) -> None:
    said = counts(reference)
    assert said[PAPER.signals_raw.name] > 50
    assert said[PAPER.signals_rejected.name] > 0
    assert said[PAPER.orders_submitted.name] == said[PAPER.signals_validated.name] > 20
    assert said[PAPER.orders_filled.name] > 20
    assert said[PAPER.pnl_snapshots.name] > 20
    assert {record.partition for record in reference[PAPER.signals_raw.name]} == {0, 1}
    assert all(not records for topic, records in reference.items() if topic.endswith(".dlq"))


def test_another_speed_and_other_frames_give_the_same_session(open_desk: OpenDesk, reference: Log) -> None:
    # Frames of 7 s: their ends are not those of the bars.
    assert_said_the_same(open_desk.desk.traded(speed=4000, frame_ms=7000), reference)


def test_a_session_in_which_processes_are_killed_is_the_same_session(open_desk: OpenDesk, reference: Log) -> None:
    desk = open_desk.desk
    close_ns = desk.session.close_ns
    with desk.trading(speed=300, frame_ms=1000):
        desk.until(lambda: len(desk.events(PAPER.orders_filled)) >= 3)

        runner = desk.kill(RUNNER)
        decided_ns = desk.watermark_ns(PAPER.signals_raw)
        assert decided_ns < close_ns, "the strategy runner was killed after its work"
        desk.until(lambda: desk.watermark_ns(MARKET_TICKS) > decided_ns + 300 * 10**9)
        desk.until(lambda: desk.is_back(RUNNER, runner) and desk.watermark_ns(PAPER.signals_raw) > decided_ns)
        filled = len(desk.events(PAPER.orders_filled))
        desk.until(lambda: len(desk.events(PAPER.orders_filled)) > filled)

        trader = desk.kill(TRADER)
        traded_ns = desk.watermark_ns(PAPER.orders_filled)
        assert decided_ns <= traded_ns < close_ns, "the paper trader was killed after its work"
        desk.until(lambda: desk.is_back(TRADER, trader) and desk.watermark_ns(PAPER.orders_filled) > traded_ns)

        desk.configure(speed=0)  # what is left comes at full speed from the feed that takes over
        others = {program: desk.kill(program) for program in (FEED, RISK, PORTFOLIO)}
        for topic in (MARKET_TICKS, PAPER.signals_validated, PAPER.pnl_snapshots):
            assert desk.watermark_ns(topic) < close_ns, f"who writes {topic.name} was killed after its work"
        desk.wait_for_close()
        assert all(desk.pid_of(program) != pid for program, pid in others.items())
        log = desk.log()
        desk.assert_market_is_whole()
        measured = [event for event in desk.events(PAPER.feature_skew) if isinstance(event, FeatureSkewMeasured)]
        assert sum(event.rows_equal for event in measured) > 0
        assert sum(event.rows_different + event.rows_unverified for event in measured) == 0
    assert_said_the_same(log, reference)
    for topic in TRADING:
        ids = [event.event_id for event in events(log[topic.name])]
        assert len(ids) == len(set(ids)), topic.name
