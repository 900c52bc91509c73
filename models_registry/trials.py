"""The trials: every candidate that was tried, with what it made out of fold, and every look at the hold-out.

A table beside the promotion ledger, in the same database and as the ledger append-only with a chain of digests: neither
training again nor deleting runs makes the number of tries smaller. How many of them are independent is said by
`validation.trials_count`.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final, Literal, NamedTuple

import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationInfo, field_validator, model_validator

from models_registry.append_only import GENESIS, AppendOnlyTable

_ADVISORY_LOCK: Final = 0x414C504842  # any fixed number that is not the ledger's
_TABLE: Final = sa.Table(
    "trials",
    sa.MetaData(),
    sa.Column("number", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, autoincrement=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("model_name", sa.Text, nullable=False, index=True),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("previous_sha256", sa.Text, nullable=False, unique=True),  # two entries on one predecessor: a fork
    sa.Column("sha256", sa.Text, nullable=False, unique=True),
)
_Kind = Literal["trial", "repeat", "look"]
_OF_THE_TABLE: Final[set[str]] = {"number", "recorded"}


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    model_name: str = Field(min_length=1)
    number: int = 0
    """Position in the table, from 1; set when it is recorded or read."""


class Trial(_Entry):
    """A candidate that was tried."""

    config: dict[str, JsonValue]
    """All that makes its profits differ from another candidate's: model, threshold, horizon, features, parameters of
    the rule, barriers, sizing, costs."""
    config_digest: str = Field(default="", validate_default=True)
    """SHA-256 of the configuration's canonical JSON; filled in if it is left out."""
    data_digest: str = Field(min_length=1)
    """Of the training frame."""
    daily_pnl_inr: dict[str, float]
    """Net profit out of fold by session (``YYYY-MM-DD``), rupees; 0 where it did not trade."""
    made_by: str = Field(min_length=1)
    """What or who tried it."""
    recorded_at_ns: int
    """UTC epoch nanoseconds."""
    run_id: str
    """Of the first time; empty outside a run."""
    recorded: int = 1
    """How often it was tried; set when it is recorded or read."""

    @field_validator("daily_pnl_inr")
    @classmethod
    def _by_session(cls, value: dict[str, float]) -> dict[str, float]:
        for date, pnl in value.items():
            if not math.isfinite(pnl):
                raise ValueError(f"the profit of {date} is {pnl}; a session without trades has 0")
            if dt.date.fromisoformat(date).isoformat() != date:
                raise ValueError(f"{date!r} is no date; write YYYY-MM-DD")
        return dict(sorted(value.items()))

    @field_validator("config_digest")
    @classmethod
    def _is_that_of_the_config(cls, value: str, others: ValidationInfo) -> str:
        digest = config_digest(others.data.get("config", {}))
        if value not in {"", digest}:
            raise ValueError("config_digest is not that of config; leave it out and it is filled in")
        return digest

    @property
    def identity(self) -> tuple[str, str, str]:
        """What makes it the same trial: model, configuration and data."""
        return self.model_name, self.config_digest, self.data_digest


class HoldoutLook(_Entry):
    """Somebody saw what a model did on sessions that were held out."""

    first_session: dt.date
    last_session: dt.date
    what: Literal["backtest", "replay"]
    by: str = Field(min_length=1)
    at_ns: int
    """UTC epoch nanoseconds."""
    config_digest: str

    @model_validator(mode="after")
    def _in_order(self) -> HoldoutLook:
        if self.first_session > self.last_session:
            raise ValueError(f"a look from {self.first_session} to {self.last_session} ends before it begins")
        return self

    def meets(self, first_session: dt.date, last_session: dt.date) -> bool:
        """Whether it saw one of these sessions."""
        return self.first_session <= last_session and first_session <= self.last_session


def config_digest(config: dict[str, JsonValue]) -> str:
    """SHA-256 of a configuration's canonical JSON."""
    return hashlib.sha256(_canonical(config).encode()).hexdigest()


