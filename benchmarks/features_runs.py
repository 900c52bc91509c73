"""Whole runs of the feature store: from stored bars to a training frame, and the start of a process that computes."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.measuring import Figure, at_most, seconds
from feature_store.features.schema import FeatureSchema
from feature_store.labels.forward_return import ForwardReturn
from feature_store.market.types import Bars, Session, Universe
from feature_store.offline.stages import store_features, store_labels
from feature_store.offline.store import DERIVED, OfflineStore
from feature_store.offline.training_frames import training_frame
from feature_store.sources.reading import by_session, read_bars


def chain(schema: FeatureSchema, made_up: tuple[Universe, Bars]) -> list[Figure]:
    """All minutes of a quarter, stored as bars: their features and labels into the store, then the frame of them."""
    data, universe, sessions = _quarter(*made_up)
    label, count = ForwardReturn(10), sum(len(bars) for _, bars in sessions)
    with tempfile.TemporaryDirectory() as home:
        store = OfflineStore(Path(home))
        for session, bars in sessions:
            store.write_bars(session, universe, bars, data)
        days = [session for session, _ in sessions]
        stages: dict[str, Callable[[], object]] = {
            "features": lambda: list(store_features(store, days, schema)),
            "labels": lambda: list(store_labels(store, days, [label])),
            "frame": lambda: training_frame(store, None, days[0].date, days[-1].date, features=schema, label=label),
        }

        def emptied() -> None:
            for derived in DERIVED:
                shutil.rmtree(store.root / derived, ignore_errors=True)

        runs = []
        for _ in range(6):
            emptied()
            runs.append([seconds(run, repeats=1) for run in stages.values()])
    of_stage = [statistics.median(column) for column in zip(*runs[1:], strict=True)]  # the first is not warm
    whole = statistics.median(sum(run) for run in runs[1:])
    name = f"bars → features → labels → frame, {count:,} {data} bars, two cores"
    parts = [Figure(f"  {stage}", taken, "s") for stage, taken in zip(stages, of_stage, strict=True)]
    return [at_most(name, whole, "s", 2.5), *parts]


def _quarter(universe: Universe, bars: Bars) -> tuple[str, Universe, list[tuple[Session, Bars]]]:
    """The real minutes of 2021-03-26 to 2021-06-03 if they are there, else these."""
    folder = os.environ.get("ALPHA_PANDA_TEST_DATA")
    if folder:
        source = read_bars(Path(folder) / "nse_minute_2021-03-26_2021-06-03.parquet")
        return "real", source.universe, list(by_session(source.bars))
    return "made-up", universe, list(by_session(bars))


_OWN_FEATURE = """
import time
begin = time.perf_counter()
from feature_store.features.engine import FeatureEngine
from feature_store.features.library import declare
from feature_store.features.schema import FeatureSchema
from feature_store.features.window import CLOSE, units
from feature_store.market.types import Universe

def own(bars, ago=3):
    return units(bars, CLOSE) - units(bars, CLOSE, ago)

declared = [declare(own, warm_up=4, units="", source="")]
FeatureEngine(FeatureSchema((declared[0][0],), "time:60s"), Universe.from_symbols(["A"]), declared=declared)
print(time.perf_counter() - begin)
"""


def starts() -> list[Figure]:
    """What a process with a feature of the desk's own waits for, imports included: the first one, and others."""
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "NUMBA_CACHE_DIR": cache}

        def start() -> float:
            run = [sys.executable, "-c", _OWN_FEATURE]
            return float(subprocess.run(run, env=environment, check=True, capture_output=True).stdout)

        first = start()
        later = statistics.median(start() for _ in range(5))
    return [
        Figure("start with an own feature, first process of a machine", first, "s"),
        at_most("start with an own feature, every other process", later, "s", 3.0, ratio=first / later, rival="first"),
    ]
