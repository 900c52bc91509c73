"""What each strategy runs: what is configured beside what is loaded, and what the log says was assigned."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

from rich.markup import escape

from feature_store.market.types import ist_text
from live_services.cli.log_view import LogBackwards, all_of, events_backwards
from live_services.cli.output import Document, Field, FittingTable
from live_services.domain.events import ModelRefused, StrategyModelAssigned
from live_services.domain.log import RUNNER
from live_services.domain.topics import MODELS_REFUSED, STRATEGIES_CONTROL
from models_registry.refs import Alias
from models_registry.specification import RUNG_OF_BROKER, Broker, StrategySpec

StrategyKey = tuple[str, Alias]
Runs = Literal["ready", "disabled", "waiting", "not running", "skipped"]


@dataclass(frozen=True, slots=True)
class StrategyState:
    """A strategy on a rung: what its tasks were assigned last, and what they would not run."""

    strategy: str
    rung: Alias
    assigned: tuple[StrategyModelAssigned, ...]
    """The last word of each market partition."""
    refused: ModelRefused | None
    """The last refusal, unless a version was assigned after it."""


async def read_strategy_states(log: LogBackwards, strategies: Sequence[StrategySpec]) -> tuple[StrategyState, ...]:
    """Read what the strategies of the settings were given to run, in the order of the settings."""
    order = {strategy.name: place for place, strategy in enumerate(strategies)}
    last: dict[tuple[StrategyKey, int], StrategyModelAssigned] = {}
    async for event, record in events_backwards(log, STRATEGIES_CONTROL, StrategyModelAssigned):
        if event.strategy in order:
            last.setdefault(((event.strategy, event.rung), record.partition), event)
    refusals = {
        (event.strategy, event.rung): event
        for event in await all_of(log, MODELS_REFUSED, ModelRefused)
        if event.strategy in order
    }
    keys = {key for key, _ in last} | set(refusals)
    states = (
        _state(key, [event for (of, _), event in sorted(last.items()) if of == key], refusals.get(key)) for key in keys
    )
    return tuple(sorted(states, key=lambda state: (order[state.strategy], state.rung)))


def _state(key: StrategyKey, assigned: Sequence[StrategyModelAssigned], refused: ModelRefused | None) -> StrategyState:
    newest_ns = max((event.event_time_ns for event in assigned), default=0)
    stands = refused is not None and refused.event_time_ns >= newest_ns
    return StrategyState(*key, tuple(assigned), refused if stands else None)


# --- configured beside running ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StrategyRow:
    """A strategy for one broker that the settings name: whether it runs, by the word of the tasks that would run it."""

    strategy: str
    broker: Broker | Literal["shadow"]
    """Who hears it; the challenger's scores go to nobody."""
    rung: Alias
    model_name: str
    state: Runs
    """The worst that a market partition says; not running: no task says anything of it."""
    versions: tuple[str, ...]
    """That score."""
    reasons: tuple[str, ...]
    """Why none does, or what is amiss with what does."""
    notes: tuple[str, ...]
    """What people must know of what does, and is no fault."""
    last: StrategyState | None
    """What the log says of it."""


_NO_RUNNER: Final = "no strategy runner reports"
_NO_TASK: Final = "the strategy runner waits, and has taken over no market yet"
_NOT_OF_THE_SESSION: Final = "the session at hand began without it, and it is run from the next one on"
_WORST_FIRST: Final[tuple[Runs, ...]] = ("waiting", "disabled", "ready")


def strategy_rows(
    strategies: Sequence[StrategySpec],
    skip_reason: Callable[[Broker], str | None],
    tasks: Sequence[Mapping[str, Any]],
    states: Sequence[StrategyState],
    *,
    runner_answers: bool = False,
) -> tuple[StrategyRow, ...]:
    """Hold the settings' strategies against what runs, for each broker that they name.

    Parameters
    ----------
    skip_reason
        Why a broker does not run; None if it does.
    tasks
        Health of tasks; what they say of strategies is all that is believed to run.
    states
        By the log.
    runner_answers
        Whether a process of strategies says how it is, with tasks or without.
    """
    said = [one for task in tasks if task["service"] == RUNNER for one in task.get("strategies", ())]
    last = {(state.strategy, state.rung): state for state in states}
    absence = _NOT_OF_THE_SESSION if said else _NO_TASK if runner_answers else _NO_RUNNER
    return tuple(row for spec in strategies for row in _rows_of(spec, skip_reason, said, last, absence))


