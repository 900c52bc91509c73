"""Moving an alias: who may, on what evidence, in which order; and whether a version may run on a rung.

The order is ledger, alias, announcement. A crash in between leaves a ledger entry whose alias has not moved: the runner
refuses the alias until the promotion is run again, and nothing unrecorded has traded. The other order could leave a
version trading that no entry accounts for. The announcement is a nudge; the alias is the truth.

    PromotionError
    ├── OverrideNeedsReason   an override, or a promotion, without a name and a reason
    └── NothingToRollBack     the ledger knows no earlier version of this alias

A refused version raises ``refusals.ModelRefusedError``: GateNotPassed, UnknownModelVersion, TamperedModel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from models_registry.ledger import Action, LedgerEntry, LedgerTampered, PromotionLedger
from models_registry.refs import Alias, GateCheck, GateResult, ModelRef
from models_registry.refusals import GateNotPassed, GateStale
from models_registry.registry import SIDECAR_TAG, Registry, VersionInfo
from models_registry.sidecar import Sidecar

_REALIGN_ATTEMPTS: Final = 10


class PromotionError(Exception):
    """A promotion that was not carried out."""


class OverrideNeedsReason(PromotionError):
    """A person may overrule a gate only by name and with a reason."""


class NothingToRollBack(PromotionError):
    """There is no earlier version to go back to."""


@dataclass(frozen=True)
class PromotionRecord:
    """What was done; the announcement carries it."""

    model_name: str
    model_version: str
    alias: Alias
    previous_version: str | None
    action: Action
    promoted_by: str
    reason: str
    override: bool
    at_ns: int
    ledger_number: int
    feature_schema_hash: str


Announce = Callable[[PromotionRecord], None]


class LedgerView(Protocol):
    """What the run rule reads of a ledger."""

    def history(self, name: str) -> Sequence[LedgerEntry]:
        """Entries of a model, oldest first."""
        ...

    def override_for(self, name: str, version: str, rung: Alias) -> LedgerEntry | None:
        """The entry that put a version on a rung against its gate."""
        ...


def promote(
    registry: Registry,
    ledger: PromotionLedger,
    name: str,
    version: str,
    alias: Alias,
    *,
    promoted_by: str,
    reason: str,
    override: str | None,
    now_ns: int,
    announce: Announce,
) -> PromotionRecord:
    """Put a version on a rung.

    ``challenger`` asks for no gate; ``champion`` asks for skill; ``live`` for economics, which cannot be judged whole
    in this version, so that a named override is needed. The same promotion run again completes one that was cut off.

    Parameters
    ----------
    promoted_by : str
        A person's name, or the process that decides (a Dagster run).
    reason : str
        Why; kept in the ledger.
    override : str or None
        A person's reason for going against the gate; None asks the gate.
    now_ns : int
        UTC epoch nanoseconds of the decision.
    announce : callable
        Publishes the record; what it raises is raised here, after the promotion has taken effect.

    Raises
    ------
    UnknownModelVersion, TamperedModel
        If the version does not exist, or its files are not those of its sidecar.
    GateNotPassed
        If the gate for the rung has not passed and there is no override; lists the failed checks.
    GateStale
        If the gate was judged against another champion than there is now, and there is no override.
    OverrideNeedsReason
        If name, reason or override are blank.
    """
    _require_words(promoted_by, reason, override)
    info = registry.version(name, version)
    sidecar, _ = registry.fetch(name, version)
    previous = registry.resolve(ModelRef(name=name, alias=alias))
    overruled = _overruled(info, sidecar, alias, previous, override)
    done = ledger.latest(name, alias)
    if done is not None and done.to_version == version == previous and (done.override or not overruled):
        return _announced(_record(done, done.number, sidecar), announce)
    entry = LedgerEntry(
        **_moved(info, sidecar, alias, previous),
        at_ns=now_ns,
        action="override" if overruled else "promote",
        by=promoted_by,
        reason=f"{reason} [override: {override}]" if overruled else reason,
        override=overruled,
    )
    return _carry_out(registry, ledger, entry, sidecar, announce)


def _require_words(promoted_by: str, reason: str, override: str | None) -> None:
    if not promoted_by.strip() or not reason.strip() or (override is not None and not override.strip()):
        raise OverrideNeedsReason("say who promotes and why; an override must give its reason too, none may be empty")


def _overruled(info: VersionInfo, sidecar: Sidecar, alias: Alias, current: str | None, override: str | None) -> bool:
    """Ask the gate; whether a person's reason goes against it. Raises what the gate says if there is none."""
    objection = _gate_objection(info, sidecar, alias) or _stale_objection(info, sidecar, alias, current)
    if objection is not None and override is None:
        raise objection
    return objection is not None