class TrialTable:
    """The table in a SQLite file (WAL) or a PostgreSQL database; it is made on first use.

    Parameters
    ----------
    url : str
        SQLAlchemy URL: that of the promotion ledger.

    Raises
    ------
    LedgerUnavailable
        From any method: the database does not answer within 30 s.
    LedgerTampered
        From any method: an entry was changed, removed, inserted or reordered; names it. Entries that were cut off at
        the end leave a shorter table that is still whole.
    """

    def __init__(self, url: str) -> None:
        self._database = AppendOnlyTable(url, _TABLE, "the table of trials", advisory_lock=_ADVISORY_LOCK)

    def record(self, trial: Trial) -> Trial:
        """Record a trial and give it as it stands now.

        The same configuration on the same data is one trial, however often: the first one stays with its profits, and
        that it was tried again is counted in ``recorded``. What changes profits must therefore stand in ``config``.
        """
        with self._database.writing() as connection:
            head, entries = self._read(connection, trial.model_name)
            first = next((one for one in _trials(entries) if one.identity == trial.identity), None)
            if first is None:
                _append(connection, head, "trial", trial.model_name, _body(trial))
                return trial.model_copy(update={"number": head.number + 1, "recorded": 1})
            again = {"trial": first.number} | _body(trial, only={"recorded_at_ns", "made_by", "run_id"})
            _append(connection, head, "repeat", trial.model_name, again)
        return first.model_copy(update={"recorded": first.recorded + 1})

    def of(self, model_name: str) -> tuple[Trial, ...]:
        """Give a model's trials, oldest first."""
        with self._database.reading() as connection:
            return _trials(self._read(connection, model_name)[1])

    def look(self, look: HoldoutLook) -> HoldoutLook:
        """Note a look at the hold-out, each time anew."""
        with self._database.writing() as connection:
            head, _ = self._read(connection, look.model_name)
            _append(connection, head, "look", look.model_name, _body(look))
        return look.model_copy(update={"number": head.number + 1})

    def looks(self, model_name: str) -> tuple[HoldoutLook, ...]:
        """Give the looks at a model's hold-out, oldest first."""
        with self._database.reading() as connection:
            _, entries = self._read(connection, model_name)
        return tuple(HoldoutLook(**one.body, number=one.number) for one in entries if one.kind == "look")

    def names(self) -> tuple[str, ...]:
        """Models that the table has entries of."""
        with self._database.reading() as connection:
            found = connection.execute(sa.select(_TABLE.c.model_name).distinct()).scalars()
            return tuple(sorted(found))

    def verify(self) -> int:
        """Recompute the chain from the first entry and give the number of entries."""
        with self._database.reading() as connection:
            return self._read(connection, "")[0].number

    def _read(self, connection: sa.Connection, model_name: str) -> tuple[_Head, list[_Recorded]]:
        """Verify all entries; give where the chain ends, and what is recorded of one model."""
        head, found = _Head(0, GENESIS), []
        for row in connection.execute(sa.select(_TABLE).order_by(_TABLE.c.number)).mappings():
            number = head.number + 1
            digest = _sha256(number, head.sha256, row["kind"], row["model_name"], row["body"])
            if (row["number"], row["previous_sha256"], row["sha256"]) != (number, head.sha256, digest):
                raise self._database.tampered(row["number"])
            if row["model_name"] == model_name:
                found.append(_Recorded(number, row["kind"], json.loads(row["body"])))
            head = _Head(number, digest)
        return head, found


class _Head(NamedTuple):
    number: int
    sha256: str


class _Recorded(NamedTuple):
    number: int
    kind: _Kind
    body: dict[str, Any]


def _trials(entries: Sequence[_Recorded]) -> tuple[Trial, ...]:
    again = Counter(one.body["trial"] for one in entries if one.kind == "repeat")
    return tuple(
        Trial(**one.body, number=one.number, recorded=1 + again[one.number]) for one in entries if one.kind == "trial"
    )


def _append(connection: sa.Connection, head: _Head, kind: _Kind, model_name: str, body: dict[str, Any]) -> None:
    number, text = head.number + 1, _canonical(body)
    connection.execute(
        sa.insert(_TABLE).values(
            number=number,
            kind=kind,
            model_name=model_name,
            body=text,
            previous_sha256=head.sha256,
            sha256=_sha256(number, head.sha256, kind, model_name, text),
        )
    )


def _sha256(number: int, previous: str, kind: str, model_name: str, body: str) -> str:
    return hashlib.sha256(_canonical([number, previous, kind, model_name, body]).encode()).hexdigest()


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _body(entry: Trial | HoldoutLook, only: set[str] | None = None) -> dict[str, Any]:
    return entry.model_dump(mode="json", include=only, exclude=_OF_THE_TABLE)
