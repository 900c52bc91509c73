"""Where ledger, registry and what runs do not say the same of a model, and what leads out of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

from rich.markup import escape

from live_services.adapters.model_files import ModelFiles
from live_services.cli.errors import out
from live_services.cli.output import Field, FittingTable
from live_services.cli.strategy_states import StrategyState
from live_services.domain.events import StrategyModelAssigned
from models_registry.ledger import PromotionLedger
from models_registry.ledger_entries import LedgerEntry, open_intent, standing
from models_registry.refs import Alias
from models_registry.refusals import ModelRefusedError, sha256_of
from models_registry.registry import SIDECAR_TAG, Registry
from models_registry.run_rule import may_run, moved_past_the_ledger, recorded_sidecars


@dataclass(frozen=True, slots=True)
class RungView:
    """What is said of a rung of a model, by everybody who has a say."""

    model_name: str
    alias: Alias
    ledger: str | None
    """The version of the last promotion done."""
    mlflow: str | None
    """The version that the alias names."""
    runs: Mapping[str, tuple[str | None, ...]]
    """What each strategy runs, on each market partition; None: nothing."""
    differences: tuple[str, ...]
    """What does not fit, each with what to do; none if all say the same."""


def compare(
    registry: Registry,
    ledger: PromotionLedger,
    name: str,
    states: Sequence[StrategyState],
    *,
    models: Mapping[str, str],
    command: str,
) -> tuple[RungView, ...]:
    """Compare what is said of the rungs of a model; rungs of which nobody says anything are left out.

    Parameters
    ----------
    states
        What the strategies run, by the log.
    models
        The model of each strategy, by its name.
    command
        What calls the program, for what is to be typed.
    """
    history, aliases = ledger.history(name), registry.aliases(name)
    views = []
    for alias in get_args(Alias):
        of_rung = [state for state in states if state.rung == alias and models.get(state.strategy) == name]
        stands, named = standing(history, alias), aliases.get(alias)
        runs = {s.strategy: tuple(event.model_version for event in s.assigned) for s in of_rung if s.assigned}
        found = (
            *_under_way(history, alias, command),
            *_of_alias(name, alias, named, stands, command),
            *_of_content(registry, ledger, stands),
            *(line for state in of_rung for line in _of_strategy(state, stands)),
        )
        version = stands.to_version if stands is not None else None
        if version or named or runs or found:
            views.append(RungView(name, alias, version, named, runs, found))
    return tuple(views)


def _under_way(history: Sequence[LedgerEntry], alias: Alias, command: str) -> Iterator[str]:
    intent = open_intent(history, alias)
    if intent is not None:
        yield (
            f"a promotion to v{intent.to_version} by {intent.by} was cut off (entry {intent.number} of the ledger): "
            f"who looks next settles it, or `{command} models promote {intent.model_name} {intent.to_version} --alias "
            f"{alias}` does"
        )


def _of_alias(name: str, alias: Alias, named: str | None, stands: LedgerEntry | None, command: str) -> Iterator[str]:
    if named != (stands.to_version if stands is not None else None):
        yield moved_past_the_ledger(name, alias, named, stands, command)


def _of_content(registry: Registry, ledger: PromotionLedger, stands: LedgerEntry | None) -> Iterator[str]:
    """Say why what stands would not be loaded."""
    if stands is None:
        return
    try:
        registry.fetch(stands.model_name, stands.to_version)
        objection = may_run(registry.version(stands.model_name, stands.to_version), ledger, stands.alias)
    except ModelRefusedError as refused:
        objection = str(refused)
    if objection is not None:
        yield f"v{stands.to_version} may not run: {objection}"


def _of_strategy(state: StrategyState, stands: LedgerEntry | None) -> Iterator[str]:
    version = stands.to_version if stands is not None else None
    recorded = stands.evidence.get(SIDECAR_TAG) if stands is not None else None
    others = [event for event in state.assigned if event.model_version != version]
    for event in others[:1]:
        yield f"{state.strategy} runs {_what(event)}, the ledger says {f'v{version}' if version else 'nothing'}" + (
            f"; it refused v{state.refused.model_version}: {state.refused.reason}" if state.refused else ""
        )
    if version is not None and any(
        event.sidecar_sha256 not in {None, recorded} for event in state.assigned if event.model_version == version
    ):
        yield f"{state.strategy} runs another v{version} than was promoted: its sidecar has another SHA-256"


def _what(event: StrategyModelAssigned) -> str:
    return f"v{event.model_version}" if event.model_version is not None else f"nothing ({event.reason})"


def kept_differences(kept: ModelFiles, ledger: PromotionLedger, names: Iterable[str]) -> tuple[str, ...]:
    """Say which versions that are kept on this machine are not those that the ledger recorded."""
    return tuple(line for name in names for line in _of_kept(kept, name, ledger.history(name)))


def _of_kept(kept: ModelFiles, name: str, history: Sequence[LedgerEntry]) -> Iterator[str]:
    recorded = recorded_sidecars(history)
    for version in kept.versions(name):
        files = kept.read(name, version)
        if files is not None and sha256_of(files[0]) != recorded.get(version, (0, ""))[1]:
            yield (
                f"the files of {name} v{version} that are kept here are not what the ledger recorded: delete "
                f"{kept.folder(name, version)}"
            )


def print_agreement(views: Sequence[RungView], kept: Sequence[str], unread: str, entries: int) -> None:
    """Show what everybody says of each rung, then each difference, what could not be compared, and the ledger's length.

    Parameters
    ----------
    kept
        Differences of the files kept on this machine.
    unread
        Why it is not known what runs; empty if it is.
    entries
        Number of the ledger's entries, all verified.
    """
    fields = (Field("model"), Field("ledger", right=True), Field("MLflow", right=True), Field("runs"), Field("verdict"))
    table = FittingTable(fields)
    for view in views:
        runs = "\n".join(f"{strategy}: {_versions(found)}" for strategy, found in view.runs.items())
        verdict = "[bold red]DIFFERENT[/]" if view.differences else "[green]the same[/]"
        table.add_row(f"{view.model_name}@{view.alias}", view.ledger or "none", view.mlflow or "none", runs, verdict)
    out.print(table)
    for line in (*(line for view in views for line in view.differences), *kept):
        out.print(f"[bold red]DIFFERENT:[/] {escape(line)}", soft_wrap=True)
    if unread:
        out.print(f"what runs was not compared: {unread}", markup=False, soft_wrap=True)
    out.print(f"{entries} entries of the ledger follow one from another")


def _versions(found: Iterable[str | None]) -> str:
    return ", ".join(dict.fromkeys(f"v{version}" if version else "nothing" for version in found))
