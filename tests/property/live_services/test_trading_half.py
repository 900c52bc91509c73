"""What must hold for every session: exactly one verdict, one end of an order, and no trace of how it was sliced."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store.market.types import Session, Ticks
from live_services.domain.account.books import Holding, Portfolio
from live_services.domain.account.paper_exchange import PaperBroker
from live_services.domain.account.risk import RiskState, decide
from live_services.domain.events import OrderFilled, PnlSnapshot, SignalRejected, SignalValidated
from live_services.settings import RiskSettings
from tests.live_world import OPEN, SECOND, SESSION, UNIVERSE, filled, random_walk, signal, validated

SHORT = Session(SESSION.date, OPEN, OPEN + 180 * SECOND)
trades = st.lists(st.tuples(st.integers(-50, 50).filter(bool), st.integers(1, 500)), min_size=1, max_size=30)


@given(trades)
def test_realized_plus_unrealized_is_the_cash_flow_plus_the_value_held(moves: list[tuple[int, int]]) -> None:
    holding, cash = Holding(), 0.0
    for quantity, price in moves:
        holding = holding.filled(quantity, float(price), 0.0)
        cash -= quantity * price
    mark = 123.0
    np.testing.assert_allclose(
        holding.realized_pnl_inr + holding.unrealized_pnl_inr(mark), cash + holding.quantity * mark, atol=1e-6
    )


def sliced(ticks: Ticks, cuts: list[int]) -> list[Ticks]:
    edges = [0, *sorted(min(cut, len(ticks)) for cut in cuts), len(ticks)]
    return [ticks[slice(a, b)] for a, b in itertools.pairwise(edges)]


def snapshots_of(ticks: Ticks, cuts: list[int], fills: list[OrderFilled]) -> list[PnlSnapshot]:
    book, waiting, snapshots = Portfolio(UNIVERSE, SHORT, "paper", 7), list(fills), []
    for part in sliced(ticks, cuts):
        if not len(part):
            continue
        watermark = int(part.event_time_ns[-1]) + 1
        while waiting and waiting[0].event_time_ns < watermark:
            book.on_outcome(waiting.pop(0))
        book.on_ticks(part)
        snapshots += book.advance(watermark)
    for fill in waiting:
        book.on_outcome(fill)
    return snapshots + book.advance(SHORT.close_ns + SECOND)


@settings(deadline=None, max_examples=40)
@given(
    cuts=st.lists(st.integers(0, 240), max_size=12),
    fills=st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 150_000), st.sampled_from(["BUY", "SELL"]), st.integers(1, 20)),
        max_size=12,
        unique_by=lambda fill: (fill[0], fill[1]),
    ),
)
def test_snapshots_do_not_depend_on_how_the_session_was_sliced(
    cuts: list[int], fills: list[tuple[int, int, str, int]]
) -> None:
    ticks = random_walk(3, minutes=2, per_minute=40, seed=1)
    events = [
        filled(index, ms / 1000, side, quantity, 100.0)
        for index, ms, side, quantity in sorted(fills, key=lambda f: f[1])
    ]
    assert snapshots_of(ticks, cuts, events) == snapshots_of(ticks, [], events)


@settings(deadline=None, max_examples=40)
@given(
    cuts=st.lists(st.integers(0, 240), max_size=12),
    orders=st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 130_000), st.sampled_from(["open", "close"])),
        max_size=15,
        unique_by=lambda order: (order[0], order[1]),
    ),
)
def test_every_order_ends_exactly_once_and_the_same_way_however_ticks_are_sliced(
    cuts: list[int], orders: list[tuple[int, int, str]]
) -> None:
    ticks = random_walk(3, minutes=2, per_minute=40, seed=2)
    accepted = [
        validated(index, ms / 1000, "BUY" if intent == "open" else "SELL", intent)
        for index, ms, intent in sorted(orders, key=lambda o: o[1])
    ]

    def run(extra_cuts: list[int]) -> list[tuple[str, str, int]]:
        paper, ended = PaperBroker(UNIVERSE, SESSION, 3.0), []
        due = [int(np.searchsorted(ticks.event_time_ns, order.event_time_ns)) for order in accepted]
        waiting = list(accepted)
        for part in sliced(ticks, [*extra_cuts, *due]):
            if not len(part):
                continue
            while waiting and waiting[0].event_time_ns <= part.event_time_ns[0]:
                ended += [event for event in paper.submit(waiting.pop(0)) if event.event_type != "order.submitted"]
            ended += paper.on_ticks(part)
        for order in waiting:
            ended += [event for event in paper.submit(order) if event.event_type != "order.submitted"]
        ended += paper.end_session()
        return [(event.correlation_id, event.event_type, event.event_time_ns) for event in ended]

    ends = run(cuts)
    assert sorted(end[0] for end in ends) == sorted(order.correlation_id for order in accepted)
    assert ends == run([])


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 2), st.sampled_from(["BUY", "SELL"]), st.sampled_from(["open", "close"]), st.integers(1, 60)
        ),
        max_size=25,
    )
)
def test_every_signal_has_one_verdict_and_accepted_exposure_never_exceeds_a_limit(
    wishes: list[tuple[int, str, str, int]],
) -> None:
    limits = RiskSettings(
        max_quantity_per_instrument=40,
        max_notional_per_instrument_inr=3_500,
        max_gross_notional_inr=6_000,
        max_open_positions=2,
    )
    state = RiskState(SESSION, limits)
    for number, (index, side, intent, quantity) in enumerate(wishes):
        verdict = decide(state, signal(index, 60 + number, side, intent, quantity=quantity))
        assert isinstance(verdict, SignalValidated | SignalRejected)
        holdings = state.view().holdings
        assert len(holdings) <= 2
        assert sum(holding.notional_inr for holding in holdings.values()) <= 6_000
        assert all(abs(holding.quantity) <= 35 for holding in holdings.values())
    assert OPEN
