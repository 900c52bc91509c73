"""Moving an alias: who may, on what evidence, in which order.

A promotion is an intent in the ledger, the move of the alias, and a done in the ledger; the announcement follows. An
intent names the promotion that it was judged against, and the ledger refuses one that was judged against another than
stands, or while another is under way. A process that dies in between leaves an open intent, which the next one to look
settles (``reconciliation``). The ledger decides, the alias shows, the announcement is a nudge.

    PromotionError
    ├── OverrideNeedsReason   an override, or a promotion, without a name and a reason
    ├── NothingToRollBack     the ledger knows no earlier version of this alias
    ├── PromotionTakenBack    its version was gone before the alias could move
    └── PromotionUnderWay     it is in the ledger, and who looks next carries it out

A refused version raises ``refusals.ModelRefusedError``: GateNotPassed, UnknownModelVersion, TamperedModel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from feature_store.market.types import ist_text
from models_registry.ledger import LedgerMoved, LedgerUnavailable, PromotionLedger
from models_registry.ledger_entries import Action, LedgerEntry, override_for, standing, standing_versions
from models_registry.reconciliation import settle, settle_open, show_moved
from models_registry.refs import Alias, GateCheck, GateResult
from models_registry.refusals import GateNotPassed, GateStale
from models_registry.registry import SIDECAR_TAG, Registry, RegistryUnavailable, VersionInfo
from models_registry.sidecar import Sidecar

_ATTEMPTS: Final = 10


class PromotionError(Exception):
    """A promotion that was not carried out."""


class OverrideNeedsReason(PromotionError):
    """A person may overrule a gate only by name and with a reason."""


class NothingToRollBack(PromotionError):
    """There is no earlier version to go back to."""


class PromotionTakenBack(PromotionError):
    """The version was gone, or another, before the alias could move."""


class PromotionUnderWay(PromotionError):
    """The intent stands in the ledger and the alias may not have moved."""


@dataclass(frozen=True)
class PromotionRecord:
    """What was done, or what stands if nothing had to be; the announcement carries it."""

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
    note_number: int | None = None
    """Entry that keeps the reason of a promotion that changed nothing; None if it changed something."""
    alias_put_back: bool = False
    """Whether an alias that had been moved past the ledger was brought back."""

    def __str__(self) -> str:
        """Say it in one sentence."""
        what = f"{self.model_name}@{self.alias}"
        if self.note_number is None:
            return (
                f"{what}: {self.previous_version or 'nothing'} → {self.model_version} by {self.promoted_by} (ledger "
                f"entry {self.ledger_number}): {self.reason}"
            )
        changed = "its alias, which had been moved past the ledger, names it again" if self.alias_put_back else ""
        return (
            f"{what} is version {self.model_version} already, by {self.promoted_by} since {ist_text(self.at_ns)} "
            f"(ledger entry {self.ledger_number}): {changed or 'nothing changed'}; your reason is kept as entry "
            f"{self.note_number}"
        )


Announce = Callable[[PromotionRecord], None]


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

    ``challenger`` asks for no gate; ``champion`` asks for skill; ``live`` for economics. What another left under way is
    settled first. A version that stands there already stays, without asking the gate again: the reason is kept as a
    note, and an alias that was moved past the ledger is brought back.

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
        If the gate was judged against another champion than stands now, and there is no override.
    OverrideNeedsReason
        If name, reason or override are blank.
    PromotionUnderWay
        If registry or ledger went away after the intent was recorded.
    """
    if not promoted_by.strip() or not reason.strip() or (override is not None and not override.strip()):
        raise OverrideNeedsReason("say who promotes and why; an override must give its reason too, none may be empty")
    for _ in range(_ATTEMPTS):
        settle_open(registry, ledger, name, alias, by=promoted_by, now_ns=now_ns)
        info, (sidecar, _files) = registry.version(name, version), registry.fetch(name, version)
        stands = standing(ledger.history(name), alias)
        current = stands.to_version if stands is not None else None
        objection = _gate_objection(info, sidecar, alias) or _stale_objection(info, sidecar, alias, current)
        overruled = objection is not None and override is not None
        intent = LedgerEntry(
            **_of_version(info, sidecar, alias, stands),
            at_ns=now_ns,
            action="override" if overruled else "promote",
            by=promoted_by,
            reason=reason if override in {None, reason} else f"{reason} [override: {override}]",
            override=overruled,
        )
        try:
            if stands is not None and current == version and (stands.override or not overruled):
                return _keep_as_note(registry, ledger, stands, intent, sidecar, announce)
            if objection is not None and not overruled:
                raise objection
            return _carry_out(registry, ledger, ledger.append(intent), sidecar, announce)
        except LedgerMoved:
            continue  # somebody was faster: what stands is judged against anew
    raise _moved_again_and_again(name, alias)


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
    """Go back to the version that stood on the rung before, as the ledger has it; twice goes back two versions.

    The version must still be whole and still allowed on the rung: by its gate, or by the override of its time. If the
    alias was moved past the ledger, the rollback brings it back to the version that stands.

    Raises
    ------
    NothingToRollBack
        If the ledger knows no earlier version.
    GateNotPassed, UnknownModelVersion, TamperedModel
        If the earlier version may not run any more.
    LedgerMoved
        If somebody promoted meanwhile: what was to be taken back stands no more.
    PromotionUnderWay
        If registry or ledger went away after the intent was recorded.
    """
    if not promoted_by.strip() or not reason.strip():
        raise OverrideNeedsReason("say who rolls back and why; neither may be empty")
    settle_open(registry, ledger, name, alias, by=promoted_by, now_ns=now_ns)
    history = ledger.history(name)
    stands, versions = standing(history, alias), standing_versions(history, alias)
    named = registry.aliases(name).get(alias)
    moved_by_hand = stands is not None and named != stands.to_version
    if stands is None or (len(versions) < 2 and not moved_by_hand):
        raise NothingToRollBack(
            f"the ledger knows no version of {name}@{alias} before {named or 'the first'}: promote another version"
        )
    info = registry.version(name, versions[-1 if moved_by_hand else -2])
    sidecar, _ = registry.fetch(name, info.version)
    objection = None if moved_by_hand else _gate_objection(info, sidecar, alias)
    if objection is not None and override_for(history, info.version, alias) is None:
        raise objection
    intent = LedgerEntry(
        **_of_version(info, sidecar, alias, stands),
        at_ns=now_ns,
        action="rollback",
        by=promoted_by,
        reason=reason,
        override=objection is not None,
    )
    if moved_by_hand:
        return _keep_as_note(registry, ledger, stands, intent, sidecar, announce)
    return _carry_out(registry, ledger, ledger.append(intent), sidecar, announce)


