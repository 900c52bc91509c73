"""Runs the stages of market data and says of each day, in Dagster's metadata, what was stored."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dagster_project.desk import Desk
from dagster_project.previews import bars_preview, feature_quantiles, label_quantiles, session_hours, ticks_preview
from feature_store.market.types import Session

if TYPE_CHECKING:
    from feature_store.sources.arrivals import Arrival


@dataclass(frozen=True)
class StagedDay:
    """One session that a stage is done with."""

    date: dt.date
    rows: int
    facts: dict[str, Any]
    """Metadata of the day's partition."""


def incoming_days(desk: Desk, arrival: Arrival) -> Iterator[StagedDay]:
    """Write an arrival's sessions."""
    from feature_store.offline.stages import store_arrival

    for session in store_arrival(desk.store, arrival):
        bars, ticks = arrival.bars.get(session), arrival.ticks.get(session)
        counts = {"bars": len(bars[1]) if bars else 0, "ticks": len(ticks[1]) if ticks else 0}
        facts = _facts(arrival.name, session, sum(counts.values())) | counts
        if bars:
            facts["first_bars"] = bars_preview(bars[1], bars[0])
        if ticks:
            facts["first_ticks"] = ticks_preview(ticks[1], ticks[0])
        yield StagedDay(session.date, sum(counts.values()), facts)


def bar_days(desk: Desk, sessions: Sequence[Session]) -> Iterator[StagedDay]:
    """Put sessions that came in on the desk's clock."""
    from feature_store.offline.stages import store_bars

    for stored in store_bars(desk.store, sessions, desk.clock):
        facts = {
            "bar_clock": str(desk.clock),
            "bar_source": stored.bar_source,
            "instruments_with_bars": len(set(stored.bars.instrument.tolist())),
            "digest": stored.digest,
            "first_bars": bars_preview(stored.bars, stored.universe),
        }
        yield _day(desk, stored.session, len(stored.bars), facts)


def feature_days(desk: Desk, sessions: Sequence[Session]) -> Iterator[StagedDay]:
    """Compute the feature rows of sessions that have bars."""
    from feature_store.offline.stages import store_features

    schema, actions = desk.schema, desk.actions
    for stored in store_features(desk.store, sessions, schema, actions):
        warm = stored.rows.warm
        facts = {
            "warm_rows": int(warm.sum()),
            "warm_share": round(float(warm.mean()), 4) if len(warm) else 0.0,
            "features": len(schema.names),
            "feature_schema_hash": schema.hash,
            "corporate_actions": len(actions),
            "digest": stored.digest,
            "quantiles": feature_quantiles(schema.names, stored.rows.X[warm]),
        }
        yield _day(desk, stored.session, len(warm), facts)


def label_days(desk: Desk, sessions: Sequence[Session]) -> Iterator[StagedDay]:
    """Label the bars of sessions, once for every label; facts of a label stand under its name."""
    from feature_store.offline.stages import store_labels

    for session, stored in zip(sessions, store_labels(desk.store, sessions, desk.labels), strict=True):
        facts: dict[str, Any] = {"labels": [one.label.name for one in stored]}
        labelled = 0
        for one in stored:
            there = one.rows.forward_return[np.isfinite(one.rows.forward_return)]
            labelled += len(there)
            facts |= {
                f"{one.label.name}.without_label": len(one.rows.forward_return) - len(there),
                f"{one.label.name}.digest": one.digest,
                f"{one.label.name}.distribution": label_quantiles(there * 1e4),
            }
        yield _day(desk, session, labelled, facts)


def _day(desk: Desk, session: Session, rows: int, facts: dict[str, Any]) -> StagedDay:
    return StagedDay(session.date, rows, _facts(desk.store.market() or "", session, rows) | facts)


def _facts(market: str, session: Session, rows: int) -> dict[str, Any]:
    return {"market": market, "session": session_hours(session), "dagster/row_count": rows}
