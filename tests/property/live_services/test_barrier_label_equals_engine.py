"""A barrier label is what the account makes of the proposal: entry, end, which barrier, and gain, gaps and all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store.labels.barrier_return import BarrierReturn
from feature_store.labels.barriers import NO_TOUCH, STOP, TARGET
from feature_store.market.types import Bars, Session
from live_services.domain.account.trades import Trade, round_trips
from live_services.domain.events import Event, ExitTerms
from live_services.domain.limits import AccountConfig
from live_services.domain.log import NOWHERE, EventRecord, LogPosition, MarketSlice
from live_services.domain.topics import MARKET_BARS
from tests.account_world import Account, limits
from tests.live_world import MINUTE, OPEN, SESSION, UNIVERSE, said_by, signal

MINUTES = 60
SHORT_DAY = Session(SESSION.date, OPEN, OPEN + MINUTES * MINUTE)
WIDE = AccountConfig(square_off_minutes_before_close=1, risk=limits(max_open_positions=10_000).risk)
STOCKS = 2
REASONS = {"time": NO_TOUCH, "stop": STOP, "target": TARGET}


def thin_market(seed: int, present: float, bar_minutes: int) -> Bars:
    """Bars of a session of an hour, of stocks with a share of them: gaps at opens, and wide and narrow ranges."""
    rng = np.random.default_rng(seed)
    place, instrument = np.nonzero(rng.random((MINUTES // bar_minutes, STOCKS)) < present)
    start, n = OPEN + place * bar_minutes * MINUTE, len(place)
    opens, close = (np.round(100.0 * np.exp(rng.normal(0, 3e-3, n)), 2) for _ in range(2))
    above, below = (np.round(rng.exponential(0.2, n) * (rng.random(n) < 0.7), 2) for _ in range(2))
    return Bars(
        instrument.astype(np.int32),
        start,
        start + bar_minutes * MINUTE,
        opens,
        np.round(np.maximum(opens, close) + above, 2),
        np.round(np.minimum(opens, close) - below, 2),
        close,
        np.full(n, 100, np.int64),
        np.full(n, 5, np.int32),
    )


def proposed(
    table: Bars, label: BarrierReturn, side: np.ndarray, volatility: np.ndarray
) -> Iterator[tuple[int, EventRecord]]:
    """Propose what a desk would, each row in a strategy of its own, so that no position is in the way."""
    stop, target = label.distances_inr_e4(table.close, volatility)
    allowed = (side != 0) & (stop > 0) & (table.end_ns + label.horizon_ns <= label.last_exit_ns(SHORT_DAY))
    for row in np.flatnonzero(allowed).tolist():
        end_ns = int(table.end_ns[row])
        exit_terms = ExitTerms(
            expiry_ns=end_ns + label.horizon_ns,
            stop_distance_inr_e4=int(stop[row]),
            target_distance_inr_e4=int(target[row]),
        )
        raw = signal(
            int(table.instrument[row]),
            (end_ns - OPEN) / 1e9,
            "BUY" if side[row] > 0 else "SELL",
            strategy=f"row_{row}",
            price=float(table.close[row]),
            exit=exit_terms,
        )
        yield row, EventRecord(raw, NOWHERE)


def traded(
    table: Bars, label: BarrierReturn, side: np.ndarray, volatility: np.ndarray
) -> tuple[set[int], dict[int, Trade]]:
    """Let the account trade what is proposed; give the rows of the proposals, and the trades by row."""
    account = Account(WIDE, session=SHORT_DAY, on_bars=True)
    chain, state = account.chain, account.state
    events: list[Event] = []
    rows = set()
    for row, record in proposed(table, label, side, volatility):
        rows.add(row)
        events += said_by(chain.handle, record, state, OPEN)
    if len(table):
        place = LogPosition(MARKET_BARS.name, 0, 1)
        events += said_by(chain.handle, MarketSlice(table, place), state, int(table.end_ns[-1]))
    events += account.close().events
    events.sort(key=lambda event: event.event_time_ns)
    return rows, {int(trade.strategy.removeprefix("row_")): trade for trade in round_trips(events)}


def compared(table: Bars, label: BarrierReturn, side: np.ndarray, volatility: np.ndarray) -> Counter[int]:
    """Compare every label with the trade of its decision; count them by outcome."""
    labels = label.of(table, len(UNIVERSE), [SHORT_DAY], side, volatility)
    rows, trades = traded(table, label, side, volatility)
    labelled = set(np.flatnonzero(np.isfinite(labels.forward_return)).tolist())
    assert labelled <= rows & trades.keys()
    for row, trade in trades.items():
        if row not in labelled:
            assert excused(table, label, row, trade)
            continue
        assert trade.left_open == 0
        assert trade.exit_reason is not None
        assert REASONS[trade.exit_reason] == labels.outcome[row]
        assert (trade.entry_time_ns, trade.exit_time_ns) == (labels.entry_ns[row], labels.label_end_ns[row])
        assert side[row] * (trade.exit_price / trade.entry_price - 1.0) == labels.forward_return[row]
    return Counter(labels.outcome[sorted(labelled)].tolist())


def excused(table: Bars, label: BarrierReturn, row: int, trade: Trade) -> bool:
    """Say whether missing bars let a trade enter after its time, or let nothing end it before the last exit."""
    due_ns = int(table.end_ns[row]) + label.horizon_ns
    starts = table.start_ns[table.instrument == table.instrument[row]]
    exits = ((starts >= due_ns) & (starts <= label.last_exit_ns(SHORT_DAY))).any()
    return trade.entry_time_ns >= due_ns or (trade.exit_reason not in {"stop", "target"} and not exits)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 10_000),
    st.sampled_from([0.2, 0.6, 0.9, 1.0]),
    st.integers(1, 12),
    st.integers(1, 20),
    st.sampled_from([1, 5]),
    st.tuples(st.floats(0.2, 4.0), st.floats(0.2, 4.0)),
)
def test_a_trade_of_the_account_enters_ends_and_gains_what_its_label_says(
    seed: int, present: float, holding: int, last_exit: int, bar_minutes: int, widths: tuple[float, float]
) -> None:
    table, rng = thin_market(seed, present, bar_minutes), np.random.default_rng(seed)
    label = BarrierReturn(holding, bar_minutes, last_exit, *widths)
    side = rng.integers(-1, 2, len(table)).astype(np.int8)
    volatility = rng.choice([np.nan, 0.0, 5e-4, 1e-3, 2.3456789e-3], len(table), p=[0.05, 0.05, 0.3, 0.3, 0.3])
    compared(table, label, side, volatility)


def test_a_market_has_labels_of_every_outcome_on_both_sides() -> None:
    table, label = thin_market(3, 0.8, 1), BarrierReturn(5, stop_volatility=1.5, target_volatility=1.5)
    for side in (1, -1):
        found = compared(table, label, np.full(len(table), side, np.int8), np.full(len(table), 2e-3))
        assert min(found[outcome] for outcome in (NO_TOUCH, STOP, TARGET)) > 5


def test_an_adjusted_price_of_four_decimals_gives_the_same_gain_to_the_bit() -> None:
    table = thin_market(5, 1.0, 1)
    prices = {name: np.round(getattr(table, name) * 0.3337, 4) for name in ("open", "high", "low", "close")}
    label = BarrierReturn(5, stop_volatility=1.5, target_volatility=1.0)
    side = np.resize(np.array([1, -1], np.int8), len(table))
    assert compared(replace(table, **prices), label, side, np.full(len(table), 2e-3)).total() > 50
