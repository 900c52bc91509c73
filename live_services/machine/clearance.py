"""Whether the live services of a stack may start: preflight is asked each time, told and written down."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from live_services.machine.stack import Tell
from live_services.messages import expected_failures
from live_services.preflight.catalogue import preflight
from live_services.preflight.findings import lines
from live_services.preflight.run import tell_of
from live_services.preflight.written import SUMMARY_NAME
from live_services.settings import Settings


def held_back_by(settings: Settings, tell: Tell, before: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Say what holds the live services back, one line each; empty if they may start.

    Parameters
    ----------
    settings
        With the addresses of the servers, which run.
    tell
        Takes what failed or is doubtful, unless it is what held them back before.
    before
        What this gave the last time.
    """
    found = preflight(settings, within_up=True)
    held = lines(found, found.blocking)
    if held and held == before:
        return held
    for line in lines(found, (finding for finding in found.findings if finding.status != "ok")):
        tell(f"preflight: {line}")
    if unwritten := tell_of(found, settings.alpha_panda_home):
        tell(f"preflight: {unwritten}")
    if held:
        tell(
            f"preflight holds the live services back (policy of {found.policy}; all of it is in logs/{SUMMARY_NAME}); "
            "the servers that were started here run"
        )
    return held


@contextmanager
def refusal_written(settings: Settings) -> Iterator[None]:
    """Write down what preflight finds where a start is refused in the block, before any server was started.

    Then `status`, the log and the summary say as much as the command that was refused.
    """
    try:
        yield
    except expected_failures():
        tell_of(preflight(settings), settings.alpha_panda_home)
        raise
