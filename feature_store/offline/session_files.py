"""How the rows of one session lie on disk: a Parquet file, and the manifest that says which file and what is in it.

    session=2026-01-05/manifest.json            digest, rows, columns, where they come from, and the data file's name
    session=2026-01-05/data-3f0c….parquet       rows by (instrument_token, time); a row group holds whole instruments

The data file comes first, under a name of its own content; renaming the manifest into place is what makes it count. A
crash between the two leaves the session as it was and a file that no manifest names: readers never see it, `leftovers`
lists it, and writing the session again sweeps it away. Each name is on the disk, with its directory, before the next
step is taken. The manifest's digest is over the digests of the row groups, which the data file's own metadata lists, so
a few instruments are read, and verified, without the rest.

    MarketDataError
    └── ReplacedMeanwhile   a reader that holds on to a manifest found its rows replaced
"""

from __future__ import annotations

import datetime as dt
import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from feature_store.market.types import MarketDataError, Session, UnreadableFile
from feature_store.offline.durable_files import make_directory, read_json, replace, sync_directory
from feature_store.offline.layouts import Columns, Layout, refuse_other_columns

_Read = TypeVar("_Read")

FORMAT = 2
"""Raised when files of an older layout can no longer be read."""

_ROWS_PER_GROUP = 4096  # fewer make the footer dear, more make one instrument of thousands dear
_WAY_OUT = "materialise this session again"
_GROUPS = b"alpha_panda.row_groups"
_NEEDED = frozenset({"rows", "digest", "columns", "file", "file_sha256"})
_LOOKS = 3  # at a manifest whose data file a writer has just replaced


class ReplacedMeanwhile(MarketDataError):
    """Rows were replaced or removed while a reader held on to what their manifest had said."""


