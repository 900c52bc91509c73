"""A Kafka that is killed while a writer commits; thirty times: ``python -m benchmarks.broker_kills --kills 30``."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.integration
@pytest.mark.timeout(120)
async def test_readers_of_a_killed_broker_go_on_within_the_transaction_timeout_and_miss_nothing() -> None:
    told = await asyncio.create_subprocess_exec(  # a process, for aiokafka leaves failed futures unread
        *(sys.executable, "-m", "benchmarks.broker_kills", "--kills", "1"),
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": "."},
        stdout=asyncio.subprocess.PIPE,
    )
    said = (await told.communicate())[0].decode()
    assert told.returncode == 0, said
    assert "0 lost, 0 twice" in said
