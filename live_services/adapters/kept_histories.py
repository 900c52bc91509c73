"""Bars that the features of sessions stood on, kept on this machine by their digest.

A restart in the middle of a session goes on from them, whatever was corrected in the offline store meanwhile.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
import structlog

from feature_store.market.corporate_actions import CorporateAction, CorporateActions
from feature_store.market.types import Bars, Universe
from live_services.domain.strategy.history import HistoryUsed, SessionHistory, no_bars

_log = structlog.get_logger("market_data")

_MOST: Final = 12  # files: a session has two, and a restart needs those of the session under way
_ABOUT: Final = b"alpha_panda"
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
        except (OSError, ValueError, KeyError, TypeError) as failure:
            _log.warning("kept_history_passed_over", digest=used.digest[:12], reason=str(failure))
            return None
        if (found.digest, found.today_digest) != (used.digest, used.today_stored):
            _log.warning("kept_history_passed_over", digest=used.digest[:12], reason="its content has another digest")
            return None
        return found

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
        about: dict[str, Any] = json.loads((table.schema.metadata or {})[_ABOUT])
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


def _actions(told: list[dict[str, Any]]) -> CorporateActions:
    return CorporateActions(
        tuple(CorporateAction(**one | {"ex_date": dt.date.fromisoformat(one["ex_date"])}) for one in told)
    )
