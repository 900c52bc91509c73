"""Whether a rule knows more than its row, and whether every fill comes after its decision."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from feature_store.market.types import ist_text
from live_services.audit.findings import AuditReport, Finding, LeakKind, first_of_each
from live_services.domain.events import Event, OrderFilled, SignalGenerated

if TYPE_CHECKING:
    from feature_store.proposals.rules import Rule


def rule_reads_no_table(rule: Rule) -> AuditReport:
    """A rule sees one row, so what it knows of others stands in arrays that it reads: it may read none.

    Numbers and other functions are allowed; what single numbers were fitted on nobody can see.
    """
    guard, findings = "what the rule reads", list[Finding]()
    for name, thing in _read_by(rule.function, set()):
        if isinstance(thing, (np.ndarray, Mapping, list, tuple, set)) and np.size(list(thing)) > 1:
            what = f"it reads {name}, which holds {len(thing)} values that are not in its row"
            findings.append(Finding(LeakKind.RULE_READS_TABLE, guard, "proposals", rule.name, what))
    return AuditReport("rule", {guard: 1}, tuple(findings))


def _read_by(function: Any, seen: set[int]) -> Iterable[tuple[str, Any]]:
    """Give what a function refers to by name, and what the functions among it do."""
    plain = getattr(function, "py_func", function)
    if id(plain) in seen or not inspect.isfunction(plain):
        return
    seen.add(id(plain))
    names = inspect.getclosurevars(plain)
    for name, thing in {**names.globals, **names.nonlocals}.items():
        if callable(thing):
            yield from _read_by(thing, seen)
        else:
            yield name, thing


def fills_follow_decisions(events: Sequence[Event]) -> AuditReport:
    """Every fill is later than the proposal at the head of its chain, and so is the price that it got.

    A price that was made at the very instant of the decision is the next open, and no earlier one.
    """
    guard, findings, values = "decision before fill", list[Finding](), 0
    decided = {one.event_id: one for one in events if isinstance(one, SignalGenerated)}
    for fill in events:
        if not isinstance(fill, OrderFilled) or fill.signal_id not in decided:
            continue
        decision_ns, values = decided[fill.signal_id].event_time_ns, values + 1
        if fill.event_time_ns <= decision_ns or fill.price_time_ns < decision_ns:
            what = (
                f"decided at {ist_text(decision_ns)}, filled at {ist_text(fill.event_time_ns)} by a price of "
                f"{ist_text(fill.price_time_ns)}"
            )
            kind, when = LeakKind.FILL_BEFORE_DECISION, fill.event_time_ns
            findings.append(Finding(kind, guard, "fills", "event_time_ns", what, fill.symbol, when))
    return AuditReport("fills", {guard: values}, first_of_each(findings), counts={"fills": values})
