"""The live half: the engine, ticks from Kafka, latencies, a real day and promotions under load, all in one run.

    make bench NAME=live ARGS='--quix PYTHON'

Targets of times are ratios to a bare transactional chain that runs beside it on the same frames, because the times
themselves are the machine's and of what else runs on it; those that are for a quiet machine stand beside them. Quix
Streams takes part if a Python is named that has it, the real day if ``ALPHA_PANDA_TEST_DATA`` names its folder.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from benchmarks import live_day, live_engine, live_promotion, live_throughput
from benchmarks.live_latency import latency
from benchmarks.measuring import Figure, arguments, report


def measure(tell: Callable[[str], None], quix: str) -> list[Figure]:
    """Measure everything, one after the other."""
    tell("the engine and an account")
    engine = live_engine.measure()
    throughput = live_throughput.measure(tell, quix)
    tell("latency: three minutes on an embedded Kafka")
    return [*engine, *throughput, *latency(), *live_day.measure(tell), *live_promotion.measure(tell)]


if __name__ == "__main__":
    parser = arguments("live")
    live_throughput.quix_argument(parser)
    asked = parser.parse_args()
    if not asked.quix:
        print(live_throughput.HOW_TO_ADD_QUIX, file=sys.stderr)
    if live_day.real_data() is None:
        print(live_day.HOW_TO_ADD_DATA, file=sys.stderr)
    packages = ["aiokafka", "numpy", "numba", "pyarrow", "pydantic", "scikit-learn", "mlflow"]
    report("live", lambda tell: measure(tell, asked.quix), packages, asked)
