"""The demo's look at a person's own files before anything starts: what they hold, what is left out, what is lacking."""

from __future__ import annotations

import datetime as dt
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from live_services.cli.progress import FileProgress, no_file_progress
from live_services.failures import CommandFailed
from models_registry.specification import StrategySpec, of_one_desk

if TYPE_CHECKING:
    from feature_store.market.clocks import BarClock
    from feature_store.market.types import Session, Universe
    from feature_store.sources.mappings import ColumnMapping
    from feature_store.sources.reading import SourceBars, SourceTicks
    from live_services.machine.stack import Tell

_SESSION_MINUTES: Final = 375  # 09:15 to 15:30
_ANCHORS: Final = 2  # that a recursive average has to pass before it is warm


@dataclass(frozen=True, slots=True)
class MarketFiles:
    """What a look at the files found."""

    bar_minutes: int
    train_through: dt.date
    """The last session before the one that is replayed."""
    findings: tuple[str, ...] = ()
    """What was found in the files and told."""


def look_at(
    bars: Path,
    ticks: Path | None,
    quarantine: Path,
    strategies: Sequence[StrategySpec],
    tell: Tell,
    *,
    stated: Mapping[str, Any] | None = None,
    progress: FileProgress = no_file_progress,
) -> MarketFiles:
    """Read the files, tell what is in them and what goes to the quarantine, and refuse what cannot be traded.

    Parameters
    ----------
    bars, ticks
        The files.
    quarantine
        Directory where the rows left out will lie, once Dagster has brought the market in.
    strategies
        Whose models are to be trained: their horizons, folds and features ask for so many bars and sessions.
    tell
        Takes one line for the person who waits.
    stated
        Settings under ``market`` that say how the files are written, what their instruments are (``universe``), and
        which prices a corporate action moved (``corporate_actions``); see `live_services.cli.market_options`.
    progress
        Shows how far the reading of a file is.

    Raises
    ------
    CommandFailed
        Too few usable rows, sessions or bars a session; the message names the file and what to do.
    feature_store.market.types.MarketDataError
        A file cannot be read at all.
    """
    from feature_store.sources.dated_tables import read_corporate_actions, read_universe
    from feature_store.sources.mappings import require_used
    from feature_store.sources.reading import known_sessions, read_ticks
    from feature_store.sources.stamps import require_readable

    stated = stated or {}
    instruments = read_universe(stated["universe"]) if "universe" in stated else None
    read_corporate_actions(stated.get("corporate_actions"))  # so that a wrong table is refused before anything starts
    mapping = _mapping(stated, 1 if ticks is None else 2)
    of_bars = _bars_of(bars, ticks, mapping, instruments, progress)
    findings = _tell_of(bars, "bars", len(of_bars.bars), of_bars, quarantine, tell)
    if not any(one.tradable for one in of_bars.universe.instruments):
        raise CommandFailed(
            f"{bars} holds nothing but indices, which are never traded; give a file with bars of shares or funds too"
        )
    sessions, minutes = known_sessions(of_bars.bars), _minutes_of(bars, of_bars.clock, tell)
    desk = of_one_desk([spec.model_copy(update={"bar_minutes": minutes}) for spec in strategies], minutes)
    _require_bars_enough(bars, desk, minutes)
    if ticks is None:
        _require_sessions(bars, sessions[:-1], sessions[-1], "the last session of the file", desk)
        return MarketFiles(minutes, sessions[-2].date, findings)
    with progress(ticks) as reading:
        of_ticks = read_ticks(
            ticks, universe=of_bars.universe, instruments=instruments, mapping=mapping, progress=reading
        )
    require_readable(of_ticks.reading)
    require_used(mapping, [of_bars.reading.layout, of_ticks.reading.layout])
    findings += _tell_of(ticks, "ticks", len(of_ticks.ticks), of_ticks, quarantine, tell)
    ticked = known_sessions(of_ticks.ticks)
    before = {s.date: s for s in (*sessions, *ticked) if s.date < ticked[-1].date}
    _require_sessions(bars, list(before.values()), ticked[-1], f"the last session of {ticks}", desk)
    return MarketFiles(minutes, max(before), findings)


def _bars_of(
    bars: Path, ticks: Path | None, mapping: ColumnMapping, instruments: Universe | None, progress: FileProgress
) -> SourceBars:
    from feature_store.sources.reading import read_bars
    from feature_store.sources.stamps import require_readable
    from feature_store.sources.stamps_by_ticks import settled_by_ticks

    with progress(bars) as reading:
        of_bars = read_bars(bars, instruments=instruments, mapping=mapping, progress=reading)
    require_readable(of_bars.reading)
    return settled_by_ticks(of_bars, bars, ticks, instruments=instruments, mapping=mapping)


def _mapping(stated: Mapping[str, Any], files: int) -> ColumnMapping:
    from feature_store.sources.mappings import ColumnMapping

    texts = (stated.get(name, "") for name in ("time_format", "timezone", "stamp"))
    return ColumnMapping.stated(stated.get("columns", {}), *texts, files=files)


