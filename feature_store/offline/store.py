"""The offline store: bars and ticks as Parquet by session date, each file with a manifest.

    market.json · universe.json
    bars/session=YYYY-MM-DD/manifest.json + data-….parquet        ticks/… alike
    features/schema=HASH/session=YYYY-MM-DD/…                     labels/label=NAME/session=YYYY-MM-DD/…
    quarantine/NAME.parquet

The store knows what came in. What is derived from it is written and read by functions over a store:
`feature_store.offline.feature_rows`, `label_rows` and `training_frames`. How a session's rows lie on disk, and what a
crash leaves, is told in `feature_store.offline.session_files`. Rows name instruments by token, so files outlive a
change of the universe.
"""

from __future__ import annotations

import datetime as dt
import difflib
import fcntl
import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import JsonValue

from feature_store.market.clocks import BarClock
from feature_store.market.types import (
    SECOND_NS,
    Bars,
    CollidingInstruments,
    Instrument,
    MarketDataError,
    Session,
    Ticks,
    Universe,
    UnknownInstrument,
    UnreadableFile,
)
from feature_store.offline.durable_files import read_json, replace
from feature_store.offline.layouts import LAYOUTS, Columns, Layout, TokenIndex, columns_of, in_order, table_of
from feature_store.offline.session_files import SessionFile, date_of, dates_text
from feature_store.provenance import code_commit

if TYPE_CHECKING:
    import pandas as pd

Kind = Literal["bars", "ticks"]
_Read = TypeVar("_Read")

DERIVED: Final = ("features", "labels")
"""Folders of what stands on a session's bars and goes with them."""
UNKNOWN_SOURCE = "unknown"
"""``bar_source`` of bars whose writer did not say whether they were built from ticks or came from a vendor."""


