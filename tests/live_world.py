"""Small worlds for the tests of the live side: instruments, ticks, bars and events with sensible defaults."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any

import numpy as np

from feature_store.features.schema import feature_schema
from feature_store.market.types import MINUTE_NS, SECOND_NS, Bars, Instrument, Session, Ticks, Universe
from live_services.domain.events import (
    BarValues,
    OrderFilled,
    PnlSnapshot,
    PositionMark,
    SignalGenerated,
    SignalValidated,
    event_id,
)
from live_services.domain.strategy.desk import LoadedModel
from live_services.domain.strategy.history import SessionHistory
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


def signal(
    index: int = 0, seconds: float = 60, side: str = "BUY", intent: str = "open", **changes: Any
) -> SignalGenerated:
    time_ns = OPEN + round(seconds * SECOND)
    identity = event_id("signal", "momentum", token(index), time_ns, intent)
    price = changes.pop("price", 100.0)
    fields: dict[str, Any] = {
        "broker": "paper",
        "event_id": identity,
        "correlation_id": identity,
        "causation_id": identity,
        "event_time_ns": time_ns,
        "model_name": "momentum",
        "model_version": "1",
        "feature_schema_hash": "hash",
        "strategy": "momentum",
        "instrument_token": token(index),
        "symbol": UNIVERSE.instruments[index].symbol,
        "side": side,
        "intent": intent,
        "quantity": 10,
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


def validated(
    index: int = 0, seconds: float = 60, side: str = "BUY", intent: str = "open", **changes: Any
) -> SignalValidated:
    raw = signal(index, seconds, side, intent)
    fields = raw.model_dump(exclude={"event_type", "score", "threshold", "bar", "features", "event_id"})
    fields |= {"event_id": event_id("validated", raw.event_id), "signal_id": raw.event_id, "rules": ()}
    return SignalValidated(**(fields | changes))


def filled(index: int, seconds: float, side: str, quantity: int, price: float, costs: float = 0.0) -> OrderFilled:
    raw = signal(index, seconds, side)
    fields = raw.model_dump(
        exclude={"event_type", "score", "threshold", "bar", "features", "event_id", "reference_price"}
    )
    fields |= {
        "event_id": event_id("fill", raw.event_id, side, quantity),
        "signal_id": event_id(raw.event_id, side, quantity),
        "order_id": event_id("order", raw.event_id, side, quantity),
        "quantity": quantity,
        "price": price,
        "price_time_ns": raw.event_time_ns,
        "costs_inr": costs,
        "fill_model": "next_tick",
    }
    return OrderFilled(**fields)


def snapshot(seconds: int, positions: dict[int, int], settled: Sequence[str] = (), price: float = 100.0) -> PnlSnapshot:
    identity = event_id("pnl", "paper", seconds)
    return PnlSnapshot(
        broker="paper",
        event_id=identity,
        correlation_id=identity,
        causation_id=identity,
        event_time_ns=OPEN + seconds * SECOND,
        positions=tuple(
            PositionMark(
                instrument_token=token(index),
                symbol=UNIVERSE.instruments[index].symbol,
                quantity=quantity,
                average_price=price,
                mark_price=price,
                realized_pnl_inr=0,
                unrealized_pnl_inr=0,
                costs_inr=0,
            )
            for index, quantity in positions.items()
        ),
        realized_pnl_inr=0,
        unrealized_pnl_inr=0,
        costs_inr=0,
        net_pnl_inr=0,
        fills=len(positions),
        settled_signal_ids=tuple(settled),
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
