"""Bad records over all topics, each with what it must get."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any, Final

import numpy as np

from feature_store.market.types import Ticks
from live_services.domain.clock import market_gap, watermark
from live_services.domain.events import (
    LAST_NS,
    MOST_PROPOSED,
    TASK_HEADER,
    RecordHandedIn,
    SignalGenerated,
    TradingStateChanged,
    TradingStateCommanded,
    TradingStateInForce,
    headers_of,
    self_caused,
    value_of,
)
from live_services.domain.sequence import Stamp as Numbered
from live_services.domain.topics import (
    DLQ_DECISIONS,
    FEATURES_SKEW,
    MARKET_BARS,
    MARKET_SESSIONS,
    MARKET_TICKS,
    MODELS_LOADED,
    MODELS_PROMOTED,
    MODELS_REFUSED,
    SIGNALS_SHADOW,
    STRATEGIES_CONTROL,
    STRATEGIES_SUMMARY,
    Topic,
    broker_topics,
    market_topic,
)
from models_registry.specification import Broker
from tests.live_world import MINUTE, SECOND, filled, signal, submitted, validated
from tests.memory_desk import BROKERS
from tests.poison import (
    ALARM,
    AT,
    BEFORE,
    DAYS,
    END,
    GARBAGE,
    LETTER,
    PAPER,
    PASSED_OVER,
    REJECTED,
    SESSION,
    UNIVERSE,
    ZERODHA,
    Poison,
    changed,
    frame_of,
    minute_of,
)
from tests.toy_chain import assignment, session_opened

# --- the market -------------------------------------------------------------------------------------------------------


def _frames(kind: str) -> Iterator[Poison]:
    topic, wm = market_topic(kind), SESSION.open_ns + BEFORE * MINUTE  # type: ignore[arg-type]
    rows = minute_of(kind, BEFORE - 1)[:3]
    good = frame_of(rows, 10**6, wm)
    key = "event_time_ns" if isinstance(rows, Ticks) else "end_ns"

    def bad(name: str, why: str, value: bytes = good.value, **headers: str | None) -> Poison:
        said = dict(good.headers) | {k: v.encode() for k, v in headers.items() if v is not None}
        kept = tuple((k, v) for k, v in said.items() if headers.get(k, "") is not None)
        return Poison(f"a frame with {name}", topic, value, LETTER, why, kept, kind)

    yield bad("no body", "bad_frame", b"")
    yield bad("a body of garbage", "bad_frame", b"\xff" * 64)
    yield bad("half a body", "bad_frame", good.value[: len(good.value) // 2])
    yield bad("no watermark", "bad_frame", watermark_ns=None)
    yield bad("a watermark of words", "bad_frame", watermark_ns="soon")
    yield bad("a watermark of 10^25", "bad_frame", watermark_ns=str(10**25))
    yield bad("a watermark of 5,000 digits", "bad_frame", watermark_ns="9" * 5_000)
    yield bad("a watermark at the end of 64 bits", "bad_frame", watermark_ns=str(2**63 - 1))
    yield bad("a session of no date", "bad_frame", session_date="today")
    yield bad("a session that never opens", "bad_frame", session_open_ns=str(2**63))
    yield bad("a universe that nobody told", "bad_frame", universe_digest="0" * 64)
    yield bad("no universe", "bad_frame", universe_digest=None)
    yield bad("another version", "bad_frame", schema_version="99")
    yield bad("a number that is none", "bad_frame", frame_number="first")
    yield bad("another broker", "wrong_topic", broker="paper")
    yield bad("the type of the other feed", "wrong_topic", event_type=_other(kind))
    late = frame_of(rows, 10**6 + 1, wm)
    yield Poison("a frame of rows of the past", topic, late.value, LETTER, "late", tuple(late.headers), kind)
    backwards = frame_of(rows[np.array([2, 1, 0])], 10**6 + 2, wm)
    if len(np.unique(getattr(rows, key))) > 1:
        yield Poison("a frame whose times run backwards", topic, backwards.value, LETTER, "bad_frame",
                     tuple(backwards.headers), kind)  # fmt: skip


def _other(kind: str) -> str:
    return "market.bars.frame" if kind == "ticks" else "market.ticks.frame"


def _rows(kind: str) -> Iterator[Poison]:
    """Frames of which no row can be used; their watermark is the one that their partition has."""
    topic, wm = market_topic(kind), SESSION.open_ns + BEFORE * MINUTE  # type: ignore[arg-type]
    one: Any = minute_of(kind, BEFORE - 1)[:1]
    prices = ("last_price",) if isinstance(one, Ticks) else ("open", "close")
    changes = [(name, value) for name in prices for value in (np.nan, np.inf, -1.0, 0.0, 1e308)]
    volume = "day_volume" if isinstance(one, Ticks) else "volume"
    for number, (name, value) in enumerate([*changes, (volume, -1), (volume, 2**62)]):
        column = np.array([value], dtype=getattr(one, name).dtype)
        frame = frame_of(replace(one, **{name: column}), 2 * 10**6 + number, wm)
        yield Poison(f"a row with {name} {value}", topic, frame.value, LETTER, "bad_rows", tuple(frame.headers), kind)


def _marks(topic: Topic, kind: str = "ticks") -> Iterator[Poison]:
    """Watermarks that can be none, on a topic that is merged."""
    mark = watermark(topic, 0, SESSION, AT, UNIVERSE.digest)
    other = "zerodha" if topic.scope == "paper" else "paper"
    for name, why, fields in (
        ("before its session", "no_event", {"event_time_ns": -1}),
        ("outside its session", "no_event", {"event_time_ns": END + 2 * SECOND}),
        ("at 10^25", "no_event", {"event_time_ns": 10**25}),
        ("at the end of 64 bits", "no_event", {"event_time_ns": 2**63 - 1}),
        ("of a session of 10^30 hours", "no_event", {"session_close_ns": 10**30}),
        ("of a session on another day", "no_event", {"session_date": "2026-01-06"}),
        ("of no universe", "bad_frame", {"universe_digest": "0" * 64}),
        ("of another broker", "wrong_topic", {"broker": other}),
    ):
        said = tuple((key, str(fields[key]).encode() if key in fields else value) for key, value in headers_of(mark))
        yield Poison(f"a watermark {name}", topic, b"", LETTER, why, said, kind)
    yield Poison("a watermark as JSON", topic, mark.model_dump_json().encode(), LETTER, "no_event", on=kind)


def _gaps(kind: str) -> Iterator[Poison]:
    topic = market_topic(kind)  # type: ignore[arg-type]
    gap = market_gap(topic, 0, AT, AT + SECOND, "a test")
    for name, why, fields in (
        ("of the past", "late", {"event_time_ns": SESSION.open_ns}),
        ("after the close", "no_session", {"event_time_ns": END + 1, "until_ns": END + 2}),
        ("of the next century", "no_session", {"event_time_ns": LAST_NS, "until_ns": LAST_NS}),
        ("until 10^25", "no_event", {"until_ns": 10**25}),
    ):
        yield Poison(f"a gap {name}", topic, changed(gap, **fields), LETTER, why, on=kind)


# --- proposals --------------------------------------------------------------------------------------------------------


def proposal(broker: Broker = "paper", **changes: Any) -> SignalGenerated:
    """Propose on the desk's first instrument, by a strategy that it does not run."""
    one = UNIVERSE.instruments[0]
    named = {"instrument_token": one.instrument_token, "symbol": one.symbol, "broker": broker, "strategy": "stranger"}
    made = signal(0, (AT - SESSION.open_ns) / SECOND, **{"strategy": "stranger"}).model_copy(update=named | changes)
    return made.model_copy(update=self_caused("poison", broker, str(changes)))