class OfflineStore:
    """Market data of one market on disk.

    Parameters
    ----------
    root : Path
        Directory of the store; created by the first write.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        self._pins: _Pins | None = None

    def pinned(self, dates: Iterable[Session | dt.date] = ()) -> OfflineStore:
        """Give the store as it stands: all that is read through it belongs together, whoever writes meanwhile.

        Each manifest, the list of sessions, the universe and the market's name are read once, at the latest when they
        are asked for, and rows are those that the manifest names. So a digest belongs to the rows that were read.

        Parameters
        ----------
        dates : iterable of Session or date, optional
            Sessions whose bars are pinned before this returns, and the universe and the market's name after them (it
            never loses an instrument, so it knows those of the bars).

        Raises
        ------
        UnreadableFile
            If one of these sessions has no bars.

        Notes
        -----
        Reading rows that were replaced since raises `session_files.ReplacedMeanwhile`. Writing through it is refused.
        """
        view = OfflineStore(self.root)
        view._pins = self._pins if self._pins is not None else _Pins({}, {})
        first = list(dates)
        for date in first:
            view.manifest("bars", date)
        if first:
            view.market()
            view.universe()
        return view

    # --- the market and its instruments ---------------------------------------------------------------------------

    def write_universe(
        self,
        universe: Universe,
        market: str,
        stated: Collection[str] = (),
        details: Mapping[str, JsonValue] | None = None,
    ) -> None:
        """Register the market and its instruments; instruments already known stay.

        Parameters
        ----------
        universe : Universe
            What this look at the market says of its instruments: it is the newer one, so it overrules what was
            inferred before.
        market : str
            The market's name.
        stated : collection of str
            Symbols of which a file or a table states what they are. Only another statement overrules that.
        details : mapping, optional
            What the market is made of, added to what is there.

        Raises
        ------
        MarketDataError
            If the store holds another market: generated and real data never share a store.
        CollidingInstruments
            If it knows an instrument by another token, or two symbols have one.
        """
        with self.writing():
            known = self.market()
            if known not in (None, market):
                raise MarketDataError(
                    f"{self.root} holds the market {known!r}, not {market!r}; use another directory or empty this one"
                )
            held, stated_before = self._instruments() if known is not None else ((), frozenset())
            of_symbol = {one.symbol: one for one in held}
            newer = [
                one
                for one in universe.instruments
                if of_symbol.get(one.symbol) != one
                and (one.symbol in stated or one.symbol not in stated_before or one.symbol not in of_symbol)
            ]
            stated_now = stated_before | frozenset(stated)
            _refuse_other_tokens(self.root, of_symbol, universe)
            if known is None or newer or stated_now != stated_before:
                instruments = Universe.ordered((of_symbol | {one.symbol: one for one in newer}).values())
                document = {
                    "instruments": [one.model_dump() for one in instruments.instruments],
                    "stated": sorted(stated_now),
                }
                replace(self.root / "universe.json", json.dumps(document, indent=1).encode())
            said = {} if known is None else self.market_details()
            if known is None or said | dict(details or {}) != said:
                about = {"market": market, "details": said | dict(details or {})}
                replace(self.root / "market.json", json.dumps(about, indent=1).encode())

    def market(self) -> str | None:
        """Name of the market, or None while the store is empty."""
        path = self.root / "market.json"
        return self._once("market", lambda: str(read_json(path)["market"]) if path.exists() else None)

    def market_details(self) -> dict[str, JsonValue]:
        """Give what the market is made of: the parameters that generated it, or size and SHA-256 of each file.

        Empty while nobody said.
        """
        path = self.root / "market.json"
        return dict(read_json(path).get("details", {})) if path.exists() else {}

    def universe(self) -> Universe:
        """Give every instrument the store has seen, in the order of `Universe.ordered`.

        Raises
        ------
        UnreadableFile
            If the store is empty.
        """
        return self._once("universe", lambda: Universe.model_construct(instruments=self._instruments()[0]))

    def _instruments(self) -> tuple[tuple[Instrument, ...], frozenset[str]]:
        path = self.root / "universe.json"
        if not path.exists():
            raise UnreadableFile(f"{path} does not exist; write data to the store first")
        written = path.stat()
        return _instruments(path, written.st_ino, written.st_mtime_ns)

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
        if self._pins is not None:
            return tuple(_session_of(self.manifest(kind, date)) for date in self.dates(kind))
        manifests = sorted((self.root / kind).glob("session=*/manifest.json"))
        return tuple(_session_of(read_json(path)) for path in manifests)

    def dates(self, kind: Kind = "bars") -> tuple[dt.date, ...]:
        """Give the dates of the sessions of a kind, in order, without opening a file."""
        return self._once(f"dates of {kind}", lambda: _dates(self.root / kind))

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
            Where the bars come from (a file's path, a market's name); the market's name if the store has none yet.
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
        return self._there(kind, session).read(tokens)

    def instrument_tokens(self, kind: Kind, session: Session | dt.date) -> NDArray[np.int64]:
        """Give the instruments that have rows of a kind in a session, by token, ascending; raises as `read_bars`."""
        return self._there(kind, session).instrument_tokens()

    def drop_session(self, kind: Kind, session: Session | dt.date) -> None:
        """Remove a session of a kind; that of bars takes its feature rows and labels with it."""
        with self.writing():
            self._file(kind, session).drop()
            if kind == "bars":
                for derived in DERIVED:
                    for folder in (self.root / derived).glob(f"*/session={date_of(session)}"):
                        self.session_file(folder, LAYOUTS["bars"]).drop()

    def keep_only(
        self, kind: Kind, sessions: Iterable[Session | dt.date], *, source: str | None = None
    ) -> tuple[dt.date, ...]:
        """Remove the sessions of a kind that are not among these; give their dates.

        A corrected source may have lost a session: write what it has, then keep only that. With ``source``, sessions
        that came from anywhere else stay.
        """
        kept = {date_of(session) for session in sessions}
        strange = (date for date in self.dates(kind) if date not in kept)
        gone = tuple(d for d in strange if source is None or source in self.manifest(kind, d)["sources"])
        for date in gone:
            self.drop_session(kind, date)
        return gone

    # --- the rest -------------------------------------------------------------------------------------------------

    def write_quarantine(self, name: str, rows: pd.DataFrame) -> Path:
        """Write quarantined rows, with their reasons, as ``quarantine/NAME.parquet``; give its path.

        All columns but ``row`` are written as text. A file without rows is written too: it says that a reading left
        nothing out.
        """
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

    def digest_of_bars(self, session: Session | dt.date, bars: Bars) -> str:
        """Give the digest that bars, indexed by this store's `universe`, have or would have in a session's manifest."""
        return self._file("bars", session).digest_of(columns_of(bars, self.universe()))

    def leftovers(self) -> tuple[Path, ...]:
        """Files that no manifest names, which a crash left; writing their session again removes them."""
        derived = (folder for name in DERIVED for folder in (self.root / name).glob("*/session=*"))
        folders = (*self.root.glob("*/session=*"), *derived)
        return tuple(path for folder in folders for path in self.session_file(folder, LAYOUTS["bars"]).leftovers())

    def session_facts(self, session: Session) -> dict[str, Any]:
        """Give what the manifest of every file of a session says: market, session, its hours, code version."""
        return {
            "market": self.market(),
            "session": session.date.isoformat(),
            "open_ns": session.open_ns,
            "close_ns": session.close_ns,
            "code_version": code_commit(),
        }

    def session_file(self, folder: Path, layout: Layout) -> SessionFile:
        """Give the file of one session below the store's root, pinned if the store is."""
        return SessionFile(folder, layout, None if self._pins is None else self._pins.manifests)

    @contextmanager
    def writing(self, *, derived: bool = False) -> Iterator[None]:
        """One process or thread writes at a time; the lock goes with the process that holds it, however it ends.

        Parameters
        ----------
        derived : bool
            Only rows that stand on bars are written: several may do that at once, while nobody writes bars.

        Raises
        ------
        MarketDataError
            If the store is `pinned`.
        """
        if self._pins is not None:
            raise MarketDataError(f"{self.root} is pinned for reading here; write through the store itself")
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH if derived else fcntl.LOCK_EX)
            yield

    def _there(self, kind: Kind, session: Session | dt.date) -> SessionFile:
        file = self._file(kind, session)
        if not file.exists:
            raise UnreadableFile(
                f"{file.folder} does not exist; the store holds {kind} of {dates_text(self.sessions(kind))}"
            )
        return file

    def _file(self, kind: Kind, session: Session | dt.date) -> SessionFile:
        return self.session_file(self.root / kind / f"session={date_of(session)}", LAYOUTS[kind])

    def _once(self, what: str, read: Callable[[], _Read]) -> _Read:
        if self._pins is None:
            return read()
        if what not in self._pins.facts:
            self._pins.facts[what] = read()
        found: _Read = self._pins.facts[what]
        return found

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
        with self.writing():
            return self._file(kind, session).write(columns, {**self.session_facts(session), "sources": named, **facts})


