import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numba import njit

from feature_store.features import kernels
from feature_store.features.library import DECLARED, declare
from feature_store.features.source import code_digest
from feature_store.features.window import CLOSE, Window, units

PROGRAM = """
import sys
from numba import int64, njit
from feature_store.features.source import compiled_once

factor = int(sys.argv[1])

@njit
def inner(x):
    return x * factor

def outer(x):
    return inner(x) + 1

kernel = compiled_once(outer, "what it was made of", (int64,))
print(kernel(5), sum(kernel.stats.cache_hits.values()))
"""


PROGRAM_OF_SEVERAL = """
import sys
from numba import int64, njit
from feature_store.features.source import compiled_once

TEXT = '''
@njit
def inner(n):  # calls itself, or it would be copied into outer and have no name
    return factor if n < 2 else inner(n - 1) + inner(n - 2)

def outer(n):
    return inner(n) + 1
'''

for factor in map(int, sys.argv[1:]):
    known = {"__name__": "__main__", "njit": njit, "factor": factor}
    exec(TEXT, known)
    kernel = compiled_once(known["outer"], TEXT, (int64,))
    print(kernel(10), sum(kernel.stats.cache_hits.values()))
"""


def started(folder: Path, *factors: int, program: str = PROGRAM) -> subprocess.Popen[str]:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(folder)}
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, factors)], env=environment, stdout=subprocess.PIPE, text=True
    )


def answers(*processes: subprocess.Popen[str]) -> list[list[int]]:
    return [[int(word) for word in process.communicate(timeout=120)[0].split()] for process in processes]


def test_code_is_compiled_by_the_first_process_and_loaded_by_those_after_it_unless_what_it_calls_changed(
    tmp_path: Path,
) -> None:
    at_once = answers(started(tmp_path, 2), started(tmp_path, 2))
    assert [value for value, _ in at_once] == [11, 11]
    assert answers(started(tmp_path, 2), started(tmp_path, 3)) == [[11, 1], [16, 0]]
    assert sorted(path.read_text() for path in tmp_path.glob("step_*")) == ["what it was made of"] * 2


def test_code_of_two_processes_that_gave_equal_names_to_what_is_in_it_runs_side_by_side_in_a_third(
    tmp_path: Path,
) -> None:
    """Fresh processes count alike; one that loaded both had the second's ``outer`` call the first's ``inner``."""
    first, second = (started(tmp_path, factor, program=PROGRAM_OF_SEVERAL) for factor in (2, 3))
    assert answers(first, second) == [[89 * 2 + 1, 0], [89 * 3 + 1, 0]]
    both = answers(*(started(tmp_path, *order, program=PROGRAM_OF_SEVERAL) for order in ((2, 3), (3, 2))))
    assert both == [[89 * 2 + 1, 1, 89 * 3 + 1, 1], [89 * 3 + 1, 1, 89 * 2 + 1, 1]]


def test_code_is_compiled_for_the_process_alone_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no directory")
    assert answers(started(tmp_path / "file" / "below", 2)) == [[11, 0]]


@njit
def _half(x):  # type: ignore[no-untyped-def]
    return x / 2


@njit
def _third(x):  # type: ignore[no-untyped-def]
    return x / 3


WEIGHTS = np.array([1.0, 2.0])


def _weighted(x: float) -> float:
    return float(_half(x) * WEIGHTS[0])


def test_a_digest_is_of_everything_that_a_function_computes_with(monkeypatch: pytest.MonkeyPatch) -> None:
    def of(power: int, other: float = 1.0):  # type: ignore[no-untyped-def]
        def function(x: float, y: float = other) -> float:
            return float(x**power + y)

        return function

    found = [code_digest(of(2)), code_digest(of(3)), code_digest(of(2, 2.0)), code_digest(_weighted)]
    monkeypatch.setitem(globals(), "WEIGHTS", np.array([1.0, 3.0]))
    found.append(code_digest(_weighted))
    monkeypatch.setitem(globals(), "_half", _third)
    found.append(code_digest(_weighted))
    assert None not in found
    assert len(set(found)) == len(found)
    assert code_digest(of(2)) == found[0]


def test_steps_over_features_of_the_platform_and_of_a_desk_have_a_digest_each() -> None:
    def steps_back(bars: Window, period: int = 3) -> float:
        return units(bars, CLOSE) - units(bars, CLOSE, period)

    own = [declare(steps_back, warm_up=4, units="price units", source="")]
    other = [(replace(own[0][0], warm_up=5), own[0][1])]
    digests = [code_digest(kernels.uncompiled_step(declared)[1]) for declared in (DECLARED, own, other)]
    assert None not in digests
    assert len(set(digests)) == 3


def test_what_refers_to_an_object_of_unknown_content_has_no_digest() -> None:
    unknown = object()
    assert code_digest(lambda: unknown) is None
