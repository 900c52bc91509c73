"""The offline store: bars, ticks and features as Parquet by session date, each file with a manifest.

    market.json · universe.json
    bars/session=YYYY-MM-DD/data.parquet + manifest.json          ticks/… alike
    features/schema=HASH/session=YYYY-MM-DD/…                     quarantine/NAME.parquet

Files are written beside their place and renamed, so a reader sees the old file or the new one, never half of one. Rows
name instruments by token, so files outlive a change of the universe.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from feature_store.features import FeatureSchema, feature_table
from feature_store.labels import ForwardReturn
from feature_store.market import (
    Bars,
    Instrument,
    MarketDataError,
    Session,
    Ticks,
    Universe,
    UnknownInstrument,
    UnreadableFile,
)

_Table = TypeVar("_Table", Bars, Ticks)


class OfflineStore:
    """Market data and features of one market on disk.

    Parameters
    ----------
    root : Path
        Directory of the store; created by the first write.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)

    def write_universe(self, universe: Universe, market: str) -> None:
        """Register the market's name and its instruments; instruments already known stay.

        Raises
        ------
        MarketDataError
            If the store holds another market: generated and real data never share a store.
        """
        known = self.market()
        if known not in (None, market):
            raise MarketDataError(
                f"{self.root} holds the market {known!r}, not {market!r}; use another directory or empty this one"
            )
        _write_json(self.root / "market.json", {"market": market})
        held = {i.instrument_token: i for i in self.universe().instruments} if known is not None else {}
        held.update((i.instrument_token, i) for i in universe.instruments)
        instruments = Universe.ordered(held.values()).instruments
        _write_json(self.root / "universe.json", {"instruments": [i.model_dump() for i in instruments]})

    def market(self) -> str | None:
        """Name of the market, or None while the store is empty."""
        path = self.root / "market.json"
        return str(_read_json(path)["market"]) if path.exists() else None

    def universe(self) -> Universe:
        """Give every instrument the store has seen, in the order of `Universe.ordered`.

        Raises
        ------
        UnreadableFile
            If the store is empty.
        """
        document = _read_json(self.root / "universe.json")
        return Universe(instruments=tuple(Instrument.model_validate(i) for i in document["instruments"]))

    def sessions(self, kind: str = "bars") -> tuple[Session, ...]:
        """Give the sessions that have a file of a kind (``bars`` or ``ticks``), in order."""
        manifests = sorted((self.root / kind).glob("session=*/manifest.json"))
        return tuple(_session_of(_read_json(path)) for path in manifests)

    def write_bars(self, session: Session, universe: Universe, bars: Bars, source: str) -> str:
        """Write the bars of one session, replacing what was there; give the file's digest.

        Parameters
        ----------
        session : Session
            The bars' session.
        universe : Universe
            What the bars' instrument indices refer to.
        bars : Bars
            Bars of this session only.
        source : str
            Where the bars come from; the market's name if the store has none yet.
        """
        return self._write("bars", session, universe, bars, source)

    def read_bars(self, sessions: Sequence[Session | dt.date]) -> Bars:
        """Read bars of sessions, in order of time, indexed by this store's `universe`.

        Raises
        ------
        UnreadableFile
            If a session has no file, or its content does not match its manifest's digest.
        """
        if not sessions:
            raise MarketDataError(f"no session was asked for; {self.root} holds {_dates(self.sessions())}")
        return Bars.concatenate([self._read("bars", session, Bars) for session in sorted(sessions, key=_date)])

    def write_ticks(self, session: Session, universe: Universe, ticks: Ticks, source: str) -> str:
        """Write the ticks of one session, replacing what was there; give the file's digest."""
        return self._write("ticks", session, universe, ticks, source)

    def read_ticks(self, session: Session | dt.date) -> Ticks:
        """Read the ticks of a session, indexed by this store's `universe`; raises as `read_bars`."""
        return self._read("ticks", session, Ticks)

    def write_features(
        self,
        session: Session,
        schema: FeatureSchema,
        bars: Bars,
        rows: NDArray[np.float64],
        warm: NDArray[np.bool_],
    ) -> str:
        """Write the feature rows of a session's bars; give the file's digest.

        Raises
        ------
        MarketDataError
            If ``bars`` are not the session's bars in this store, indexed by its `universe`.
        """
        bars_digest = columns_digest(_stored_columns(bars, self.universe()))
        if bars_digest != self.manifest("bars", session)["digest"]:
            raise MarketDataError(f"these are not the stored bars of {session.date}; compute features from read_bars")
        frame = {
            "instrument_token": self.universe().tokens[bars.instrument],
            "end_ns": bars.end_ns,
            "warm": warm,
            **{name: rows[:, k] for k, name in enumerate(schema.names)},
        }
        facts = {
            "schema": list(schema.columns()),
            "bar_clock": schema.bar_clock,
            "feature_schema_hash": schema.hash,
            "bars_digest": bars_digest,
        }
        return self._write_table(self._feature_folder(schema, session), session, frame, facts)

    def read_features(
        self, session: Session | dt.date, schema: FeatureSchema
    ) -> tuple[Bars, NDArray[np.float64], NDArray[np.bool_]]:
        """Read the feature rows of a session: its bars, ``X`` of shape ``(n, n_features)`` and warm.

        Raises
        ------
        MarketDataError
            If the bars have changed since the features were written.
        """
        folder = self._feature_folder(schema, session)
        table, bars = self._read_table(folder), self.read_bars([session])
        if _read_json(folder / "manifest.json")["bars_digest"] != self.manifest("bars", session)["digest"]:
            raise MarketDataError(f"features of {_date(session)} are older than its bars; materialise features again")
        rows = np.column_stack([table[name] for name in schema.names])
        return bars, np.ascontiguousarray(rows), table["warm"].astype(np.bool_)

    def write_quarantine(self, name: str, rows: pd.DataFrame) -> Path:
        """Write quarantined rows, with their reasons, as ``quarantine/NAME.parquet``; give its path."""
        path = self.root / "quarantine" / f"{name}.parquet"
        text = rows.astype({column: "str" for column in rows.columns if column != "row"})
        _write_parquet(path, pa.Table.from_pandas(text, preserve_index=False))
        return path

    def digest(self, sessions: Sequence[Session | dt.date]) -> str:
        """SHA-256 over the market, the universe and the bars of sessions, from their manifests."""
        parts = [self.market(), self.universe().digest]
        for session in sorted(sessions, key=_date):
            parts += [_date(session).isoformat(), self.manifest("bars", session)["digest"]]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def manifest(self, kind: str, session: Session | dt.date) -> dict[str, Any]:
        """Read the manifest of a session's file: digest, rows, source, market, session."""
        return _read_json(self._folder(kind, session) / "manifest.json")

    def _folder(self, kind: str, session: Session | dt.date) -> Path:
        return self.root / kind / f"session={_date(session)}"

    def _feature_folder(self, schema: FeatureSchema, session: Session | dt.date) -> Path:
        return self.root / "features" / f"schema={schema.hash[:16]}" / f"session={_date(session)}"

    def _write(self, kind: str, session: Session, universe: Universe, table: Bars | Ticks, source: str) -> str:
        self.write_universe(universe, self.market() or source)
        return self._write_table(
            self._folder(kind, session), session, _stored_columns(table, universe), {"source": source}
        )

    def _write_table(
        self, folder: Path, session: Session, columns: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]
    ) -> str:
        digest = columns_digest(columns)
        manifest = {
            "market": self.market(),
            "session": session.date.isoformat(),
            "open_ns": session.open_ns,
            "close_ns": session.close_ns,
            "rows": len(columns["instrument_token"]),
            "digest": digest,
            **facts,
        }
        _write_parquet(folder / "data.parquet", pa.table(dict(columns)))
        _write_json(folder / "manifest.json", manifest)
        return digest

    def _read_table(self, folder: Path) -> dict[str, NDArray[Any]]:
        path = folder / "data.parquet"
        if not path.exists():
            raise UnreadableFile(f"{path} does not exist; the store holds bars of {_dates(self.sessions())}")
        try:
            table = pq.read_table(path, partitioning=None)
        except (pa.ArrowInvalid, OSError) as error:
            raise UnreadableFile(f"{path} cannot be read ({error}); materialise this session again") from error
        columns = {name: table[name].to_numpy() for name in table.column_names}
        if columns_digest(columns) != _read_json(folder / "manifest.json")["digest"]:
            raise UnreadableFile(f"{path} is not what its manifest says; materialise this session again")
        return columns

    def _read(self, kind: str, session: Session | dt.date, table: type[_Table]) -> _Table:
        columns = self._read_table(self._folder(kind, session))
        columns["instrument"] = self._index_of(columns.pop("instrument_token"))
        return table(**{f.name: columns[f.name] for f in fields(table) if f.name in columns})

    def _index_of(self, tokens: NDArray[np.int64]) -> NDArray[np.int32]:
        index_of_token = self.universe().index_of_token
        distinct, place = np.unique(tokens, return_inverse=True)
        try:
            index = np.array([index_of_token[int(token)] for token in distinct], dtype=np.int32)
        except KeyError as error:
            raise UnknownInstrument(f"token {error} is not in {self.root / 'universe.json'}; write again") from error
        return index[place]


