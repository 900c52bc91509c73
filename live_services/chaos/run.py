"""``alpha-panda chaos``: a desk made for it, its day undisturbed and with faults, and what differs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from live_services.chaos.faults import episodes
from live_services.chaos.made_desk import promote_sample, store_market, write_configuration
from live_services.chaos.report import Report, report_of
from live_services.chaos.trial import PlayedDesk, play_disturbed, play_undisturbed
from live_services.composition import processes
from live_services.demo.demo_home import fresh_home, require_demo_home
from live_services.demo.run import own_settings_only
from live_services.failures import CommandFailed
from live_services.machine.kafka_jars import Progress
from live_services.machine.stack import Stack, Tell, create_topics, environment, program_name
from live_services.machine.supervision import start_lock
from live_services.machine.up import interrupts_ignored, signals_as_interrupts
from live_services.settings import CONFIG_NAME, load_settings

CHAOS_HOME: Final = Path(".alpha-panda/chaos")
"""Where the desk is made if nobody says where; like a demo's, it is wiped at each start."""
SERVERS: Final = ("kafka", "valkey", "mlflow")
_SHARE_PLAYED: Final = 0.7
"""Of the time for faults; what a killed feed or broker takes to come back is added to it."""
_FASTEST: Final = 120.0
"""Speed of the market that a desk on two cores keeps up with; in less time than that needs, less of it has faults."""


@dataclass(frozen=True, slots=True)
class ChaosOptions:
    """What a person chose on the command line."""

    home: Path
    minutes: float
    seed: int = 7
    instruments: int = 6


def run_chaos(options: ChaosOptions, tell: Tell, progress: Progress | None = None) -> Report:
    """Make the desk, play its day twice, and compare; whatever happens, nothing it started stays behind.

    Raises
    ------
    CommandFailed
        The desk could not be made, its undisturbed day did not come to its end, or a person interrupted.
    """
    require_demo_home(options.home)
    with start_lock(options.home):
        home = fresh_home(options.home)
        write_configuration(home)
        chosen = {
            "ALPHA_PANDA_HOME": str(home),
            "ALPHA_PANDA_CONFIG": str(home / CONFIG_NAME),
            "MLFLOW_LOGGING_LEVEL": "WARNING",  # it would tell of every step of a registration
        }
        try:
            with signals_as_interrupts(), own_settings_only(tell), environment(chosen):
                return _run_at(home, options, tell, progress)
        except KeyboardInterrupt as interrupt:
            raise CommandFailed("interrupted; everything was stopped") from interrupt


def _run_at(home: Path, options: ChaosOptions, tell: Tell, progress: Progress | None) -> Report:
    stack = Stack(load_settings())
    with _servers(stack, tell, progress):
        tell("making a market of two sessions and a sample of a model")
        settings = load_settings()
        sessions = store_market(settings, options.instruments, options.seed)
        promote_sample(settings)

        def configure(speed: float) -> None:
            write_configuration(home, sessions, speed=speed)

        desk = PlayedDesk(stack, sessions, configure)
        tell(f"playing {sessions[0].date} and {sessions[1].date} undisturbed")
        started = time.monotonic()
        undisturbed = play_undisturbed(desk)
        tell(
            f"undisturbed they take {time.monotonic() - started:.0f} s; now with faults for {options.minutes:g} minutes"
        )
        seconds = options.minutes * 60
        plan = episodes(options.seed, targets(), ("strategy_runner",))
        speed = min(sum(s.close_ns - s.open_ns for s in sessions) / 1e9 / (_SHARE_PLAYED * seconds), _FASTEST)
        trial = play_disturbed(desk, plan, speed=speed, seconds=seconds, tell=tell)
    return report_of(undisturbed, trial, seed=options.seed, minutes=options.minutes)


def targets() -> tuple[str, ...]:
    """Name every process that faults are put on: all services, and the servers that they need."""
    return (*(program_name(*process) for process in processes(load_settings())), *SERVERS)


@contextmanager
def _servers(stack: Stack, tell: Tell, progress: Progress | None) -> Iterator[None]:
    try:
        stack.start_servers(tell=tell, progress=progress)
        tell("starting Apache Kafka, Valkey and MLflow on loopback")
        stack.wait_ready(*SERVERS, tell=tell)
        asyncio.run(create_topics(load_settings()))
        yield
    finally:
        with interrupts_ignored():
            tell("stopping everything")
            stack.stop_own()
