"""Stored feature rows: how they are computed, what they stand on, and when they are too old to be read.

The rows of a session stand on its bars and on those of the sessions before it that the store has, as many as the schema
says (``history_sessions``), and on nothing else. So a session can be computed alone, in any order, with the same bits,
and the manifest can name everything that a row depends on.

Values of several strategies are written once, for the union of their schemas; a strategy's own are read from whichever
file has its columns, and are those that its schema alone would give, bit for bit (`feature_store.features.projection`).

    MarketDataError
    ├── UnreadableFile
    │   └── MissingFeatures no feature rows with these columns were written
    ├── StaleFeatures       the bars, schema, actions or feature code that they stand on have changed since
    └── OtherClock          bars that features of this schema cannot stand on
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from feature_store.features.engine import FeatureEngine
from feature_store.features.projection import history_needed, holds, projected, warm_ups
from feature_store.features.schema import FeatureSchema, UnknownFeature, feature_schema
from feature_store.features.source import SOURCE_DIGEST
from feature_store.market.corporate_actions import CorporateActions
from feature_store.market.types import Bars, MarketDataError, Session, Universe, UnreadableFile
from feature_store.offline.durable_files import read_json
from feature_store.offline.layouts import TokenIndex, feature_layout, in_order, table_of
from feature_store.offline.session_files import SessionFile, date_of
from feature_store.offline.store import OfflineStore


class MissingFeatures(UnreadableFile):
    """Feature rows that were never written."""


class StaleFeatures(MarketDataError):
    """Stored feature rows that are not what would be computed now."""


class OtherClock(MarketDataError):
    """Stored bars that are counted by another clock than the features."""


class FeatureRows(NamedTuple):
    """The feature rows of one session."""

    bars: Bars
    """In order of ``(end_ns, instrument)``, indexed by the store's universe."""
    X: NDArray[np.float64]
    """Shape ``(n, n_features)``, columns as in the schema."""
    warm: NDArray[np.bool_]
    """Whether a row may be used, shape ``(n,)``."""
    basis: dict[str, Any] | None = None
    """What rows that were computed stand on, as `stands_on` said before the bars were read; None of rows read."""
    history_needed: NDArray[np.int16] | None = None
    """Of rows that were computed, how much history warms each column, shape ``(n, n_warm_ups)``; None of rows read."""


def computed(
    store: OfflineStore,
    sessions: Sequence[Session | dt.date],
    schema: FeatureSchema,
    instruments: Iterable[str] | None = None,
    actions: CorporateActions | None = None,
) -> Iterator[FeatureRows]:
    """Compute the feature rows of sessions, one after the other in order of time.

    For each, an engine has stepped the bars of its history, then its own. Sessions that follow each other share one:
    what it saw before a session's history changes no value that is warm without it, and the others are NaN here. The
    market's index is stepped as context whether it is asked for or not. A file is read once for all sessions that it
    is history of.

    Raises
    ------
    OtherClock
        If bars of a session or of its history are not on the schema's clock.
    """
    dates = sorted(date_of(session) for session in sessions)
    store = store.pinned()
    store = store.pinned({day: None for date in dates for day in (*history_of(store, date, schema), date)})
    universe, tokens = store.universe(), store.tokens_of(instruments)
    symbols = _with_index(tokens, universe)
    held: dict[dt.date, Bars] = {}
    run = _Run(schema, universe, actions)
    for date in dates:
        basis = stands_on(store, date, schema, actions)
        days = [dt.date.fromisoformat(day) for day, _ in basis["bars"]]
        held = {day: held[day] if day in held else store.read_bars([day], symbols) for day in days}
        own, needed = held[date], history_needed(list(held.values()), schema, len(universe))
        X, warm = projected(run.rows(held), needed, schema, schema)  # noqa: N806
        if tokens is None:
            yield FeatureRows(own, X, warm, basis, needed)
        else:
            mine = np.isin(universe.tokens[own.instrument], tokens)
            yield FeatureRows(own[mine], X[mine], warm[mine], basis, needed[mine])


