from __future__ import annotations

import subprocess
import sys

import pytest

PROCESS = """
from pathlib import Path

import numpy as np
from numba import njit

from live_services.runtime.heap import freeze_heap

def code_mb():
    rss, ours = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        words = line.split()
        if "-" in words[0]:
            ours = "libllvmlite" in line and words[1] == "r-xp"
        elif ours and words[0] == "Rss:":
            rss += int(words[1]) / 1024
    return rss

@njit
def twice(values):
    return values * 2

@njit
def thrice(values):
    return values * 3

ones = np.ones(3)
assert twice(ones).sum() == 6
before = code_mb()
freeze_heap()
assert code_mb() < before / 4, (before, code_mb())
assert twice(ones).sum() == 6
assert thrice(ones).sum() == 9
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems are not asked to take it back")
def test_the_compilers_code_goes_back_to_the_system_and_comes_when_something_is_compiled() -> None:
    done = subprocess.run([sys.executable, "-c", PROCESS], capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
