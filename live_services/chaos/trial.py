"""The same sessions twice on one desk: undisturbed, and with faults until the time is over; both to their very end."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from feature_store.market.types import SECOND_NS, Session, ist_text
from live_services.adapters.kafka import connection
from live_services.chaos.comparison import Run
from live_services.chaos.faults import Episode, Injury
from live_services.chaos.injuries import Injuries
from live_services.chaos.log import Reached, empty_log, reached, read_run
from live_services.composition import processes
from live_services.domain.clock import session_end_ns
from live_services.failures import CommandFailed
from live_services.machine.embedded import broker_answers
from live_services.machine.programs import SERVICES
from live_services.machine.stack import Stack, Tell, program_name, servers_away
from live_services.settings import load_settings

FEED: Final = "market_feed"
_LOOK_SECONDS: Final = 0.25
_ANSWER_SECONDS: Final = 3.0
_RECOVERY_SECONDS: Final = 180.0
_WHOLE_SECONDS: Final = 900.0
_FAST: Final = 900.0
"""Speed of what is left of a session once its time for faults is over: a session in 25 s."""
_STAGE_SECONDS: Final = 15.0
_STAGE_LEAVES: Final = 5
"""An instant is played up to in stages: each is paced to reach it in so many seconds, and ends when a fifth is left."""
_CALM_SECONDS: Final = 3.0
"""So far behind the market a desk may be, on the clock on the wall, that is well: it commits once a second."""
_UNTIL_CALM_SECONDS: Final = 60.0
_LAST_HALF_HOUR_NS: Final = 1800 * SECOND_NS
"""Of a session: no more faults by chance, so that what is done in its last minute stands alone."""
_MINUTE_NS: Final = 60 * SECOND_NS


@dataclass(frozen=True, slots=True)
class PlayedDesk:
    """A desk whose servers run and whose services do not: what is played on it, and how fast."""

    stack: Stack
    sessions: tuple[Session, ...]
    configure: Callable[[float], None]
    """Writes settings that replay the sessions at a speed; 0 is as fast as it goes."""

    @property
    def end_ns(self) -> int:
        """When the last session is over."""
        return session_end_ns(self.sessions[-1])

    @property
    def chains(self) -> tuple[str, ...]:
        """The programs that consume the market."""
        return tuple(program_name(*process) for process in processes(load_settings()) if process[0].is_chain)

    def reached(self) -> Reached | None:
        """Say how far market and groups are; None while Kafka does not answer."""
        settings = load_settings()
        if not broker_answers(connection(settings.kafka), _ANSWER_SECONDS):
            return None
        return asyncio.run(reached(settings))

    def until(self, condition: Callable[[Reached], bool], seconds: float) -> Reached:
        """Wait until the desk is so far.

        Raises
        ------
        CommandFailed
            It is not within its time, or a process gave up.
        """
        deadline, last = time.monotonic() + seconds, None
        while True:
            now = self.reached()
            if now is not None and condition(now):
                return now
            last = now or last
            self.stack.supervisor.require_alive(SERVICES)
            if time.monotonic() > deadline:
                raise CommandFailed(
                    f"the desk did not get on within {seconds:.0f} s: {_told(last)}; see {self.stack.supervisor.logs}"
                )
            time.sleep(_LOOK_SECONDS)

    @contextmanager
    def playing(self, speed: float) -> Iterator[None]:
        """Run all services on an empty log for as long as the block lasts."""
        self.configure(speed)
        shutil.rmtree(self.stack.home / "snapshots", ignore_errors=True)
        asyncio.run(empty_log(load_settings()))
        self.stack.start_services()
        try:
            yield
        finally:
            self.stack.supervisor.stop_group(SERVICES)

    def is_well(self) -> bool:
        """Whether every server answers and every service runs, or has done all it had to do."""
        states = [state for state in self.stack.supervisor.processes() if state.group == SERVICES]
        over = {program_name(*process) for process in self.stack.desk.processes if process[0].may_be_over}
        running = all(s.state == "RUNNING" or (s.state == "EXITED" and s.name in over) for s in states)
        return running and not servers_away(load_settings())

    def at_speed(self, speed: float) -> None:
        """Let the feed go on at another speed: it is killed, and its successor reads the settings."""
        self.configure(speed)
        self.injuries().inflict(Episode((Injury("kill", FEED),)))

    def injuries(self) -> Injuries:
        """Give what does injuries to its processes."""
        return Injuries(self.stack.supervisor, self.stack.environment)


@dataclass(frozen=True, slots=True)
class Measured:
    """An episode that was done."""

    episode: Episode
    market_ns: int
    """Where the market was when it was over."""
    done: tuple[Injury, ...]
    """Without those whose process was down already."""
    recovered_s: float | None
    """From the end of the last injury until every chain had committed more than the market had by then, and every
    server and service was well; None: not within three minutes."""
    in_last_minute: bool = False
    """Whether it came in the last minute of a session, when most is to be run again."""


@dataclass(slots=True)
class Trial:
    """A run with faults: what was done, what was said, and why it ended early if it did."""

    measured: list[Measured] = field(default_factory=list)
    run: Run | None = None
    failure: str = ""


def play_undisturbed(desk: PlayedDesk) -> Run:
    """Play the sessions as fast as they go, and give what was said."""
    with desk.playing(0.0):
        return _read_to_the_end(desk)


def play_disturbed(
    desk: PlayedDesk, plan: Iterable[Episode], *, speed: float, seconds: float, tell: Tell, last_minute: bool = True
) -> Trial:
    """Play the sessions with faults.

    Parameters
    ----------
    desk : PlayedDesk
    plan : iterable of Episode
        Done one after the other, each once the desk has recovered from the one before.
    speed : float
        Of the market while faults come.
    seconds : float
        How long they come, in equal parts in each session.
    tell : callable
        Takes one line for each.
    last_minute : bool
        Kill all chains in the last minute of the last session too: they have it all to do again.
    """
    trial, last = Trial(), desk.sessions[-1]
    with desk.playing(speed):
        try:
            desk.until(lambda now: now.slowest_ns > desk.sessions[0].open_ns, _RECOVERY_SECONDS)
            _do_in_each_session(desk, plan, speed, seconds, trial, tell)
            if last_minute and not trial.failure:
                _kill_in_the_last_minute(desk, last, trial, tell)
            if not trial.failure:
                tell("no more faults; the rest is played as fast as it goes")
                desk.at_speed(0.0)
                trial.run = _read_to_the_end(desk)
        except CommandFailed as failure:
            trial.failure = str(failure)
    return trial


def _read_to_the_end(desk: PlayedDesk) -> Run:
    desk.until(lambda now: now.slowest_ns >= desk.end_ns, _WHOLE_SECONDS)
    return asyncio.run(read_run(load_settings()))


def _do_in_each_session(  # noqa: PLR0917 (what is done, how long, and who hears of it)
    desk: PlayedDesk, plan: Iterable[Episode], speed: float, seconds: float, trial: Trial, tell: Tell
) -> None:
    """Give each session its share of the time, until the plan is done; the rest is played without faults."""
    coming, share_s = iter(plan), seconds / len(desk.sessions)
    for number, session in enumerate(desk.sessions):
        if number:
            _go_on_to(desk, session, speed)
            tell(f"{ist_text(session.open_ns)}  the session of {session.date} begins")
        deadline = time.monotonic() + share_s
        until_ns = session.close_ns - _LAST_HALF_HOUR_NS
        for episode in coming:
            time.sleep(min(episode.pause_s, max(deadline - time.monotonic(), 0.0)))
            before = _calm(desk, speed)
            if time.monotonic() >= deadline or before.market_ns >= until_ns:
                break
            done = desk.injuries().inflict(episode)
            if not _recovers(desk, episode, done, before, trial, tell):
                return
        else:
            return


def _go_on_to(desk: PlayedDesk, session: Session, speed: float) -> None:
    """Play what is left before a session, fast."""
    now = desk.until(lambda _: True, _RECOVERY_SECONDS)
    if now.market_ns < session.open_ns:
        desk.at_speed(_FAST)
        desk.until(lambda now: now.market_ns > session.open_ns, _WHOLE_SECONDS)
        desk.at_speed(speed)
    desk.until(lambda now: now.slowest_ns > session.open_ns, _RECOVERY_SECONDS)


def _calm(desk: PlayedDesk, speed: float) -> Reached:
    """Wait until the desk keeps up with the market, so that a backlog is not taken for the next fault's doing."""
    deadline, calm_ns = time.monotonic() + _UNTIL_CALM_SECONDS, int(_CALM_SECONDS * speed * SECOND_NS)
    return desk.until(
        lambda now: now.market_ns - now.slowest_ns <= calm_ns or time.monotonic() > deadline, _RECOVERY_SECONDS
    )


