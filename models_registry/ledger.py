"""The promotion ledger: who moved which alias from what to what, when, why, and on which evidence.

MLflow keeps no history of aliases, so this is it. The table takes inserts only (triggers refuse the rest), and every
row carries a SHA-256 over its content and the row before, so that a change behind the triggers' back shows in
``verify``.

    LedgerError
    ├── LedgerUnavailable   the database does not answer
    └── LedgerTampered      the chain of digests is broken; names the first entry that does not fit
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal

import sqlalchemy as sa
import tenacity
from pydantic import BaseModel, ConfigDict, Field, field_validator

from models_registry.refs import Alias

Action = Literal["promote", "rollback", "override"]

GENESIS: Final = "0" * 64
_LOCK_WAIT_S: Final = 30
_ADVISORY_LOCK: Final = 0x414C504841  # any fixed number; one ledger to a database


class LedgerError(Exception):
    """The ledger cannot be used."""


class LedgerUnavailable(LedgerError):
    """The database did not answer; the message says what to do."""


class LedgerTampered(LedgerError):
    """An entry that is not what was appended."""


class LedgerEntry(BaseModel):
    """One move of an alias."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    at_ns: int
    model_name: str = Field(min_length=1)
    alias: Alias
    from_version: str | None
    to_version: str = Field(min_length=1)
    action: Action
    by: str
    reason: str
    evidence: dict[str, Any] = Field(default_factory=dict)
    """What the decision stood on: the gate's result, the artifact's digests."""
    override: bool = False
    """Whether the version stands there although its gate did not pass."""
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
        text = json.dumps([number, previous_sha256, content], sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


_METADATA: Final = sa.MetaData()
_TABLE: Final = sa.Table(
    "promotion_ledger",
    _METADATA,
    sa.Column("number", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, autoincrement=False),
    sa.Column("at_ns", sa.BigInteger, nullable=False),
    sa.Column("model_name", sa.Text, nullable=False, index=True),
    sa.Column("alias", sa.Text, nullable=False),
    sa.Column("from_version", sa.Text),
    sa.Column("to_version", sa.Text, nullable=False),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("by", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("evidence", sa.Text, nullable=False),
    sa.Column("override", sa.Boolean, nullable=False),
    sa.Column("previous_sha256", sa.Text, nullable=False, unique=True),  # two entries on one predecessor: a fork
    sa.Column("sha256", sa.Text, nullable=False, unique=True),
)
_SQLITE_GUARDS: Final = tuple(
    f"CREATE TRIGGER IF NOT EXISTS promotion_ledger_no_{verb.lower()} BEFORE {verb} ON promotion_ledger "
    "BEGIN SELECT RAISE(ABORT, 'the promotion ledger is append-only'); END"
    for verb in ("UPDATE", "DELETE")
)
_POSTGRESQL_GUARDS: Final = (
    "CREATE OR REPLACE FUNCTION promotion_ledger_append_only() RETURNS trigger LANGUAGE plpgsql AS "
    "$$ BEGIN RAISE EXCEPTION 'the promotion ledger is append-only'; END $$",
    "CREATE OR REPLACE TRIGGER promotion_ledger_no_change BEFORE UPDATE OR DELETE ON promotion_ledger "
    "FOR EACH ROW EXECUTE FUNCTION promotion_ledger_append_only()",
    "CREATE OR REPLACE TRIGGER promotion_ledger_no_truncate BEFORE TRUNCATE ON promotion_ledger "
    "FOR EACH STATEMENT EXECUTE FUNCTION promotion_ledger_append_only()",
)


class PromotionLedger:
    """The ledger in a SQLite file (WAL) or a PostgreSQL database; its table is made on first use.

    Parameters
    ----------
    url : str
        SQLAlchemy URL, for example ``sqlite:////home/desk/.alpha-panda/ledger.sqlite``.
    """

    def __init__(self, url: str) -> None:
        try:
            parsed = sa.make_url(url)
        except sa.exc.ArgumentError as error:
            raise LedgerUnavailable(
                "ledger.url is not a SQLAlchemy URL; write sqlite:///FILE or postgresql://…"
            ) from error
        self._dialect = parsed.get_backend_name()
        if self._dialect not in {"sqlite", "postgresql"}:
            raise LedgerUnavailable(f"the ledger knows sqlite and postgresql, not {self._dialect}; correct ledger.url")
        self._shown = parsed.render_as_string(hide_password=True)
        if self._dialect == "sqlite" and parsed.database:
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        try:
            # NullPool: a runner looks seldom, and an open file must not outlive its reader.
            self._engine = sa.create_engine(
                parsed,
                poolclass=sa.NullPool,
                connect_args={"timeout": _LOCK_WAIT_S}
                if self._dialect == "sqlite"
                else {"connect_timeout": _LOCK_WAIT_S},
            )
        except ModuleNotFoundError as error:
            raise LedgerUnavailable(f"the driver for {self._shown} is not installed: {error}") from error
        if self._dialect == "sqlite":
            sa.event.listen(self._engine, "connect", _configure_sqlite)
        self._prepared = False

    def append(self, entry: LedgerEntry) -> int:
        """Append an entry and give its number; two appenders wait for each other, so the chain never forks.

        Raises
        ------
        LedgerUnavailable
            If the database does not answer within 30 s.
        """
        with self._writing() as connection:
            last = connection.execute(
                sa.select(_TABLE.c.number, _TABLE.c.sha256).order_by(_TABLE.c.number.desc()).limit(1)
            ).first()
            number, previous = (last.number + 1, last.sha256) if last else (1, GENESIS)
            values = entry.model_dump(mode="json", exclude={"number", "sha256", "evidence"})
            connection.execute(
                sa.insert(_TABLE).values(
                    **values,
                    number=number,
                    evidence=json.dumps(entry.model_dump(mode="json")["evidence"], sort_keys=True),
                    previous_sha256=previous,
                    sha256=entry.digest(number, previous),
                )
            )
        return int(number)

    def history(self, name: str) -> tuple[LedgerEntry, ...]:
        """All entries of a model, oldest first; the whole chain is verified with every reading.

        Raises
        ------
        LedgerTampered
            If an entry of any model was changed, removed, inserted or reordered.
        LedgerUnavailable
            If the database does not answer.
        """
        return tuple(entry for entry in self._chain() if entry.model_name == name)

    def names(self) -> tuple[str, ...]:
        """Models that the ledger has entries of; raises as ``history`` does."""
        return tuple(sorted({entry.model_name for entry in self._chain()}))

    def latest(self, name: str, alias: Alias) -> LedgerEntry | None:
        """The last entry of an alias: where the ledger says that it points; raises as ``history`` does."""
        return next((entry for entry in reversed(self.history(name)) if entry.alias == alias), None)

    def override_for(self, name: str, version: str, rung: Alias) -> LedgerEntry | None:
        """The last entry by which a person put this version on this rung against its gate; None if there is none.

        Raises as ``history`` does.
        """
        return next(
            (
                entry
                for entry in reversed(self.history(name))
                if entry.override and entry.to_version == version and entry.alias == rung
            ),
            None,
        )

    def verify(self) -> int:
        """Recompute the chain from the first entry and give the number of entries.

        Entries cut off at the end leave a shorter chain that is still whole; runners notice those, because they refuse
        an alias that the ledger does not account for.

        Raises
        ------
        LedgerTampered
            If an entry was changed, removed, inserted or reordered.
        """
        return len(self._chain())

    def _chain(self) -> list[LedgerEntry]:
        with self._connected() as connection:
            rows = connection.execute(sa.select(_TABLE).order_by(_TABLE.c.number)).mappings().all()
        chain: list[LedgerEntry] = []
        previous = GENESIS
        for number, row in enumerate(rows, 1):
            try:
                entry, recorded_previous = _entry_of(row)
            except (ValueError, TypeError) as error:  # what is no entry any more was changed too
                raise self._tampered(row["number"]) from error
            fits = entry.number == number and recorded_previous == previous
            if not fits or entry.sha256 != entry.digest(number, previous):
                raise self._tampered(entry.number)
            chain.append(entry)
            previous = entry.sha256
        return chain

    def _tampered(self, number: int) -> LedgerTampered:
        return LedgerTampered(
            f"entry {number} of the promotion ledger at {self._shown} does not follow from the one before (it was "
            "changed, inserted, or one before it removed): restore a backup and find out who wrote to it"
        )

    @contextmanager
    def _writing(self) -> Iterator[sa.Connection]:
        with self._connected() as connection:
            if self._dialect == "postgresql":
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_ADVISORY_LOCK)))
            else:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            yield connection
            connection.commit()

    @contextmanager
    def _connected(self) -> Iterator[sa.Connection]:
        try:
            if not self._prepared:
                self._prepare()
                self._prepared = True
            with self._engine.connect() as connection:
                yield connection
        except sa.exc.OperationalError as error:
            raise LedgerUnavailable(
                f"the promotion ledger at {self._shown} did not answer ({error.orig}); is the database up, and may "
                "this process write there? See ledger.url."
            ) from error

    def _prepare(self) -> None:
        # Under the write lock: two processes that start together must not both create the table.
        guards = _SQLITE_GUARDS if self._dialect == "sqlite" else _POSTGRESQL_GUARDS
        with self._engine.connect() as connection:
            if sa.inspect(connection).has_table(_TABLE.name):
                return
            connection.rollback()
            if self._dialect == "sqlite":
                _switch_to_wal(connection)
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            else:
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_ADVISORY_LOCK)))
            _METADATA.create_all(connection, checkfirst=True)
            for guard in guards:
                connection.exec_driver_sql(guard)
            connection.commit()


def _configure_sqlite(connection: Any, _record: Any) -> None:
    # Python's sqlite3 opens transactions on its own terms; ours begin with BEGIN IMMEDIATE or not at all.
    connection.isolation_level = None
    connection.execute("PRAGMA synchronous=FULL")


@tenacity.retry(
    retry=tenacity.retry_if_exception_type(sa.exc.OperationalError),
    stop=tenacity.stop_after_delay(_LOCK_WAIT_S),
    wait=tenacity.wait_random(0.01, 0.1),
    reraise=True,
)
def _switch_to_wal(connection: sa.Connection) -> None:
    # Kept in the file from then on. SQLite does not wait for a lock here, however long its timeout is.
    connection.exec_driver_sql("PRAGMA journal_mode=WAL")


def _entry_of(row: sa.RowMapping) -> tuple[LedgerEntry, str]:
    values = dict(row)
    previous = values.pop("previous_sha256")
    return LedgerEntry(**(values | {"evidence": json.loads(values["evidence"])})), previous