def _proposals(broker: Broker) -> Iterator[Poison]:
    topic, good = broker_topics(broker).signals_raw, proposal(broker)
    other = "zerodha" if broker == "paper" else "paper"
    for name, why, fields in (
        ("of the past", "late", {"event_time_ns": SESSION.open_ns}),
        ("after the session's end", "no_session", {"event_time_ns": END + 1}),
        ("of tomorrow", "no_session", {"event_time_ns": END + 86_400 * SECOND}),
        ("of the next century", "no_session", {"event_time_ns": LAST_NS}),
    ):
        said = changed(good, **fields)
        yield Poison(f"the runner's proposal {name}", topic, said, LETTER, why, ours=True)
        yield Poison(f"a stranger's proposal {name}", topic, said + b" ", LETTER, "foreign")
    for name, why, fields in (
        ("at 10^25", "no_event", {"event_time_ns": 10**25}),
        ("before 1970", "no_event", {"event_time_ns": -1}),
        ("at a time in words", "no_event", {"event_time_ns": "soon"}),
        ("at no time", "no_event", {"event_time_ns": ...}),
        ("of no shares", "no_event", {"quantity": 0}),
        ("of 10^307 shares", "no_event", {"quantity": 10**307}),
        ("of one share too many", "no_event", {"quantity": MOST_PROPOSED + 1}),
        ("at a price of 1e308", "no_event", {"reference_price": 1e308}),
        ("at a price of 0", "no_event", {"reference_price": 0}),
        ("at a price that is none", "no_event", {"reference_price": float("nan")}),
        ("at a close of infinity", "no_event", {"bar__close": float("inf")}),
        ("with a token beyond 64 bits", "no_event", {"instrument_token": 2**64}),
        ("that expires at 10^30", "no_event", {"exit__expiry_ns": 10**30}),
        ("with a stop of 10^30", "no_event", {"exit__stop_distance_inr_e4": 10**30}),
        ("with a priority of 10^400", "no_event", {"priority": 10**400}),
        ("with a field too many", "no_event", {"surprise": 1}),
        ("with a score of words", "no_event", {"score": "high"}),
        ("of another version", "no_event", {"schema_version": 3}),
        ("to close", "no_event", {"intent": "close"}),
        ("of another broker", "wrong_topic", {"broker": other}),
    ):
        yield Poison(f"a proposal {name}", topic, changed(good, **fields), LETTER, why)
    for name, rule, fields in (
        ("on an unknown token", "tradable", {"instrument_token": 1 - 2**62, "symbol": "GHOST"}),
        ("of 10^15 shares", "quantity_per_instrument", {"quantity": MOST_PROPOSED}),
        ("at 10^11 rupees", "notional_per_instrument", {"reference_price": 1e11}),
        ("after the last entry", "market_hours", {"event_time_ns": SESSION.close_ns}),
        ("by a strategy without a name", "quantity_per_instrument", {"strategy": "", "quantity": 20_000}),
        ("by a strategy of 100,000 letters", "quantity_per_instrument", {"strategy": "x" * 10**5, "quantity": 20_000}),
    ):
        event = proposal(broker, **fields)
        yield Poison(f"a proposal {name}", topic, value_of(event), REJECTED, rule, ours=True)
    yield Poison("a verdict", topic, value_of(validated()), LETTER, "wrong_topic")
    for name, stamps in (
        ("without a stamp", ()),
        ("with a copied stamp", (Numbered(topic.writer, SESSION.open_ns, 0).header,)),
        ("with another's stamp", (Numbered("another", SESSION.open_ns, 2).header,)),
        ("with a stamp of words", (("ingress", b"strategy_runner today first"),)),
        ("with a stamp of tomorrow", (Numbered(topic.writer, END + 43_200 * SECOND, 0).header,)),
    ):
        yield Poison(f"a stranger's proposal {name}", topic, value_of(proposal(broker, strategy=name)), LETTER,
                     "foreign", stamps)  # fmt: skip
        for at_ns in (AT, SESSION.close_ns, END):
            mark = watermark(topic, 0, SESSION, at_ns, UNIVERSE.digest)
            yield Poison(f"a stranger's watermark {name} at {at_ns}", topic, b"", LETTER, "foreign",
                         (*headers_of(mark), *stamps))  # fmt: skip
    headers = (*headers_of(good),)
    for name, header in (
        ("of another broker", ("broker", other.encode())),
        ("of a broker of garbage", ("broker", b"\xff\xfe")),
        ("of a frame", ("event_type", b"market.ticks.frame")),
    ):
        kept = (*(one for one in headers if one[0] != header[0]), header)
        yield Poison(f"headers {name}", topic, value_of(proposal(broker, symbol=name)), LETTER, "wrong_topic", kept)


