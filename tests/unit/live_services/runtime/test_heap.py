from __future__ import annotations

import subprocess
import sys

import pytest

PROCESS = """
from pathlib import Path

from live_services.runtime.heap import freeze_heap

def resident_mb():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20

before = resident_mb()
blocks = [bytes(2_000) for _ in range(100_000)]
last = bytes(2_000)  # what lies behind the freed blocks keeps the C library from returning them by itself
del blocks
freed = resident_mb()
freeze_heap()
assert freed > before + 150, (before, freed)
assert resident_mb() < before + 50, (before, freed, resident_mb())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems are not asked to take it back")
def test_blocks_that_only_the_start_needed_go_back_to_the_system() -> None:
    done = subprocess.run([sys.executable, "-c", PROCESS], capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr


MAPPED = """
import psutil
from numba import njit

from live_services.runtime.heap import freeze_heap

@njit
def twice(number):
    return 2 * number

assert twice(21) == 42
read = psutil.Process().memory_info().rss
freeze_heap()
left = psutil.Process().memory_info().rss
assert left < read - 40 * 2**20, (read, left)
assert twice(21) == 42
assert njit(lambda number: number + 1)(41) == 42  # the compiler is there as ever
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems are not asked to take it back")
def test_pages_of_files_that_only_the_start_needed_are_let_go_and_come_back_when_they_are_used() -> None:
    done = subprocess.run([sys.executable, "-c", MAPPED], capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr


LARGE = """
import threading
from pathlib import Path

import numpy as np

from live_services.runtime.heap import keep_pandas_out, prepare_heap

prepare_heap()
keep_pandas_out()
import pyarrow as pa

def resident_mb():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20

def read():
    for _ in range(3):
        tables = [pa.array(np.arange(500_000)).to_numpy() + k for k in range(20)]

before = resident_mb()
reading = threading.Thread(target=read)
reading.start()
reading.join()
assert pa.default_memory_pool().backend_name == "system"
assert resident_mb() < before + 20, (before, resident_mb())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="another C library")
def test_large_arrays_go_back_to_the_system_by_themselves_once_a_process_is_prepared() -> None:
    done = subprocess.run([sys.executable, "-c", LARGE], capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
