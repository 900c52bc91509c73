"""A process that hangs ends itself; one that waits does not."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import time

import pytest

_SETTING = """
    import asyncio, sys, threading, time
    from live_services.runtime.watchdog import call_off, stop_on_signals, watched

    async def life(stop):
        {life}

    async def main():
        stop = stop_on_signals(stop_seconds={stop_seconds})
        async with watched({stall_seconds}, stop):
            print("begun", flush=True)
            await life(stop)

    asyncio.run(main())
    call_off()
"""


def _process(life: str, *, stall_seconds: float = 60.0, stop_seconds: float = 0.5) -> subprocess.Popen[str]:
    code = textwrap.dedent(_SETTING).format(life=life, stall_seconds=stall_seconds, stop_seconds=stop_seconds)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=-1, stderr=-1, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    return process


def _end(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, said = process.communicate(timeout=30)
    return process.returncode, said


@pytest.mark.parametrize("hang", ["time.sleep(60)", "while True: pass"])
def test_a_loop_that_does_not_turn_ends_its_process_with_the_stacks(hang):
    with _process(hang, stall_seconds=0.4) as process:
        code, said = _end(process)
    assert code == 1
    assert said.startswith("Timeout (0:00:00.400000)!\n")
    assert "in life" in said


def test_a_process_that_waits_lives_longer_than_the_stall_and_stops_when_asked():
    with _process("await stop.wait()", stall_seconds=1.5, stop_seconds=20.0) as process:
        time.sleep(2.0)
        process.send_signal(signal.SIGTERM)
        assert _end(process) == (0, "")


@pytest.mark.parametrize(
    "hang",
    [
        "while True: pass",
        "time.sleep(60)",
        "await asyncio.sleep(60)",
        "await asyncio.gather(stop.wait(), asyncio.to_thread(time.sleep, 60))",
    ],
)
def test_whatever_hangs_a_process_that_is_asked_to_stop_does(hang):
    with _process(hang) as process:
        process.send_signal(signal.SIGTERM)
        code, said = _end(process)
    assert code == 1
    assert said.startswith("Timeout (0:00:00.500000)!\n")
