"""The offline store: bars, ticks and features as Parquet by session date, each file with a manifest.

    market.json · universe.json
    bars/session=YYYY-MM-DD/manifest.json + data-….parquet        ticks/… alike
    features/schema=HASH/session=YYYY-MM-DD/…                     quarantine/NAME.parquet

How a session's rows lie on disk, and what a crash leaves, is told in `feature_store.session_files`. Rows name
instruments by token, so files outlive a change of the universe.

    MarketDataError
    └── StaleFeatures       stored feature rows whose bars, schema or actions have changed since
"""

from __future__ import annotations

import datetime as dt
import difflib
import fcntl
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from feature_store.clocks import BarClock
from feature_store.features import FeatureSchema, feature_table
from feature_store.layouts import LAYOUTS, Columns, TokenIndex, columns_of, feature_layout, in_order, table_of
from feature_store.market import (
    SECOND_NS,
    Bars,
    Instrument,
    MarketDataError,
    Session,
    Ticks,
    Universe,
    UnknownInstrument,
    UnreadableFile,
)
from feature_store.provenance import code_commit
from feature_store.session_files import SessionFile, read_json, replace

if TYPE_CHECKING:
    from feature_store.labels import ForwardReturn
    from feature_store.training_frames import TrainingFrame

Kind = Literal["bars", "ticks"]

UNKNOWN_SOURCE = "unknown"
"""``bar_source`` of bars whose writer did not say whether they were built from ticks or came from a vendor."""


class StaleFeatures(MarketDataError):
    """Stored feature rows that are not what would be computed now."""