def _minutes_of(path: Path, clock: BarClock, tell: Tell) -> int:
    """Give the minutes of the bars that the desk trades on: those of the file, or the one minute that they make."""
    from feature_store.market.types import MINUTE_NS, SECOND_NS

    if clock.kind == "session":
        raise CommandFailed(f"{path} has one bar a session; the demo trades inside sessions: give bars of minutes")
    size_ns = clock.size
    if size_ns % MINUTE_NS and MINUTE_NS % size_ns:
        together = math.lcm(size_ns, MINUTE_NS) // MINUTE_NS
        raise CommandFailed(
            f"{path} has bars of {size_ns / SECOND_NS:g} seconds, which make no bars of one minute; give bars of one "
            f"minute, of a part of it (30 or 15 seconds), or of whole minutes (from these you can make {together})"
        )
    minutes = max(1, size_ns // MINUTE_NS)
    if minutes > 1:
        tell(f"{path.name} has bars of {minutes} minutes, so this demo trains and trades on those")
    elif size_ns < MINUTE_NS:
        tell(f"{path.name} has bars of {size_ns / SECOND_NS:g} seconds; this demo makes minutes of them")
    return minutes


def _tell_of(  # noqa: PLR0917
    path: Path, kind: str, usable: int, source: SourceBars | SourceTicks, directory: Path, tell: Tell
) -> tuple[str, ...]:
    """Tell what was found in a file, and give it."""
    from feature_store.sources.findings import file_findings, instrument_findings, reasons

    if not usable:
        refused = source.quarantine
        raise CommandFailed(f"{path}: none of its {len(refused):,} rows can be used: {reasons(refused)}")
    tell(f"{path.name}: {usable:,} {kind} of {_instruments(source.universe)}")
    found = file_findings(
        kind, source.quarantine, recognised=source.recognised, rows_out_of_order=source.rows_out_of_order
    )
    if kind == "bars":  # the ticks are of the same instruments
        found += instrument_findings(source.universe, source.without_volume)
    for said in found:
        tell(f"  {said}")
    if len(source.quarantine):
        tell(f"  they are kept, each with its row number and reason, in {directory / kind}.parquet")
    return found


def _instruments(universe: Universe) -> str:
    return f"{len(universe):,} instrument{'' if len(universe) == 1 else 's'}"


def _require_bars_enough(path: Path, strategies: Sequence[StrategySpec], minutes: int) -> None:
    a_session, holding = -(-_SESSION_MINUTES // minutes), max(spec.holding_bars for spec in strategies)
    if a_session <= holding:
        raise CommandFailed(
            f"{path}: bars of {minutes} minutes are {a_session} in a session; a label looks {holding} bars ahead "
            f"inside the session. Give bars of {(_SESSION_MINUTES - 1) // holding} minutes or shorter"
        )


def _require_sessions(
    path: Path, before: Sequence[Session], replayed: Session, which: str, strategies: Sequence[StrategySpec]
) -> None:
    """Refuse too few sessions for the strategy that needs most."""
    from models_registry.validation.splitters import sessions_needed

    for spec in strategies:
        usable = sum(_warm_sessions([session.date for session in before], spec))
        needed = sessions_needed(spec.folds, spec.embargo_sessions)
        if usable >= needed:
            continue
        dates = f" ({', '.join(str(s.date) for s in before)})" if before else ""
        warm_up = f", of which {len(before) - usable} only warm the features up" if len(before) > usable else ""
        raise CommandFailed(
            f"{path}: {len(before)} sessions{dates} lie before {replayed.date}, {which}, which is replayed{warm_up}; "
            f"training {spec.model_name} needs at least {needed} with warm features, and 20 or more to say anything. "
            "Give a file with earlier sessions"
        )


def sessions_to_train(dates: Iterable[dt.date], spec: StrategySpec) -> tuple[int, int]:
    """Give how many sessions training a strategy needs, from the first on, and how many of them only warm it up.

    Parameters
    ----------
    dates
        Of the sessions, ascending, and as many as there may be need of.

    Raises
    ------
    ValueError
        If there are fewer.
    """
    from models_registry.validation.splitters import sessions_needed

    needed = sessions_needed(spec.folds, spec.embargo_sessions)
    usable = [place for place, warm in enumerate(_warm_sessions(list(dates), spec), start=1) if warm]
    if len(usable) < needed:
        raise ValueError(f"training {spec.model_name} needs {needed} sessions with warm features, got {len(usable)}")
    return usable[needed - 1], usable[needed - 1] - needed


def _warm_sessions(dates: Sequence[dt.date], spec: StrategySpec) -> list[bool]:
    """Say on which sessions a strategy's features can be warm.

    Windows are full, and averages have passed two anchors.
    """
    from feature_store.features.schema import anchor_days

    schema = spec.feature_schema()
    days = anchor_days(schema.clock)
    recursive = any(feature.memory == "recursive" for feature in schema.features)
    blocks = [date.toordinal() - dt.date(1970, 1, 1).toordinal() for date in dates]
    anchors = [0, *itertools.accumulate(int(b // days != a // days) for a, b in itertools.pairwise(blocks))]
    a_session = -(-_SESSION_MINUTES // spec.bar_minutes)
    return [
        (k + 1) * a_session > schema.warm_up and (not recursive or passed >= _ANCHORS)
        for k, passed in enumerate(anchors[: len(dates)])
    ]
