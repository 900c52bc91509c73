"""Quix Streams on ticks: a rival of `benchmarks.live_throughput`, run by a Python that has it.

    PYTHON benchmarks/quix_rival.py BOOTSTRAP_SERVERS INSTRUMENTS

One JSON message a tick, as its users send them; for each instrument it keeps, in its own state with a changelog and
with exactly-once, the minute's bar and an average of the closes before: a part of what the runner does. Prints ticks by
second of processor time.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
import uuid

TICKS = 100_000


def main(servers: str, instruments: int) -> None:
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
    source = app.topic(topic, key_deserializer="str", value_deserializer="json")
    producer = Producer({"bootstrap.servers": servers, "linger.ms": 50})
    for k in range(TICKS):
        tick = {"time_ns": k * 10_000_000, "price": 100 + k % 7, "volume": k}
        while True:
            try:
                producer.produce(topic, key=f"S{k % instruments:04d}", value=json.dumps(tick))
                break
            except BufferError:
                producer.poll(0.1)
    producer.flush()

    def step(tick: dict, state: object) -> dict | None:  # type: ignore[type-arg]
        minute, bar = tick["time_ns"] // 60_000_000_000, state.get("bar")  # type: ignore[attr-defined]
        closed = None
        if bar is None or bar["minute"] != minute:
            if bar is not None:
                average = state.get("average", bar["close"])  # type: ignore[attr-defined]
                closed = bar | {"average": average + (bar["close"] - average) / 10}
                state.set("average", closed["average"])  # type: ignore[attr-defined]
            bar = {"minute": minute, "open": tick["price"], "high": tick["price"], "low": tick["price"]}
        bar["high"], bar["low"] = max(bar["high"], tick["price"]), min(bar["low"], tick["price"])
        bar["close"], bar["volume"] = tick["price"], tick["volume"]
        state.set("bar", bar)  # type: ignore[attr-defined]
        return closed

    frame = app.dataframe(source)
    frame = frame.apply(step, stateful=True)
    began = time.process_time()
    app.run(count=TICKS, timeout=120)
    print(TICKS / (time.process_time() - began))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