def _moved(info: VersionInfo, sidecar: Sidecar, alias: Alias, current: str | None) -> dict[str, Any]:
    return {
        "model_name": info.name,
        "alias": alias,
        "from_version": current,
        "to_version": info.version,
        "evidence": _evidence(info, sidecar, alias),
    }


def rollback(
    registry: Registry,
    ledger: PromotionLedger,
    name: str,
    alias: Alias,
    *,
    promoted_by: str,
    reason: str,
    now_ns: int,
    announce: Announce,
) -> PromotionRecord:
    """Go back to the version that the alias pointed to before, as the ledger has it; twice goes back two versions.

    The version must still be whole and still allowed on the rung: by its gate, or by the override of its time. If the
    alias was moved past the ledger, the rollback goes to the ledger's last version.

    Raises
    ------
    NothingToRollBack
        If the ledger knows no earlier version.
    GateNotPassed, UnknownModelVersion, TamperedModel
        If the earlier version may not run any more.
    """
    if not promoted_by.strip() or not reason.strip():
        raise OverrideNeedsReason("say who rolls back and why; neither may be empty")
    current = registry.resolve(ModelRef(name=name, alias=alias))
    versions = standing_versions(ledger.history(name), alias)
    if versions and versions[-1] == current:
        versions.pop()
    if not versions:
        raise NothingToRollBack(
            f"the ledger knows no version of {name}@{alias} before {current or 'the first'}: promote another version"
        )
    info = registry.version(name, versions[-1])
    sidecar, _ = registry.fetch(name, info.version)
    objection = _gate_objection(info, sidecar, alias)
    if objection is not None and ledger.override_for(name, info.version, alias) is None:
        raise objection
    entry = LedgerEntry(
        **_moved(info, sidecar, alias, current),
        at_ns=now_ns,
        action="rollback",
        by=promoted_by,
        reason=reason,
        override=objection is not None,
    )
    return _carry_out(registry, ledger, entry, sidecar, announce)


def standing_versions(history: Sequence[LedgerEntry], alias: Alias) -> list[str]:
    """The versions that a rollback of an alias walks back through, oldest first; the last one stands now."""
    stack: list[str] = []
    for entry in history:
        if entry.alias != alias:
            continue
        if entry.action == "rollback" and entry.to_version in stack:
            while stack[-1] != entry.to_version:
                stack.pop()
        elif not stack or stack[-1] != entry.to_version:
            stack.append(entry.to_version)
    return stack


def may_run(info: VersionInfo, ledger: LedgerView, rung: Alias) -> str | None:
    """Say why a version may not run on a rung, or None if it may. Asked by the runner, however the alias was moved.

    The ledger's last entry for the alias must name this version and the very sidecar that is registered, and the gate
    must have passed or have been overruled there. A ledger that was tampered with lets nothing run.
    """
    try:
        return _run_objection(info, ledger, rung)
    except LedgerTampered as tampered:
        return f"{info.name} v{info.version} has no ledger to stand on: {tampered}."


def _run_objection(info: VersionInfo, ledger: LedgerView, rung: Alias) -> str | None:
    what = f"{info.name} v{info.version}"
    entry = next((e for e in reversed(ledger.history(info.name)) if e.alias == rung), None)
    if entry is None or entry.to_version != info.version:
        stands = f"names v{entry.to_version}" if entry else "has no entry for it"
        return (
            f"{what} holds the alias {rung}, but the promotion ledger {stands}: the alias was moved past the ledger, "
            f"or a promotion was cut off. Run `alpha-panda models promote` for {what} as {rung}."
        )
    recorded = entry.evidence.get(SIDECAR_TAG)
    if recorded is not None and recorded != info.tags.get(SIDECAR_TAG):
        return f"{what} is not what was promoted: its sidecar's digest has changed. Promote another version."
    if rung == "challenger":
        return None
    if info.gate_verdict(rung) == "passed" and rung == "champion":
        return None
    if ledger.override_for(info.name, info.version, rung) is not None:
        return None
    verdict = info.gate_verdict(rung) or "was never asked"
    return f"the {rung} gate of {what} {verdict} and nobody overruled it in the ledger. Promote a version that passes."


