"""The live half: the engine over sessions, then from tick to signal, fill and PnL on a real Kafka.

Targets of times are ratios to a bare transactional chain that runs beside it on the same frames, because the times
themselves are the machine's and of what else runs on it.
"""

from __future__ import annotations

from collections.abc import Callable

from benchmarks import live_engine
from benchmarks.live_latency import latency
from benchmarks.measuring import Figure, report


def measure(tell: Callable[[str], None]) -> list[Figure]:
    """Measure everything."""
    tell("the engine and an account")
    engine = live_engine.measure()
    tell("latency: two minutes on an embedded Kafka")
    return [*engine, *latency()]


if __name__ == "__main__":
    report("live", measure, ["aiokafka", "numpy", "numba", "pyarrow", "pydantic", "scikit-learn"])
