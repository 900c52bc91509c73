"""What a person sees of a day at a glance in Dagster's metadata: first rows, counts and distributions, as markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import dagster as dg
import numpy as np
from numpy.typing import NDArray

from dagster_project.plots import column_plot, line_plot, markdown_table
from feature_store.market.types import Bars, Session, Ticks, Universe, ist_text

if TYPE_CHECKING:
    from feature_store.sources.quarantine import Quarantine

_ROWS: Final = 5  # so that the table stays below 1,000 characters and is shown inline
_SAMPLED: Final = 4096  # rows of a session are enough for quantiles at a glance
_QUANTILES: Final = (0.01, 0.25, 0.5, 0.75, 0.99)


def session_hours(session: Session) -> str:
    """Give when a session opens and closes, in IST."""
    return f"{ist_text(session.open_ns)} to {ist_text(session.close_ns)}"


def bars_preview(bars: Bars, universe: Universe) -> dg.MarkdownMetadataValue:
    """Give the first bars as a table; the time is the bar's start in IST."""
    columns = ("open", "high", "low", "close", "volume")
    rows = [
        (_symbol(universe, bars.instrument[k]), _time(bars.start_ns[k]), *(f"{getattr(bars, c)[k]:g}" for c in columns))
        for k in range(min(_ROWS, len(bars)))
    ]
    return dg.MetadataValue.md(markdown_table(("symbol", "start", *columns), rows) if rows else "no bars")


def ticks_preview(ticks: Ticks, universe: Universe) -> dg.MarkdownMetadataValue:
    """Give the first ticks as a table; times in IST."""
    rows = [
        (
            _symbol(universe, ticks.instrument[k]),
            _time(ticks.event_time_ns[k]),
            f"{ticks.last_price[k]:g}",
            ticks.day_volume[k],
        )
        for k in range(min(_ROWS, len(ticks)))
    ]
    return dg.MetadataValue.md(markdown_table(("symbol", "time", "price", "day volume"), rows) if rows else "no ticks")


def feature_quantiles(names: Sequence[str], rows: NDArray[np.float64]) -> dg.MarkdownMetadataValue:
    """Give each feature's quantiles over (some) rows of shape ``(n, n_features)``, and the share that is missing."""
    rows = rows[:: max(1, len(rows) // _SAMPLED)]
    if not len(rows):
        return dg.MetadataValue.md("no warm row: the sessions before this one are too few")
    found = []
    for k, name in enumerate(names):
        finite = rows[np.isfinite(rows[:, k]), k]
        values = np.quantile(finite, _QUANTILES) if len(finite) else np.full(len(_QUANTILES), np.nan)
        found.append((name, *(f"{value:.4g}" for value in values), f"{1 - len(finite) / len(rows):.1%}"))
    return dg.MetadataValue.md(markdown_table(("feature", *(f"{q:.0%}" for q in _QUANTILES), "missing"), found))


def label_quantiles(bps: NDArray[np.float64]) -> dg.MarkdownMetadataValue:
    """Draw the quantiles of labels in basis points."""
    if not len(bps):
        return dg.MetadataValue.md("no label: the session is shorter than the horizon")
    return dg.MetadataValue.md(
        line_plot(
            np.quantile(bps, np.linspace(0.01, 0.99, 45)).tolist(),
            "Forward return, basis points, 1 % to 99 % quantile",
        )
    )


def quarantine_preview(quarantine: Mapping[str, Quarantine]) -> dict[str, object]:
    """Count refused rows by kind of file and reason, name the first row of each, and draw the counts."""
    rows = [
        (kind, reason, count, left_out.first_rows()[reason])
        for kind, left_out in quarantine.items()
        for reason, count in left_out.counts().items()
    ]
    facts: dict[str, object] = {
        "quarantined_rows": sum(count for _, _, count, _ in rows),
        "quarantined": {f"{kind}: {reason}": count for kind, reason, count, _ in rows} or "nothing",
    }
    if rows:
        ordered = sorted(rows, key=lambda row: -row[2])
        named = ", ".join(f"{reason} {count:,}" for _, reason, count, _ in ordered[:6])
        facts["quarantine_reasons"] = dg.MetadataValue.md(markdown_table(("kind", "reason", "rows", "first row"), rows))
        facts["quarantine_plot"] = dg.MetadataValue.md(
            column_plot([count for _, _, count, _ in ordered], f"Rows quarantined, by reason: {named}")
        )
    return facts


def _symbol(universe: Universe, index: np.int32) -> str:
    return universe.instruments[int(index)].symbol


def _time(time_ns: np.int64) -> str:
    return ist_text(int(time_ns))[11:19]
