"""Bringing ledger, aliases and pages together: whoever looks carries out or takes back what another left under way.

The ledger decides and the alias shows. An alias is moved under the ledger's lock together with the entry that says so,
so aliases move in the ledger's order; a process that dies in between leaves an open intent, and the next one to look (a
sensor, a command, a strategy runner's poll) settles it. An alias that was moved past the ledger is noted there once,
and moved back by nobody but a person.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, get_args

from models_registry.description import LONGEST_PAGE, shortened
from models_registry.ledger import LedgerMoved, LedgerUnavailable, PromotionLedger
from models_registry.ledger_entries import LedgerEntry, open_intent, standing
from models_registry.refs import Alias
from models_registry.refusals import ModelRefusedError, TamperedModel, UnknownModelVersion
from models_registry.registry import SIDECAR_TAG, Registry, RegistryUnavailable, VersionInfo
from models_registry.run_rule import moved_past_the_ledger
from models_registry.standing_section import with_standing

_ATTEMPTS: Final = 10


@dataclass(frozen=True)
class Standing:
    """What stands on a rung, and what its alias says."""

    version: str | None
    """The version of the last promotion done; None if there was none."""
    named: str | None
    """The version that the alias names."""
    objection: str | None
    """Why what the alias says is refused, with the commands that lead out of it; None if it is what stands."""


def reconcile(
    registry: Registry, ledger: PromotionLedger, name: str, *, by: str, now_ns: int, command: str = "alpha-panda"
) -> dict[Alias, Standing]:
    """Settle what is under way on a model's rungs, note aliases that were moved past the ledger, say what stands.

    Parameters
    ----------
    by : str
        Who looks; kept in the ledger where something was settled or seen.
    now_ns : int
        UTC epoch nanoseconds.
    command : str
        What calls the program, for the commands in an objection.

    Raises
    ------
    RegistryUnavailable, LedgerUnavailable, LedgerTampered, LedgerMoved
    """
    for _ in range(_ATTEMPTS):
        history = ledger.history(name)
        under_way = [alias for alias in get_args(Alias) if open_intent(history, alias) is not None]
        for alias in under_way:
            settle_open(registry, ledger, name, alias, by=by, now_ns=now_ns)
        history = ledger.history(name) if under_way else history
        # The aliases are read after the ledger: a promotion in between makes the observation stale, never true.
        try:
            return _look(registry, ledger, name, history, by=by, now_ns=now_ns, command=command)
        except LedgerMoved:
            continue
    raise LedgerMoved(f"{name} is being promoted again and again while it is looked at; look again")


def _look(
    registry: Registry,
    ledger: PromotionLedger,
    name: str,
    history: Sequence[LedgerEntry],
    *,
    by: str,
    now_ns: int,
    command: str,
) -> dict[Alias, Standing]:
    aliases = registry.aliases(name)
    found: dict[Alias, Standing] = {}
    for alias in get_args(Alias):
        stands, named = standing(history, alias), aliases.get(alias)
        version = stands.to_version if stands else None
        why_not = None
        if named != version:
            ledger.append(_observation(name, alias, named, stands, by=by, now_ns=now_ns))
            why_not = moved_past_the_ledger(name, alias, named, stands, command)
        found[alias] = Standing(version, named, why_not)
    return found


def _observation(
    name: str, alias: Alias, named: str | None, stands: LedgerEntry | None, *, by: str, now_ns: int
) -> LedgerEntry:
    return LedgerEntry(
        at_ns=now_ns,
        model_name=name,
        alias=alias,
        from_version=stands.to_version if stands else None,
        to_version=named or "",
        action="promote",
        by=by,
        reason="the alias was seen to name this version without a promotion",
        phase="observed",
        refers_to=stands.number if stands else 0,
    )


def settle_open(
    registry: Registry, ledger: PromotionLedger, name: str, alias: Alias, *, by: str, now_ns: int
) -> LedgerEntry | None:
    """Carry out the promotion that is under way on a rung, or take it back if its version is no longer what it was.

    Returns
    -------
    LedgerEntry or None
        What settled it; None if nothing was under way.
    """
    intent = open_intent(ledger.history(name), alias)
    if intent is None:
        return None
    settled = settle(registry, ledger, intent, by=by, now_ns=now_ns, fetched=False)
    show_moved(registry, ledger, settled)
    return settled


def settle(
    registry: Registry, ledger: PromotionLedger, intent: LedgerEntry, *, by: str, now_ns: int, fetched: bool
) -> LedgerEntry:
    """Move the alias to where an intent says and record that it is done, or take the intent back.

    Parameters
    ----------
    fetched : bool
        Whether the version was just verified by whoever settles its own intent.

    Raises
    ------
    RegistryUnavailable, LedgerUnavailable, LedgerTampered
        The intent stays open, for the next one to look.
    """
    name, alias = intent.model_name, intent.alias

    def move() -> None:
        registry.set_alias(name, alias, intent.to_version)

    try:
        if not fetched:
            _require_what_was_promoted(registry, intent)
        return ledger.settle(intent, "done", by=by, at_ns=now_ns, act=move)
    except ModelRefusedError as gone:
        why = f"v{intent.to_version} is not what was to be promoted any more: {gone}"
        return ledger.settle(intent, "undone", by=by, at_ns=now_ns, act=lambda: _put_back(registry, intent), reason=why)


def _require_what_was_promoted(registry: Registry, intent: LedgerEntry) -> None:
    registry.fetch(intent.model_name, intent.to_version)
    registered = registry.version(intent.model_name, intent.to_version).tags.get(SIDECAR_TAG)
    if registered != intent.evidence.get(SIDECAR_TAG):
        raise TamperedModel("its sidecar has another digest than the ledger recorded")


def _put_back(registry: Registry, intent: LedgerEntry) -> None:
    name, alias, before = intent.model_name, intent.alias, intent.from_version
    named = registry.aliases(name).get(alias)
    try:
        if before is not None and named != before:
            registry.set_alias(name, alias, before)
        elif before is None and named is not None:
            registry.delete_alias(name, alias)
    except UnknownModelVersion:
        return  # the version before is gone too: the alias cannot show it, and what it names is refused


def show_standing(registry: Registry, history: Sequence[LedgerEntry], versions: Iterable[VersionInfo]) -> None:
    """Bring the pages of a model's versions in line with the ledger; one that is so already is not written.

    One that grew too long for the registry's database is shortened.

    Raises
    ------
    RegistryUnavailable, UnknownModelVersion
    """
    for info in versions:
        wanted = with_standing(info.description, history, info.version)
        if wanted.strip() == info.description.strip():
            continue
        try:
            registry.set_description(info.name, info.version, wanted)
        except RegistryUnavailable:
            if len(wanted) <= LONGEST_PAGE:
                raise
            registry.set_description(info.name, info.version, shortened(wanted, LONGEST_PAGE))


def show_moved(registry: Registry, ledger: PromotionLedger, settled: LedgerEntry) -> None:
    """Bring the pages of the versions that a promotion concerns in line with the ledger, if the registry lets it.

    A page is for people: one that is old undoes no promotion, and the sensor tries again.
    """
    name, versions = settled.model_name, [v for v in (settled.from_version, settled.to_version) if v is not None]
    try:
        show_standing(registry, ledger.history(name), [registry.version(name, version) for version in versions])
    except (RegistryUnavailable, ModelRefusedError, LedgerUnavailable):
        return
