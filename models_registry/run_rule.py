"""Whether a version may run on a rung, by the ledger and the gate, however an alias was moved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from models_registry.ledger import LedgerTampered
from models_registry.ledger_entries import LedgerEntry, override_for, standing
from models_registry.refs import Alias
from models_registry.registry import SIDECAR_TAG, VersionInfo


class LedgerView(Protocol):
    """What the run rule reads of a ledger."""

    def history(self, name: str) -> Sequence[LedgerEntry]:
        """Entries of a model, oldest first."""
        ...


def may_run(info: VersionInfo, ledger: LedgerView, rung: Alias) -> str | None:
    """Say why a version may not run on a rung, or None if it may.

    The ledger's last promotion there must name this version and the very sidecar that is registered, and the gate must
    have passed or have been overruled there. A ledger that was tampered with lets nothing run.
    """
    try:
        return _run_objection(info, ledger.history(info.name), rung)
    except LedgerTampered as tampered:
        return f"{info.name} v{info.version} has no ledger to stand on: {tampered}."


def _run_objection(info: VersionInfo, history: Sequence[LedgerEntry], rung: Alias) -> str | None:
    what = f"{info.name} v{info.version}"
    stands = standing(history, rung)
    if stands is None or stands.to_version != info.version:
        return moved_past_the_ledger(info.name, rung, info.version, stands)
    recorded = stands.evidence.get(SIDECAR_TAG)
    if recorded is not None and recorded != info.tags.get(SIDECAR_TAG):
        return f"{what} is not what was promoted: its sidecar's digest has changed. Promote another version."
    if rung == "challenger" or info.gate_verdict(rung) == "passed":
        return None
    if override_for(history, info.version, rung) is not None:
        return None
    verdict = info.gate_verdict(rung) or "was never asked"
    return f"the {rung} gate of {what} {verdict} and nobody overruled it in the ledger. Promote a version that passes."


def moved_past_the_ledger(
    name: str, alias: Alias, named: str | None, stands: LedgerEntry | None, command: str = "alpha-panda"
) -> str:
    """Say that an alias is not where the ledger's last promotion put it, with the commands that lead out of it.

    Parameters
    ----------
    named : str or None
        The version that the alias names; None if it was taken away.
    stands : LedgerEntry or None
        The promotion that stands on the rung; None if there is none.
    command : str
        What calls the program.
    """

    def promote(version: str) -> str:
        return f"`{command} models promote {name} {version} --alias {alias}`"

    says = f"{name}@{alias} names {f'v{named}' if named else 'no version'}"
    if stands is None:
        return (
            f"{says}, but the promotion ledger has no promotion to it: the alias was moved past the ledger. "
            f"{promote(named or 'VERSION')} promotes it, if its gate lets it."
        )
    either = f"; {promote(named)} promotes v{named} instead, if its gate lets it" if named else ""
    return (
        f"{says}, but the promotion ledger says v{stands.to_version} (entry {stands.number}, by {stands.by}): the "
        f"alias was moved past the ledger. {promote(stands.to_version)} puts v{stands.to_version} back{either}."
    )


def content_objection(info: VersionInfo, ledger: LedgerView) -> str | None:
    """Say why a version's content is not what the ledger last recorded for it, or None if it is. Asked after a fetch.

    The fetch compared the sidecar with the version's tag, so the tag stands for what was read. A version that the
    ledger never saw is another question: ``may_run`` asks it.
    """
    what = f"{info.name} v{info.version}"
    try:
        recorded = recorded_sidecars(ledger.history(info.name)).get(info.version)
    except LedgerTampered as tampered:
        return f"{what} has no ledger to stand on: {tampered}."
    if recorded is None or recorded[1] == info.tags.get(SIDECAR_TAG):
        return None
    number, digest = recorded
    return (
        f"{what} is not what was promoted: its sidecar has SHA-256 {str(info.tags.get(SIDECAR_TAG))[:16]}…, entry "
        f"{number} of the ledger says {digest[:16]}…. Bring the files of then back."
    )


def recorded_sidecars(history: Sequence[LedgerEntry]) -> dict[str, tuple[int, str]]:
    """Give for each version that was promoted the last entry that says so, and its sidecar's SHA-256 there."""
    promoted = (entry for entry in history if entry.phase == "done" and SIDECAR_TAG in entry.evidence)
    return {entry.to_version: (entry.number, str(entry.evidence[SIDECAR_TAG])) for entry in promoted}
