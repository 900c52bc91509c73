from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from live_services.cli.explain import BrokenChain, Explanation, UnknownId, explain
from live_services.cli.explanation_tree import render
from live_services.domain.events import (
    Event,
    OrderFilled,
    OrderSubmitted,
    SignalGenerated,
    SignalRejected,
    StrategyModelAssigned,
    self_caused,
)
from live_services.domain.money import paise_text
from models_registry.refs import GateCheck, GateResult
from models_registry.sidecar import Sidecar
from tests.account_log import MODEL, Backwards, log_of, two_sessions
from tests.account_world import Account
from tests.live_world import OPEN, SESSION, signal, ticks

EVENTS = two_sessions()
ORDER = next(event for event in EVENTS if isinstance(event, OrderSubmitted))
FILLS = [event for event in EVENTS if isinstance(event, OrderFilled)]
PASSED_OVER = next(event for event in EVENTS if isinstance(event, SignalRejected))


def sidecar(name: str, version: str, **changes: object) -> Sidecar:
    fields: dict[str, object] = {
        "model_name": name,
        "algorithm": "hist_gradient_boosting",
        "market": "SYNTHETIC test market",
        "bar_clock": "time:60s",
        "feature_schema": (),
        "feature_schema_hash": MODEL.identity.feature_schema_hash,
        "training_data_digest": "feedface" * 8,
        "training_start_ns": SESSION.open_ns,
        "training_end_ns": SESSION.close_ns,
        "training_rows": 1234,
        "label": "forward return",
        "label_horizon_bars": 10,
        "buy_threshold": 0.6,
        "sell_threshold": 0.4,
        "folds": (),
        "metrics": {},
        "gate": GateResult(rung="champion", checks=()),
        "feature_distributions": (),
        "artifact_sha256": {},
        "git_commit": "0123abc",
        "library_versions": {},
        "seed": 1,
        "created_by": "dagster run 42",
        "created_at_ns": SESSION.open_ns,
        "run_id": "42",
    }
    return Sidecar.model_validate(fields | changes)


def without(event_type: str) -> list[Event]:
    return [event for event in EVENTS if event.event_type != event_type]


def exit_fill(reason: str) -> OrderFilled:
    return next(fill for fill in FILLS if fill.reason == reason)


async def explained(asked: str, events: list[Event] | tuple[Event, ...] = EVENTS) -> Explanation:
    return await explain(asked, log_of(events), sidecar)


def drawn(explanation: Explanation) -> str:
    out = io.StringIO()
    Console(file=out, width=300).print(render(explanation, "http://dagster/"))
    return out.getvalue()


async def test_an_order_is_followed_back_to_its_signal_model_and_training_data() -> None:
    found = await explained(ORDER.order_id)
    assert found.order == ORDER
    assert found.verdict is not None
    assert found.verdict.event_id == ORDER.causation_id
    assert found.signal.event_id == ORDER.signal_id
    assert [type(outcome) for outcome in found.outcomes] == [OrderFilled]
    assert found.sidecar.training_rows == 1234
    assert found.stages_agree
    assert json.loads(found.model_dump_json())["order"]["order_id"] == ORDER.order_id


async def test_the_first_six_characters_of_any_id_are_enough() -> None:
    fill = next(fill for fill in FILLS if fill.order_id == ORDER.order_id)
    for same in (ORDER.order_id, ORDER.event_id, ORDER.causation_id, ORDER.signal_id, fill.event_id):
        assert (await explained(same[:6])).order == ORDER
        assert (await explained(same)).order == ORDER
    for same in (PASSED_OVER.signal_id, PASSED_OVER.event_id):
        assert (await explained(same[:6])).verdict == PASSED_OVER


async def test_the_tree_shows_every_link() -> None:
    text = drawn(await explained(ORDER.order_id))
    links = (ORDER.order_id, "filled", "already_open", "momentum =", "ticks", "version 1", "feedface", "1234 rows")
    for shown in (*links, "http://dagster/runs/42", "0123abc", "c0ffee", "IST"):
        assert shown in text


