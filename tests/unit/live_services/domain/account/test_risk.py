from __future__ import annotations

import pytest

from live_services.domain.account.risk import CLOSE_RULES, OPEN_RULES, RiskState, apply_snapshot, decide
from live_services.domain.events import SignalRejected, SignalValidated
from live_services.settings import RiskSettings
from tests.live_world import OPEN, SECOND, SESSION, signal, snapshot


def account(**limits: float) -> RiskState:
    return RiskState(SESSION, RiskSettings.model_validate(limits))


def holding(quantity: int) -> RiskState:
    """An account whose strategy opened ten, of which so many are held."""
    state, opened = account(), signal(0, 5, "BUY" if quantity > 0 else "SELL")
    decide(state, opened)
    apply_snapshot(state, snapshot(10, {0: quantity}, settled=[opened.event_id]))
    return state


def test_an_open_within_all_limits_is_validated_and_names_the_rules_asked() -> None:
    raw = signal()
    verdict = decide(account(), raw)
    assert isinstance(verdict, SignalValidated)
    assert verdict.rules == tuple(rule.__name__ for rule in OPEN_RULES)
    assert (verdict.signal_id, verdict.causation_id, verdict.correlation_id) == (raw.event_id,) * 3
    assert verdict.event_time_ns == raw.event_time_ns
    assert verdict.quantity == raw.quantity


@pytest.mark.parametrize(
    ("limits", "rule"),
    [
        ({"max_quantity_per_instrument": 9}, "quantity_per_instrument"),
        ({"max_notional_per_instrument_inr": 999}, "notional_per_instrument"),
        ({"max_gross_notional_inr": 999}, "gross_notional"),
    ],
)
def test_a_limit_that_is_exceeded_names_its_rule_and_what_it_saw(limits: dict[str, float], rule: str) -> None:
    verdict = decide(account(**limits), signal())
    assert isinstance(verdict, SignalRejected)
    assert verdict.rule == rule
    assert verdict.limit != verdict.observed


def test_a_limit_that_is_met_exactly_is_not_exceeded() -> None:
    state = account(max_quantity_per_instrument=10, max_notional_per_instrument_inr=1000, max_gross_notional_inr=1000)
    assert isinstance(decide(state, signal()), SignalValidated)


def test_one_position_more_than_the_limit_is_refused() -> None:
    state = account(max_open_positions=1)
    assert isinstance(decide(state, signal(0)), SignalValidated)
    verdict = decide(state, signal(1))
    assert isinstance(verdict, SignalRejected)
    assert verdict.rule == "open_positions"


def test_gross_notional_counts_reservations_of_other_instruments() -> None:
    state = account(max_gross_notional_inr=1500)
    decide(state, signal(0))
    verdict = decide(state, signal(1))
    assert isinstance(verdict, SignalRejected)
    assert verdict.rule == "gross_notional"


def test_a_second_open_on_an_instrument_is_pyramiding() -> None:
    state = account()
    decide(state, signal(0, 60))
    verdict = decide(state, signal(0, 120, side="SELL"))
    assert isinstance(verdict, SignalRejected)
    assert verdict.rule == "no_pyramiding"


def test_a_decision_at_the_close_is_outside_market_hours() -> None:
    at_close = (SESSION.close_ns - OPEN) / SECOND
    for raw in (signal(0, at_close), signal(0, at_close, "SELL", "close")):
        verdict = decide(account(), raw)
        assert isinstance(verdict, SignalRejected)
        assert verdict.rule == "market_hours"


def test_a_close_without_a_position_is_refused_with_nothing_to_reduce() -> None:
    verdict = decide(account(), signal(side="SELL", intent="close"))
    assert isinstance(verdict, SignalRejected)
    assert verdict.rule == "nothing_to_reduce"


def test_a_close_that_would_add_to_the_position_is_refused() -> None:
    verdict = decide(holding(5), signal(side="BUY", intent="close"))
    assert isinstance(verdict, SignalRejected)
    assert verdict.rule == "nothing_to_reduce"


@pytest.mark.parametrize(("held", "side"), [(4, "SELL"), (-4, "BUY")])
def test_a_close_is_capped_at_the_position(held: int, side: str) -> None:
    verdict = decide(holding(held), signal(side=side, intent="close"))
    assert isinstance(verdict, SignalValidated)
    assert verdict.quantity == 4
    assert verdict.rules == tuple(rule.__name__ for rule in CLOSE_RULES)


def test_a_close_reserved_twice_is_refused_the_second_time() -> None:
    state = holding(4)
    decide(state, signal(0, 60, "SELL", "close"))
    assert isinstance(decide(state, signal(0, 120, "SELL", "close")), SignalRejected)


def test_a_strategy_cannot_close_what_another_one_opened() -> None:
    state = account()
    assert isinstance(decide(state, signal(0, 5)), SignalValidated)
    other = signal(0, 60).model_copy(update={"strategy": "another"})
    assert isinstance(decide(state, other), SignalRejected)
    verdict = decide(state, signal(0, 120, "SELL", "close").model_copy(update={"strategy": "another"}))
    assert isinstance(verdict, SignalRejected)
    assert verdict.rule == "nothing_to_reduce"
    assert isinstance(decide(state, signal(0, 180, "SELL", "close")), SignalValidated)


def test_a_reservation_stands_until_a_snapshot_settles_it() -> None:
    state, raw = account(), signal()
    decide(state, raw)
    apply_snapshot(state, snapshot(61, {}))
    assert state.view().quantity(raw.instrument_token) == 10
    apply_snapshot(state, snapshot(62, {0: 10}, settled=[raw.event_id]))
    assert state.view().quantity(raw.instrument_token) == 10
    apply_snapshot(state, snapshot(63, {}))
    assert state.view().quantity(raw.instrument_token) == 0


def test_a_rejected_signal_reserves_nothing() -> None:
    state = account(max_quantity_per_instrument=1)
    decide(state, signal())
    assert not state.reservations
