from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from feature_store.features.engine import feature_table
from feature_store.market.types import Bars
from live_services.domain.basis import Stamp
from live_services.domain.events import SignalGenerated
from live_services.domain.log import LogPosition
from live_services.domain.strategy.asked import Assignment
from live_services.domain.strategy.desk import Proposal, StrategyDesk
from live_services.domain.strategy.loaded_model import LoadedModel
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
    return heard(on.advance(OPEN + until * MINUTE + 1))


def heard(proposals: Sequence[Proposal]) -> list[SignalGenerated]:
    return [proposal for proposal in proposals if isinstance(proposal, SignalGenerated)]


def minute(signal: SignalGenerated) -> float:
    return (signal.event_time_ns - OPEN) / MINUTE


def test_it_proposes_at_every_warm_bar_beyond_the_threshold_whatever_it_proposed_before() -> None:
    on = desk()
    assign(on, loaded_model())
    signals = run(on, closes({0: RISING[:20]}), until=20)
    assert [(minute(s), s.intent, s.side) for s in signals] == [(k, "open", "BUY") for k in range(11, 21)]
    opened = signals[0]
    assert opened.quantity == 1_000 // 110
    assert opened.bar.end_ns == opened.event_time_ns
    assert opened.reference_price == opened.bar.close == 110.0
    assert opened.features == {"momentum": opened.score}
    assert opened.basis.config_digest == "digest"


def test_a_falling_price_is_proposed_short() -> None:
    on = desk()
    assign(on, loaded_model())
    signals = run(on, closes({0: RISING[30::-1]}), until=16)
    assert {s.side for s in signals} == {"SELL"}


def test_a_proposal_says_how_its_position_is_to_end() -> None:
    on = desk(stop_bps=50, target_bps=100)
    assign(on, loaded_model())
    signal = run(on, closes({0: RISING[:11]}))[0]
    assert signal.exit.expiry_ns == signal.event_time_ns + 5 * MINUTE
    assert (signal.exit.stop_distance_inr_e4, signal.exit.target_distance_inr_e4) == (5_500, 11_000)  # of 110 rupees


def test_a_share_dearer_than_the_notional_is_still_one_share() -> None:
    on = desk(notional_per_trade_inr=1)
    assign(on, loaded_model())
    assert {s.quantity for s in run(on, closes({0: RISING[:12]}))} == {1}


def test_an_untradable_instrument_is_never_signalled() -> None:
    on = desk()
    assign(on, loaded_model())
    assert run(on, closes({3: RISING[:30]})) == []


def test_nothing_is_proposed_from_the_last_entry_on() -> None:
    on = desk(last_entry_minutes_before_close=20)
    assign(on, loaded_model())
    signals = run(on, closes({0: [100.0] * 350 + RISING[:25]}))
    assert [minute(s) for s in signals] == [352, 353, 354]


def test_nothing_is_proposed_whose_holding_would_end_after_the_last_exit() -> None:
    on = desk(holding_bars=354, exit_minutes_before_close=10)
    assign(on, loaded_model())
    signals = run(on, closes({0: RISING, 1: [100.0] * 11 + RISING[:364]}))
    assert [(s.symbol, minute(s), s.exit.expiry_ns) for s in signals] == [("AAA", 11, OPEN + 365 * MINUTE)]


def test_at_one_time_proposals_come_by_instrument_and_times_ascend() -> None:
    on = desk()
    assign(on, loaded_model())
    signals = run(on, closes({0: [99.0] * 15 + RISING[:40], 2: RISING[:40], 1: RISING[:40]}))
    order = [(s.event_time_ns, s.instrument_token) for s in signals]
    assert order == sorted(order)
    assert [s.symbol for s in signals if minute(s) == 16] == ["AAA", "BBB", "CCC"]


def test_without_a_model_nothing_is_proposed() -> None:
    on = desk()
    assign(on, loaded_model("7"))
    assign(on, None, OPEN + 12 * MINUTE)
    signals = run(on, closes({0: RISING[:40]}))
    assert [(minute(s), s.model_version) for s in signals] == [(11, "7"), (12, "7")]


def test_ids_are_of_broker_strategy_rung_instrument_and_time_and_of_no_version() -> None:
    def ids(version: str, **changes: object) -> list[str]:
        on = desk(**changes)
        assign(on, loaded_model(version))
        return [signal.event_id for signal in run(on, closes({0: RISING[:20], 1: RISING[:20]}), until=20)]

    assert ids("1") == ids("2")
    assert len(set(ids("1"))) == 20
    spec = StrategySpec(name="momentum", brokers=("paper", "zerodha"))
    on = StrategyDesk(UNIVERSE, SESSION, (spec,), bar_minutes=1, brokers=("paper", "zerodha"))
    for rung in ("champion", "live"):
        on.assign(Assignment(OPEN, "momentum", loaded_model(), rung))  # type: ignore[arg-type]
    both = run(on, closes({0: RISING[:20]}), until=20)
    assert len({signal.event_id for signal in both}) == len(both) == 20


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
        signals += heard(on.on_ticks(part, LogPosition("market.ticks", 0, 500 + k)))
        signals += heard(on.advance(OPEN + (k + 1) * 30 * SECOND))
    assert minute(signals[0]) == 11
    assert signals[0].basis.input_positions == {"market.ticks[0]": (520, 521)}


def test_ticks_decide_the_same_whatever_their_batches_and_whichever_watermark_closes_a_bar() -> None:
    walk = random_walk(3, minutes=40, per_minute=20, seed=3)

    def decided(step: int) -> list[SignalGenerated]:
        on = desk()
        signals: list[SignalGenerated] = []
        assign(on, loaded_model())
        for first in range(0, len(walk), step):
            part = walk[slice(first, first + step)]
            signals += heard(on.on_ticks(part))
            signals += heard(on.advance(int(part.event_time_ns[-1])))
        return signals + heard(on.advance(SESSION.close_ns))

    whole = decided(len(walk))
    assert len(whole) > 10
    assert decided(7) == decided(500) == whole


def test_a_strategy_that_names_instruments_opens_on_those_alone() -> None:
    rising = closes({0: RISING[:20], 1: RISING[:20]})
    for named, traded in ((("BBB",), {"BBB"}), ((), {"AAA", "BBB"})):
        on = desk(instruments=named)
        assign(on, loaded_model())
        assert {signal.symbol for signal in run(on, rising, until=20)} == traded


def test_nothing_is_proposed_before_the_next_bar_ends() -> None:
    trading = desk()
    assign(trading, loaded_model())
    table, proposed = random_walk(3, minutes=40, per_minute=30, seed=4), 0
    for cut_ns in range(OPEN, OPEN + 41 * MINUTE, 7 * SECOND):
        trading.advance(cut_ns)
        next_ns = trading.next_decision_ns(cut_ns)
        inside = (table.event_time_ns >= cut_ns) & (table.event_time_ns < cut_ns + 7 * SECOND)
        said = [*trading.on_ticks(table[inside]), *trading.advance(cut_ns + 7 * SECOND)]
        assert cut_ns < next_ns <= min((one.event_time_ns for one in said), default=next_ns)
        proposed += len(said)
    assert proposed


def test_the_last_bar_ends_at_the_close_and_nothing_is_decided_after_it() -> None:
    trading = StrategyDesk(UNIVERSE, SESSION, [], bar_minutes=60)
    close_ns = SESSION.close_ns
    assert trading.next_decision_ns(OPEN) == OPEN + 60 * MINUTE
    assert trading.next_decision_ns(close_ns - 1) == close_ns
    assert trading.next_decision_ns(close_ns) == close_ns + 1
