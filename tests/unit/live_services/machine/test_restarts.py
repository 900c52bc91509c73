"""What becomes of a process that died, and what is said of it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from live_services.machine.last_words import end_of, reason_of_end, tail_of
from live_services.machine.restarts import (
    Death,
    Restarts,
    after_death,
    news,
    pause_seconds,
    read_restarts,
    restarts_file,
    restarts_json,
    started_again,
    told,
)
from live_services.operations_settings import ProcessesSettings

_SETTINGS = ProcessesSettings(restart_limit=2, backoff_seconds=1.0, backoff_max_seconds=5.0)


def _die(before: Restarts, at: float = 0.0, *, got_on: bool = False, away: str = "") -> Restarts:
    return after_death(before, Death(at, "error: no such topic", got_on, away), _SETTINGS)


def test_a_process_is_started_again_as_often_as_the_limit_and_then_stays_down():
    first = _die(Restarts("account"), 10.0)
    assert (first.state, first.count, first.next_try) == ("waiting", 1, 11.0)
    second = _die(started_again(first), 20.0)
    assert (second.state, second.count, second.next_try, second.restarts) == ("waiting", 2, 22.0, 1)
    third = _die(started_again(second), 30.0)
    assert (third.state, third.count, third.next_try, third.restarts) == ("gave up", 3, 0.0, 2)
    assert told(third, 30.0) == "ended 3 times in a row and stays down until `up`: error: no such topic"


def test_what_was_committed_in_between_begins_the_count_anew():
    twice = _die(_die(Restarts("account")))
    got_on = _die(twice, got_on=True)
    assert (got_on.count, got_on.in_a_row, got_on.state) == (0, 1, "waiting")


def test_a_death_without_a_server_counts_not_but_the_pause_grows_up_to_its_maximum():
    one = Restarts("account")
    for _ in range(100):
        one = _die(one, away="kafka")
    assert (one.count, one.state, one.next_try) == (0, "waiting", 5.0)
    assert told(one, 2.0) == "starts again in 3 s: error: no such topic (kafka was away)"
    assert [pause_seconds(n, _SETTINGS) for n in (1, 2, 3, 4, 5)] == [1.0, 2.0, 4.0, 5.0, 5.0]


def test_what_is_in_the_way_of_a_restart_is_told_beside_the_death_and_forgotten_with_the_restart():
    died = _die(Restarts("kafka"), 10.0)
    kept_down = replace(died, in_the_way="its port 9092 is taken by nc (pid 7): end that", next_try=20.0)
    said = "cannot be started: its port 9092 is taken by nc (pid 7): end that. It ended before: error: no such topic"
    assert told(kept_down, 20.0) == said
    assert news((died,), (kept_down,), 20.0) == [f"kafka {said}"]
    assert news((kept_down,), (replace(kept_down, next_try=25.0),), 20.0) == []
    back = started_again(kept_down)
    assert (back.in_the_way, back.last_error) == ("", "error: no such topic")


def test_what_died_and_came_back_is_news_once():
    died = _die(Restarts("account"), 10.0)
    back = started_again(died)
    assert news((), (died,), 10.0) == ["account died; it starts again in 1 s: error: no such topic"]
    assert news((died,), (died,), 10.5) == []
    assert news((died,), (back,), 11.0) == ["account was started again"]
    assert news((back,), (back,), 12.0) == []


def test_without_restarts_the_first_death_is_the_last():
    one = after_death(Restarts("account"), Death(0.0, "it ended", got_on=False), ProcessesSettings(restart_limit=0))
    assert told(one, 0.0) == "ended once and stays down until `up`: it ended"


def test_the_file_gives_what_was_written_and_one_of_another_version_is_as_none(tmp_path):
    assert read_restarts(tmp_path) == ()
    known = (Restarts("mlflow", 1, 1, 4, "waiting", "port taken", 1.5, 2.5), Restarts("account"))
    restarts_file(tmp_path).parent.mkdir()
    restarts_file(tmp_path).write_text(restarts_json(known))
    assert read_restarts(tmp_path) == (known[1], known[0])
    restarts_file(tmp_path).write_text('[{"name": "account", "state": "unheard of"}]')
    assert read_restarts(tmp_path) == ()


@pytest.mark.parametrize(
    ("log", "end", "reason"),
    [
        (
            "starting\nerror: no topic paper.control\nERROR aiokafka: unable to connect\n",
            "exit status 1",
            "error: no topic paper.control",
        ),
        (
            "Traceback (most recent call last):\n  File x\nlive_services.runtime.task.CommitTimedOut: too late\n",
            "exit status 1",
            "live_services.runtime.task.CommitTimedOut: too late",
        ),
        (
            "Timeout (0:00:30)!\nThread 0x1 (most recent call first):\n  File x, line 3 in step\n",
            "exit status 1",
            "its loop had not turned for 0:00:30, or it did not stop in time; its log has the stacks",
        ),
        (
            json.dumps({"level": "error", "event": "commit_failed", "failure": "no broker"}) + "\nbye\n",
            "exit status 1",
            "commit_failed no broker",
        ),
        ("an error: of long ago\n", "terminated by SIGKILL", "terminated by SIGKILL"),
        ("all is well\n", "exit status 0", "exit status 0"),
        ("all is well\n", "exit status 3", "all is well"),
        ("", "", "it ended"),
    ],
)
def test_why_it_ended_is_the_last_error_it_told_or_else_how(log, end, reason):
    assert reason_of_end(log, end) == reason


def test_what_a_process_says_of_its_end_is_kept_with_its_way_out_and_what_libraries_say_is_cut():
    said = f"error: {'the artifact was changed. ' * 20}Make the version available again"
    assert reason_of_end(said, "exit status 1") == said
    assert len(reason_of_end(f"SomeError: {'x' * 2000}", "exit status 1")) == 300


def test_how_a_process_ended_is_the_last_that_supervisord_saw_of_it():
    log = (
        "WARN exited: account (exit status 1; not expected)\n"
        "WARN exited: account (terminated by SIGKILL; not expected)\n"
        "INFO exited: paper.account (exit status 0; expected)\n"
    )
    assert end_of("account", log) == "terminated by SIGKILL"
    assert end_of("paper.account", log) == "exit status 0"
    assert end_of("feed", log) == ""


def test_a_log_is_read_from_where_the_process_began_it(tmp_path):
    log = tmp_path / "account.log"
    assert tail_of(log) == ""
    log.write_text("before\nnow\n")
    assert tail_of(log, len("before\n")) == "now\n"
    assert tail_of(log, 1_000) == "before\nnow\n"  # it was rotated