# --- commands and control ---------------------------------------------------------------------------------------------


def commanded(broker: Broker = "paper") -> TradingStateCommanded:
    """Command what changes nothing."""
    return TradingStateCommanded(
        **self_caused("poison", broker),
        broker=broker,
        event_time_ns=1,
        commanded_at_ns=1,
        state="ACTIVE",
        reason="a test",
        commanded_by="a stranger",
    )


def _commands(broker: Broker) -> Iterator[Poison]:
    topic, good = broker_topics(broker).commands, commanded(broker)
    other = "zerodha" if broker == "paper" else "paper"
    for name, fields in (
        ("of no state", {"state": "SIDEWAYS"}),
        ("without a reason", {"reason": ""}),
        ("with a reason of a book", {"reason": "x" * 10**6}),
        ("at 10^25", {"commanded_at_ns": 10**25}),
        ("for another broker", {"broker": other}),
    ):
        yield Poison(f"a command {name}", topic, changed(good, **fields), LETTER, "no_command")
    yield Poison("a proposal among commands", topic, value_of(proposal(broker)), LETTER, "no_command")
    handed = RecordHandedIn(
        **self_caused("poison", "handed", broker),
        broker=broker,
        event_time_ns=1,
        commanded_at_ns=1,
        reason="a test",
        commanded_by="a stranger",
        letter_id="none",
        record=good,
    )
    yield Poison("a hand-in of no state", topic, changed(handed, record__state="NONE"), LETTER, "no_command")


