"""Two recorded sessions, traded again by real processes: faster, in other frames, with processes dying and moving."""

from __future__ import annotations

import pytest

from live_services.chaos.faults import Episode, Injury
from live_services.chaos.trial import PlayedDesk, play_disturbed
from live_services.domain.events import AccountOpened, FeatureSkewMeasured, OrderFilled
from live_services.domain.topics import FEATURES_SKEW, MARKET_SESSIONS, MARKET_TICKS, STRATEGIES_CONTROL, consumer_group
from tests.trading_desk import (
    ACCOUNT,
    FEED,
    MONITOR,
    PAPER,
    RUNNER,
    STRATEGIES,
    Desk,
    Log,
    OpenDesk,
    events,
    facts,
    last_snapshot,
)

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]


def assert_said_the_same(log: Log, reference: Log) -> None:
    said, expected = facts(log), facts(reference)
    assert said.keys() == expected.keys()
    for topic, partitions in expected.items():
        assert said[topic] == partitions, topic
    assert books(log) == books(reference)


def books(log: Log) -> dict[str, object]:
    return last_snapshot(log).model_dump(exclude={"basis"})


def test_the_reference_is_two_sessions_of_two_strategies_on_one_account(reference: Log) -> None:
    said = {topic.name: events(reference[topic.name]) for topic in PAPER}
    assert len(said[PAPER.signals_raw.name]) > 100
    assert len(said[PAPER.signals_rejected.name]) > 0
    assert len(said[PAPER.orders_submitted.name]) == len(said[PAPER.signals_validated.name]) > 40
    assert {record.partition for record in reference[PAPER.signals_raw.name]} == {0, 1}
    assert {record.partition for record in reference[STRATEGIES_CONTROL.name]} == {0, 1}
    assert all(not records for topic, records in reference.items() if topic.endswith(".dlq"))

    first, second = (e for e in said[PAPER.control.name] if isinstance(e, AccountOpened))
    fills = [e for e in said[PAPER.orders_filled.name] if isinstance(e, OrderFilled)]
    for strategy in STRATEGIES:
        assert len([f for f in fills if f.strategy == strategy and f.event_time_ns < second.event_time_ns]) > 10
        assert len([f for f in fills if f.strategy == strategy and f.event_time_ns > second.event_time_ns]) > 10
    assert {"stop", "target", "time"} <= {f.reason for f in fills if f.strategy == "bracketed"}

    # What the first session earned is what the second one begins with.
    assert first.cash_inr_e4 == first.starting_cash_inr_e4 == second.starting_cash_inr_e4 != second.cash_inr_e4
    last = last_snapshot(reference)
    assert last.positions == ()
    earned = last.realized_inr_e4 - last.realized_today_inr_e4 - (last.charges_inr_e4 - last.charges_today_inr_e4)
    assert second.cash_inr_e4 == second.starting_cash_inr_e4 + earned


def test_another_speed_and_other_frames_give_the_same_sessions(open_desk: OpenDesk, reference: Log) -> None:
    # Frames of 7 s: their ends are not those of the bars. A feed says how it cuts, and stamps its sessions with it.
    said = open_desk.desk.traded(speed=4000, frame_ms=7000)
    assert_said_the_same(
        *({name: log[name] for name in log if name != MARKET_SESSIONS.name} for log in (said, reference))
    )


def kill_at_work(desk: Desk, program: str) -> None:
    """Kill a process in the middle of the first session and wait until its successor goes on."""
    group = consumer_group("account", "paper") if program == ACCOUNT else consumer_group(program, "shared")
    pid, reached_ns = desk.kill(program), desk.committed_ns(group)
    assert desk.session.open_ns < reached_ns < desk.session.close_ns, f"{program} was killed after its work"
    desk.until(lambda: desk.is_back(program, pid) and desk.committed_ns(group) > reached_ns)