def content_objection(info: VersionInfo, ledger: LedgerView) -> str | None:
    """Say why a version's content is not what the ledger last recorded for it, or None if it is. Asked after a fetch.

    The fetch compared the sidecar with the version's tag, so the tag stands for what was read. A version that the
    ledger never saw is another question: ``may_run`` asks it.
    """
    what = f"{info.name} v{info.version}"
    try:
        entry = next((e for e in reversed(ledger.history(info.name)) if e.to_version == info.version), None)
    except LedgerTampered as tampered:
        return f"{what} has no ledger to stand on: {tampered}."
    recorded = entry.evidence.get(SIDECAR_TAG) if entry is not None else None
    if entry is None or recorded is None or recorded == info.tags.get(SIDECAR_TAG):
        return None
    return (
        f"{what} is not what was promoted: its sidecar has SHA-256 {str(info.tags.get(SIDECAR_TAG))[:16]}…, entry "
        f"{entry.number} of the ledger says {str(recorded)[:16]}…. Bring the files of then back."
    )


def _gate_objection(info: VersionInfo, sidecar: Sidecar, alias: Alias) -> GateNotPassed | None:
    what = f"{info.name} v{info.version}"
    if alias == "challenger":
        return None
    gate = _gate_of(sidecar, alias)
    if gate is not None and gate.rung == alias and gate.passed and info.gate_verdict(alias) == "passed":
        return None
    failed: tuple[GateCheck, ...] = tuple(c for c in gate.checks if c.verdict == "failed") if gate is not None else ()
    if not failed:
        return GateNotPassed(
            f"{what} carries no passed gate for {alias} (its tag says {info.gate_verdict(alias)}): train it again, or "
            "overrule the gate with a reason"
        )
    listed = "; ".join(f"{check.name}: {check.observed}, required {check.required}" for check in failed)
    return GateNotPassed(
        f"{what} did not pass the {alias} gate: {listed}. Train a better one, or overrule the gate with a reason.",
        failed,
    )


def _stale_objection(info: VersionInfo, sidecar: Sidecar, alias: Alias, current: str | None) -> GateStale | None:
    # Two versions may be trained before either is promoted: the second was never compared with the first.
    judged_against = sidecar.gate.judged_against
    if alias != "champion" or current in {None, info.version, judged_against}:
        return None
    against = f"champion v{judged_against}" if judged_against else "no champion"
    return GateStale(
        f"{info.name} v{info.version} was judged against {against}, but the champion is v{current} now, and the two "
        "were not compared. Train again, or overrule the gate with a reason."
    )


def _gate_of(sidecar: Sidecar, alias: Alias) -> GateResult | None:
    return sidecar.live_gate if alias == "live" else sidecar.gate


def _evidence(info: VersionInfo, sidecar: Sidecar, alias: Alias) -> dict[str, Any]:
    gate = _gate_of(sidecar, alias)
    return {
        "gate": gate.model_dump(mode="json") | {"passed": gate.passed} if gate is not None else None,
        "artifact_sha256": sidecar.artifact_sha256,
        SIDECAR_TAG: info.tags.get(SIDECAR_TAG, ""),
        "market": sidecar.market,
        "training_data_digest": sidecar.training_data_digest,
        "git_commit": sidecar.git_commit,
        "run_id": sidecar.run_id,
    }


def _carry_out(
    registry: Registry, ledger: PromotionLedger, entry: LedgerEntry, sidecar: Sidecar, announce: Announce
) -> PromotionRecord:
    number = ledger.append(entry)
    _move_alias(registry, ledger, entry)
    return _announced(_record(entry, number, sidecar), announce)


def _announced(record: PromotionRecord, announce: Announce) -> PromotionRecord:
    announce(record)
    return record


def _move_alias(registry: Registry, ledger: PromotionLedger, entry: LedgerEntry) -> None:
    # Two promoters may append in one order and move the alias in the other. Whoever moves it looks at the ledger again
    # and follows its last entry, so the alias ends where the ledger does.
    target = entry.to_version
    for _ in range(_REALIGN_ATTEMPTS):
        registry.set_alias(entry.model_name, entry.alias, target)
        latest = ledger.latest(entry.model_name, entry.alias)
        if latest is None or latest.to_version == target:
            return
        target = latest.to_version
    raise PromotionError(
        f"{entry.model_name}@{entry.alias} is being moved by others again and again; run the promotion once more"
    )


def _record(entry: LedgerEntry, number: int, sidecar: Sidecar) -> PromotionRecord:
    return PromotionRecord(
        model_name=entry.model_name,
        model_version=entry.to_version,
        alias=entry.alias,
        previous_version=entry.from_version,
        action=entry.action,
        promoted_by=entry.by,
        reason=entry.reason,
        override=entry.override,
        at_ns=entry.at_ns,
        ledger_number=number,
        feature_schema_hash=sidecar.feature_schema_hash,
    )
