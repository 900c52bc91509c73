"""Which strategy is asked on which rung of its models' ladder, who hears it, and which model answers from when on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from feature_store.labels.barrier_return import BarrierReturn
from feature_store.labels.forward_return import ForwardReturn
from feature_store.proposals.rules import Proposer
from live_services.domain.strategy.loaded_model import LoadedModel
from models_registry.refs import Alias
from models_registry.specification import RUNG_OF_BROKER, Broker, StrategySpec

StrategyKey = tuple[str, Alias]
"""A strategy, and the rung whose version it asks."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """A strategy runs a model on a rung, or none, for decisions strictly later than ``effective_ns``."""

    effective_ns: int
    strategy: str
    model: LoadedModel | None
    rung: Alias = "champion"


@dataclass(slots=True)
class Asked:
    """One strategy on one rung: who hears its proposals, and its assignments in order of time."""

    spec: StrategySpec
    rung: Alias
    brokers: tuple[Broker, ...]
    """Empty on the challenger's rung, whose scores go to the shadow topic."""
    label: ForwardReturn | BarrierReturn
    """What its models foretell: how long its positions are held, and until when one may be."""
    proposer: Proposer | None
    """The rule whose proposals its models judge; None where they say the side."""
    assignments: list[Assignment] = field(default_factory=list)

    @property
    def models(self) -> Iterator[LoadedModel]:
        """Those that it runs or ran, as far as they are remembered."""
        yield from (assignment.model for assignment in self.assignments if assignment.model is not None)


def asked(strategies: Sequence[StrategySpec], brokers: Sequence[Broker]) -> Iterator[Asked]:
    """Give each strategy once for every rung it is asked on: those of its brokers that run, and the challenger's."""
    for spec in strategies:
        label, proposer = spec.label(), spec.proposer()
        heard: dict[Alias, tuple[Broker, ...]] = {}
        for broker in spec.brokers:
            if broker in brokers:
                rung = RUNG_OF_BROKER[broker]
                heard[rung] = (*heard.get(rung, ()), broker)
        heard["challenger"] = ()
        for rung, hearing in heard.items():
            yield Asked(spec, rung, hearing, label, proposer)