@dataclass(frozen=True, eq=False)
class TrainingFrame:
    """Labelled feature rows, in order of ``(decision_ns, instrument)``: warm rows of tradable instruments only."""

    X: NDArray[np.float64]
    """Features, shape ``(n, n_features)``, columns as in ``schema``; finite."""
    forward_return: NDArray[np.float64]
    """Label as a fraction, shape ``(n,)``; finite."""
    decision_ns: NDArray[np.int64]
    """End of the decision bar; everything in ``X`` was known then."""
    label_end_ns: NDArray[np.int64]
    """When the label was known."""
    instrument: NDArray[np.int32]
    """Index in the store's universe."""
    schema: FeatureSchema
    digest: str
    """SHA-256 over everything that determines the frame: source data, schema, label and the rows themselves."""
    start_ns: int
    """Open of the first session."""
    end_ns: int
    """Close of the last session."""
    market: str = ""
    """Where the data came from; starts with ``SYNTHETIC`` when it was generated."""
    horizon_bars: int = 0
    """Bars that the label looks ahead."""

    def __len__(self) -> int:
        return len(self.decision_ns)


def training_frame(
    store: OfflineStore, sessions: Sequence[Session | dt.date], schema: FeatureSchema, horizon_bars: int
) -> TrainingFrame:
    """Make the training frame of sessions from the store's bars.

    Raises
    ------
    MarketDataError
        If the stored bars are not on the schema's clock, or no row is left.
    """
    universe, n = store.universe(), len(store.universe())
    bars = store.read_bars(sessions)
    longest = int((bars.end_ns - bars.start_ns).max(initial=0))
    if longest != schema.bar_ns:
        raise MarketDataError(
            f"the store's bars last {longest / 1e9:g} s but the schema's clock is {schema.bar_clock}; "
            "set market.bar_minutes to the stored bars or write aggregated bars"
        )
    label = ForwardReturn(horizon_bars)
    rows, warm = feature_table(bars, schema, universe)
    returns, label_end_ns = label.of(bars, n)
    tradable = np.array([i.tradable for i in universe.instruments], dtype=np.bool_)
    kept = warm & np.isfinite(returns) & tradable[bars.instrument]
    if not kept.any():
        raise MarketDataError(
            f"no row has {schema.warm_up} bars before it and {horizon_bars} after it in {_dates(sessions)}; "
            "add sessions or instruments, or shorten the horizon"
        )
    columns = (rows[kept], returns[kept], bars.end_ns[kept], label_end_ns[kept], bars.instrument[kept])
    manifests = [store.manifest("bars", session) for session in sessions]
    return TrainingFrame(
        *columns,
        schema=schema,
        digest=_frame_digest(columns, [store.digest(sessions), schema.hash, label.name]),
        start_ns=min(int(m["open_ns"]) for m in manifests),
        end_ns=max(int(m["close_ns"]) for m in manifests),
        market=store.market() or "",
        horizon_bars=horizon_bars,
    )