def halted() -> TradingStateChanged:
    """Say that the account was halted, as it would itself."""
    word = {"strategy": None, "state": "HALTED", "flatten": True, "since_ns": AT - SECOND, "reason": "none"}
    return TradingStateChanged(
        **self_caused("poison", "halted"),
        broker="paper",
        event_time_ns=AT - SECOND,
        command_offset=-1,
        in_force=TradingStateInForce(**word, commanded_by="a stranger", commanded_at_ns=1),
    )


def _control() -> Iterator[Poison]:
    for topic, task in ((PAPER.control, b"paper.account[0]"), (STRATEGIES_CONTROL, b"shared.strategy_runner[0]")):
        ours = ((TASK_HEADER, task),)
        for name, value in (
            ("garbage", b"\x00garbage"),
            ("a proposal", value_of(proposal())),
            ("an unknown type", b'{"event_type": "nobody.knows"}'),
        ):
            yield Poison(f"{name} under the task's name", topic, value, LETTER, "control", ours)
        for name, stamps in (("no", ()), ("a copied", (Numbered(topic.writer, SESSION.open_ns, 0).header,))):
            word = value_of(halted() if topic == PAPER.control else assignment(name, AT - SECOND))
            yield Poison(f"a well-formed word with {name} number under the task's name", topic, word, LETTER,
                         "control", (*ours, *stamps))  # fmt: skip
        mark = (*headers_of(watermark(topic, 0, SESSION, AT, UNIVERSE.digest)), *ours)
        yield Poison("a watermark under the task's name", topic, b"", LETTER, "control", mark)
        yield Poison("garbage under no name", topic, b"garbage", ALARM if topic == PAPER.control else PASSED_OVER)


# --- what no task reads -----------------------------------------------------------------------------------------------


