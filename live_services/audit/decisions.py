"""Whether a rule knows more than its row, and whether every fill comes after its decision."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np

from feature_store.market.types import ist_text
from live_services.audit.findings import AuditReport, Finding, LeakKind, first_of_each
from live_services.domain.events import Event, OrderFilled, SignalGenerated

_LONGEST_TUPLE: Final = 16  # coefficients of a filter are no table


def reads_no_table(name: str, function: Callable[..., Any], stage: str) -> AuditReport:
    """A rule or a compiled feature sees one row or window, so what it knows of others it reads in a table: it may not.

    Cut data does not move such a table, so no run shows it. Numbers, short tuples of them and other functions are
    allowed; what these were fitted on nobody can see.

    Parameters
    ----------
    name : str
        Of the rule or the feature.
    function : callable
        It, plain or compiled.
    stage : str
        ``features`` or ``proposals``.
    """
    guard, findings = "what it reads", list[Finding]()
    for named, thing in _read_by(function, set()):
        held = _held(thing)
        if held:
            what = f"it reads {named}, which holds {held} values that are not among its arguments"
            findings.append(Finding(LeakKind.READS_TABLE, guard, stage, name, what))
    return AuditReport(name, {guard: 1}, tuple(findings))


def _held(thing: Any) -> int:
    """Give how many values a table has; 0 of what is none."""
    if isinstance(thing, tuple):
        return len(thing) if len(thing) > _LONGEST_TUPLE else 0
    if isinstance(thing, np.ndarray):
        return thing.size if thing.size > 1 else 0
    table = isinstance(thing, (Mapping, list, set, frozenset)) or hasattr(thing, "iloc") or hasattr(thing, "to_arrow")
    return len(thing) if table else 0


def _read_by(function: Any, seen: set[int]) -> Iterator[tuple[str, Any]]:
    """Give what a function refers to by name, and what the functions among it do."""
    plain = getattr(function, "py_func", function)
    if id(plain) in seen or not inspect.isfunction(plain):
        return
    seen.add(id(plain))
    names = inspect.getclosurevars(plain)
    defaults = {one.name: one.default for one in inspect.signature(plain).parameters.values()}
    for name, thing in {**names.globals, **names.nonlocals, **defaults}.items():
        if inspect.isfunction(getattr(thing, "py_func", thing)):
            yield from _read_by(thing, seen)
        elif not isinstance(thing, type):
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
