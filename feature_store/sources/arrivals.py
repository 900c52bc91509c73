"""What a market source gives at once: all its sessions, or those of some days, and what it had to leave out."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydantic import JsonValue

from feature_store.market.types import TICK_BARS, VENDOR_BARS, Bars, MarketDataError, Session, Ticks, Universe
from feature_store.sources.mappings import ColumnMapping, require_used
from feature_store.sources.quarantine import Quarantine
from feature_store.sources.reading import SourceBars, SourceTicks, by_session, read_bars, read_ticks
from feature_store.sources.stamps import require_readable
from feature_store.sources.stamps_by_ticks import settled_by_ticks
from feature_store.sources.synthetic import SyntheticMarket


@dataclass(frozen=True, eq=False)
class Arrival:
    """A market as its source has it; bars keep the source's clock."""

    name: str
    """The market, whatever its files are called: ``NSE``; starts with ``SYNTHETIC`` when it was generated."""
    bars: dict[Session, tuple[Universe, Bars]]
    ticks: dict[Session, tuple[Universe, Ticks]]
    quarantine: dict[str, Quarantine] = field(default_factory=dict)
    """Rows that were left out, by kind of file."""
    bar_source: str = VENDOR_BARS
    """What made its bars."""
    sources: dict[str, str] = field(default_factory=dict)
    """What the sessions of a kind (``bars``, ``ticks``) came from: a file's path, or the generated market's name.

    It is kept with each session, so that what a source loses is known from what another one never had."""
    details: dict[str, JsonValue] = field(default_factory=dict)
    """What the market was made of: parameters that generated it, or size and SHA-256 of each file."""
    stated: frozenset[str] = frozenset()
    """Symbols of which a file or the table of instruments says what they are; see `OfflineStore.write_universe`."""
    without_volume: tuple[str, ...] = ()
    """Symbols that are no index and never have a volume in one of the files."""
    rows_out_of_order: dict[str, int] = field(default_factory=dict)
    """Rows, kept, that stand after a later one of their symbol, by kind of file."""
    recognised: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """What nobody stated but the files show, or leave open, by kind of file."""

    @property
    def sessions(self) -> tuple[Session, ...]:
        """Sessions with bars or ticks, in order."""
        return tuple(sorted({*self.bars, *self.ticks}, key=lambda session: session.date))

    @property
    def quarantined(self) -> dict[str, int]:
        """Rows left out, by reason."""
        counts: Counter[str] = Counter()
        for left_out in self.quarantine.values():
            counts.update(left_out.counts())
        return dict(counts)

    def of_dates(self, dates: Collection[dt.date]) -> Arrival:
        """Give the part of some days."""
        return replace(
            self,
            bars={session: bars for session, bars in self.bars.items() if session.date in dates},
            ticks={session: ticks for session, ticks in self.ticks.items() if session.date in dates},
        )


def generated_arrival(market: SyntheticMarket) -> Arrival:
    """Give a generated market as an arrival; its bars are exactly those that our builder makes of its ticks."""
    bars = {session: (market.universe, table) for session, table in zip(market.sessions, market.bars, strict=True)}
    ticks = {
        session: (market.universe, table) for session, table in zip(market.tick_sessions, market.ticks, strict=True)
    }
    sources = {"bars": market.name, "ticks": market.name}
    return Arrival(market.name, bars, ticks, bar_source=TICK_BARS, sources=sources, details=market.details)


def read_market(
    bars_file: Path | None,
    ticks_file: Path | None,
    dates: Collection[dt.date] | None = None,
    held: Universe | None = None,
    *,
    name: str = "NSE",
    instruments: Universe | None = None,
    mapping: ColumnMapping | None = None,
) -> Arrival:
    """Read a market's files, each once.

    Parameters
    ----------
    bars_file, ticks_file : Path or None
        At least one of them.
    dates : collection of date, optional
        The days that are wanted; None wants all of them.
    held : Universe, optional
        Instruments that were brought in before. Ticks of a symbol that is neither among them nor in the bars are not
        used: no model was trained on it.
    name : str
        The market's name.
    instruments : Universe, optional
        What a table states of some or all instruments (`dated_tables.read_universe`).
    mapping : ColumnMapping, optional
        What is stated of how the files are written.

    Raises
    ------
    MarketDataError
        If a file cannot be used, or none is named; the message says what to do.
    """
    if bars_file is None and ticks_file is None:
        raise MarketDataError(
            "market.source is 'files' but no file is named: set market.bars_file, market.ticks_file or both "
            "(MARKET__BARS_FILE, or [market] in alpha-panda.toml)"
        )
    wanted = None if dates is None else sorted(dates)
    read: dict[str, SourceBars | SourceTicks] = {}
    bars: dict[Session, tuple[Universe, Bars]] = {}
    ticks: dict[Session, tuple[Universe, Ticks]] = {}
    known: Universe | None = None
    if bars_file is not None:
        of_bars = read_bars(bars_file, wanted, instruments=instruments, mapping=mapping)
        require_readable(of_bars.reading)
        of_bars = settled_by_ticks(of_bars, bars_file, ticks_file, wanted, instruments=instruments, mapping=mapping)
        known = _joined(held, of_bars.universe)
        bars = {session: (of_bars.universe, part) for session, part in by_session(of_bars.bars)}
        read["bars"] = of_bars
    if ticks_file is not None:
        of_ticks = read_ticks(ticks_file, wanted, universe=known, instruments=instruments, mapping=mapping)
        require_readable(of_ticks.reading)
        ticks = {session: (of_ticks.universe, part) for session, part in by_session(of_ticks.ticks)}
        read["ticks"] = of_ticks
    require_used(mapping, [source.reading.layout for source in read.values()])
    paths = {kind: path for kind, path in (("bars", bars_file), ("ticks", ticks_file)) if path is not None}
    return Arrival(
        name,
        bars,
        ticks,
        {kind: source.quarantine for kind, source in read.items()},
        sources={kind: str(path.resolve()) for kind, path in paths.items()},
        details={f"{kind} of {path.name}": _file_facts(path) for kind, path in paths.items()},
        stated=frozenset().union(*(source.stated for source in read.values())),
        without_volume=tuple(sorted({symbol for source in read.values() for symbol in source.without_volume})),
        rows_out_of_order={kind: source.rows_out_of_order for kind, source in read.items()},
        recognised={kind: source.recognised for kind, source in read.items()},
    )


def _file_facts(path: Path) -> dict[str, JsonValue]:
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _joined(held: Universe | None, universe: Universe) -> Universe:
    """Give the instruments of both, as the newer look sees them."""
    if held is None:
        return universe
    newer = {one.symbol: one for one in universe.instruments}
    return Universe.ordered(({one.symbol: one for one in held.instruments} | newer).values())
