"""An explanation, drawn as a tree for the terminal."""

from __future__ import annotations

from rich.markup import escape
from rich.tree import Tree

from feature_store.market.types import ist_text
from live_services.cli.explain import Explanation, OrderStory
from live_services.cli.trades import held_text
from live_services.domain.basis import Outcome
from live_services.domain.events import OrderFilled, OrderRejected, OrderSubmitted, SignalGenerated, SignalRejected
from live_services.domain.money import RUPEE, paise_text
from models_registry.addresses import run_page
from models_registry.refs import overruled

_ENDED_BY = {
    "stop": "its stop: the price was touched",
    "target": "its target: the price was touched",
    "time": "time: the holding that was asked for was over",
    "square_off": "square-off: its product's last time of the session",
    "carried": "the next session's open: it should have ended in the session before",
    "flatten": "a person's command to hold nothing",
}


def render(explanation: Explanation, dagster_url: str = "") -> Tree:
    """Draw an explanation; links lead to the Dagster of now, whose address stands in no event."""
    order, signal = explanation.order, explanation.signal
    root = Tree(_title(explanation))
    if order is not None:
        root.add(", ".join(_end(outcome) for outcome in explanation.outcomes) or _waits(order))
    if explanation.trading_off:
        root.add(f"nothing was ordered, then or later: {escape(explanation.trading_off)}")
    if order is not None and order.intent == "close":
        _add_exit(root, explanation, order)
    elif explanation.trade is not None:
        root.add(_trade_line(explanation))
    decision = _add_verdict(root, explanation)
    _add_data(decision, signal)
    _add_model(decision, explanation, dagster_url)
    if len(explanation.orders) > 1:
        _add_orders(root, explanation)
    code = root.add(f"code: commit {signal.basis.git_commit or 'unknown'}")
    code.add(f"configuration {signal.basis.config_digest[:16] or 'unknown'}")
    if not explanation.stages_agree:
        code.add("[yellow]risk or execution ran another commit or configuration than the strategy[/]")
    if explanation.trace_id:
        root.add(f"trace {explanation.trace_id}")
    return root


def _title(explanation: Explanation) -> str:
    order, signal = explanation.order, explanation.signal
    if order is None:
        what = f"{signal.side} {signal.quantity:,} {signal.symbol}"
        return f"[bold]signal {signal.event_id}[/]  {what}  (no order came of it)"
    return f"[bold]order {order.order_id}[/]  {order.side} {order.quantity:,} {order.symbol}  ({_kind(order)})"


def _kind(order: OrderSubmitted) -> str:
    if order.reason != "bracket":
        return order.reason
    prices = (("stop", order.stop_price_inr_e4), ("target", order.target_price_inr_e4))
    return " or ".join(f"{name} at {paise_text(price)}" for name, price in prices if price is not None)


def _waits(order: OrderSubmitted) -> str:
    return "rests until one of its prices is touched" if order.reason == "bracket" else "pending"


def _end(outcome: Outcome) -> str:
    if isinstance(outcome, OrderFilled):
        left = f", {outcome.remaining_quantity:,} left" if outcome.remaining_quantity else ""
        return (
            f"filled {outcome.quantity:,} at {paise_text(outcome.price_inr_e4)}, {ist_text(outcome.event_time_ns)} "
            f"({outcome.fill_model}), charges {_charges(outcome)}{left}"
        )
    word = "rejected" if isinstance(outcome, OrderRejected) else "cancelled"
    return f"{word} at {ist_text(outcome.event_time_ns)}: {escape(outcome.why)}"


def _charges(fill: OrderFilled) -> str:
    verified = (
        "" if fill.charges_exact else f", of the schedule of {fill.charges_schedule}: none is verified for its day"
    )
    return paise_text(fill.charges_inr_e4) + verified


def _add_exit(root: Tree, explanation: Explanation, order: OrderSubmitted) -> None:
    filled = next((end for end in explanation.outcomes if isinstance(end, OrderFilled)), None)
    reason = filled.reason if filled is not None else order.reason
    if reason in _ENDED_BY:
        exit_ = root.add(f"ended by {_ENDED_BY[reason]}" if filled is not None else f"asked by {_ENDED_BY[reason]}")
    else:
        exit_ = root.add("an exit that rests behind its entry")
    if (commanded := explanation.commanded) is not None:
        whom = commanded.strategy or order.broker
        said = (
            f"of {whom} by {commanded.commanded_by}, in force since {ist_text(commanded.since_ns)}: {commanded.reason}"
        )
        exit_.add(f"commanded {escape(said)}")
    opening = explanation.opening
    if opening is None:
        exit_.add("what opened the position is not on the log any more")
        return
    entry = exit_.add(f"opened by order {opening.order.order_id}  {opening.order.side} {opening.order.quantity:,}")
    for outcome in opening.outcomes:
        entry.add(_end(outcome))
    if explanation.trade is not None:
        exit_.add(_trade_line(explanation))