async def test_a_model_that_its_gate_refused_says_that_a_person_lets_it_run() -> None:
    failed = GateCheck(name="enough_trades", passed=False, observed="1", required="30")
    refused = GateResult(rung="champion", checks=(failed,))
    found = await explain(ORDER.order_id, log_of(EVENTS), lambda *ids: sidecar(*ids, gate=refused))
    assert "its gate refused it (enough_trades): it runs by a person's override" in drawn(found)
    assert "override" not in drawn(await explained(ORDER.order_id))


async def test_an_order_that_was_traced_names_its_trace() -> None:
    trace_id = "4bf92f3577b34da6a3ce929d0e0e4736"
    headers = [("traceparent", f"00-{trace_id}-00f067aa0ba902b7-01".encode())]
    found = await explain(ORDER.order_id, log_of(EVENTS, headers), sidecar)
    assert found.trace_id == trace_id
    assert f"trace {trace_id}" in drawn(found)
    assert "trace " not in drawn(await explained(ORDER.order_id))


@pytest.mark.parametrize("reason", ["stop", "target", "time", "carried"])
async def test_an_exit_names_its_reason_the_order_that_opened_and_what_the_trade_came_to(reason: str) -> None:
    closing = exit_fill(reason)
    found = await explained(closing.order_id)
    assert found.order is not None
    assert (found.order.order_id, found.order.intent) == (closing.order_id, "close")
    opening = next(fill for fill in FILLS if fill.signal_id == closing.signal_id and fill.intent == "open")
    trade = found.trade
    assert trade is not None
    assert (trade.opening_order_id, trade.exit_reason) == (opening.order_id, reason)
    assert trade.charges_inr_e4 == opening.charges_inr_e4 + closing.charges_inr_e4
    text = drawn(found)
    assert f"opened by order {opening.order_id}" in text
    assert f"filled {opening.quantity:,} at {paise_text(opening.price_inr_e4)}" in text
    assert f"ended by {reason}, held " in text
    assert f"net {paise_text(trade.net_pnl_inr_e4)}" in text


async def test_an_exit_that_flattened_names_who_commanded_it_and_why() -> None:
    raw = signal()
    account = Account().say(raw).market(ticks((0, 61, 100.0))).command("REDUCING", 100, flatten=True)
    way_out = account.market(ticks((0, 120, 101.0))).of(OrderFilled)[-1]
    log = log_of([raw, *account.events])
    found = await explain(way_out.order_id, log, lambda *ids: sidecar(*ids, feature_schema_hash="hash"))
    assert found.commanded is not None
    assert (found.commanded.commanded_by, found.commanded.reason) == ("asha", "the desk said so")
    tree = drawn(found)
    assert "ended by a person's command to hold nothing" in tree
    assert "commanded of paper by asha" in tree
    assert (await explain(raw.event_id, log, lambda *ids: sidecar(*ids, feature_schema_hash="hash"))).commanded is None


async def test_a_proposal_that_was_passed_over_names_the_rule_its_limit_and_what_it_saw() -> None:
    found = await explained(PASSED_OVER.signal_id)
    assert (found.order, found.trade, found.verdict) == (None, None, PASSED_OVER)
    text = drawn(found)
    assert "passed over by the rule already_open" in text
    assert f"limit: {PASSED_OVER.limit}" in text
    assert f"it saw: {PASSED_OVER.observed}" in text
    over = [PASSED_OVER.model_copy(update={"rule": "gross_notional"}), *without("signal.rejected")]
    assert "rejected by the rule gross_notional" in drawn(await explained(PASSED_OVER.signal_id, over))


async def test_a_proposal_gives_its_entry_and_names_all_its_orders() -> None:
    stopped = exit_fill("stop")
    found = await explained(stopped.signal_id)
    assert found.order is not None
    assert found.order.intent == "open"
    assert [story.order.reason for story in found.orders] == ["entry", "bracket"]
    text = drawn(found)
    assert "all orders of this proposal" in text
    assert "by its stop" in text