class OfflineStore:
    """Market data and features of one market on disk.

    Parameters
    ----------
    root : Path
        Directory of the store; created by the first write.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)

    # --- the market and its instruments ---------------------------------------------------------------------------

    def write_universe(self, universe: Universe, market: str) -> None:
        """Register the market's name and its instruments; instruments already known stay.

        Raises
        ------
        MarketDataError
            If the store holds another market: generated and real data never share a store.
        """
        with self._writing():
            known = self.market()
            if known not in (None, market):
                raise MarketDataError(
                    f"{self.root} holds the market {known!r}, not {market!r}; use another directory or empty this one"
                )
            held = {i.instrument_token: i for i in self.universe().instruments} if known is not None else {}
            instruments = Universe.ordered((held | {i.instrument_token: i for i in universe.instruments}).values())
            if known is None or instruments.instruments != tuple(held.values()):
                document = {"instruments": [i.model_dump() for i in instruments.instruments]}
                replace(self.root / "universe.json", json.dumps(document, indent=1).encode())
            if known is None:
                replace(self.root / "market.json", json.dumps({"market": market}, indent=1).encode())

    def market(self) -> str | None:
        """Name of the market, or None while the store is empty."""
        path = self.root / "market.json"
        return str(read_json(path)["market"]) if path.exists() else None

    def universe(self) -> Universe:
        """Give every instrument the store has seen, in the order of `Universe.ordered`.

        Raises
        ------
        UnreadableFile
            If the store is empty.
        """
        document = read_json(self.root / "universe.json")
        return Universe(instruments=tuple(Instrument.model_validate(i) for i in document["instruments"]))

    def tokens_of(self, symbols: Iterable[str] | None) -> NDArray[np.int64] | None:
        """Give the instrument tokens of symbols; None stands for every instrument.

        Raises
        ------
        UnknownInstrument
            If the store does not know a symbol; the message names near ones.
        """
        if symbols is None:
            return None
        universe = self.universe()
        index_of = universe.index_of_symbol
        wanted = [symbols] if isinstance(symbols, str) else list(symbols)
        for symbol in wanted:
            if symbol not in index_of:
                raise UnknownInstrument(f"{self.root} knows no instrument {symbol!r}; {_near(symbol, list(index_of))}")
        return universe.tokens[[index_of[symbol] for symbol in wanted]]

    # --- bars and ticks -------------------------------------------------------------------------------------------

    def sessions(self, kind: Kind = "bars") -> tuple[Session, ...]:
        """Give the sessions that have a file of a kind, in order."""
        manifests = sorted((self.root / kind).glob("session=*/manifest.json"))
        return tuple(_session_of(read_json(path)) for path in manifests)

    def write_bars(
        self,
        session: Session,
        universe: Universe,
        bars: Bars,
        sources: str | Sequence[str],
        *,
        bar_source: str = UNKNOWN_SOURCE,
        clock: BarClock | None = None,
    ) -> str:
        """Write the bars of one session, replacing what was there; give their digest.

        Parameters
        ----------
        session : Session
            The bars' session.
        universe : Universe
            What the bars' instrument indices refer to.
        bars : Bars
            Bars of this session only, of any order.
        sources : str or sequence of str
            Where the bars come from (files, a generated market's name); the market's name if the store has none yet.
        bar_source : str
            ``ticks`` if our own builder made them from ticks, else the vendor's word.
        clock : BarClock, optional
            What the bars are counted by; default: time bars as long as the longest of them.

        Raises
        ------
        MarketDataError
            If a bar lies outside the session, or an instrument has two bars of one end.
        """
        outside = (bars.start_ns < session.open_ns) | (bars.end_ns > session.close_ns)
        if outside.any():
            row = int(np.flatnonzero(outside)[0])
            raise MarketDataError(
                f"bar {row} ({universe.instruments[bars.instrument[row]].symbol}, start_ns {bars.start_ns[row]}) lies "
                f"outside the session of {session.date}; cut bars with sources.by_session"
            )
        facts = {"bar_clock": str(clock or _clock_of(bars)), "bar_source": bar_source}
        return self._write("bars", session, universe, columns_of(bars, universe), sources, **facts)

    def read_bars(self, sessions: Sequence[Session | dt.date], instruments: Iterable[str] | None = None) -> Bars:
        """Read bars of sessions, all or those of some instruments, without loading the others.

        Returns
        -------
        Bars
            In order of ``(end_ns, instrument)`` in each session, indexed by this store's `universe`.

        Raises
        ------
        UnreadableFile
            If a session has no file, or its content does not match its manifest's digest.
        UnknownInstrument
            If the store does not know a symbol.
        """
        if not sessions:
            raise MarketDataError(f"no session was asked for; {self.root} holds {dates_text(self.sessions())}")
        tokens, index = self.tokens_of(instruments), TokenIndex(self.universe())
        parts = []
        for session in sorted(sessions, key=date_of):
            columns = self.read_columns("bars", session, tokens)
            bars = table_of(Bars, columns, index)
            parts.append(bars[in_order(bars)])
        return Bars.concatenate(parts)

    def write_ticks(self, session: Session, universe: Universe, ticks: Ticks, sources: str | Sequence[str]) -> str:
        """Write the ticks of one session, replacing what was there; give their digest.

        Raises
        ------
        MarketDataError
            If they are not in order of event time.
        """
        backwards = np.flatnonzero(np.diff(ticks.event_time_ns) < 0)
        if len(backwards):
            raise MarketDataError(
                f"tick {backwards[0] + 1} of {session.date} is earlier than the one before it; sort ticks by "
                "event_time_ns (a stable sort keeps their order of arrival)"
            )
        columns = columns_of(ticks, universe)
        columns = {
            "instrument_token": columns.pop("instrument_token"),
            "arrival": np.arange(len(ticks), dtype=np.int32),
            **columns,
        }
        return self._write("ticks", session, universe, columns, sources)

    def read_ticks(self, session: Session | dt.date, instruments: Iterable[str] | None = None) -> Ticks:
        """Read the ticks of a session as they arrived, indexed by this store's `universe`; raises as `read_bars`."""
        columns = self.read_columns("ticks", session, self.tokens_of(instruments))
        order = np.argsort(columns.pop("arrival"), kind="stable")
        return table_of(Ticks, columns, TokenIndex(self.universe()))[order]

    def read_columns(self, kind: Kind, session: Session | dt.date, tokens: NDArray[np.int64] | None = None) -> Columns:
        """Read a file's columns as they lie on disk: by ``(instrument_token, time)``, instruments by token."""
        file = self._file(kind, session)
        if not file.exists:
            raise UnreadableFile(
                f"{file.folder} does not exist; the store holds {kind} of {dates_text(self.sessions(kind))}"
            )
        return file.read(tokens)

    def drop_session(self, kind: Kind, session: Session | dt.date) -> None:
        """Remove a session of a kind; that of bars takes its feature rows with it."""
        with self._writing():
            self._file(kind, session).drop()
            if kind == "bars":
                for folder in (self.root / "features").glob(f"schema=*/session={date_of(session)}"):
                    SessionFile(folder, LAYOUTS["bars"]).drop()

    def keep_only(self, kind: Kind, sessions: Iterable[Session | dt.date]) -> tuple[dt.date, ...]:
        """Remove the sessions of a kind that are not among these; give their dates.

        A corrected source may have lost a session: write what it has, then keep only that.
        """
        kept = {date_of(session) for session in sessions}
        gone = tuple(session.date for session in self.sessions(kind) if session.date not in kept)
        for date in gone:
            self.drop_session(kind, date)
        return gone

    # --- features -------------------------------------------------------------------------------------------------

    def compute_features(
        self, session: Session | dt.date, schema: FeatureSchema, instruments: Iterable[str] | None = None
    ) -> tuple[Bars, NDArray[np.float64], NDArray[np.bool_]]:
        """Compute the feature rows of a session as a warm start would see them.

        A fresh engine steps the bars of the ``schema.history_sessions`` sessions before it that the store has, then its
        own; so the rows depend on those bars alone, and not on how far back the store reaches.

        Returns
        -------
        bars : Bars
            The session's, of the instruments asked for.
        X : ndarray of float64, shape (n, n_features)
        warm : ndarray of bool, shape (n,)
        """
        universe, tokens = self.universe(), self.tokens_of(instruments)
        history = self.history(session, schema)
        bars = self.read_bars([*history, session], _with_index(tokens, universe))
        rows, warm = feature_table(bars, schema, universe)
        mine = bars.start_ns >= int(self.manifest("bars", session)["open_ns"])
        if tokens is not None:
            mine &= np.isin(universe.tokens[bars.instrument], tokens)
        return bars[mine], rows[mine], warm[mine]

    def write_features(
        self,
        session: Session,
        schema: FeatureSchema,
        bars: Bars,
        rows: NDArray[np.float64],
        warm: NDArray[np.bool_],
    ) -> str:
        """Write the feature rows of a session's bars, as `compute_features` gives them; give their digest.

        Raises
        ------
        MarketDataError
            If ``bars`` are not the session's bars in this store, indexed by its `universe`.
        """
        universe = self.universe()
        token = universe.tokens[bars.instrument]
        stored, order = self.read_columns("bars", session), np.lexsort((bars.end_ns, token))
        if not all(np.array_equal(c[order], stored[n], equal_nan=True) for n, c in columns_of(bars, universe).items()):
            raise MarketDataError(
                f"these are not the stored bars of {session.date}; compute features with compute_features"
            )
        columns = {
            "instrument_token": token,
            "end_ns": bars.end_ns,
            "warm": warm,
            **{name: np.asarray(rows[:, k], dtype=np.float64) for k, name in enumerate(schema.names)},
        }
        facts = {**self._facts(session), **self._stands_on(session, schema)}
        with self._writing():
            return self.feature_file(schema, session).write(columns, facts)

    def read_features(
        self, session: Session | dt.date, schema: FeatureSchema, instruments: Iterable[str] | None = None
    ) -> tuple[Bars, NDArray[np.float64], NDArray[np.bool_]]:
        """Read the feature rows of a session: its bars, ``X`` of shape ``(n, n_features)`` and warm.

        Raises
        ------
        UnreadableFile
            If there are none, or the file is damaged.
        StaleFeatures
            If the bars of the session or of its history, or what the schema computes, changed since they were written.
        """
        file, tokens = self.feature_file(schema, session), self.tokens_of(instruments)
        if not file.exists:
            others = sorted(
                path.parent.name for path in self.root.glob(f"features/schema=*/session={date_of(session)}")
            )
            raise UnreadableFile(
                f"{file.folder} does not exist (there is {', '.join(others) or 'nothing'} of {date_of(session)}): "
                "materialise features"
            )
        self.refuse_stale(session, schema)
        columns = file.read(tokens)
        bars = table_of(Bars, self.read_columns("bars", session, tokens), TokenIndex(self.universe()))
        order = in_order(bars)
        rows = np.column_stack([columns[name] for name in schema.names])[order]
        return bars[order], rows, columns["warm"][order]

    def refuse_stale(self, session: Session | dt.date, schema: FeatureSchema) -> None:
        """Raise `StaleFeatures` if stored feature rows are not what would be computed now."""
        held, now = self.feature_file(schema, session).manifest(), self._stands_on(session, schema)
        if held.get("bars") != now["bars"]:
            was = {tuple(pair) for pair in held.get("bars", ())}
            changed = [date for date, digest in now["bars"] if (date, digest) not in was] or ["a session that is gone"]
            raise StaleFeatures(
                f"features of {date_of(session)} are older than the bars of {', '.join(changed)} that they stand on; "
                "materialise features again"
            )
        changed = [name for name in now if held.get(name) != json.loads(json.dumps(now[name]))]
        if changed:
            raise StaleFeatures(
                f"features of {date_of(session)} were computed with another {', '.join(changed)}; materialise features "
                "again"
            )

    def history(self, session: Session | dt.date, schema: FeatureSchema) -> tuple[dt.date, ...]:
        """Give the dates of the stored sessions before one that its features need, in order."""
        names = (path.parent.name for path in (self.root / "bars").glob("session=*/manifest.json"))
        dates = sorted(dt.date.fromisoformat(name.removeprefix("session=")) for name in names)
        before = [date for date in dates if date < date_of(session)]
        return tuple(before[max(len(before) - history_sessions(schema), 0) :])

    def feature_file(self, schema: FeatureSchema, session: Session | dt.date) -> SessionFile:
        """Give the file that holds a session's rows of a schema, whether it exists or not."""
        layout = feature_layout(schema.names)
        return SessionFile(
            self.root / "features" / f"schema={schema.hash[:16]}" / f"session={date_of(session)}", layout
        )

    def _stands_on(self, session: Session | dt.date, schema: FeatureSchema) -> dict[str, Any]:
        universe = self.universe()
        index = universe.market_index
        return {
            "bar_clock": schema.bar_clock,
            "feature_schema_hash": schema.hash,
            "schema": list(schema.columns()),
            "market_index": None if index is None else universe.instruments[index].symbol,
            "bars": [
                [str(date_of(s)), self.manifest("bars", s)["digest"]] for s in (*self.history(session, schema), session)
            ],
        }

    # --- training frames ------------------------------------------------------------------------------------------

    def training_frame(
        self,
        instruments: Iterable[str] | None,
        start: dt.date,
        end: dt.date,
        features: FeatureSchema,
        label: ForwardReturn,
    ) -> TrainingFrame:
        """Give labelled feature rows of sessions, point-in-time correct; see `training_frames.training_frame`."""
        from feature_store.training_frames import training_frame

        return training_frame(self, instruments, start, end, features=features, label=label)

    # --- the rest -------------------------------------------------------------------------------------------------

    def write_quarantine(self, name: str, rows: pd.DataFrame) -> Path:
        """Write quarantined rows, with their reasons, as ``quarantine/NAME.parquet``; give its path."""
        path = self.root / "quarantine" / f"{name}.parquet"
        text = rows.astype({column: "str" for column in rows.columns if column != "row"})
        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pandas(text, preserve_index=False), sink, compression="zstd")
        replace(path, sink.getvalue().to_pybytes())
        return path

    def digest(self, sessions: Sequence[Session | dt.date]) -> str:
        """SHA-256 over the market, the universe and the bars of sessions, from their manifests."""
        parts = [self.market(), self.universe().digest]
        for session in sorted(sessions, key=date_of):
            parts += [date_of(session).isoformat(), self.manifest("bars", session)["digest"]]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def manifest(self, kind: Kind, session: Session | dt.date) -> dict[str, Any]:
        """Read the manifest of a session's file: digest, rows, sources, bar source and clock, code version, columns."""
        return self._file(kind, session).manifest()

    def leftovers(self) -> tuple[Path, ...]:
        """Files that no manifest names, which a crash left; writing their session again removes them."""
        folders = (*self.root.glob("*/session=*"), *self.root.glob("features/*/session=*"))
        return tuple(path for folder in folders for path in SessionFile(folder, LAYOUTS["bars"]).leftovers())

    def _file(self, kind: Kind, session: Session | dt.date) -> SessionFile:
        return SessionFile(self.root / kind / f"session={date_of(session)}", LAYOUTS[kind])

    def _facts(self, session: Session) -> dict[str, Any]:
        return {
            "market": self.market(),
            "session": session.date.isoformat(),
            "open_ns": session.open_ns,
            "close_ns": session.close_ns,
            "code_version": code_commit(),
        }

    def _write(
        self,
        kind: Kind,
        session: Session,
        universe: Universe,
        columns: Columns,
        sources: str | Sequence[str],
        **facts: str,
    ) -> str:
        named = [sources] if isinstance(sources, str) else list(sources)
        self.write_universe(universe, self.market() or " ".join(named))
        with self._writing():
            return self._file(kind, session).write(columns, {**self._facts(session), "sources": named, **facts})

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """One process writes at a time; the lock goes with the process that holds it, however it ends."""
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def history_sessions(schema: FeatureSchema) -> int:
    """How many sessions before one its features need to be warm from its first bar."""
    return int(getattr(schema, "history_sessions", 0))