def test_sessions_in_which_each_process_is_killed_are_the_same_sessions(open_desk: OpenDesk, reference: Log) -> None:
    desk = open_desk.desk
    first, second = desk.sessions
    with desk.trading(sessions=2, speed=100):
        desk.until(lambda: len(desk.events(PAPER.orders_filled)) >= 3)
        registry = desk.kill("mlflow")  # what ran is kept under the home: nobody waits for a registry
        for program in (RUNNER, ACCOUNT, MONITOR):
            kill_at_work(desk, program)
        desk.until(lambda: desk.is_back("mlflow", registry))

        # The feed goes on at another speed where its predecessor was, to the end of the session and no further.
        desk.configure(sessions=1)
        fed_ns = desk.watermark_ns(MARKET_TICKS)
        assert fed_ns < first.close_ns, "the feed was killed after its work"
        desk.kill(FEED)
        desk.wait_for_end(first)
        desk.until(lambda: desk.pid_of(FEED) == 0)

        # Overnight: who lived through the first session does not live through the second.
        killed = {program: desk.kill(program) for program in (RUNNER, ACCOUNT, MONITOR)}
        desk.until(lambda: all(desk.is_back(program, pid) for program, pid in killed.items()))
        desk.configure(sessions=2, speed=300)
        desk.start(FEED)
        desk.until(lambda: desk.watermark_ns(MARKET_TICKS) > second.open_ns)
        desk.configure(sessions=2)
        desk.kill(FEED)
        desk.wait_for_end(second)
        log = desk.log()
        desk.assert_market_is_whole()
        measured = [event for event in desk.events(FEATURES_SKEW) if isinstance(event, FeatureSkewMeasured)]
        assert sum(event.rows_equal for event in measured) > 0
        assert sum(event.rows_different + event.rows_unverified for event in measured) == 0
    assert_said_the_same(log, reference)
    for topic in PAPER:
        ids = [event.event_id for event in events(log[topic.name])]
        assert len(ids) == len(set(ids)), topic.name


def test_a_second_runner_that_joins_and_leaves_changes_nothing(open_desk: OpenDesk, reference: Log) -> None:
    desk = open_desk.desk
    with desk.trading(sessions=2, speed=600):
        desk.until(lambda: len(desk.events(PAPER.orders_filled)) >= 3)
        with desk.another(RUNNER):
            desk.until(lambda: desk.members(RUNNER) == 2)
            shared_ns = desk.watermark_ns(PAPER.signals_raw)
            assert shared_ns < desk.session.close_ns, "the first session was over before a second member joined"
            desk.until(lambda: desk.watermark_ns(PAPER.signals_raw) > shared_ns + 1800 * 10**9)
        desk.until(lambda: desk.members(RUNNER) == 1)
        desk.configure(sessions=2)
        desk.kill(FEED)
        desk.wait_for_end(desk.sessions[1])
        log = desk.log()
    assert_said_the_same(log, reference)


def test_a_day_in_which_servers_and_services_are_killed_frozen_and_slowed_at_once_is_the_same_day(
    open_desk: OpenDesk, reference: Log
) -> None:
    desk, told = open_desk.desk, list[str]()
    played = PlayedDesk(desk.stack, desk.sessions, lambda speed: desk.configure(sessions=2, speed=speed))
    plan = (
        Episode((Injury("kill", "kafka"), Injury("freeze", ACCOUNT, 0.5, 2.0), Injury("kill", RUNNER, 1.0))),
        Episode((Injury("slow", FEED, 0.0, 2.0), Injury("kill", "valkey"), Injury("kill", ACCOUNT, 0.5))),
    )
    trial = play_disturbed(played, plan, speed=200, seconds=3600, tell=told.append, last_minute=False)
    assert not trial.failure
    assert [one.done for one in trial.measured] == [episode.injuries for episode in plan], told
    desk.assert_market_is_whole()
    assert_said_the_same(desk.log(), reference)