def _rows_of(
    spec: StrategySpec,
    skip_reason: Callable[[Broker], str | None],
    said: Sequence[Mapping[str, str]],
    last: Mapping[StrategyKey, StrategyState],
    absence: str,
) -> Iterator[StrategyRow]:
    for broker in spec.brokers:
        rung, skipped = RUNG_OF_BROKER[broker], skip_reason(broker)
        found = _runs(spec, rung, said, absence)
        if skipped is not None:
            found = _Runs("skipped", (), (f"{broker} is skipped: {skipped}",), ())
        yield StrategyRow(spec.name, broker, rung, spec.model_name, *found, last.get((spec.name, rung)))
    shadow = _runs(spec, "challenger", said, absence)
    if shadow.state == "ready":  # most of the time none stands there, and nothing is amiss
        yield StrategyRow(spec.name, "shadow", "challenger", spec.model_name, *shadow, None)


class _Runs(NamedTuple):
    state: Runs
    versions: tuple[str, ...]
    reasons: tuple[str, ...]
    notes: tuple[str, ...]


def _runs(spec: StrategySpec, rung: Alias, said: Sequence[Mapping[str, str]], absence: str) -> _Runs:
    mine = [one for one in said if (one["strategy"], one["rung"]) == (spec.name, rung)]
    if not mine:
        return _Runs("not running", (), (absence,), ())
    versions = tuple(dict.fromkeys(one["version"] for one in mine if one["version"]))
    reasons = tuple(dict.fromkeys(one["reason"] for one in mine if one["reason"]))
    worst = next(state for state in _WORST_FIRST if state == "ready" or any(one["state"] == state for one in mine))
    return _Runs(worst, versions, reasons, tuple(dict.fromkeys(one["note"] for one in mine if one["note"])))


_COLOURS: Final = {"ready": "green", "skipped": "dim", "waiting": "yellow"}


def strategies_table(rows: Iterable[StrategyRow]) -> FittingTable:
    """Lay out what is configured and what runs; what does not run stands out with its reason."""
    fields = (Field("strategy"), Field("broker"), Field("rung", leave_out=1), Field("runs", text=True))
    table = FittingTable(fields, title="strategies: configured, and what is loaded of them")
    for row in rows:
        colour = _COLOURS.get(row.state, "bold red")
        runs = " and ".join(f"{row.model_name} v{version}" for version in row.versions)
        lines = [f"[{colour}]{row.state if row.state == 'ready' else row.state.upper()}[/] {escape(runs)}".rstrip()]
        lines += [escape(line) for line in (*row.reasons, *row.notes, *_last_words(row))]
        table.add_row(row.strategy, row.broker, row.rung, "\n".join(lines))
    return table


def _last_words(row: StrategyRow) -> Iterator[str]:
    """Give what the log adds: since when it runs, or what ran last."""
    if row.last is None or row.state == "skipped":
        return
    for event in row.last.assigned:
        version, since = event.model_version, ist_text(event.event_time_ns)
        if version is not None and (version in row.versions or row.state == "not running"):
            yield f"{'last ' if row.state == 'not running' else ''}assigned v{version} at {since}"
            return
    if row.last.refused is not None and not any("refused" in reason for reason in row.reasons):
        yield f"refused v{row.last.refused.model_version}: {row.last.refused.reason}"


def strategy_record(row: StrategyRow) -> Document:
    """Give a row as JSON."""
    last = row.last
    return {
        "strategy": row.strategy,
        "broker": row.broker,
        "rung": row.rung,
        "model_name": row.model_name,
        "state": row.state,
        "versions": list(row.versions),
        "reasons": list(row.reasons),
        "notes": list(row.notes),
        "assigned": [] if last is None else [event.model_dump(mode="json") for event in last.assigned],
        "refused": None if last is None or last.refused is None else last.refused.model_dump(mode="json"),
    }
