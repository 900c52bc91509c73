from __future__ import annotations

import numpy as np

from feature_store.features.engine import feature_table
from feature_store.market.types import Bars
from live_services.domain.basis import Stamp
from live_services.domain.events import SignalGenerated
from live_services.domain.log import LogPosition
from live_services.domain.strategy.desk import Assignment, LoadedModel, StrategyDesk
from models_registry.specification import StrategySpec
from tests.live_world import MINUTE, OPEN, SECOND, SESSION, UNIVERSE, bars, loaded_model, random_walk, ticks

RISING = [100.0 + k for k in range(375)]


def desk(**changes: object) -> StrategyDesk:
    settings = StrategySpec.model_validate(
        {"name": "momentum", "holding_bars": 5, "notional_per_trade_inr": 1_000} | changes
    )
    return StrategyDesk(UNIVERSE, SESSION, (settings,), bar_minutes=1, stamp=Stamp("digest", "commit"))


def assign(to: StrategyDesk, model: LoadedModel | None, effective_ns: int = OPEN) -> None:
    to.assign(Assignment(effective_ns, "momentum", model))


def closes(prices: dict[int, list[float]], first: int = 0) -> Bars:
    return bars(*((i, first + k, p, p) for i, series in prices.items() for k, p in enumerate(series)))


def run(on: StrategyDesk, table: Bars, until: int = 375) -> list[SignalGenerated]:
    on.on_bars(table)
    return on.advance(OPEN + until * MINUTE + 1)


def minute(signal: SignalGenerated) -> float:
    return (signal.event_time_ns - OPEN) / MINUTE


def test_it_opens_at_the_first_warm_bar_beyond_the_threshold_and_closes_after_the_holding_bars() -> None:
    on = desk()
    assign(on, loaded_model())
    signals = run(on, closes({0: RISING[:20]}), until=20)
    assert [(minute(s), s.intent, s.side) for s in signals] == [
        (11, "open", "BUY"),
        (16, "close", "SELL"),
        (17, "open", "BUY"),
    ]
    opened = signals[0]
    assert opened.quantity == 1_000 // 110
    assert opened.bar.end_ns == opened.event_time_ns
    assert opened.reference_price == opened.bar.close == 110.0
    assert opened.features == {"momentum": opened.score}
    assert opened.basis.config_digest == "digest"
    assert signals[1].quantity == opened.quantity


def test_a_falling_price_opens_short_and_closes_with_a_buy() -> None:
    on = desk()
    assign(on, loaded_model())
    signals = run(on, closes({0: RISING[30::-1]}), until=16)
    assert [(s.intent, s.side) for s in signals] == [("open", "SELL"), ("close", "BUY")]


def test_a_share_dearer_than_the_notional_is_still_one_share() -> None:
    on = desk(notional_per_trade_inr=1)
    assign(on, loaded_model())
    assert {s.quantity for s in run(on, closes({0: RISING[:12]}))} == {1}


def test_an_untradable_instrument_is_never_signalled() -> None:
    on = desk()
    assign(on, loaded_model())
    assert run(on, closes({3: RISING[:30]})) == []


def test_nothing_opens_from_the_last_entry_on() -> None:
    on = desk(last_entry_minutes_before_close=20)
    assign(on, loaded_model())
    signals = run(on, closes({0: [100.0] * 352 + RISING[:23], 1: [100.0] * 353 + RISING[:22]}))
    assert [(s.symbol, s.intent, minute(s)) for s in signals] == [("AAA", "open", 354), ("AAA", "close", 359)]


def test_nothing_opens_whose_holding_would_end_after_the_last_exit() -> None:
    on = desk(holding_bars=354, exit_minutes_before_close=10)
    assign(on, loaded_model())
    signals = run(on, closes({0: RISING, 1: [100.0] * 11 + RISING[:364]}))
    assert [(s.symbol, s.intent, minute(s)) for s in signals] == [("AAA", "open", 11), ("AAA", "close", 365)]


def test_an_instrument_without_a_bar_at_the_exit_closes_on_its_newest_bar() -> None:
    on = desk(holding_bars=354)
    assign(on, loaded_model())
    signals = run(on, Bars.concatenate([closes({0: RISING[:12]}), closes({1: [100.0] * 360}, first=12)]))
    assert [(s.symbol, s.intent, minute(s)) for s in signals] == [("AAA", "open", 11), ("AAA", "close", 365)]
    assert signals[1].bar.end_ns == OPEN + 12 * MINUTE


def test_a_position_is_held_for_time_and_not_for_its_instruments_own_bars() -> None:
    on = desk()
    assign(on, loaded_model())
    thin = closes({0: RISING[:11]})
    signals = run(on, Bars.concatenate([thin, closes({1: [100.0] * 20}, first=11)]))
    assert [(s.symbol, s.intent, minute(s)) for s in signals] == [("AAA", "open", 11), ("AAA", "close", 16)]