def _inner() -> Iterator[Poison]:
    order = submitted(validated(0, 60))
    fill = filled(order, 61, 100.0)
    stated: tuple[tuple[str, Topic, bytes], ...] = (
        ("an entry of 10^307 shares", PAPER.signals_validated, changed(validated(), quantity=10**307)),
        ("a well-formed entry", PAPER.signals_validated, value_of(validated())),
        ("a well-formed rejection", PAPER.signals_rejected, b'{"event_id": "x"}'),
        ("an order on an unknown token", PAPER.orders_submitted, changed(order, instrument_token=7)),
        ("a fill on an unknown token", PAPER.orders_filled, changed(fill, instrument_token=7)),
        ("a fill at 1e308", PAPER.orders_filled, changed(fill, price_inr_e4=10**312)),
        ("a well-formed fill", PAPER.orders_filled, value_of(fill)),
        ("an end of no order", PAPER.orders_cancelled, b"{}"),
        ("a refusal of no order", PAPER.orders_rejected, b"[]"),
        ("a fill of a broker without a gateway", ZERODHA.orders_filled, value_of(fill)),
        ("a control record of no type", ZERODHA.control, b'{"event_type": 1}'),
    )
    for name, topic, value in stated:
        yield Poison(name, topic, value, ALARM)
    for topic in (PAPER.signals_validated, PAPER.orders_submitted, PAPER.orders_filled):
        yield Poison("garbage", topic, b"\xff" * 20, ALARM)
    yield Poison("deep nesting", PAPER.orders_filled, b"[" * 20_000, ALARM)


def _unread() -> Iterator[Poison]:
    unread = (
        MARKET_SESSIONS, STRATEGIES_SUMMARY, SIGNALS_SHADOW, FEATURES_SKEW, MODELS_PROMOTED, MODELS_LOADED,
        MODELS_REFUSED, DLQ_DECISIONS, PAPER.pnl_snapshots, PAPER.gateway_events, ZERODHA.pnl_snapshots,
        ZERODHA.gateway_events,
    )  # fmt: skip
    for topic in unread:
        yield Poison("bytes", topic, b"\x00\xff\xfe", PASSED_OVER)
        yield Poison("deep nesting", topic, b"[" * 20_000, PASSED_OVER)
    told = session_opened(SESSION, UNIVERSE)
    twin = json.loads(told.model_dump_json())["instruments"][0]
    for name, fields in (
        ("of another universe", {"universe_digest": "0" * 64}),
        ("of a twin", {"instruments": [twin, twin]}),
        ("of a lot of no shares", {"instruments": [twin | {"lot_size": 0}]}),
        ("until 10^30", {"session_close_ns": 10**30}),
        ("of no day", {"session_date": "someday"}),
    ):
        yield Poison(f"a session {name}", MARKET_SESSIONS, changed(told, **fields), PASSED_OVER)


def _everything() -> Iterator[Poison]:
    for topic, kind in (
        (MARKET_TICKS, "ticks"),
        (MARKET_BARS, "bars"),
        (PAPER.signals_raw, "ticks"),
        (ZERODHA.signals_raw, "ticks"),
        (PAPER.commands, "ticks"),
        (ZERODHA.commands, "ticks"),
    ):
        why = "no_command" if topic.name.endswith("commands") else "no_event"
        for name, value in GARBAGE:
            yield Poison(name, topic, value, LETTER, why, on=kind)
        if why == "no_event":
            yield from _marks(topic, kind)
        spelled = (("\\xff\\xfe", b"a name that is no UTF-8, as it is read"), ("event_type", b"\xff"))
        yield Poison("garbage in headers", topic, b"\x00 \xff", LETTER, why, spelled, kind)
    for kind in DAYS:
        yield from _frames(kind)
        yield from _rows(kind)
        yield from _gaps(kind)
    for broker in BROKERS:
        yield from _proposals(broker)
        yield from _commands(broker)
    yield from _control()
    yield from _inner()
    yield from _unread()


TABLE: Final[tuple[Poison, ...]] = tuple(_everything())


@cache
def of_kind(kind: str) -> tuple[Poison, ...]:
    """Give the bad records that are put before a desk of ticks or of bars."""
    return tuple(one for one in TABLE if one.on == kind)
