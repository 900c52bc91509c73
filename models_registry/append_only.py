"""Tables that take inserts only, in a SQLite file (WAL) or a PostgreSQL database: how they are made and locked.

Triggers refuse every change and removal. What changes rows behind their back is for the owner of a table to notice:
each row carries a SHA-256 over itself and the one before.

    LedgerError
    ├── LedgerUnavailable   the database does not answer
    ├── LedgerTampered      the chain of digests is broken; names the first entry that does not fit
    └── LedgerMoved         somebody else was faster; look again (the promotion ledger's own)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
import tenacity

GENESIS: Final = "0" * 64
"""Digest before the first entry of a chain."""
_LOCK_WAIT_S: Final = 30


class LedgerError(Exception):
    """The ledger, or a table beside it, cannot be used."""


class LedgerUnavailable(LedgerError):
    """The database did not answer; the message says what to do."""


class LedgerTampered(LedgerError):
    """An entry that is not what was appended."""


class AppendOnlyTable:
    """A table at an address, made on first use with its guards.

    Parameters
    ----------
    url : str
        SQLAlchemy URL, as the setting ``ledger.url`` gives it.
    table : sqlalchemy.Table
        Alone in its metadata.
    what : str
        What a message calls it, for example ``the promotion ledger``.
    advisory_lock : int
        Orders the writers on PostgreSQL; another one for every table.
    later_columns : sequence of sqlalchemy.Column
        Those that the first tables had not: they are added to one in place.

    Raises
    ------
    LedgerUnavailable
        If the address is none, or its driver is not installed.
    """

    def __init__(
        self,
        url: str,
        table: sa.Table,
        what: str,
        *,
        advisory_lock: int,
        later_columns: Sequence[sa.Column[Any]] = (),
    ) -> None:
        self._table, self._what = table, what
        self._advisory_lock, self._later_columns = advisory_lock, later_columns
        try:
            parsed = sa.make_url(url)
        except sa.exc.ArgumentError as error:
            raise LedgerUnavailable(
                "ledger.url is not a SQLAlchemy URL; write sqlite:///FILE or postgresql://…"
            ) from error
        self._dialect = parsed.get_backend_name()
        if self._dialect not in {"sqlite", "postgresql"}:
            raise LedgerUnavailable(f"the ledger knows sqlite and postgresql, not {self._dialect}; correct ledger.url")
        if parsed.drivername == "postgresql":
            parsed = parsed.set(drivername="postgresql+psycopg")  # SQLAlchemy's own choice is an older driver
        self.shown = parsed.render_as_string(hide_password=True)
        """The address without its password."""
        if self._dialect == "sqlite" and parsed.database:
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        try:
            # NullPool: a runner looks seldom, and an open file must not outlive its reader.
            self._engine = sa.create_engine(
                parsed,
                poolclass=sa.NullPool,
                connect_args={"timeout": _LOCK_WAIT_S}
                if self._dialect == "sqlite"
                else {"connect_timeout": _LOCK_WAIT_S, "options": f"-c lock_timeout={_LOCK_WAIT_S}s"},
            )
        except ModuleNotFoundError as error:
            raise LedgerUnavailable(
                f"the driver for {self.shown} is not installed ({error}): `.venv/bin/pip install "
                "--require-hashes -r requirements-postgresql.lock` installs it"
            ) from error
        if self._dialect == "sqlite":
            sa.event.listen(self._engine, "connect", _configure_sqlite)
        self._prepared = False

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """Give a connection.

        Raises
        ------
        LedgerUnavailable
            If the database does not answer within 30 s, or refuses.
        """
        try:
            if not self._prepared:
                self._prepare()
                self._prepared = True
            with self._engine.connect() as connection:
                yield connection
        except sa.exc.IntegrityError:
            raise
        except sa.exc.DatabaseError as error:  # away, locked, not allowed, or no database
            raise LedgerUnavailable(
                f"{self._what} at {self.shown} did not answer ({error.orig}); is the database up, and may "
                "this process write there? See ledger.url."
            ) from error

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """Give a connection that holds the writers' lock and commits at the end; raises as ``reading`` does."""
        with self.reading() as connection:
            self._lock(connection)
            yield connection
            connection.commit()

    def tampered(self, number: int) -> LedgerTampered:
        """Give the error that names an entry which does not follow from the one before."""
        return LedgerTampered(
            f"entry {number} of {self._what} at {self.shown} does not follow from the one before (it was "
            "changed, inserted, or one before it removed): restore a backup and find out who wrote to it"
        )

    def _lock(self, connection: sa.Connection) -> None:
        if self._dialect == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(self._advisory_lock)))
        else:
            connection.exec_driver_sql("BEGIN IMMEDIATE")

    def _prepare(self) -> None:
        # Under the write lock: two processes that start together must not both create the table.
        with self._engine.connect() as connection:
            if self._missing_columns(connection) == []:
                return
            connection.rollback()
            if self._dialect == "sqlite":
                _switch_to_wal(connection)
            self._lock(connection)
            for column in self._missing_columns(connection) or ():
                declared = str(sa.schema.CreateColumn(column).compile(dialect=connection.dialect)).strip()
                connection.exec_driver_sql(f"ALTER TABLE {self._table.name} ADD COLUMN {declared}")
            self._table.metadata.create_all(connection, checkfirst=True)
            for guard in _guards(self._dialect, self._table.name, self._what):
                connection.exec_driver_sql(guard)
            connection.commit()

    def _missing_columns(self, connection: sa.Connection) -> list[sa.Column[Any]] | None:
        """Give the columns that a table of before has not; None if there is no table yet."""
        inspector = sa.inspect(connection)
        if not inspector.has_table(self._table.name):
            return None
        there = {column["name"] for column in inspector.get_columns(self._table.name)}
        return [column for column in self._later_columns if column.name not in there]


def _guards(dialect: str, table: str, what: str) -> tuple[str, ...]:
    if dialect == "sqlite":
        return tuple(
            f"CREATE TRIGGER IF NOT EXISTS {table}_no_{verb.lower()} BEFORE {verb} ON {table} "
            f"BEGIN SELECT RAISE(ABORT, '{what} is append-only'); END"
            for verb in ("UPDATE", "DELETE")
        )
    return (
        f"CREATE OR REPLACE FUNCTION {table}_append_only() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION '{what} is append-only'; END $$",
        f"CREATE OR REPLACE TRIGGER {table}_no_change BEFORE UPDATE OR DELETE ON {table} "
        f"FOR EACH ROW EXECUTE FUNCTION {table}_append_only()",
        f"CREATE OR REPLACE TRIGGER {table}_no_truncate BEFORE TRUNCATE ON {table} "
        f"FOR EACH STATEMENT EXECUTE FUNCTION {table}_append_only()",
    )


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
