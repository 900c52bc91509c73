"""Training frames: what a model is fitted on, put together from the offline store.

A row is a decision: what was known at the end of a bar, and what came of it. Features stand on the decision bar and
those before it, of the same session and of the ones before; a label begins at the next open, where a trade can, and
looks ahead inside its session. Of a strategy with a rule a row is an event: the rule proposed a side, and the row is
seen from it. Rows that cannot be trained on are left out and counted, each by the first reason that holds. A return of
zero is no such reason.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from feature_store.features.schema import FeatureSchema
from feature_store.labels.barrier_return import VOLATILITY, BarrierLabels, BarrierReturn
from feature_store.labels.forward_return import ForwardReturn, Labels
from feature_store.market.corporate_actions import CorporateActions
from feature_store.market.types import MINUTE_NS, Bars, MarketDataError, Session, Universe
from feature_store.offline.feature_rows import (
    FeatureRows,
    MissingFeatures,
    StaleFeatures,
    computed,
    history_of,
    read_features,
)
from feature_store.offline.session_files import dates_text
from feature_store.offline.store import OfflineStore
from feature_store.proposals.rules import Proposer
from feature_store.proposals.seen import seen_from

REASONS = ("not_tradable", "not_member", "not_warm", "no_event", "no_label", "not_finite")
"""Why a row is left out, in the order in which they are asked; without a rule every bar is an event."""


_READERS = 4  # files that are read at once: decoding and digests take a core each, and the disk its time


class MembershipTable(Protocol):
    """Which instruments belonged to the universe that is traded, by date; see `feature_store.market.membership`."""

    @property
    def digest(self) -> str:
        """SHA-256 of the table."""
        ...

    def mask(self, instrument: NDArray[np.int32], time_ns: NDArray[np.int64], universe: Universe) -> NDArray[np.bool_]:
        """Whether each instrument was a member at each time."""
        ...


@dataclass(frozen=True, eq=False)
class TrainingFrame:
    """Labelled feature rows, in order of ``(decision_ns, instrument)``: warm, finite rows of tradable instruments."""

    X: NDArray[np.float64]
    """Features, shape ``(n, n_features)``, columns as in ``schema``; finite. Of an event as seen from its side."""
    forward_return: NDArray[np.float64]
    """Label as a fraction, shape ``(n,)``; finite. Of an event what the proposed trade gains."""
    side: NDArray[np.int8]
    """1 or, of an event that proposes to sell, -1; shape ``(n,)``."""
    decision_ns: NDArray[np.int64]
    """End of the decision bar; everything in ``X`` was known then."""
    entry_ns: NDArray[np.int64]
    """When the label entered: start of the bar whose open is its first price."""
    label_end_ns: NDArray[np.int64]
    """When the label was known: start of the bar whose open is its last price."""
    instrument: NDArray[np.int32]
    """Index in the store's universe."""
    schema: FeatureSchema
    label: ForwardReturn | BarrierReturn
    digest: str
    """SHA-256 over everything that determines the frame: source data, schema, label and the rows themselves."""
    start_ns: int
    """Open of the first session."""
    end_ns: int
    """Close of the last session."""
    market: str = ""
    """Name of the market; starts with ``SYNTHETIC`` when it was generated."""
    market_details: dict[str, JsonValue] = field(default_factory=dict)
    """What the market was made of when the frame was, as the store said it."""
    bar_source: str = ""
    """What the bars were made from: ``ticks`` by our own builder, or the vendor's word; several joined by `` + ``."""
    instruments: tuple[str, ...] = ()
    """Symbols that have rows, by ascending ``instrument``."""
    sessions: dict[str, str] = field(default_factory=dict)
    """SHA-256 of each session's bars by date (``YYYY-MM-DD``), of the sessions asked for."""
    manifests: dict[str, str] = field(default_factory=dict)
    """SHA-256 of the manifest of each file of bars that was read, by date; those of the history are among them."""
    membership_digest: str = ""
    """Of the table of members; empty without one."""
    actions_digest: str = ""
    """Of the corporate actions; of no actions, if there were none."""
    left_out: dict[str, int] = field(default_factory=dict)
    """Rows of the instruments and sessions asked for that are not here, by reason; see `REASONS`."""

    def __len__(self) -> int:
        return len(self.decision_ns)