def _of_version(info: VersionInfo, sidecar: Sidecar, alias: Alias, stands: LedgerEntry | None) -> dict[str, Any]:
    return {
        "model_name": info.name,
        "alias": alias,
        "from_version": stands.to_version if stands is not None else None,
        "to_version": info.version,
        "evidence": _evidence(info, sidecar, alias),
        "phase": "intent",
        "refers_to": stands.number if stands is not None else 0,
    }


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
            "overrule the gate with a reason."
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
    registry: Registry, ledger: PromotionLedger, intent: LedgerEntry, sidecar: Sidecar, announce: Announce
) -> PromotionRecord:
    try:
        settled = settle(registry, ledger, intent, by=intent.by, now_ns=intent.at_ns, fetched=True)
    except (RegistryUnavailable, LedgerUnavailable) as away:
        raise PromotionUnderWay(
            f"{intent.model_name}@{intent.alias} is to become v{intent.to_version} (entry {intent.number} of the "
            f"ledger), but {away} Nothing is lost: who looks next (the sensor, a runner, this command) carries it out."
        ) from away
    if settled.phase == "undone":
        raise PromotionTakenBack(
            f"{intent.model_name}@{intent.alias} stays as it was (entry {settled.number} of the ledger): "
            f"{settled.reason}"
        )
    show_moved(registry, ledger, settled)
    record = _record(settled, sidecar)
    announce(record)
    return record


def _keep_as_note(  # noqa: PLR0917
    registry: Registry,
    ledger: PromotionLedger,
    stands: LedgerEntry,
    asked: LedgerEntry,
    sidecar: Sidecar,
    announce: Announce,
) -> PromotionRecord:
    """Keep who asked for what stands already and why; the alias is brought back under the same lock if it strayed."""
    name, alias = asked.model_name, asked.alias
    strayed = registry.aliases(name).get(alias) != stands.to_version

    def put_back() -> None:
        registry.set_alias(name, alias, stands.to_version)

    note = ledger.append(asked.model_copy(update={"phase": "noted"}), put_back if strayed else None)
    record = replace(_record(stands, sidecar), note_number=note.number, alias_put_back=strayed)
    announce(record)
    return record


def _record(entry: LedgerEntry, sidecar: Sidecar) -> PromotionRecord:
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
        ledger_number=entry.number,
        feature_schema_hash=sidecar.feature_schema_hash,
    )


def _moved_again_and_again(name: str, alias: Alias) -> PromotionError:
    return PromotionError(f"{name}@{alias} is being moved by others again and again; run the promotion once more")