async def test_a_proposal_that_was_validated_while_trading_was_off_says_why_nothing_was_ordered() -> None:
    raw = signal(0, 60, feature_schema_hash=MODEL.identity.feature_schema_hash)
    switched = Account(trading_off="TRADING__PAPER__ENABLED is false").say(raw).close().switch(True, 7200)
    found = await explained(raw.event_id, [raw, *switched.events])
    assert found.order is None
    assert "nothing was ordered, then or later: TRADING__PAPER__ENABLED is false" in drawn(found)
    assert not (await explained(ORDER.order_id)).trading_off


async def test_a_proposal_that_nobody_has_judged_says_so() -> None:
    raw = [event for event in EVENTS if isinstance(event, SignalGenerated)]
    found = await explained(raw[0].event_id, raw)
    assert (found.order, found.verdict) == (None, None)
    assert "risk has not judged it" in drawn(found)


async def test_an_order_without_an_end_is_pending_and_a_trade_without_one_still_open() -> None:
    assert (await explained(ORDER.order_id, without("order.filled"))).outcomes == ()
    assert "pending" in drawn(await explained(ORDER.order_id, without("order.filled")))
    opened = [fill for fill in FILLS if fill.intent == "open"]
    assert "still open" in drawn(await explained(ORDER.order_id, [*without("order.filled"), *opened]))


async def test_the_record_that_let_its_strategy_run_the_version_is_found() -> None:
    def assigned(version: str, time_ns: int, rung: str = "champion") -> StrategyModelAssigned:
        return StrategyModelAssigned(
            **self_caused("assigned", version, time_ns, rung),
            event_time_ns=time_ns,
            strategy=ORDER.strategy,
            rung=rung,
            model_name="momentum",
            model_version=version,
            feature_schema_hash="hash",
            reason="promoted",
        )

    mine = assigned("1", OPEN + 1)
    others = (assigned("1", OPEN), assigned("2", OPEN + 2), assigned("1", OPEN + 3, "live"), assigned("1", 2**62))
    assert (await explained(ORDER.order_id, [*EVENTS, mine, *others])).assigned == mine


async def test_proposals_are_many_and_are_read_no_further_back_than_the_one_that_is_asked_for() -> None:
    log = Backwards(EVENTS)
    last = [event for event in EVENTS if isinstance(event, OrderSubmitted) and event.intent == "open"][-1]
    await explain(last.order_id, log, sidecar)
    proposals = [event for event in EVENTS if isinstance(event, SignalGenerated)]
    assert log.read["paper.signals.raw"] <= 10 < len(proposals)
    assert "paper.signals.rejected" not in log.read
    assert "paper.pnl.snapshots" not in log.read


async def test_an_id_that_nothing_has_names_orders_that_there_are() -> None:
    with pytest.raises(UnknownId, match=r"begins with 'unheard'\. The newest orders are"):
        await explained("unheard")
    with pytest.raises(UnknownId, match="There are no orders yet"):
        await explained("unheard", [])
    with pytest.raises(UnknownId, match="give at least the first 6 characters"):
        await explained(ORDER.order_id[:5])


async def test_a_beginning_that_several_ids_have_asks_for_more_of_it() -> None:
    other = ORDER.model_copy(update={"order_id": ORDER.order_id[:8] + "-other"})
    with pytest.raises(UnknownId, match=f"2 ids on paper.orders.submitted begin with '{ORDER.order_id[:6]}'"):
        await explained(ORDER.order_id[:6], [*EVENTS, other])
    assert (await explained(ORDER.order_id, [*EVENTS, other])).order == ORDER


@pytest.mark.parametrize(
    ("missing", "link"), [("signal.validated", "validated signal"), ("signal.generated", "proposal")]
)
async def test_a_broken_chain_names_the_missing_link(missing: str, link: str) -> None:
    with pytest.raises(BrokenChain) as caught:
        await explained(ORDER.order_id, without(missing))
    assert caught.value.link == link


async def test_a_sidecar_that_is_gone_or_of_another_registry_is_a_broken_chain() -> None:
    def gone(name: str, version: str) -> Sidecar:
        raise LookupError("no such version")

    for source in (gone, lambda name, version: sidecar(name, version, feature_schema_hash="other")):
        with pytest.raises(BrokenChain, match="sidecar"):
            await explain(ORDER.order_id, log_of(EVENTS), source)