class _Pins(NamedTuple):
    """What a pinned store has read."""

    manifests: dict[Path, dict[str, Any]]
    facts: dict[str, Any]


def _dates(folder: Path) -> tuple[dt.date, ...]:
    names = (path.parent.name for path in folder.glob("session=*/manifest.json"))
    return tuple(sorted(dt.date.fromisoformat(name.removeprefix("session=")) for name in names))


@lru_cache(maxsize=16)
def _instruments(path: Path, _inode: int, _mtime_ns: int) -> tuple[tuple[Instrument, ...], frozenset[str]]:
    """Read instruments, and of which symbols it is stated what they are, once for each file that ever stood there."""
    document = read_json(path)
    instruments = tuple(Instrument.model_validate(i) for i in document["instruments"])
    return instruments, frozenset(document.get("stated", ()))


def _refuse_other_tokens(root: Path, held: Mapping[str, Instrument], universe: Universe) -> None:
    for one in universe.instruments:
        known = held.get(one.symbol, one)
        if known.instrument_token != one.instrument_token:
            raise CollidingInstruments(
                f"{root} knows {one.symbol!r} by the instrument token {known.instrument_token}, not "
                f"{one.instrument_token}, and its rows name instruments by token: bring everything in again in another "
                "directory, or keep the tokens as they were (market.universe)"
            )


def _session_of(manifest: dict[str, Any]) -> Session:
    return Session(dt.date.fromisoformat(manifest["session"]), manifest["open_ns"], manifest["close_ns"])


def _clock_of(bars: Bars) -> BarClock:
    longest = int((bars.end_ns - bars.start_ns).max(initial=0))
    return BarClock("time", max(longest, SECOND_NS))


def _near(symbol: str, known: Sequence[str]) -> str:
    upper = {name.upper(): name for name in known}
    near = difflib.get_close_matches(symbol.upper(), list(upper), n=3, cutoff=0.6)
    return f"did you mean {' or '.join(upper[name] for name in near)}?" if near else f"it knows {len(known)} others"
