"""Bars that the features of sessions stood on, kept on this machine by their digest.

A restart in the middle of a session goes on from them, whatever was corrected in the offline store meanwhile.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
import structlog

from feature_store.market.corporate_actions import CorporateAction, CorporateActions
from feature_store.market.types import Bars, Universe
from live_services.domain.strategy.history import HistoryUsed, LaterHistory, SessionHistory, no_bars

_log = structlog.get_logger("market_data")

_MOST: Final = 12  # files: a session has two, and a restart needs those of the session under way
_ABOUT: Final = b"alpha_panda"
_DAMAGES: Final = (OSError, ValueError, KeyError, TypeError)
_COLUMNS: Final = tuple(name for name in Bars.__dataclass_fields__ if name != "instrument")


class HistoryFiles:
    """A Parquet file for each history, ``DIGEST.parquet``; the ones used longest ago give way.

    Parameters
    ----------
    folder : Path
        Made when the first history is kept; for this user only.
    """

    def __init__(self, folder: Path) -> None:
        self._folder: Final = folder

    def keep(self, history: SessionHistory) -> None:
        """Keep what a session stands on; a disk without room is logged, and a restart then needs the store as it is."""
        actions = [asdict(action) | {"ex_date": action.ex_date.isoformat()} for action in history.actions.actions]
        about = {"sessions": history.sessions, "actions": actions}
        try:
            self._write(history.digest, history.before, history.universe, about)
            if history.today_digest:
                self._write(history.today_digest, history.today, history.universe, {})
            self._let_go()
        except OSError as failure:
            _log.warning(
                "history_not_kept",
                folder=str(self._folder),
                reason=str(failure),
                consequence="a restart in this session needs the offline store as it is now",
            )

    def read(self, universe: Universe, used: HistoryUsed) -> SessionHistory | None:
        """Give the history that a session stood on; None if it is not here, or is damaged, which is logged.

        Parameters
        ----------
        universe : Universe
            Of the session.
        used : HistoryUsed
            As the log says it.
        """
        try:
            before, about = self._read(used.digest, universe)
            today = self._read(used.today_stored, universe)[0] if used.today_stored else no_bars()
            found = SessionHistory(universe, tuple(about["sessions"]), before, today, _actions(about["actions"]))
        except FileNotFoundError:
            return None
        except _DAMAGES as failure:
            self._passed_over(used, failure)
            return None
        if (found.digest, found.today_digest) != (used.digest, used.today_stored):
            self._passed_over(used, ValueError("its content has another digest"))
            return None
        return found

    def later(
        self, universe: Universe, used: HistoryUsed, read: Callable[[], SessionHistory], /
    ) -> LaterHistory | None:
        """Give the history that a session stood on without its bars, which ``read`` gives; None as `read` does.

        Bars of 3,000 instruments take 1.7 s of a core, and their content is looked at when they are read.
        """
        paths = [self._path(digest) for digest in (used.digest, used.today_stored) if digest]
        try:
            about = _about(pq.read_schema(paths[0]))
            for path in paths:
                os.utime(path)
            sessions, actions = tuple(about["sessions"]), _actions(about["actions"])
        except FileNotFoundError:
            return None
        except _DAMAGES as failure:
            self._passed_over(used, failure)
            return None
        return LaterHistory(universe, sessions, used.digest, used.today_stored, actions, read)

    def _passed_over(self, used: HistoryUsed, failure: Exception) -> None:
        """Say it, and take damaged files away, so that the next session that stands on the same bars writes them anew.

        What the system refuses for now (too many open files, no right to read) is no damage: there is no other copy.
        """
        _log.warning("kept_history_passed_over", digest=used.digest[:12], reason=str(failure))
        if isinstance(failure, OSError) and failure.errno is not None:
            return
        for digest in filter(None, (used.digest, used.today_stored)):
            with suppress(OSError):
                self._path(digest).unlink()

    def _write(self, digest: str, bars: Bars, universe: Universe, about: dict[str, Any]) -> None:
        path = self._path(digest)
        if path.exists():
            os.utime(path)
            return
        columns = {"instrument_token": universe.tokens[bars.instrument]} | {n: getattr(bars, n) for n in _COLUMNS}
        table = pa.table(columns).replace_schema_metadata({_ABOUT: json.dumps(about).encode()})
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=".", dir=self._folder)
        os.close(descriptor)
        try:
            pq.write_table(table, name, compression="zstd")
            Path(name).replace(path)
        finally:
            Path(name).unlink(missing_ok=True)

    def _read(self, digest: str, universe: Universe) -> tuple[Bars, dict[str, Any]]:
        path = self._path(digest)
        table = pq.read_table(path, partitioning=None)
        os.utime(path)
        about = _about(table.schema)
        columns = {name: table.column(name).to_numpy() for name in table.column_names}
        instrument = universe.indices_of(columns.pop("instrument_token"))
        if (instrument < 0).any():
            raise ValueError("it is of another universe")
        return Bars(instrument=instrument, **columns), about

    def _let_go(self) -> None:
        kept = sorted(self._folder.glob("*.parquet"), key=lambda path: path.stat().st_mtime, reverse=True)
        for path in kept[_MOST:]:
            path.unlink(missing_ok=True)

    def _path(self, digest: str) -> Path:
        return self._folder / f"{digest}.parquet"


def _about(schema: pa.Schema) -> dict[str, Any]:
    about: dict[str, Any] = json.loads((schema.metadata or {})[_ABOUT])
    return about


def _actions(told: list[dict[str, Any]]) -> CorporateActions:
    return CorporateActions(
        tuple(CorporateAction(**one | {"ex_date": dt.date.fromisoformat(one["ex_date"])}) for one in told)
    )