@dataclass(frozen=True)
class SessionFile:
    """The rows of one session and one kind.

    Parameters
    ----------
    folder : Path
        Holds the manifest and the data file.
    layout : Layout
        Columns that are accepted on writing and on reading.
    pins : mutable mapping, optional
        Manifests by folder that a reader holds on to: each is read once, and rows are those that it names.
    """

    folder: Path
    layout: Layout
    pins: MutableMapping[Path, dict[str, Any]] | None = None

    @property
    def exists(self) -> bool:
        """Whether the session has rows (possibly none of them), that is, a manifest."""
        return (self.pins is not None and self.folder in self.pins) or (self.folder / "manifest.json").exists()

    def manifest(self) -> dict[str, Any]:
        """Read the manifest.

        Raises
        ------
        UnreadableFile
            If there is none, it is damaged, or it is of another layout.
        """
        if self.pins is not None:
            if self.folder not in self.pins:
                self.pins[self.folder] = self._read_manifest()
            return self.pins[self.folder]
        return self._read_manifest()

    def _read_manifest(self) -> dict[str, Any]:
        manifest = read_json(self.folder / "manifest.json")
        if manifest.get("format") != FORMAT:
            raise UnreadableFile(
                f"{self.folder / 'manifest.json'} is of format {manifest.get('format', 1)}, this code reads {FORMAT}; "
                f"{_WAY_OUT}"
            )
        if missing := sorted(_NEEDED - set(manifest)):
            raise UnreadableFile(f"{self.folder / 'manifest.json'} lacks {', '.join(missing)}; {_WAY_OUT}")
        return manifest

    def write(self, columns: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]) -> str:
        """Write rows, in any order, replacing what was there; give their digest.

        The digest depends on the rows alone. If they are already there, undamaged and with the same facts, nothing is
        written; ``code_version`` then goes on naming the code that first wrote them.

        Parameters
        ----------
        columns : mapping of str to ndarray, shape (n,)
            As in the layout.
        facts : mapping
            What else the manifest says.

        Raises
        ------
        MarketDataError
            If columns or dtypes are not the layout's, or an instrument has two rows of one time.
        """
        dtypes, ordered, groups = self._cut(columns)
        digest = _digest(dtypes, groups)
        document = {
            "format": FORMAT,
            "rows": len(ordered["instrument_token"]),
            "digest": digest,
            **facts,
            "columns": dtypes,
        }
        with self._locked():
            held = self._held()
            if held is not None and held["digest"] == digest and self._undamaged(held):
                names = {name: held[name] for name in ("file", "file_sha256")}
                if not _same({**document, **names}, held):
                    _replace_json(self.folder / "manifest.json", {**document, **names})
            else:
                content = _encoded(ordered, groups, self.layout)
                sha256 = hashlib.sha256(content).hexdigest()
                document |= {"file": f"data-{sha256[:16]}.parquet", "file_sha256": sha256}
                replace(self.folder / document["file"], content)
                _replace_json(self.folder / "manifest.json", document)
            for leftover in self.leftovers():
                leftover.unlink()
        return digest

    def digest_of(self, columns: Mapping[str, NDArray[Any]]) -> str:
        """Give the digest that rows would have if they were written here; raises as `write`."""
        dtypes, _, groups = self._cut(columns)
        return _digest(dtypes, groups)

    def _cut(self, columns: Mapping[str, NDArray[Any]]) -> tuple[dict[str, str], Columns, list[dict[str, Any]]]:
        dtypes = {name: column.dtype.name for name, column in columns.items()}
        refuse_other_columns(self.folder, dtypes, self.layout, "give what the methods of the store take")
        ordered = self._ordered(columns)
        return dtypes, ordered, _row_groups(ordered)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One writer of this session at a time: another would sweep away the file that is not in its manifest yet."""
        make_directory(self.folder)
        folder = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)

    def read(self, tokens: NDArray[np.int64] | None = None) -> Columns:
        """Read rows by ``(instrument_token, time)``, all or those of some instruments.

        Raises
        ------
        UnreadableFile
            If there is no file, or it is not what its manifest says; the message names file and column.
        ReplacedMeanwhile
            If the rows of a pinned manifest are there no more.
        """
        return self._looked(lambda path, manifest: _decoded(path, manifest, self.layout, tokens))

    def instrument_tokens(self) -> NDArray[np.int64]:
        """Give the instruments that have rows, by token, ascending, without reading (or verifying) the rest.

        Raises
        ------
        UnreadableFile
            If there is no file, or it cannot be read.
        """
        return self._looked(lambda path, _manifest: _tokens(path))

    def _looked(self, read: Callable[[Path, dict[str, Any]], _Read]) -> _Read:
        for look in range(_LOOKS):
            manifest = self.manifest()
            path = self.folder / manifest["file"]
            try:
                return read(path, manifest)
            except FileNotFoundError as error:
                # either a writer has just put another file in its place, or somebody removed it
                if self.pins is not None and self._held() != manifest:
                    raise ReplacedMeanwhile(
                        f"{self.folder} was written again while its rows were read: read again"
                    ) from error
                if look + 1 == _LOOKS:
                    raise UnreadableFile(f"{path} is gone, but its manifest names it; {_WAY_OUT}") from error
        raise AssertionError("unreachable")

    def drop(self) -> None:
        """Remove the session: its manifest first, which is what makes it count."""
        if not self.folder.exists():
            return
        (self.folder / "manifest.json").unlink(missing_ok=True)
        sync_directory(self.folder)  # or a power cut could bring the manifest back without its rows
        for leftover in self.leftovers():
            leftover.unlink()
        if self.folder.exists() and not any(self.folder.iterdir()):
            self.folder.rmdir()

    def leftovers(self) -> tuple[Path, ...]:
        """Files that no manifest names: what a crash between data and manifest leaves."""
        held = self._held()
        kept = {"manifest.json"} | ({str(held.get("file"))} if held else set())
        found = (*self.folder.glob("data*.parquet"), *self.folder.glob(".*.tmp"))
        return tuple(sorted(path for path in found if path.name not in kept))

    def _held(self) -> dict[str, Any] | None:
        try:
            return self._read_manifest()
        except UnreadableFile:
            return None

    def _undamaged(self, manifest: Mapping[str, Any]) -> bool:
        path = self.folder / manifest["file"]
        return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == str(manifest["file_sha256"])

    def _ordered(self, columns: Mapping[str, NDArray[Any]]) -> Columns:
        token, time = columns["instrument_token"], columns[self.layout.time]
        order = np.lexsort((time, token))
        ordered = {name: column[order] for name, column in columns.items()}
        twice = (np.diff(ordered["instrument_token"]) == 0) & (np.diff(ordered[self.layout.time]) == 0)
        if twice.any():
            first, again = order[np.flatnonzero(twice)[0] :][:2]
            raise MarketDataError(
                f"rows {first} and {again} for {self.folder} are both of instrument_token {token[first]} at "
                f"{self.layout.time} {time[first]}; keep one of them"
            )
        return ordered


def columns_digest(columns: Mapping[str, NDArray[Any]]) -> str:
    """SHA-256 over columns in order: names, dtypes and bytes."""
    sha = hashlib.sha256()
    for name, column in columns.items():
        sha.update(f"{name}:{column.dtype.str};".encode())
        sha.update(np.ascontiguousarray(column).data)
    return sha.hexdigest()


def date_of(session: Session | dt.date) -> dt.date:
    """Give the date of a session, or the date itself."""
    return session.date if isinstance(session, Session) else session


def dates_text(sessions: Sequence[Session | dt.date]) -> str:
    """Tell people how many sessions there are, and their first and last dates."""
    dates = sorted(date_of(session) for session in sessions)
    return f"{len(dates)} sessions, {dates[0]} to {dates[-1]}" if dates else "no sessions"


def _replace_json(path: Path, document: Mapping[str, Any]) -> None:
    replace(path, json.dumps(document, indent=1).encode())


def _same(document: Mapping[str, Any], held: Mapping[str, Any]) -> bool:
    plain = json.loads(json.dumps(document))
    return bool({**plain, "code_version": ""} == {**held, "code_version": ""})


def _row_groups(ordered: Columns) -> list[dict[str, Any]]:
    """Cut rows between instruments into groups of at least `_ROWS_PER_GROUP`; digest each."""
    token = ordered["instrument_token"]
    groups, begin = [], 0
    ends = np.append(np.flatnonzero(np.diff(token)) + 1, len(token)) if len(token) else np.zeros(0, dtype=np.intp)
    for end in ends.tolist():
        if end - begin >= _ROWS_PER_GROUP or end == len(token):
            rows = {name: column[begin:end] for name, column in ordered.items()}
            groups.append(
                {
                    "first_token": int(token[begin]),
                    "last_token": int(token[end - 1]),
                    "rows": end - begin,
                    "digest": columns_digest(rows),
                }
            )
            begin = end
    return groups


def _digest(dtypes: Mapping[str, str], groups: Sequence[Mapping[str, Any]]) -> str:
    parts = [list(dtypes.items()), list(groups)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _encoded(ordered: Columns, groups: Sequence[Mapping[str, Any]], layout: Layout) -> bytes:
    table = pa.table(ordered)
    known = {_GROUPS: json.dumps(list(groups)).encode()}
    table = table.cast(pa.schema([field.with_nullable(False) for field in table.schema], metadata=known))
    settings: dict[str, Any] = {"compression": "zstd", "compression_level": 1}
    if layout.floats:
        floats = [name for name, column in ordered.items() if column.dtype == np.float64]
        whole = [name for name in ordered if name not in floats]
        settings = {"compression": "lz4", "use_dictionary": whole, "use_byte_stream_split": floats}
    sink, begin = pa.BufferOutputStream(), 0
    with pq.ParquetWriter(sink, table.schema, **settings) as writer:
        for group in groups:
            writer.write_table(table.slice(begin, group["rows"]), row_group_size=group["rows"])
            begin += group["rows"]
    content: bytes = sink.getvalue().to_pybytes()
    return content


def _tokens(path: Path) -> NDArray[np.int64]:
    try:
        with pq.ParquetFile(path) as file:
            column = file.read(["instrument_token"])["instrument_token"]
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError) as error:
        raise UnreadableFile(f"{path} cannot be read ({error}); {_WAY_OUT}") from error
    return np.sort(np.asarray(column.unique().to_numpy(), dtype=np.int64))


def _decoded(
    path: Path, manifest: Mapping[str, Any], layout: Layout, tokens: NDArray[np.int64] | None
) -> dict[str, NDArray[Any]]:
    wanted = None if tokens is None else np.unique(tokens)
    try:
        with pq.ParquetFile(path) as file:
            dtypes = {field.name: str(field.type).replace("double", "float64") for field in file.schema_arrow}
            refuse_other_columns(path, dtypes, layout, _WAY_OUT)
            groups = json.loads((file.schema_arrow.metadata or {}).get(_GROUPS, b"[]"))
            if _digest(dtypes, groups) != manifest["digest"] or len(groups) != file.num_row_groups:
                raise UnreadableFile(f"{path} is not what its manifest says; {_WAY_OUT}")
            chosen = [k for k, group in enumerate(groups) if wanted is None or _holds(group, wanted)]
            table = file.read_row_groups(chosen)
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:  # ValueError: the metadata is no JSON
        raise UnreadableFile(f"{path} cannot be read ({error}); {_WAY_OUT}") from error
    columns = {}
    for name, dtype in dtypes.items():
        if table[name].null_count:
            raise UnreadableFile(f"{path}: column {name} has {table[name].null_count} missing values; {_WAY_OUT}")
        columns[name] = np.asarray(table[name].to_numpy(), dtype=dtype)
    _verify(path, columns, [groups[k] for k in chosen])
    if wanted is None:
        return columns
    mine = np.isin(columns["instrument_token"], wanted)
    return {name: column[mine] for name, column in columns.items()}


def _holds(group: Mapping[str, Any], wanted: NDArray[np.int64]) -> bool:
    at = int(np.searchsorted(wanted, group["first_token"]))
    return at < len(wanted) and int(wanted[at]) <= group["last_token"]


def _verify(path: Path, columns: Columns, groups: Sequence[Mapping[str, Any]]) -> None:
    begin = 0
    for group in groups:
        end = begin + group["rows"]
        if columns_digest({name: column[begin:end] for name, column in columns.items()}) != group["digest"]:
            raise UnreadableFile(
                f"{path} is not what its manifest says (instrument_token {group['first_token']} to "
                f"{group['last_token']} differ); {_WAY_OUT}"
            )
        begin = end
