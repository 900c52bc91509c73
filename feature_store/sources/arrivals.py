"""What a market source gives at once: all its sessions, or those of some days, and what it had to leave out."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path

from feature_store.market.types import TICK_BARS, VENDOR_BARS, Bars, MarketDataError, Session, Ticks, Universe
from feature_store.sources.mappings import ColumnMapping, require_used
from feature_store.sources.quarantine import Quarantine
from feature_store.sources.reading import by_session, read_bars, read_ticks
from feature_store.sources.stamps import require_readable
from feature_store.sources.stamps_by_ticks import settled_by_ticks
from feature_store.sources.synthetic import SyntheticMarket


@dataclass(frozen=True, eq=False)
class Arrival:
    """A market as its source has it; bars keep the source's clock."""

    name: str
    """Starts with ``SYNTHETIC`` when it was generated."""
    bars: dict[Session, tuple[Universe, Bars]]
    ticks: dict[Session, tuple[Universe, Ticks]]
    quarantine: dict[str, Quarantine] = field(default_factory=dict)
    """Rows that were left out, by kind of file."""
    bar_source: str = VENDOR_BARS
    """What made its bars."""
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
    return Arrival(market.name, bars, ticks, bar_source=TICK_BARS)


def read_market(
    bars_file: Path | None,
    ticks_file: Path | None,
    dates: Collection[dt.date] | None = None,
    held: Universe | None = None,
    *,
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
        Instruments that are known already: what a few days say of an instrument does not overrule what all of them did.
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
    name = " ".join(path.name for path in (bars_file, ticks_file) if path is not None)
    quarantine: dict[str, Quarantine] = {}
    recognised: dict[str, tuple[str, ...]] = {}
    layouts: list[ColumnMapping] = []
    bars: dict[Session, tuple[Universe, Bars]] = {}
    ticks: dict[Session, tuple[Universe, Ticks]] = {}
    known: Universe | None = None
    if bars_file is not None:
        of_bars = read_bars(bars_file, wanted, mapping=mapping)
        require_readable(of_bars.reading)
        of_bars = settled_by_ticks(of_bars, bars_file, ticks_file, wanted, mapping=mapping)
        layouts.append(of_bars.reading.layout)
        universe = _with_facts_of(held, of_bars.universe)
        known = _joined(held, universe)  # a symbol that only the ticks have was never trained on
        bars = {session: (universe, part) for session, part in by_session(of_bars.bars)}
        quarantine["bars"], recognised["bars"] = of_bars.quarantine, of_bars.recognised
    if ticks_file is not None:
        of_ticks = read_ticks(ticks_file, wanted, universe=known, mapping=mapping)
        require_readable(of_ticks.reading)
        layouts.append(of_ticks.reading.layout)
        universe = _with_facts_of(held, of_ticks.universe)
        ticks = {session: (universe, part) for session, part in by_session(of_ticks.ticks)}
        quarantine["ticks"], recognised["ticks"] = of_ticks.quarantine, of_ticks.recognised
    require_used(mapping, layouts)
    return Arrival(name, bars, ticks, quarantine, recognised=recognised)


def _with_facts_of(held: Universe | None, universe: Universe) -> Universe:
    """Give a universe in its own order, with what is known of its instruments already."""
    if held is None:
        return universe
    known = {instrument.instrument_token: instrument for instrument in held.instruments}
    return Universe(instruments=tuple(known.get(i.instrument_token, i) for i in universe.instruments))


def _joined(held: Universe | None, universe: Universe) -> Universe:
    return universe if held is None else Universe.ordered({*held.instruments, *universe.instruments})
