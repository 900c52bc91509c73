"""Which version is judged, and which of its models a session may be run with.

A session that a fold tested runs that fold's model, which had not seen it; a session after the training runs the
registered model. A session that the registered model was trained on, and no fold tested, is no test of anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Final, Literal, Protocol, get_args

from feature_store.market.types import Session
from live_services.backtest.sessions import loaded_fold
from live_services.failures import CommandFailed
from live_services.next_steps import to_type
from live_services.services.model_loading import prove
from models_registry.agreement import disagreement
from models_registry.ledger_entries import override_for, standing
from models_registry.out_of_fold import load_out_of_fold
from models_registry.refs import Alias, named_thresholds
from models_registry.specification import StrategySpec

if TYPE_CHECKING:
    from live_services.domain.strategy.loaded_model import LoadedModel
    from models_registry.ledger_entries import LedgerEntry
    from models_registry.registry import VersionInfo
    from models_registry.sidecar import Sidecar

Role = Literal["out of fold", "after training", "in sample"]
"""What a session is to a version: tested by a fold that had not seen it, later than the training, or known to it."""
THRESHOLDS: Final = ("buy_threshold", "sell_threshold", "accept_threshold")
"""What a backtest may set of every model of a version; the last one of models that judge proposals, the others of those
that say the side."""


class BacktestRefused(CommandFailed):
    """A backtest that cannot be made, or that would say nothing; the message says why and what to do."""


class Versions(Protocol):
    """What a backtest asks of the registry."""

    def versions(self, name: str, /) -> tuple[VersionInfo, ...]:
        """Give the versions of a model, newest first."""
        ...

    def fetch(self, name: str, version: str, /) -> tuple[Sidecar, Mapping[str, bytes]]:
        """Give a version's sidecar and the files that live reads."""
        ...

    def out_of_fold(self, name: str, version: str, /) -> bytes | None:
        """Give what it said out of fold; None if it was registered without."""
        ...


