"""``alpha-panda up``: servers, topics, services, in this order; then hold them until Ctrl-C, or leave them be."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

from aiokafka.errors import KafkaError

from live_services.adapters.kafka import KafkaSetupError
from live_services.adapters.readiness import missing
from live_services.domain.strategy.checks import require_known_names
from live_services.home import demo_mark, mark_demo, owned_home, require_layout
from live_services.machine.clearance import held_back_by, refusal_written
from live_services.machine.kafka_jars import Progress
from live_services.machine.programs import SERVICES
from live_services.machine.restarts import news, read_restarts
from live_services.machine.stack import (
    ANY_PORTS,
    Ports,
    Stack,
    Tell,
    create_topics,
)
from live_services.machine.supervision import SupervisionError, start_lock
from live_services.preflight.own_needs import require_folders
from live_services.settings import Settings, load_settings

_LOOK_AGAIN_SECONDS: Final = 1.0
_PREFLIGHT_AGAIN_SECONDS: Final = 15.0


def start_everything(
    settings: Settings, *, tell: Tell, ports: Ports = ANY_PORTS, progress: Progress | None = None
) -> Stack:
    """Start the servers, wait for them, create the topics, and start the services, which wait for a market and a model.

    What preflight finds may hold the services back (``Stack.held_back``); the servers run on then. Anything else
    that goes wrong stops what was started. A home that a demo made is a person's from now on, and no demo
    wipes it.

    Raises
    ------
    AlreadyRunning
        Another command is starting a stack on this home.
    live_services.domain.strategy.checks.WrongStrategy
        A strategy names something that there is not; nothing was started.
    live_services.home.OtherLayout
        What is kept in this home was written by another version; nothing was started.
    live_services.failures.CommandFailed
        Folders of the home cannot be written; nothing was started.
    """
    require_layout(settings.alpha_panda_home)  # nothing is written into a home of another version
    with refusal_written(settings):
        require_known_names(settings.strategies)
    owned_home(settings.alpha_panda_home)
    with start_lock(settings.alpha_panda_home):
        if demo_mark(settings.alpha_panda_home) is not None:
            mark_demo(settings.alpha_panda_home, kept="`up` was said on it")
        return _start_everything(settings, tell, ports, progress)


def _start_everything(settings: Settings, tell: Tell, ports: Ports, progress: Progress | None) -> Stack:
    stack = Stack(settings)
    if stack.supervisor.running:
        stack.bring_back_servers(tell=tell)
        start_idle_services(stack, tell)
        return stack
    with refusal_written(settings):
        require_folders(settings)
    try:
        for reason in stack.desk.skipped:
            tell(reason)
        stack.start_servers(tell=tell, ports=ports, progress=progress)
        stack.wait_ready(tell=tell)
        start_idle_services(stack, tell)
    except BaseException:
        stack.stop_own()
        raise
    return stack


def start_idle_services(stack: Stack, tell: Tell) -> None:
    """Start the services that are not running, unless preflight holds them back, and say what they wait for."""
    idle = stack.down(SERVICES)
    if idle:
        running = load_settings()
        not_created = _create_topics(running)
        if not_created and not stack.held_back:
            tell(not_created)
        stack.held_back = held_back_by(running, tell, stack.held_back)
        if stack.held_back:
            return
        stack.start_services()
        tell("services started: " + ", ".join(process.name for process in idle))
    lacking = missing(load_settings())
    if lacking is not None:
        tell(lacking)


def _create_topics(settings: Settings) -> str:
    """Create the topics that are missing; say what stands in the way, which preflight finds as well, and judges."""
    try:
        asyncio.run(create_topics(settings))
    except (KafkaSetupError, KafkaError, OSError) as problem:
        return f"the topics could not be created: {problem}"
    return ""


def hold(stack: Stack, tell: Tell) -> None:
    """Keep everything running until Ctrl-C or SIGTERM, telling what dies and comes back, then stop it all.

    Services that preflight held back are started as soon as it does no more.

    Raises
    ------
    SupervisionError
        supervisord ended by itself.
    """
    with stopped_at_the_end(stack, tell):
        lacking, asked = missing(load_settings()), time.monotonic()
        known = read_restarts(stack.home)
        while not stack.supervisor.wait(_LOOK_AGAIN_SECONDS):
            known, before_it = read_restarts(stack.home), known
            for line in news(before_it, known, time.time()):
                tell(line)
            if stack.held_back and time.monotonic() - asked > _PREFLIGHT_AGAIN_SECONDS:
                start_idle_services(stack, tell)
                asked = time.monotonic()
            if lacking is None:
                continue
            lacking, before = missing(load_settings()), lacking
            if lacking != before:
                tell(lacking or "every strategy has its model: the replay starts if it waited, and all of them trade")
        raise SupervisionError(f"supervisord ended by itself; see {stack.supervisor.logs / 'supervisord.log'}")


@contextmanager
def stopped_at_the_end(stack: Stack, tell: Tell) -> Iterator[None]:
    """Stop the stack when the block ends, however it ends; a second Ctrl-C does not leave it half stopped."""
    with signals_as_interrupts():
        try:
            yield
        finally:
            with interrupts_ignored():
                tell("stopping everything")
                stack.stop()


@contextmanager
def signals_as_interrupts() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the block as Ctrl-C does."""
    with _handlers(signal.default_int_handler, signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        yield


@contextmanager
def interrupts_ignored() -> Iterator[None]:
    """Let nothing but SIGKILL end the block early."""
    with _handlers(signal.SIG_IGN, signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        yield


_Handler = Callable[[int, FrameType | None], object] | signal.Handlers


@contextmanager
def _handlers(handler: _Handler, *numbers: signal.Signals) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