def _kill_in_the_last_minute(desk: PlayedDesk, session: Session, trial: Trial, tell: Tell) -> None:
    """Kill every chain when the session is all but over; the market stands until they are where it is."""
    _play_up_to(desk, session.close_ns - _MINUTE_NS)
    injuries = desk.injuries()
    episode = Episode(tuple(Injury("kill", program) for program in desk.chains))
    with injuries.held(FEED):
        before = desk.until(lambda now: now.slowest_ns >= now.market_ns, _RECOVERY_SECONDS)
        if before.market_ns >= session.close_ns:
            tell("the last minute was over before anybody could be killed in it")
            return
        done = injuries.inflict(episode)
    _recovers(desk, episode, done, before, trial, tell, in_last_minute=True)


def _play_up_to(desk: PlayedDesk, at_ns: int) -> None:
    """Play on to an instant and little further: slower and slower, for a look at the log takes its time."""
    now = desk.until(lambda _: True, _RECOVERY_SECONDS)
    while (left_ns := at_ns - now.market_ns) > 0:
        desk.at_speed(max(left_ns / SECOND_NS / _STAGE_SECONDS, 1.0))
        stage_ns = at_ns - (left_ns // _STAGE_LEAVES if left_ns > _MINUTE_NS else 0)
        now = desk.until(lambda now, stage_ns=stage_ns: now.market_ns >= stage_ns, _RECOVERY_SECONDS)  # type: ignore[misc]


def _recovers(  # noqa: PLR0917 (what was done, to whom, and who hears of it)
    desk: PlayedDesk,
    episode: Episode,
    done: tuple[Injury, ...],
    before: Reached,
    trial: Trial,
    tell: Tell,
    *,
    in_last_minute: bool = False,
) -> bool:
    """Wait until the desk has got over an episode, which is over now, and note how long it took."""
    over = time.monotonic()
    at_the_end = desk.reached() or before
    mark_ns = min(max(at_the_end.market_ns, before.market_ns) + 1, desk.end_ns)
    recovered_s: float | None = None
    try:
        desk.until(lambda now: now.slowest_ns >= mark_ns and desk.is_well(), _RECOVERY_SECONDS)
        recovered_s = time.monotonic() - over
    except CommandFailed as failure:
        trial.failure = f"after {episode}: {failure}"
    measured = Measured(episode, mark_ns, done, recovered_s, in_last_minute)
    trial.measured.append(measured)
    tell(f"{ist_text(mark_ns)}  {episode}: {_recovered_in(measured)}")
    return recovered_s is not None


def _recovered_in(measured: Measured) -> str:
    missed = "" if len(measured.done) == len(measured.episode.injuries) else " (one found its process down already)"
    if measured.recovered_s is None:
        return f"did not recover{missed}"
    return f"recovered in {measured.recovered_s:.1f} s{missed}"


def _told(last: Reached | None) -> str:
    if last is None:
        return "Kafka does not answer"
    behind = ", ".join(f"{group} at {ist_text(ns)}" for group, ns in last.groups_ns.items() if ns >= 0)
    return f"the market is at {ist_text(last.market_ns)}, {behind or 'no group has committed'}"
