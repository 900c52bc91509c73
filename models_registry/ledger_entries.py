"""What an entry of the promotion ledger says, and what follows from a model's entries: who stands, who is under way.

A promotion is an *intent* and, when the alias has moved, a *done* that refers to it; an intent that could not be
carried out is *undone*. What stands on a rung is the last *done*. An *observed* entry notes an alias that was moved
past the ledger, a *noted* one keeps the reason of a promotion that changed nothing. Entries of ledgers that knew no
phases are *done*.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from models_registry.refs import Alias

Action = Literal["promote", "rollback", "override"]
Phase = Literal["intent", "done", "undone", "observed", "noted"]

_LATER_FIELDS: Final = {"phase": "done", "refers_to": None, "settled_by": None}
"""Fields that the first ledgers had not, with what they mean there; the digest leaves them out where they say that."""


class LedgerEntry(BaseModel):
    """One step of a promotion, or what was seen of an alias."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    at_ns: int
    """When this step was taken, UTC epoch nanoseconds, never before the entry before it; that of a ``done`` is the
    instant from which it stands."""
    model_name: str = Field(min_length=1)
    alias: Alias
    from_version: str | None
    """What stood on the rung before; None: nothing."""
    to_version: str
    """The version that is to stand, or that the alias was seen to name: empty there if it named none."""
    action: Action
    by: str
    """Who decided, whoever carried it out."""
    reason: str
    """Why; of an ``undone``, why it could not be carried out."""
    evidence: dict[str, Any] = Field(default_factory=dict)
    """What the decision stood on: the gate's result, the artifact's digests."""
    override: bool = False
    """Whether the version stands there although its gate did not pass."""
    phase: Phase = "done"
    refers_to: int | None = None
    """Number of another entry: of an intent the ``done`` that it was judged against (0: none), of ``done`` and
    ``undone`` their intent, of ``observed`` and ``noted`` the ``done`` that stands (0: none)."""
    settled_by: str | None = None
    """Who carried an intent out or took it back; None where there was none."""
    number: int = 0
    """Position in the ledger, from 1; set when it is read."""
    sha256: str = ""
    """Digest over this entry and the one before; set when it is read."""

    @field_validator("by", "reason")
    @classmethod
    def _not_blank(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("a promotion needs who and why; neither may be empty")
        return value

    def digest(self, number: int, previous_sha256: str) -> str:
        """SHA-256 of the entry's canonical JSON, its number and the digest before it."""
        content = self.model_dump(mode="json", exclude={"number", "sha256"})
        content = {k: v for k, v in content.items() if k not in _LATER_FIELDS or v != _LATER_FIELDS[k]}
        text = json.dumps([number, previous_sha256, content], sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def done(history: Iterable[LedgerEntry], alias: Alias) -> list[LedgerEntry]:
    """Give the promotions of an alias that took effect, oldest first."""
    return [entry for entry in history if entry.alias == alias and entry.phase == "done"]


def standing(history: Iterable[LedgerEntry], alias: Alias) -> LedgerEntry | None:
    """Give the promotion that stands on a rung: the last one done; None if none was."""
    return next(iter(done(history, alias)[-1:]), None)


def standing_at(history: Iterable[LedgerEntry], alias: Alias, at_ns: int) -> LedgerEntry | None:
    """Give the promotion that stood on a rung at an instant (UTC epoch nanoseconds); None if none did."""
    return standing((entry for entry in history if entry.at_ns <= at_ns), alias)


def open_intent(history: Sequence[LedgerEntry], alias: Alias) -> LedgerEntry | None:
    """Give the intent of an alias that was neither carried out nor taken back; there is never more than one."""
    settled = {entry.refers_to for entry in history if entry.phase in {"done", "undone"}}
    return next((e for e in history if e.alias == alias and e.phase == "intent" and e.number not in settled), None)


def override_for(history: Iterable[LedgerEntry], version: str, rung: Alias) -> LedgerEntry | None:
    """Give the last promotion that put a version on a rung against its gate; None if there is none."""
    overruled = [entry for entry in done(history, rung) if entry.override and entry.to_version == version]
    return overruled[-1] if overruled else None


def standing_versions(history: Iterable[LedgerEntry], alias: Alias) -> list[str]:
    """The versions that a rollback of an alias walks back through, oldest first; the last one stands now."""
    stack: list[str] = []
    for entry in done(history, alias):
        if entry.action == "rollback" and entry.to_version in stack:
            while stack[-1] != entry.to_version:
                stack.pop()
        elif not stack or stack[-1] != entry.to_version:
            stack.append(entry.to_version)
    return stack


def repeated(entry: LedgerEntry, history: Iterable[LedgerEntry]) -> LedgerEntry | None:
    """Give the entry that says of an alias what this observation says, if nothing was seen or done there since."""
    last = [e for e in history if e.alias == entry.alias and e.phase in {"done", "observed"}][-1:]
    return next((e for e in last if e.phase == "observed" and e.to_version == entry.to_version), None)


def objection(entry: LedgerEntry, history: Sequence[LedgerEntry]) -> str | None:
    """Say why an entry may not be appended to a model's history, or None if it may.

    It must have been judged against the promotion that stands, and none may be under way.
    """
    what = f"{entry.model_name}@{entry.alias}"
    under_way = open_intent(history, entry.alias)
    if under_way is not None:
        return (
            f"{what} is being moved to v{under_way.to_version} by {under_way.by} (entry {under_way.number} of the "
            "ledger); that must be settled first"
        )
    stands = standing(history, entry.alias)
    if (stands.number if stands else 0) == entry.refers_to:
        return None
    now = f"v{stands.to_version} (entry {stands.number}, by {stands.by})" if stands else "nothing"
    judged = f"entry {entry.refers_to}" if entry.refers_to else "an empty rung"
    return f"{what} was looked at when {judged} stood, but {now} stands now; look again"
