"""Quix Streams on ticks: a rival of `benchmarks.live_throughput`, run by a Python that has it.

    PYTHON benchmarks/quix_rival.py BOOTSTRAP_SERVERS INSTRUMENTS FIGURES MODELS

One JSON message a tick, as its users send them, and exactly-once. For each instrument it keeps, in its own state with a
changelog, what the runner keeps: the minute's bar, the closes and volumes before, and at each bar's end as many rolling
figures as the runner has features, with a score of each model. What it does less: a score is a weighted sum and not a
hundred trees, nothing is proposed, checked or explained, no row is checked for being late, and only bars are said.
Prints ticks by second of processor time.
"""

from __future__ import annotations

import itertools
import json
import math
import sys
import tempfile
import time
import uuid

TICKS = 100_000
TICKS_PER_MINUTE = 3_200
"""Of the whole market, as in the session that the runner takes."""
LONGEST = 64
"""Closes and volumes kept of an instrument."""


def rolling(closes: list[float], volumes: list[float], figures: int) -> list[float]:
    """As many rolling figures: by turns a move, a mean, a deviation and a share of volume, over longer and longer."""
    found = []
    for number in range(figures):
        window = min(2 + 3 * (number // 4), len(closes))
        last, kind = closes[-window:], number % 4
        mean = sum(last) / window
        if kind == 0:
            found.append(closes[-1] / last[0] - 1)
        elif kind == 1:
            found.append(closes[-1] / mean - 1)
        elif kind == 2:
            found.append(math.sqrt(sum((close - mean) ** 2 for close in last) / window) / mean)
        else:
            found.append(volumes[-1] / (sum(volumes[-window:]) or 1))
    return found


def score(row: list[float], model: int) -> float:
    """A logistic regression."""
    return 1 / (1 + math.exp(-sum(((number + model) % 7 - 3) * figure for number, figure in enumerate(row))))


def main(servers: str, instruments: int, figures: int, models: int) -> None:
    from confluent_kafka import Producer
    from quixstreams import Application

    topic = f"bench.quix.{uuid.uuid4().hex}"
    app = Application(
        broker_address=servers,
        consumer_group=topic,
        auto_offset_reset="earliest",
        processing_guarantee="exactly-once",
        loglevel=None,
        state_dir=tempfile.mkdtemp(),
    )
    source, said = app.topic(topic, key_deserializer="str", value_deserializer="json"), app.topic(f"{topic}.said")
    producer = Producer({"bootstrap.servers": servers, "linger.ms": 50})
    for k in range(TICKS):
        tick = {"time_ns": k * 60_000_000_000 // TICKS_PER_MINUTE, "price": 100 + k % 7, "volume": k}
        while True:
            try:
                producer.produce(topic, key=f"S{k % instruments:04d}", value=json.dumps(tick))
                break
            except BufferError:
                producer.poll(0.1)
    producer.flush()

    taken = itertools.count(1)

    def step(tick: dict, state: object) -> dict | None:  # type: ignore[type-arg]
        if next(taken) == TICKS:
            app.stop()  # a count given to run() is one of bars, which are what comes out
        minute, bar = tick["time_ns"] // 60_000_000_000, state.get("bar")  # type: ignore[attr-defined]
        closed = None
        if bar is None or bar["minute"] != minute:
            if bar is not None:
                before = state.get("before", {"closes": [], "volumes": []})  # type: ignore[attr-defined]
                before["closes"] = [*before["closes"], bar["close"]][-LONGEST:]
                before["volumes"] = [*before["volumes"], bar["volume"]][-LONGEST:]
                state.set("before", before)  # type: ignore[attr-defined]
                row = rolling(before["closes"], before["volumes"], figures)
                closed = bar | {"row": row, "scores": [score(row, model) for model in range(models)]}
            bar = {"minute": minute, "open": tick["price"], "high": tick["price"], "low": tick["price"]}
        bar["high"], bar["low"] = max(bar["high"], tick["price"]), min(bar["low"], tick["price"])
        bar["close"], bar["volume"] = tick["price"], tick["volume"]
        state.set("bar", bar)  # type: ignore[attr-defined]
        return closed

    frame = app.dataframe(source)
    frame = frame.apply(step, stateful=True)
    frame = frame.filter(lambda closed: closed is not None)
    frame.to_topic(said)
    began = time.process_time()
    app.run()
    print(TICKS / (time.process_time() - began))


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