def _frame_digest(columns: Sequence[NDArray[Any]], facts: Sequence[str]) -> str:
    sha = hashlib.sha256(json.dumps(facts).encode())
    for column in columns:
        sha.update(np.ascontiguousarray(column).tobytes())
    return sha.hexdigest()


def _date(session: Session | dt.date) -> dt.date:
    return session.date if isinstance(session, Session) else session


def _dates(sessions: Sequence[Session | dt.date]) -> str:
    dates = sorted(_date(session) for session in sessions)
    return f"{len(dates)} sessions, {dates[0]} to {dates[-1]}" if dates else "no sessions"


def _session_of(manifest: Mapping[str, Any]) -> Session:
    return Session(dt.date.fromisoformat(manifest["session"]), manifest["open_ns"], manifest["close_ns"])


def _stored_columns(table: Bars | Ticks, universe: Universe) -> dict[str, NDArray[Any]]:
    columns = {f.name: column for f in fields(table) if (column := getattr(table, f.name)) is not None}
    return {"instrument_token": universe.tokens[columns.pop("instrument")], **columns}


def columns_digest(columns: Mapping[str, NDArray[Any]]) -> str:
    """SHA-256 over columns in order: names, dtypes and bytes."""
    sha = hashlib.sha256()
    for name, column in columns.items():
        sha.update(f"{name}:{column.dtype.str};".encode())
        sha.update(np.ascontiguousarray(column).tobytes())
    return sha.hexdigest()


def _replace(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    beside.write_bytes(data)
    beside.replace(path)


def _write_json(path: Path, document: Mapping[str, Any]) -> None:
    _replace(path, json.dumps(document, indent=1).encode())


def _read_json(path: Path) -> dict[str, Any]:
    try:
        document: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise UnreadableFile(f"{path} does not exist; write data to the store first") from error
    except json.JSONDecodeError as error:
        raise UnreadableFile(f"{path} is damaged ({error}); write the data again") from error
    return document


def _write_parquet(path: Path, table: pa.Table) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    _replace(path, sink.getvalue().to_pybytes())