def _trade_line(explanation: Explanation) -> str:
    trade = explanation.trade
    assert trade is not None  # noqa: S101 - of its callers
    if trade.left_open:
        return f"still open: {trade.left_open:,} of {trade.quantity:,}"
    return (
        f"the trade: ended by {trade.exit_reason}, held {held_text(trade.exit_time_ns - trade.entry_time_ns)}, gross "
        f"{paise_text(trade.gross_pnl_inr_e4)}, charges {paise_text(trade.charges_inr_e4)}, net "
        f"{paise_text(trade.net_pnl_inr_e4)} ({trade.net_bps:+.1f} bps)"
    )


def _add_verdict(root: Tree, explanation: Explanation) -> Tree:
    """Draw what risk said; gives the branch of the proposal that it was said of."""
    verdict, signal = explanation.verdict, explanation.signal
    if verdict is None:
        said = root.add("risk has not judged it: the account is not running, or has not come so far")
    elif isinstance(verdict, SignalRejected):
        word = "passed over" if verdict.rule == "already_open" else "rejected"
        said = root.add(f"{word} by the rule [bold]{verdict.rule}[/] at {ist_text(verdict.event_time_ns)}")
        said.add(f"limit: {escape(verdict.limit)}")
        said.add(f"it saw: {escape(verdict.observed)}")
    else:
        what = "accepted" if verdict.intent == "open" else f"raised this exit ({verdict.reason}):"
        said = root.add(f"risk {what} {verdict.quantity:,} at {ist_text(verdict.event_time_ns)}")
        said.add(f"rules asked: {', '.join(verdict.rules)}")
    scored = f"scored {signal.score:.6f} against {signal.threshold:.6f}"
    decision = said.add(
        f"signal {signal.event_id}: {signal.strategy} ({signal.rung}) {scored} at {ist_text(signal.event_time_ns)}"
    )
    decision.add(f"to end: {_terms(signal)}")
    return decision


def _terms(signal: SignalGenerated) -> str:
    terms = [f"at {ist_text(signal.exit.expiry_ns)} at the latest"]
    distances = (("stop", signal.exit.stop_distance_inr_e4), ("target", signal.exit.target_distance_inr_e4))
    terms += [f"{name} {paise_text(far)} from the fill" for name, far in distances if far is not None]
    return ", ".join(terms)


def _add_orders(root: Tree, explanation: Explanation) -> None:
    orders = root.add("all orders of this proposal")
    for story in explanation.orders:
        orders.add(f"{story.order.order_id}  {story.order.side} ({_kind(story.order)}): {_state(story)}")


def _state(story: OrderStory) -> str:
    if not story.outcomes:
        return _waits(story.order)
    last = story.outcomes[-1]
    if isinstance(last, OrderFilled):
        by = f" by its {last.reason}" if story.order.reason == "bracket" else ""
        return f"filled at {last.price_inr_e4 / RUPEE:,.2f}{by}"
    return f"{'rejected' if isinstance(last, OrderRejected) else 'cancelled'} ({escape(last.why)})"


def _add_data(decision: Tree, signal: SignalGenerated) -> None:
    row = decision.add(f"feature row (schema {signal.feature_schema_hash[:16]}…)")
    for name, value in signal.features.items():
        row.add(f"{name} = {value:.9g}" if value is not None else f"{name} has no value")
    bar = signal.bar
    data = decision.add(f"bar {ist_text(bar.start_ns)} → {ist_text(bar.end_ns)}")
    data.add(f"open {bar.open} high {bar.high} low {bar.low} close {bar.close} volume {bar.volume}")
    data.add(f"made of {bar.tick_count} ticks")
    for partition, (first, last) in signal.basis.input_positions.items():
        data.add(f"{partition} offsets {first} to {last}")


def _add_model(decision: Tree, explanation: Explanation, dagster_url: str) -> None:
    signal, sidecar, assigned = explanation.signal, explanation.sidecar, explanation.assigned
    model = decision.add(f"model {signal.model_name} version {signal.model_version} ({sidecar.algorithm})")
    if assigned is not None:
        model.add(f"running since {ist_text(assigned.event_time_ns)}: {escape(assigned.reason)}")
    gate = sidecar.live_gate if signal.rung == "live" else sidecar.gate
    if against := overruled(gate.failed if gate is not None else ()):
        model.add(f"[bold red]{escape(against)}[/]")
    trained = model.add(f"trained {ist_text(sidecar.created_at_ns)} by {escape(sidecar.created_by)}")
    trained.add(
        f"data: {escape(sidecar.market)}, {sidecar.training_rows} rows, digest {sidecar.training_data_digest[:16]}…"
    )
    trained.add(f"period {ist_text(sidecar.training_start_ns)} → {ist_text(sidecar.training_end_ns)}")
    trained.add(
        f"label {sidecar.label}, {len(sidecar.folds)} folds, gate {'passed' if sidecar.gate.passed else 'FAILED'}"
    )
    trained.add(f"code: commit {sidecar.git_commit}")
    if sidecar.run_id:
        trained.add(f"run {run_page(dagster_url, sidecar.run_id)}")
