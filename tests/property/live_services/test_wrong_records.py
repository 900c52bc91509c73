"""Whatever stands on the account's inputs, well formed or not, becomes a verdict or a dead letter and ends nothing."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from live_services.domain.basis import Stamp
from live_services.domain.clock import session_end_ns, watermark
from live_services.domain.events import MOST_PROPOSED, DeadLetter, ExitTerms
from live_services.domain.frames import encode_tick_frame
from live_services.domain.money import RUPEE
from live_services.domain.topics import MARKET_SESSIONS, MARKET_TICKS, broker_topics
from live_services.operations_settings import DeadLettersSettings
from live_services.runtime.chain import Chain
from live_services.runtime.local import MemoryLog, MemoryTask, run_to_the_end
from live_services.services.account import account_chain
from tests.account_world import limits
from tests.live_world import OPEN, SECOND, SESSION, UNIVERSE, signal, ticks, token
from tests.toy_chain import session_opened

PAPER = broker_topics("paper")
END = session_end_ns(SESSION)
NO_FLOOD = DeadLettersSettings(flood_letters=10**6)
TIMES = st.sampled_from([0, OPEN - 1, OPEN, OPEN + 1, OPEN + 30 * SECOND, SESSION.close_ns, END - 1])
RUPEES = st.sampled_from([None, 1, RUPEE, 10**6 * RUPEE])

PROPOSALS = st.builds(
    lambda at_ns, **fields: {**signal().model_dump(), **fields, "event_time_ns": at_ns},
    at_ns=TIMES,
    instrument_token=st.sampled_from([token(0), token(3), 1, 2**62]),
    quantity=st.sampled_from([1, 10**6, MOST_PROPOSED, MOST_PROPOSED + 1, 10**307]),
    reference_price=st.sampled_from([0.01, 100.0, 1e6, 1e12, 1e308]),
    side=st.sampled_from(["BUY", "SELL"]),
    strategy=st.sampled_from(["momentum", "", "x" * 1000]),
    exit=st.builds(
        lambda stop, target, expiry_ns: {
            **{name: value for name, value in signal().exit.model_dump().items() if name in ExitTerms.model_fields},
            "stop_distance_inr_e4": stop,
            "target_distance_inr_e4": target,
            "expiry_ns": expiry_ns,
        },
        RUPEES,
        RUPEES,
        TIMES,
    ),
)


def value(fields: dict[str, Any]) -> bytes:
    """Give a proposal's bytes, whether its fields may be so or not."""
    return json.dumps(fields).encode()


def _account() -> Chain:
    return account_chain("paper", MARKET_TICKS, limits(), Stamp())


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.one_of(PROPOSALS.map(value), st.binary(max_size=40)), min_size=1, max_size=12),
    st.sampled_from([0.01, 100.0, 1e6, 1e12, 1e308]),
    st.lists(st.binary(max_size=40), max_size=3),
)
def test_no_record_ends_an_account(records: list[bytes], price: float, commands: list[bytes]) -> None:
    log = MemoryLog()
    log.append_event(MARKET_SESSIONS, 0, session_opened(SESSION, UNIVERSE))
    for topic in (MARKET_TICKS, PAPER.signals_raw):
        log.append_event(topic, 0, watermark(topic, 0, SESSION, OPEN, UNIVERSE.digest))
    for record in records:
        log.append(PAPER.signals_raw.name, 0, record, ())
    for record in commands:
        log.append(PAPER.commands.name, 0, record, ())
    table = ticks((0, 1, 100.0), (0, 31, price), (1, 31, price), (0, 90, price))
    log.append(MARKET_TICKS.name, 0, *encode_tick_frame(table, UNIVERSE, 0, OPEN + 100 * SECOND, SESSION))
    for topic in (MARKET_TICKS, PAPER.signals_raw):
        log.append_event(topic, 0, watermark(topic, 0, SESSION, END, UNIVERSE.digest))
    run_to_the_end([MemoryTask(_account, log, dead_letters=NO_FLOOD)])
    verdicts = len(log.events(PAPER.signals_validated)) + len(log.events(PAPER.signals_rejected))
    letters = [e for e in log.events(PAPER.signals_raw.dlq) if isinstance(e, DeadLetter)]
    raised = [e for e in log.events(PAPER.signals_validated) if getattr(e, "intent", "") == "close"]
    assert verdicts - len(raised) + len(letters) == len(records)
    assert len(log.events(PAPER.commands.dlq)) == len(commands)
