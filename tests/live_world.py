"""Small worlds for the tests of the live side: instruments, ticks, bars and events with sensible defaults."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from feature_store.features.schema import feature_schema
from feature_store.market.types import MINUTE_NS, SECOND_NS, Bars, Instrument, Session, Ticks, Universe
from live_services.domain.basis import Answerable, Outcome, answer
from live_services.domain.events import (
    BarValues,
    Basis,
    Event,
    ExitTerms,
    OrderCancelled,
    OrderFilled,
    OrderRejected,
    OrderSubmitted,
    SignalGenerated,
    SignalValidated,
    event_id,
    self_caused,
)
from live_services.domain.money import RUPEE, inr_e4
from live_services.domain.strategy.history import SessionHistory
from live_services.domain.strategy.loaded_model import LoadedModel
from models_registry.refs import ModelIdentity

SESSION = Session.regular(dt.date(2026, 1, 5))
OPEN = SESSION.open_ns
MINUTE = MINUTE_NS
SECOND = SECOND_NS
UNIVERSE = Universe(
    instruments=(
        Instrument(instrument_token=101, symbol="AAA"),
        Instrument(instrument_token=102, symbol="BBB"),
        Instrument(instrument_token=103, symbol="CCC"),
        Instrument(instrument_token=104, symbol="INDEX", tradable=False),
    )
)


def said_by(act: Callable[..., object], *arguments: Any) -> list[Event]:
    """Let a chain act, and give what it said."""
    said: list[Event] = []
    act(*arguments, said.append)
    return said


def token(index: int) -> int:
    return UNIVERSE.instruments[index].instrument_token


def ticks(*rows: tuple[int, float, float]) -> Ticks:
    """Build ticks of (instrument, seconds after the open, price)."""
    ordered = sorted(rows, key=lambda row: row[1])
    return Ticks(
        np.array([row[0] for row in ordered], np.int32),
        np.array([OPEN + round(row[1] * SECOND) for row in ordered], np.int64),
        np.array([row[2] for row in ordered], np.float64),
        np.arange(1, len(ordered) + 1, dtype=np.int64) * 10,
    )


def bars(*rows: tuple[int, int, float, float], bar_ns: int = MINUTE) -> Bars:
    """Build bars of (instrument, number of the bar in the session, open, close)."""
    ordered = sorted(rows, key=lambda row: (row[1], row[0]))
    start = np.array([OPEN + row[1] * bar_ns for row in ordered], np.int64)
    opens = np.array([row[2] for row in ordered], np.float64)
    closes = np.array([row[3] for row in ordered], np.float64)
    return Bars(
        np.array([row[0] for row in ordered], np.int32),
        start,
        start + bar_ns,
        opens,
        np.maximum(opens, closes),
        np.minimum(opens, closes),
        closes,
        np.full(len(ordered), 100, np.int64),
        np.full(len(ordered), 5, np.int32),
    )


def ranges(*rows: tuple[int, int, float, float, float, float]) -> Bars:
    """Build minute bars of (instrument, number of the bar in the session, open, high, low, close)."""
    ordered = sorted(rows, key=lambda row: (row[1], row[0]))
    table = bars(*((instrument, number, open_, close) for instrument, number, open_, _, _, close in ordered))
    return replace(table, high=np.array([row[3] for row in ordered]), low=np.array([row[4] for row in ordered]))


def random_walk(n_instruments: int, minutes: int, per_minute: int, seed: int) -> Ticks:
    """Build ticks of a random walk over the session's first minutes, on distinct milliseconds."""
    rng = np.random.default_rng(seed)
    n = minutes * per_minute * n_instruments
    times = np.sort(rng.choice(minutes * 60_000, size=n, replace=False)).astype(np.int64) * 1_000_000 + OPEN
    instrument = rng.integers(0, n_instruments, n).astype(np.int32)
    price = np.empty(n)
    for index in range(n_instruments):
        mine = instrument == index
        price[mine] = np.round(100.0 * (index + 1) * np.exp(np.cumsum(rng.normal(0, 1e-3, mine.sum()))), 2)
    volume = np.arange(1, n + 1, dtype=np.int64) * 10
    return Ticks(instrument, times, price, volume)


def session_bars(session: Session, n_instruments: int, minutes: int, seed: int) -> Bars:
    """Build minute bars of a random walk over the first minutes of a session; some instruments miss some."""
    rng = np.random.default_rng([seed, session.date.toordinal()])
    present = rng.random((minutes, n_instruments)) < 0.95
    minute, instrument = np.nonzero(present)
    level = 100.0 * np.exp(rng.normal(0, 1e-3, (minutes, n_instruments)).cumsum(axis=0))
    close = np.round(level[minute, instrument], 2)
    opens = np.round(close * (1 + rng.normal(0, 5e-4, len(close))), 2)
    start = session.open_ns + minute.astype(np.int64) * MINUTE
    return Bars(
        instrument.astype(np.int32),
        start,
        start + MINUTE,
        opens,
        np.maximum(opens, close) + 0.05,
        np.minimum(opens, close) - 0.05,
        close,
        rng.integers(1, 1000, len(close)),
        np.full(len(close), 5, np.int32),
    )


def past_sessions(universe: Universe, count: int, minutes: int = 375, seed: int = 1) -> SessionHistory:
    """Build the history of so many days before SESSION."""
    dates = [SESSION.date - dt.timedelta(days=k) for k in range(count, 0, -1)]
    parts = [session_bars(Session.regular(date), len(universe), minutes, seed) for date in dates]
    return SessionHistory(universe, tuple(date.isoformat() for date in dates), Bars.concatenate(parts))


