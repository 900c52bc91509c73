"""What reading a market's files found out, in sentences for whoever waits: what was inferred, mended and left out."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from feature_store.market.calendar import exchange_in_words
from feature_store.market.types import Universe
from feature_store.sources.quarantine import Quarantine

_NAMED: Final = 5
_OF_DATES_AND_HOURS: Final = frozenset({"outside_session", "not_a_session", "unverified_date"})


def file_findings(
    kind: str,
    quarantine: Quarantine,
    *,
    recognised: Collection[str] = (),
    rows_out_of_order: int = 0,
) -> tuple[str, ...]:
    """Say what was found in one file.

    Parameters
    ----------
    kind : str
        Of what it is a file: ``bars`` or ``ticks``.
    quarantine : Quarantine
        Its rows that were left out.
    recognised : collection of str
        What nobody stated but the file shows, a sentence each.
    rows_out_of_order : int
        Rows, kept, that stand after a later one of their symbol.
    """
    found = [f"{kind}: {said}" for said in recognised]
    if rows_out_of_order:
        found.append(f"{kind}: {rows_out_of_order:,} rows stand after a later one of their symbol; they were sorted")
    if len(quarantine):
        found.append(f"{kind}: {left_out(quarantine)}")
    return tuple(found)


def instrument_findings(universe: Universe, without_volume: Collection[str]) -> tuple[str, ...]:
    """Say which instruments are not traded, and which are although they have no volume.

    Parameters
    ----------
    universe : Universe
        The market's instruments.
    without_volume : collection of str
        Symbols that are no index and never have a volume in a file.
    """
    found = []
    if untradable := [one.symbol for one in universe.instruments if not one.tradable]:
        found.append(f"indices, which are never traded: {named(untradable)}")
    if without_volume:
        found.append(
            f"without any volume, and traded because their names are no index's: {named(without_volume)}; say in "
            "market.universe what they are"
        )
    return tuple(found)


def table_findings(unmatched: Mapping[str, Collection[str]]) -> tuple[str, ...]:
    """Say which names in a desk's tables no instrument has; by the setting's name (`unmatched_names`)."""
    return tuple(
        f"market.{table} has {len(names):,} name{'' if len(names) == 1 else 's'} that no instrument has; their rows do "
        f"nothing: {named(names)}"
        for table, names in unmatched.items()
    )


def left_out(quarantine: Quarantine) -> str:
    """Count the rows that were left out, and say why."""
    return f"{len(quarantine):,} row{'' if len(quarantine) == 1 else 's'} cannot be used: {reasons(quarantine)}"


def reasons(quarantine: Quarantine) -> str:
    """Count rows that were left out by reason, and name the first row of each; say the exchange where it matters."""
    first, counts = quarantine.first_rows(), quarantine.counts()
    exchange = f". {exchange_in_words()}" if counts.keys() & _OF_DATES_AND_HOURS else ""
    return ", ".join(f"{n:,} {reason} (first: row {first[reason]})" for reason, n in counts.items()) + exchange


def named(names: Collection[str]) -> str:
    """Name the first few of several."""
    more = len(names) - _NAMED
    return ", ".join(sorted(names)[:_NAMED]) + (f" and {more:,} more" if more > 0 else "")
