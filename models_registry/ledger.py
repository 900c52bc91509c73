"""The promotion ledger: who moved which alias from what to what, when, why, and on which evidence.

MLflow keeps no history of aliases, so this is it. The table takes inserts only (triggers refuse the rest), and every
row carries a SHA-256 over its content and the row before, so that a change behind the triggers' back shows in
``verify``.

Who appends is held to what stands: an intent or an observation that was judged against another promotion than the last
one done, or while one is under way, is refused under the lock that orders all writers. The tree of what is raised
stands in `append_only`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Final, Literal

import sqlalchemy as sa
import structlog

from models_registry.append_only import GENESIS, AppendOnlyTable, LedgerError, LedgerTampered, LedgerUnavailable
from models_registry.ledger_entries import LedgerEntry, objection, repeated

__all__ = ["LedgerError", "LedgerMoved", "LedgerTampered", "LedgerUnavailable", "PromotionLedger"]

_ADVISORY_LOCK: Final = 0x414C504841  # any fixed number; one ledger to a database


class LedgerMoved(LedgerError):
    """What was to be appended was judged against what stands no more, or while another promotion is under way."""


_LATER_COLUMNS: Final = (
    sa.Column("phase", sa.Text, nullable=False, server_default="done"),
    sa.Column("refers_to", sa.BigInteger),
    sa.Column("settled_by", sa.Text),
)
"""Columns that the first ledgers had not; they are added to those in place, and say nothing in entries of then."""
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
    *_LATER_COLUMNS,
    sa.Column("previous_sha256", sa.Text, nullable=False, unique=True),  # two entries on one predecessor: a fork
    sa.Column("sha256", sa.Text, nullable=False, unique=True),
)


class PromotionLedger:
    """The ledger in a SQLite file (WAL) or a PostgreSQL database; its table is made on first use.

    Parameters
    ----------
    url : str
        SQLAlchemy URL, for example ``sqlite:////home/desk/.alpha-panda/ledger.sqlite`` or ``postgresql://desk@db/ledger``.
    """

    def __init__(self, url: str) -> None:
        self._database = AppendOnlyTable(
            url, _TABLE, "the promotion ledger", advisory_lock=_ADVISORY_LOCK, later_columns=_LATER_COLUMNS
        )

    def append(self, entry: LedgerEntry, act: Callable[[], None] | None = None) -> LedgerEntry:
        """Append an intent, an observation or a note, if what it refers to still stands; give it with its number.

        An observation that was the last to be made is not made again: the entry of then is given.

        Parameters
        ----------
        entry : LedgerEntry
            Refers to the promotion that stands, as the caller knows it.
        act : callable, optional
            What is done together with the entry, under the lock and before it; what it raises keeps the entry out.

        Raises
        ------
        LedgerMoved
            If another promotion stands by now, or one is under way.
        LedgerUnavailable
            If the database does not answer within 30 s.
        LedgerTampered
            If the chain before it is broken.
        """
        if entry.phase in {"done", "undone"}:
            raise ValueError(f"an entry that is {entry.phase} settles an intent; call settle")
        with self._database.writing() as connection:
            chain = self._chain(connection)
            history = [other for other in chain if other.model_name == entry.model_name]
            moved = objection(entry, history)
            if moved is not None:
                raise LedgerMoved(moved)
            said = repeated(entry, history) if entry.phase == "observed" else None
            if said is not None:
                return said
            if act is not None:
                act()
            appended = _insert(connection, chain, entry)
        _audit(appended)
        return appended

    def settle(
        self,
        intent: LedgerEntry,
        phase: Literal["done", "undone"],
        *,
        by: str,
        at_ns: int,
        act: Callable[[], None],
        reason: str | None = None,
    ) -> LedgerEntry:
        """Carry an intent out, or take it back, unless somebody did: give the entry that settled it.

        Parameters
        ----------
        intent : LedgerEntry
            As ``append`` gave it or ``history`` reads it.
        by : str
            Who settles it.
        at_ns : int
            When, UTC epoch nanoseconds.
        act : callable
            Moves the alias, under the lock, so that nobody moves it in another order than the ledger's; what it raises
            leaves the intent open.
        reason : str, optional
            Why it is taken back; default: the intent's.

        Raises
        ------
        LedgerUnavailable, LedgerTampered
        """
        with self._database.writing() as connection:
            chain = self._chain(connection)
            settled = next((e for e in chain if e.refers_to == intent.number and e.phase in {"done", "undone"}), None)
            if settled is not None:
                return settled
            act()
            changes = {"phase": phase, "refers_to": intent.number, "settled_by": by, "at_ns": at_ns}
            changes |= {"reason": reason} if reason else {}
            appended = _insert(connection, chain, intent.model_copy(update=changes))
        _audit(appended)
        return appended

    def history(self, name: str) -> tuple[LedgerEntry, ...]:
        """All entries of a model, oldest first; the whole chain is verified with every reading.

        Raises
        ------
        LedgerTampered
            If an entry of any model was changed, removed, inserted or reordered.
        LedgerUnavailable
            If the database does not answer.
        """
        return tuple(entry for entry in self._read() if entry.model_name == name)

    def names(self) -> tuple[str, ...]:
        """Models that the ledger has entries of; raises as ``history`` does."""
        return tuple(sorted({entry.model_name for entry in self._read()}))

    def verify(self) -> int:
        """Recompute the chain from the first entry and give the number of entries.

        Entries cut off at the end leave a shorter chain that is still whole; runners notice those, because they refuse
        an alias that the ledger does not account for.

        Raises
        ------
        LedgerTampered
            If an entry was changed, removed, inserted or reordered.
        """
        return len(self._read())

    def _read(self) -> list[LedgerEntry]:
        with self._database.reading() as connection:
            return self._chain(connection)

    def _chain(self, connection: sa.Connection) -> list[LedgerEntry]:
        rows = connection.execute(sa.select(_TABLE).order_by(_TABLE.c.number)).mappings().all()
        chain: list[LedgerEntry] = []
        previous = GENESIS
        for number, row in enumerate(rows, 1):
            try:
                entry, recorded_previous = _entry_of(row)
            except (ValueError, TypeError) as error:  # what is no entry any more was changed too
                raise self._database.tampered(row["number"]) from error
            fits = entry.number == number and recorded_previous == previous
            if not fits or entry.sha256 != entry.digest(number, previous):
                raise self._database.tampered(entry.number)
            chain.append(entry)
            previous = entry.sha256
        return chain


def _audit(entry: LedgerEntry) -> None:
    """Log an entry that is in the ledger now; the ledger is what counts, the line is for who reads logs."""
    said = {
        "model_name": entry.model_name,
        "alias": entry.alias,
        "action": entry.action,
        "phase": entry.phase,
        "from_version": entry.from_version,
        "to_version": entry.to_version,
        "override": entry.override,
        "by": entry.by,
        "reason": entry.reason,
        "settled_by": entry.settled_by,
        "ledger_entry": entry.number,
        "ledger_sha256": entry.sha256,
    }
    structlog.get_logger("audit").info("promotion_ledger", **said)


def _insert(connection: sa.Connection, chain: Sequence[LedgerEntry], entry: LedgerEntry) -> LedgerEntry:
    previous = chain[-1].sha256 if chain else GENESIS
    number = len(chain) + 1
    # Who waited for the lock, or whose clock is behind, still comes after: what stood when follows the entries' order.
    later = entry.model_copy(update={"at_ns": max([entry.at_ns, *(before.at_ns for before in chain[-1:])])})
    appended = later.model_copy(update={"number": number, "sha256": later.digest(number, previous)})
    values = appended.model_dump(mode="json")
    evidence = json.dumps(values["evidence"], sort_keys=True)
    connection.execute(sa.insert(_TABLE).values(values | {"evidence": evidence, "previous_sha256": previous}))
    return appended


def _entry_of(row: sa.RowMapping) -> tuple[LedgerEntry, str]:
    values = dict(row)
    previous = values.pop("previous_sha256")
    return LedgerEntry(**(values | {"evidence": json.loads(values["evidence"])})), previous