class _Run:
    """An engine that goes on from session to session, and begins anew where there is a gap."""

    def __init__(self, schema: FeatureSchema, universe: Universe, actions: CorporateActions | None) -> None:
        self._new: Callable[[], FeatureEngine] = partial(FeatureEngine, schema, universe, actions)
        self._engine = self._new()
        self._stepped: list[dt.date] = []

    def rows(self, held: dict[dt.date, Bars]) -> NDArray[np.float64]:
        """Step the bars of a session, the last of these, and those of its history before it unless that is done."""
        known = [day for day in held if self._stepped and day <= self._stepped[-1]]
        if not known or known != self._stepped[-len(known) :]:
            self._engine, self._stepped, known = self._new(), [], []
        new = [day for day in held if day not in known]
        rows, _ = self._engine.step(Bars.concatenate([held[day] for day in new]))
        self._stepped += new
        return rows[len(rows) - len(held[new[-1]]) :]


def compute_features(
    store: OfflineStore,
    session: Session | dt.date,
    schema: FeatureSchema,
    instruments: Iterable[str] | None = None,
    *,
    actions: CorporateActions | None = None,
) -> FeatureRows:
    """Compute the feature rows of a session as a warm start would see them; see `computed`."""
    return next(computed(store, [session], schema, instruments, actions))


def write_features(
    store: OfflineStore,
    session: Session,
    schema: FeatureSchema,
    rows: FeatureRows,
    *,
    actions: CorporateActions | None = None,
) -> str:
    """Write the feature rows of a session, as `compute_features` gives them; give their digest.

    Raises
    ------
    MarketDataError
        If their bars are not the session's bars in this store, indexed by its `universe`.
    StaleFeatures
        If the bars of the session or of its history changed since they were computed, or they were computed with
        another schema or other actions.
    """
    if store.digest_of_bars(session, rows.bars) != store.manifest("bars", session)["digest"]:
        raise MarketDataError(
            f"these are not the stored bars of {session.date}; compute features with compute_features"
        )
    with store.writing(derived=True):
        basis = stands_on(store, session, schema, actions)
        if rows.basis != basis or rows.history_needed is None:
            raise StaleFeatures(
                f"these features of {session.date} do not stand on the bars, schema and actions of now; compute "
                "them again with compute_features, and write them with the same schema and actions"
            )
        columns = {
            "instrument_token": store.universe().tokens[rows.bars.instrument],
            "end_ns": rows.bars.end_ns,
            "warm": rows.warm,
            **dict(zip(_history_columns(schema), rows.history_needed.T, strict=True)),
            **{name: np.ascontiguousarray(rows.X[:, k]) for k, name in enumerate(schema.names)},
        }
        return feature_file(store, schema, session).write(columns, {**store.session_facts(session), **basis})


def read_features(
    store: OfflineStore,
    session: Session | dt.date,
    schema: FeatureSchema,
    instruments: Iterable[str] | None = None,
    *,
    actions: CorporateActions | None = None,
) -> FeatureRows:
    """Read the feature rows of a session, all or those of some instruments, without loading the others.

    They come from a file of the schema itself or of a union that has its columns; the bits are the same.

    Raises
    ------
    MissingFeatures
        If there are none with these columns.
    StaleFeatures
        If the bars of the session or of its history, the actions, or what the schema computes, changed since.
    UnreadableFile
        If the file is damaged.
    """
    store = store.pinned([session])
    held = fresh_schema(store, session, schema, actions)
    tokens = store.tokens_of(instruments)
    columns = feature_file(store, held, session).read(tokens)
    bars = table_of(Bars, store.read_columns("bars", session, tokens), TokenIndex(store.universe()))
    order = in_order(bars)
    features = np.empty((len(bars), len(schema.names)))
    for k, name in enumerate(schema.names):
        features[:, k] = columns[name][order]
    needed = np.column_stack([columns[name][order] for name in _history_columns(held)])
    return FeatureRows(bars[order], *projected(features, needed, held, schema))


def history_of(store: OfflineStore, session: Session | dt.date, schema: FeatureSchema) -> tuple[dt.date, ...]:
    """Give the dates of the stored sessions before one that its features stand on, in order."""
    before = [date for date in store.dates() if date < date_of(session)]
    return tuple(before[max(len(before) - schema.history_sessions, 0) :])


def feature_file(store: OfflineStore, schema: FeatureSchema, session: Session | dt.date) -> SessionFile:
    """Give the file that holds a session's rows of a schema, whether it exists or not."""
    folder = store.root / "features" / f"schema={schema.hash[:16]}" / f"session={date_of(session)}"
    return store.session_file(folder, feature_layout(schema.names, _history_columns(schema)))


def _history_columns(schema: FeatureSchema) -> tuple[str, ...]:
    return tuple(kind.column for kind in warm_ups(schema))