def training_frame(
    store: OfflineStore,
    instruments: Iterable[str] | None,
    start: dt.date,
    end: dt.date,
    *,
    features: FeatureSchema,
    label: ForwardReturn | BarrierReturn,
    proposer: Proposer | None = None,
    membership: MembershipTable | None = None,
    actions: CorporateActions | None = None,
) -> TrainingFrame:
    """Make the training frame of the stored sessions of some days.

    Feature rows that are stored and not stale are read, others are computed; both give the same bits. To be warm from
    the first bar on, features also step the ``features.history_sessions`` sessions before each session; rows of
    sessions before ``start`` are never in the frame.

    Parameters
    ----------
    store : OfflineStore
        Its bars must be on the clock of ``features``.
    instruments : iterable of str or None
        Symbols; None takes every instrument. The market's index is read as context whether named or not.
    start, end : date
        First and last session date, both included.
    features : FeatureSchema
        The columns.
    label : ForwardReturn or BarrierReturn
        What the rows are asked to foretell; barriers belong to proposals.
    proposer : Proposer, optional
        The rule that proposes sides; rows are then its events. Default: every bar is a decision.
    membership : MembershipTable, optional
        Leaves out rows of instruments that were no members of the traded universe at the decision.
    actions : CorporateActions, optional
        Splits and the like, which features live through at the ex-date as in live state. Labels need none: they end
        inside their session.

    Raises
    ------
    MarketDataError
        If no session or no row is there; if the stored bars, those of their history, or the label are on another clock
        than the features.
    ReplacedMeanwhile
        If rows were written again before they were read: make the frame again. Its digest is of the rows in it.
    UnknownInstrument
        If the store does not know a symbol; the message names near ones.
    """
    _refuse_other_clock(features, label)
    store = store.pinned()
    sessions, symbols = _sessions(store, start, end), _symbols(store, instruments)
    sources = _sources(store, sessions, features)
    parts = _session_rows(store, sessions, features, symbols, actions)
    kept = _kept(parts, sessions, store.universe(), _Asked(features, label, proposer), membership)
    if not len(kept.columns["decision_ns"]):
        raise _no_row(sessions, features, label, kept)
    hours = [[str(session.date), session.open_ns, session.close_ns] for session in sessions]
    acted = (actions or CorporateActions.none()).digest
    asked = [label.identity(), *([proposer.identity()] if proposer is not None else [])]
    return TrainingFrame(
        **kept.columns,
        schema=features,
        label=label,
        digest=_digest(kept.columns, [sources.digest, hours, features.hash, *asked, symbols, acted]),
        start_ns=sessions[0].open_ns,
        end_ns=sessions[-1].close_ns,
        market=store.market() or "",
        market_details=store.market_details(),
        bar_source=" + ".join(sorted({str(manifest["bar_source"]) for manifest in sources.bars})),
        instruments=kept.symbols,
        sessions={str(s.date): str(manifest["digest"]) for s, manifest in zip(sessions, sources.bars, strict=True)},
        left_out=kept.left_out,
        manifests=sources.manifests,
        membership_digest=membership.digest if membership is not None else "",
        actions_digest=acted,
    )


class _Sources(NamedTuple):
    """What a frame stands on, from the store's manifests; they are pinned before any row is read."""

    digest: str
    """Of the bars of the sessions and of their history, the universe and the market's name."""
    bars: list[dict[str, Any]]
    """Manifests of the sessions' bars."""
    manifests: dict[str, str]
    """SHA-256 of every manifest of bars that is read, by date."""


