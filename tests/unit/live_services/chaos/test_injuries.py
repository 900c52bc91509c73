"""Injuries done to real processes."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import psutil
import pytest

from live_services.chaos.faults import Episode, Injury
from live_services.chaos.injuries import JOINS, Injuries
from live_services.composition import member_name
from live_services.machine.supervision import ProcessState
from live_services.settings import Settings, load_settings


class Supervised:
    """A process that sleeps, led as supervisord's children are."""

    def __init__(self) -> None:
        self.process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)

    def states(self) -> tuple[ProcessState, ...]:
        alive = self.process.poll() is None
        return (ProcessState("sleeper", "services", "RUNNING", self.process.pid if alive else 0, "", 0),)

    @property
    def status(self) -> str:
        return str(psutil.Process(self.process.pid).status())


@pytest.fixture
def supervised() -> Iterator[Supervised]:
    one = Supervised()
    yield one
    one.process.kill()
    one.process.wait()


@pytest.fixture
def injuries(supervised: Supervised) -> Injuries:
    return Injuries(supervised, {})


def seen_meanwhile(injuries: Injuries, supervised: Supervised, episode: Episode) -> set[str]:
    """Give every state that the process was seen in while it suffered."""
    seen, over = set(), threading.Event()

    def look() -> None:
        while not over.wait(0.005):
            seen.add(supervised.status)

    looking = threading.Thread(target=look)
    looking.start()
    try:
        assert injuries.inflict(episode) == episode.injuries
    finally:
        over.set()
        looking.join()
    return seen


def test_who_is_killed_is_dead(injuries, supervised):
    injuries.inflict(Episode((Injury("kill", "sleeper"),)))
    assert supervised.process.wait(10) == -9


@pytest.mark.parametrize("kind", ["freeze", "slow"])
def test_who_is_frozen_or_slowed_stands_still_and_goes_on(injuries, supervised, kind):
    assert psutil.STATUS_STOPPED in seen_meanwhile(injuries, supervised, Episode((Injury(kind, "sleeper", 0, 0.5),)))
    wait_for(lambda: supervised.status != psutil.STATUS_STOPPED)
    assert supervised.process.poll() is None


def test_a_process_is_held_for_as_long_as_a_block_lasts(injuries, supervised):
    with injuries.held("sleeper"):
        wait_for(lambda: supervised.status == psutil.STATUS_STOPPED)
    wait_for(lambda: supervised.status != psutil.STATUS_STOPPED)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_found_its_process_down_was_not_done(injuries, supervised, monkeypatch):
    monkeypatch.setattr("live_services.chaos.injuries._UNTIL_ALIVE_SECONDS", 0.2)
    supervised.process.kill()
    supervised.process.wait()
    assert injuries.inflict(Episode((Injury("kill", "sleeper"), Injury("freeze", "sleeper", 0, 0.1)))) == ()


def test_an_interrupt_thaws_what_is_frozen_at_once(injuries, supervised, monkeypatch):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.kill", interrupted)
    with pytest.raises(KeyboardInterrupt):
        injuries.inflict(Episode((Injury("kill", "sleeper"), Injury("long freeze", "sleeper", 0, 3600.0))))
    monkeypatch.undo()
    wait_for(lambda: supervised.status != psutil.STATUS_STOPPED)


def test_a_second_member_of_a_home_has_a_name_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("ALPHA_PANDA_HOME", str(tmp_path))
    first = member_name(load_settings())
    assert first == member_name(load_settings())
    assert first != member_name(Settings(alpha_panda_home=tmp_path / "another"))
    for name, value in JOINS.items():
        monkeypatch.setenv(name, value)
    assert member_name(load_settings()) not in ("", first)