def stands_on(
    store: OfflineStore, session: Session | dt.date, schema: FeatureSchema, actions: CorporateActions | None
) -> dict[str, Any]:
    """Give everything that decides what the feature rows of a session are, as their manifest says it.

    Raises
    ------
    OtherClock
        If bars of the session or of its history are not on the schema's clock.
    """
    index = store.universe().market_index
    days = (*history_of(store, session, schema), date_of(session))
    manifests = [store.manifest("bars", day) for day in days]
    for day, manifest in zip(days, manifests, strict=True):
        if manifest["rows"] and manifest["bar_clock"] != schema.bar_clock:
            raise OtherClock(
                f"the stored bars of {day} are on the clock {manifest['bar_clock']}, the features of "
                f"{date_of(session)}, which stand on them, on {schema.bar_clock}; set market.bar_minutes to the stored "
                "bars or materialise bars again"
            )
    return {
        "bar_clock": schema.bar_clock,
        "feature_schema_hash": schema.hash,
        "feature_code": SOURCE_DIGEST,
        "schema": list(schema.columns()),
        "history_columns": list(_history_columns(schema)),
        "actions": (actions or CorporateActions.none()).digest,
        "market_index": None if index is None else store.universe().instruments[index].symbol,
        "bars": [[str(day), manifest["digest"]] for day, manifest in zip(days, manifests, strict=True)],
    }


def fresh_schema(
    store: OfflineStore, session: Session | dt.date, schema: FeatureSchema, actions: CorporateActions | None
) -> FeatureSchema:
    """Give the schema of a file of a session that has a schema's columns as they would be computed now.

    It is the schema itself, or a union that `holds` it.

    Raises
    ------
    MissingFeatures
        If no file has these columns.
    StaleFeatures
        If something that those stand on which have them has changed; says what of the first.
    """
    date = date_of(session)
    reasons = []
    for candidate in _written_with(store, date, schema):
        try:
            reason = _staleness(store, date, candidate, actions)
        except OtherClock as other_clock:
            if candidate is schema:
                raise
            reason = f"cannot be read out of a wider schema: {other_clock}"
        if reason is None:
            return candidate
        reasons.append(reason)
    if reasons:
        raise StaleFeatures(f"features of {date} {reasons[0]}; materialise features again")
    others = sorted(path.parent.name for path in store.root.glob(f"features/schema=*/session={date}"))
    raise MissingFeatures(
        f"{feature_file(store, schema, session).folder} does not exist; of {date} there is "
        f"{', '.join(others) or 'no other schema either'}: materialise features"
    )


def _written_with(store: OfflineStore, date: dt.date, schema: FeatureSchema) -> Iterator[FeatureSchema]:
    """Schemas of a session's files that have a schema's columns, itself first."""
    if feature_file(store, schema, date).exists:
        yield schema
    for path in sorted(store.root.glob(f"features/schema=*/session={date}/manifest.json")):
        manifest = read_json(path)
        if manifest.get("feature_schema_hash") == schema.hash or manifest.get("bar_clock") != schema.bar_clock:
            continue
        with suppress(UnknownFeature):  # a feature that is gone, or has no such clock any more
            wider = feature_schema([column["name"] for column in manifest["schema"]], schema.bar_clock)
            if holds(wider, schema) and feature_file(store, wider, date).exists:
                yield wider


def _staleness(
    store: OfflineStore, date: dt.date, schema: FeatureSchema, actions: CorporateActions | None
) -> str | None:
    """Say why a session's file of a schema is not what would be computed now; None if it is."""
    held, now = feature_file(store, schema, date).manifest(), stands_on(store, date, schema, actions)
    if held.get("bars") != now["bars"]:
        was = {tuple(pair) for pair in held.get("bars", ())}
        changed = [day for day, digest in now["bars"] if (day, digest) not in was] or ["a session that is gone"]
        return f"are older than the bars of {', '.join(changed)} that they stand on"
    other = [name for name in now if held.get(name) != json.loads(json.dumps(now[name]))]
    return f"were computed with another {', '.join(other)}" if other else None


def _with_index(tokens: NDArray[np.int64] | None, universe: Universe) -> list[str] | None:
    """Symbols of the tokens and of the market's index, the context of relative features."""
    if tokens is None:
        return None
    places = {universe.index_of_token[int(token)] for token in tokens}
    context = {universe.market_index} if universe.market_index is not None else set()
    return [universe.instruments[place].symbol for place in sorted(places | context)]