def test_it_closes_at_the_first_decision_at_or_after_the_horizon() -> None:
    on = desk()
    assign(on, loaded_model())
    signals = run(on, Bars.concatenate([closes({0: RISING[:13]}), closes({0: RISING[19:20], 1: [100.0]}, first=19)]))
    assert [(s.symbol, s.intent, minute(s)) for s in signals] == [("AAA", "open", 11), ("AAA", "close", 20)]


def test_at_one_time_closes_come_first_and_each_kind_by_instrument() -> None:
    on = desk()
    assign(on, loaded_model())
    signals = run(on, closes({0: [99.0] * 15 + RISING[:40], 2: RISING[:40], 1: RISING[:40]}))
    at_16 = [(s.intent, s.symbol) for s in signals if minute(s) == 16]
    assert at_16 == [("close", "BBB"), ("close", "CCC"), ("open", "AAA")]
    order = [(s.event_time_ns, s.intent == "open", s.symbol) for s in signals]
    assert order == sorted(order)


def test_without_a_model_nothing_opens_but_what_is_open_closes_with_the_model_that_opened_it() -> None:
    on = desk()
    assign(on, loaded_model("7"))
    assign(on, None, OPEN + 12 * MINUTE)
    signals = run(on, closes({0: RISING[:40]}))
    assert [(minute(s), s.intent, s.model_version) for s in signals] == [(11, "open", "7"), (16, "close", "7")]


def test_an_assignment_holds_for_decisions_strictly_later_than_its_time() -> None:
    for effective, version in ((11, "1"), (10, "2")):
        on = desk()
        assign(on, loaded_model("1"))
        assign(on, loaded_model("2"), OPEN + effective * MINUTE)
        assert run(on, closes({0: RISING[:12]}))[0].model_version == version


def test_a_model_with_other_features_that_comes_in_the_middle_of_the_day_sees_the_same_rows() -> None:
    names = ["z_score", "momentum"]
    table = closes({0: RISING[:60], 1: RISING[60:0:-1]})
    model = loaded_model("2", names, buy=-1e9, sell=-2e9)
    on = desk()
    assign(on, loaded_model("1", buy=1e9, sell=-1e9))
    assert run(on, table[table.end_ns <= OPEN + 40 * MINUTE], until=40) == []
    assign(on, model, OPEN + 40 * MINUTE)
    signals = run(on, table[table.end_ns > OPEN + 40 * MINUTE])
    rows, _ = feature_table(table, model.schema, UNIVERSE)
    assert minute(signals[0]) == 41
    for signal in signals:
        index = UNIVERSE.index_of_symbol[signal.symbol]
        row = np.flatnonzero((table.end_ns == signal.event_time_ns) & (table.instrument == index))[0]
        assert tuple(signal.features.values()) == tuple(rows[row])


def test_all_rows_of_a_batch_are_scored_in_one_call() -> None:
    on, model = desk(), loaded_model(buy=1e9, sell=-1e9)
    assign(on, model)
    run(on, closes({0: RISING[:40], 1: RISING[:40]}))
    assert model.model.calls == 1  # type: ignore[attr-defined]


def test_a_signal_names_the_frames_that_overlap_its_bar() -> None:
    on = desk()
    assign(on, loaded_model())
    signals = []
    for k in range(12 * 2):
        part = ticks((0, k * 30 + 1, 100.0 + k))
        signals += on.on_ticks(part, LogPosition("market.ticks", 0, 500 + k))
        signals += on.advance(OPEN + (k + 1) * 30 * SECOND)
    assert minute(signals[0]) == 11
    assert signals[0].basis.input_positions == {"market.ticks[0]": (520, 521)}


def test_ticks_decide_the_same_whatever_their_batches_and_whichever_watermark_closes_a_bar() -> None:
    walk = random_walk(3, minutes=40, per_minute=20, seed=3)

    def decided(step: int) -> list[SignalGenerated]:
        on, signals = desk(), []
        assign(on, loaded_model())
        for first in range(0, len(walk), step):
            part = walk[slice(first, first + step)]
            signals += on.on_ticks(part)
            signals += on.advance(int(part.event_time_ns[-1]))
        return signals + on.advance(SESSION.close_ns)

    whole = decided(len(walk))
    assert len(whole) > 10
    assert decided(7) == decided(500) == whole


def test_a_strategy_that_names_instruments_opens_on_those_alone() -> None:
    rising = closes({0: RISING[:20], 1: RISING[:20]})
    for named, traded in ((("BBB",), {"BBB"}), ((), {"AAA", "BBB"})):
        on = desk(instruments=named)
        assign(on, loaded_model())
        assert {signal.symbol for signal in run(on, rising, until=20)} == traded