def signal(index: int = 0, seconds: float = 60, side: str = "BUY", **changes: Any) -> SignalGenerated:
    """Propose ten shares at 100 rupees, to be held for ten minutes."""
    time_ns, strategy = OPEN + round(seconds * SECOND), changes.get("strategy", "momentum")
    price = changes.pop("price", 100.0)
    terms = {name: changes.pop(name) for name in ("stop_inr", "target_inr", "expiry_ns") if name in changes}
    fields: dict[str, Any] = {
        **self_caused("signal", "paper", strategy, "champion", token(index), time_ns, 0),
        "broker": "paper",
        "event_time_ns": time_ns,
        "model_name": "momentum",
        "model_version": "1",
        "feature_schema_hash": "hash",
        "strategy": strategy,
        "rung": "champion",
        "instrument_token": token(index),
        "symbol": UNIVERSE.instruments[index].symbol,
        "side": side,
        "quantity": 10,
        "exit": ExitTerms(
            expiry_ns=terms.get("expiry_ns", time_ns + 10 * MINUTE),
            stop_distance_inr_e4=inr_e4(terms["stop_inr"]) if "stop_inr" in terms else None,
            target_distance_inr_e4=inr_e4(terms["target_inr"]) if "target_inr" in terms else None,
        ),
        "score": 0.5,
        "threshold": 0.4,
        "reference_price": price,
        "bar": BarValues(
            start_ns=time_ns - MINUTE,
            end_ns=time_ns,
            open=price,
            high=price,
            low=price,
            close=price,
            volume=1,
            tick_count=1,
        ),
        "features": {"momentum": 0.1},
    }
    return SignalGenerated(**(fields | changes))


def _answering(event: Answerable, **fields: Any) -> dict[str, Any]:
    said = answer(event, "", "", event_time_ns=event.event_time_ns, basis=Basis(), quantity=event.quantity)
    del said["event_type"]  # of the answer's class
    return said | fields


def validated(index: int = 0, seconds: float = 60, side: str = "BUY", **changes: Any) -> SignalValidated:
    """Accept a proposal: an entry."""
    raw = signal(index, seconds, side, **changes)
    return SignalValidated(
        **_answering(raw, event_id=event_id("validated", raw.event_id), signal_id=raw.event_id),
        reason="entry",
        reference_price=raw.reference_price,
        exit=raw.exit,
        rules=(),
    )


def exit_of(fill: OrderFilled, seconds: float, reason: str = "time", **changes: Any) -> SignalValidated:
    """Close what a fill opened: at the market, or as a bracket with `stop_inr` and `target_inr`."""
    prices = {
        f"{name}_price_inr_e4": inr_e4(changes.pop(f"{name}_inr"))
        for name in ("stop", "target")
        if f"{name}_inr" in changes
    }
    fields = _answering(
        fill,
        event_id=event_id("exit", fill.event_id, round(seconds * SECOND), reason),
        signal_id=fill.signal_id,
        event_time_ns=OPEN + round(seconds * SECOND),
        side="SELL" if fill.side == "BUY" else "BUY",
        intent="close",
    )
    return SignalValidated(
        **(fields | changes), reason=reason, reference_price=fill.price_inr_e4 / RUPEE, rules=(), **prices
    )


def submitted(accepted: SignalValidated) -> OrderSubmitted:
    """Submit what was validated."""
    order_id = event_id("order", accepted.event_id)
    return OrderSubmitted(
        **_answering(accepted, event_id=event_id("submitted", order_id), order_id=order_id),
        signal_id=accepted.signal_id,
        reason=accepted.reason,
        reference_price=accepted.reference_price,
        exit=accepted.exit,
        stop_price_inr_e4=accepted.stop_price_inr_e4,
        target_price_inr_e4=accepted.target_price_inr_e4,
    )


def filled(
    order: OrderSubmitted, seconds: float, price: float, quantity: int = 0, left: int = 0, **changes: Any
) -> OrderFilled:
    """Fill an order, whole or so many of its shares."""
    fields = _answering(
        order,
        event_id=event_id("fill", order.order_id, round(seconds * SECOND)),
        event_time_ns=OPEN + round(seconds * SECOND),
        quantity=quantity or order.quantity,
        signal_id=order.signal_id,
        order_id=order.order_id,
        reason=order.reason,
        price_inr_e4=inr_e4(price),
        price_time_ns=OPEN + round(seconds * SECOND),
        remaining_quantity=left,
        charges_inr_e4=0,
        charges_schedule="2024-10-01",
        charges_exact=True,
        fill_model="next_tick",
    )
    return OrderFilled(**(fields | changes))


def ended(order: OrderSubmitted, seconds: float, kind: type[OrderCancelled] | type[OrderRejected]) -> Outcome:
    """End what is left of an order unfilled."""
    return kind(
        **_answering(order, event_id=event_id("end", order.order_id), signal_id=order.signal_id),
        event_type="order.cancelled" if kind is OrderCancelled else "order.rejected",
        order_id=order.order_id,
        reason=order.reason,
        why="a test",
    )


class LinearScore:
    """A model whose score is one feature times a factor: easy to steer, exact for any number of rows."""

    def __init__(self, column: int, factor: float = 1.0) -> None:
        self.column, self.factor, self.calls = column, factor, 0

    def score(self, X: np.ndarray, /) -> np.ndarray:  # noqa: N803
        self.calls += 1
        assert np.isfinite(X).all()
        return X[:, self.column] * self.factor


def loaded_model(
    version: str = "1", names: Sequence[str] | None = None, buy: float = 5e-4, sell: float = -5e-4
) -> LoadedModel:
    schema = feature_schema(names or ["momentum"], 1)
    identity = ModelIdentity(model_name="momentum", model_version=version, feature_schema_hash=schema.hash)
    return LoadedModel(identity, schema, LinearScore(0), buy, sell, "sha")