def date_of(session: Session | dt.date) -> dt.date:
    """Give the date of a session, or the date itself."""
    return session.date if isinstance(session, Session) else session


def dates_text(sessions: Sequence[Session | dt.date]) -> str:
    """Tell people how many sessions there are, and their first and last dates."""
    dates = sorted(date_of(session) for session in sessions)
    return f"{len(dates)} sessions, {dates[0]} to {dates[-1]}" if dates else "no sessions"


def _session_of(manifest: dict[str, Any]) -> Session:
    return Session(dt.date.fromisoformat(manifest["session"]), manifest["open_ns"], manifest["close_ns"])


def _clock_of(bars: Bars) -> BarClock:
    longest = int((bars.end_ns - bars.start_ns).max(initial=0))
    return BarClock("time", max(longest, SECOND_NS))


def _near(symbol: str, known: Sequence[str]) -> str:
    upper = {name.upper(): name for name in known}
    near = difflib.get_close_matches(symbol.upper(), list(upper), n=3, cutoff=0.6)
    return f"did you mean {' or '.join(upper[name] for name in near)}?" if near else f"it knows {len(known)} others"


def _with_index(tokens: NDArray[np.int64] | None, universe: Universe) -> list[str] | None:
    """Symbols of the tokens and of the market's index, the context of relative features."""
    if tokens is None:
        return None
    places = {universe.index_of_token[int(token)] for token in tokens}
    context = {universe.market_index} if universe.market_index is not None else set()
    return [universe.instruments[place].symbol for place in sorted(places | context)]
