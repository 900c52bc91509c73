"""What each strategy runs on each rung, by the word of the strategy runners on the log."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.markup import escape

from feature_store.market.types import ist_text
from live_services.cli.log_view import LogBackwards, all_of, events_backwards
from live_services.cli.output import Field, FittingTable
from live_services.domain.events import ModelRefused, StrategyModelAssigned
from live_services.domain.topics import MODELS_REFUSED, STRATEGIES_CONTROL
from models_registry.refs import Alias
from models_registry.specification import StrategySpec

StrategyKey = tuple[str, Alias]


@dataclass(frozen=True, slots=True)
class StrategyState:
    """A strategy on a rung: what its tasks were assigned last, and what they would not run."""

    strategy: str
    rung: Alias
    assigned: tuple[StrategyModelAssigned, ...]
    """The last word of each market partition."""
    refused: ModelRefused | None
    """The last refusal, unless a version was assigned after it."""

    @property
    def is_disabled(self) -> bool:
        """Whether some market partition runs no version."""
        return any(event.model_version is None for event in self.assigned)


async def read_strategy_states(log: LogBackwards, strategies: Sequence[StrategySpec]) -> tuple[StrategyState, ...]:
    """Read what the strategies of the settings run, in the order of the settings."""
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


def strategies_table(states: Iterable[StrategyState]) -> FittingTable:
    """Lay out what each strategy runs; what is disabled or refused stands out with its reason."""
    table = FittingTable((Field("strategy"), Field("rung"), Field("runs", text=True)))
    for state in states:
        lines = list(dict.fromkeys(_line(event) for event in state.assigned)) or ["nothing yet"]
        if state.refused is not None:
            lines.append(
                f"[yellow]refused {state.refused.model_name} v{state.refused.model_version}:[/] "
                f"{escape(state.refused.reason)}"
            )
        table.add_row(state.strategy, state.rung, "\n".join(lines))
    return table


def _line(event: StrategyModelAssigned) -> str:
    since, reason = ist_text(event.event_time_ns), escape(event.reason)
    if event.model_version is None:
        return f"[bold red]DISABLED[/] since {since}: {reason}"
    return f"{event.model_name} v{event.model_version} since {since}"