class Promotions(Protocol):
    """What a backtest asks of the ledger."""

    def history(self, model_name: str, /) -> Sequence[LedgerEntry]:
        """Give the entries of a model, oldest first."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class JudgedVersion:
    """A strategy as it trades in a backtest, and the version of its model."""

    spec: StrategySpec
    sidecar: Sidecar
    version: str
    rungs: tuple[Alias, ...]
    """Rungs on which it stands, by the ledger."""
    overruled: str
    """Who let it on a rung against its gate, and why; empty if nobody did."""
    model: LoadedModel
    """The registered one, fitted on the whole training period."""
    folds: Mapping[str, LoadedModel]
    """By date of the session that the fold had not seen; empty if the version was registered without."""

    @property
    def title(self) -> str:
        """The model and its version, as people say it."""
        return f"{self.sidecar.model_name} v{self.version}"

    @property
    def refused(self) -> tuple[str, ...]:
        """The checks of the gate for ``champion`` that failed; empty if it passed."""
        return self.sidecar.gate.failed

    def role(self, session: Session) -> Role:
        """Say what a session is to this version."""
        if session.date.isoformat() in self.folds:
            return "out of fold"
        return "after training" if session.open_ns >= self.model.training_end_ns else "in sample"

    def model_on(self, session: Session, *, in_sample: bool) -> LoadedModel:
        """Give what a session is run with; ``in_sample``: the registered model whatever it knows."""
        return self.model if in_sample else self.folds.get(session.date.isoformat(), self.model)


def judged_version(
    source: Versions,
    ledger: Promotions,
    spec: StrategySpec,
    asked: str | None = None,
    thresholds: Mapping[str, float] | None = None,
) -> JudgedVersion:
    """Find the version that a strategy is judged by, and prove it as live would.

    Parameters
    ----------
    source, ledger
        Registry and promotion ledger.
    spec : StrategySpec
        The strategy as the settings, or a person, say it.
    asked : str, optional
        A version's number or a rung; default: the champion, else the newest.
    thresholds : mapping of float, optional
        Of `THRESHOLDS`, laid over those of the registered model and of every fold.

    Raises
    ------
    BacktestRefused
        If there is no such version, or it is not what the strategy trades.
    models_registry.refusals.ModelRefusedError
        If its files are not what was registered, or this code cannot run it.
    """
    name, history = spec.model_name, ledger.history(spec.model_name)
    stands = {rung: entry.to_version for rung in get_args(Alias) if (entry := standing(history, rung)) is not None}
    version = _version(source, name, asked, stands)
    sidecar, files = source.fetch(name, version)
    if other := disagreement(sidecar, version, spec):
        raise BacktestRefused(other)
    model = _with(prove(sidecar, files, version, spec.bar_minutes), thresholds)
    kept = source.out_of_fold(name, version)
    folds: dict[str, LoadedModel] = {}
    for fold in load_out_of_fold(kept)[1] if kept is not None else ():
        loaded = _with(loaded_fold(fold, model.schema, name), thresholds)
        folds |= dict.fromkeys(fold.sessions, loaded)
    rungs = tuple(rung for rung, number in stands.items() if number == version)
    return JudgedVersion(spec, sidecar, version, rungs, _overruled(history, version, rungs), model, folds)


def _overruled(history: Sequence[LedgerEntry], version: str, rungs: Sequence[Alias]) -> str:
    found = ((rung, override_for(history, version, rung)) for rung in rungs)
    return "; ".join(f"{rung} by {entry.by}'s override: {entry.reason}" for rung, entry in found if entry is not None)


def specification_named(strategies: Sequence[StrategySpec], name: str) -> StrategySpec:
    """Give the strategy of a name. Raises BacktestRefused, with near names, if there is none."""
    for spec in strategies:
        if spec.name == name:
            return spec
    names = [spec.name for spec in strategies]
    near = get_close_matches(name, names, n=1)
    said = f"did you mean {near[0]!r}?" if near else f"there is {', '.join(names)}"
    raise BacktestRefused(f"no strategy is named {name!r}; {said}")


def asked_versions(models: Sequence[str], strategies: Sequence[StrategySpec]) -> dict[str, str]:
    """Read ``NAME@7`` or ``NAME@champion``: the version asked, by strategy. Raises BacktestRefused."""
    found: dict[str, str] = {}
    for text in models:
        name, at, version = text.partition("@")
        if not at or not (version.isdecimal() or version in get_args(Alias)):
            raise BacktestRefused(f"{text!r} names no version: write NAME@7, or NAME@{' or @'.join(get_args(Alias))}")
        of = [spec.name for spec in strategies if name in {spec.model_name, spec.name}]
        if not of:
            asked = ", ".join(dict.fromkeys(spec.model_name for spec in strategies))
            raise BacktestRefused(f"{text!r}: none of the strategies asks a model {name!r}; they ask {asked}")
        found |= dict.fromkeys(of, version)
    return found


def _version(source: Versions, name: str, asked: str | None, stands: Mapping[Alias, str]) -> str:
    if asked is not None and asked.isdecimal():
        return asked
    if asked is not None:
        found = next((number for rung, number in stands.items() if rung == asked), None)
        if found is None:
            raise BacktestRefused(f"no version stands for {name}@{asked}; {to_type(f'models list {name}')} names them")
        return found
    if "champion" in stands:
        return stands["champion"]
    versions = source.versions(name)
    if not versions:
        raise BacktestRefused(f"the registry has no version of {name!r}: make one with {to_type(f'train {name}')}")
    return versions[0].version


def _with(model: LoadedModel, thresholds: Mapping[str, float] | None) -> LoadedModel:
    stand = named_thresholds(model.buy_threshold, model.sell_threshold)
    if wrong := [name for name in thresholds or {} if name not in stand]:
        raise BacktestRefused(
            f"{model.identity.model_name} has no {' and no '.join(wrong)}: it stands on {' and '.join(stand)}"
        )
    stand |= thresholds or {}
    first, *second = stand.values()
    return replace(model, buy_threshold=first, sell_threshold=second[0] if second else None)