def _sources(store: OfflineStore, sessions: Sequence[Session], features: FeatureSchema) -> _Sources:
    read = sorted({*(s.date for s in sessions), *(day for s in sessions for day in history_of(store, s, features))})
    return _Sources(
        store.digest(read),
        [store.manifest("bars", session) for session in sessions],
        {str(day): _sha256_of(store.manifest("bars", day)) for day in read},
    )


def _sha256_of(manifest: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _symbols(store: OfflineStore, instruments: Iterable[str] | None) -> list[str] | None:
    """Symbols asked for, each once and in the universe's order; None stands for all."""
    tokens = store.tokens_of(instruments)
    if tokens is None:
        return None
    chosen = frozenset(tokens.tolist())
    return [i.symbol for i in store.universe().instruments if i.instrument_token in chosen]


def _refuse_other_clock(features: FeatureSchema, label: ForwardReturn | BarrierReturn) -> None:
    clock = features.clock
    if clock.kind != "time":
        raise MarketDataError(
            f"a label's horizon is session time, and bars of {clock} have no length: take a time clock"
        )
    if features.bar_ns != label.bar_minutes * MINUTE_NS:
        raise MarketDataError(
            f"the features stand on bars of {clock.short}, the label {label.name} counts bars of "
            f"{label.bar_minutes} minutes; give both one clock"
        )


class _Asked(NamedTuple):
    """What rows are made of, and what they are asked."""

    features: FeatureSchema
    label: ForwardReturn | BarrierReturn
    proposer: Proposer | None

    def sides(self, parts: Sequence[FeatureRows]) -> NDArray[np.int8]:
        """Give what is proposed at each row, 1, -1 or 0; 1 everywhere without a rule. Shape ``(n,)``."""
        if self.proposer is None:
            return np.ones(sum(len(part.X) for part in parts), dtype=np.int8)
        return np.concatenate([self.proposer.sides(part.X, self.features) for part in parts])

    def labels(
        self,
        parts: Sequence[FeatureRows],
        side: NDArray[np.int8],
        bars: Bars,
        n_instruments: int,
        sessions: Sequence[Session],
    ) -> Labels | BarrierLabels:
        """Label the rows."""
        if isinstance(self.label, ForwardReturn):
            return self.label.of(bars, n_instruments, sessions)
        column = self.features.names.index(VOLATILITY)
        volatility = np.concatenate([part.X[:, column] for part in parts])
        return self.label.of(bars, n_instruments, sessions, side, volatility)


class _Kept(NamedTuple):
    """The rows that can be trained on."""

    columns: dict[str, NDArray[Any]]
    """The frame's, by field."""
    symbols: tuple[str, ...]
    """Instruments that have rows."""
    left_out: dict[str, int]
    empty: NDArray[np.bool_]
    """Which features have no value in any row that would have been kept otherwise, shape ``(n_features,)``."""


def _kept(
    parts: Sequence[FeatureRows],
    sessions: Sequence[Session],
    universe: Universe,
    asked: _Asked,
    membership: MembershipTable | None,
) -> _Kept:
    bars = Bars.concatenate([part.bars for part in parts])
    side = asked.sides(parts)
    labels = asked.labels(parts, side, bars, len(universe), sessions)
    usable = {
        "not_tradable": np.array([i.tradable for i in universe.instruments], dtype=np.bool_)[bars.instrument],
        "not_member": np.ones(len(bars), dtype=np.bool_),
        "not_warm": np.concatenate([part.warm for part in parts]),
        **({} if asked.proposer is None else {"no_event": side != 0}),
        "no_label": np.isfinite(labels.forward_return),
    }
    if membership is not None:
        usable["not_member"] = membership.mask(bars.instrument, bars.start_ns, universe)
    kept = np.logical_and.reduce(list(usable.values()))
    rows = _rows_kept([part.X for part in parts], kept)
    values = np.isfinite(rows)
    finite = values.all(axis=1)
    left_out = _count(usable) | {"not_finite": int((~finite).sum())}
    empty: NDArray[np.bool_] = np.logical_and(~values.any(axis=0), len(rows) > 0)
    kept[kept] = finite
    columns: dict[str, NDArray[Any]] = {
        "X": seen_from(side[kept], rows if finite.all() else rows[finite], asked.features),
        "forward_return": labels.forward_return[kept],
        "side": side[kept],
        "decision_ns": bars.end_ns[kept],
        "entry_ns": labels.entry_ns[kept],
        "label_end_ns": labels.label_end_ns[kept],
        "instrument": bars.instrument[kept],
    }
    there = np.bincount(columns["instrument"], minlength=len(universe)) > 0
    symbols = tuple(one.symbol for one, has_rows in zip(universe.instruments, there, strict=True) if has_rows)
    return _Kept(columns, symbols, left_out, empty)


def _sessions(store: OfflineStore, start: dt.date, end: dt.date) -> tuple[Session, ...]:
    if start > end:
        raise MarketDataError(f"start {start} is after end {end}; both days are included")
    held = store.sessions()
    sessions = tuple(session for session in held if start <= session.date <= end)
    if not sessions:
        raise MarketDataError(f"no session from {start} to {end}: {store.root} holds bars of {dates_text(held)}")
    return sessions


def _session_rows(
    store: OfflineStore,
    sessions: Sequence[Session],
    features: FeatureSchema,
    symbols: Sequence[str] | None,
    actions: CorporateActions | None,
) -> list[FeatureRows]:
    def read(session: Session) -> FeatureRows | None:
        # what was never written, or is stale, is computed below; the store is for its owner to mend
        with suppress(MissingFeatures, StaleFeatures):
            return read_features(store, session, features, symbols, actions=actions)
        return None

    with ThreadPoolExecutor(_READERS) as threads:
        found = dict(zip([session.date for session in sessions], threads.map(read, sessions), strict=True))
    rest = [date for date, rows in found.items() if rows is None]
    found.update(zip(rest, computed(store, rest, features, symbols, actions), strict=True))
    return [rows for rows in found.values() if rows is not None]


def _rows_kept(parts: Sequence[NDArray[np.float64]], kept: NDArray[np.bool_]) -> NDArray[np.float64]:
    ends = np.cumsum([len(part) for part in parts])
    return np.concatenate([part[mine] for part, mine in zip(parts, np.split(kept, ends[:-1]), strict=True)])


def _count(usable: dict[str, NDArray[np.bool_]]) -> dict[str, int]:
    left = np.ones(len(next(iter(usable.values()))), dtype=np.bool_)
    counts = {}
    for reason, fine in usable.items():
        counts[reason] = int((left & ~fine).sum())
        left &= fine
    return counts


def _no_row(
    sessions: Sequence[Session],
    features: FeatureSchema,
    label: ForwardReturn | BarrierReturn,
    kept: _Kept,
) -> MarketDataError:
    if kept.empty.any():
        never = ", ".join(name for name, empty in zip(features.names, kept.empty, strict=True) if empty)
        return MarketDataError(
            f"{never} has no value in any of {kept.left_out['not_finite']} rows of {dates_text(sessions)} (these bars "
            "have no index or no depth to compute it from); leave it out of the features, or bring that data in"
        )
    counts = ", ".join(f"{n} {reason}" for reason, n in kept.left_out.items() if n)
    if kept.left_out.get("no_event") and not kept.left_out["no_label"]:
        return MarketDataError(
            f"the rule proposes nothing in {dates_text(sessions)} ({counts}): lower its threshold (rule_parameters), "
            "or add sessions or instruments"
        )
    return MarketDataError(
        f"no row is left of {dates_text(sessions)} ({counts or 'no bars'}): features need {features.warm_up} bars "
        f"before them and the label {label.horizon_bars} after, until the last exit; add sessions or instruments, or "
        "shorten the horizon"
    )


def _digest(columns: Mapping[str, NDArray[Any]], asked: Sequence[Any]) -> str:
    sha = hashlib.sha256(json.dumps(asked).encode())
    for column in columns.values():
        sha.update(np.ascontiguousarray(column).data)
    return sha.hexdigest()
