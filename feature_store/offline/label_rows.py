"""Stored labels: what came of every bar of a session, computed from the stored bars and kept with what they stand on.

    labels/label=forward_return_v2_10x1m_exit10m/session=YYYY-MM-DD/manifest.json + data-….parquet

A label looks ahead inside its session, so a session's labels stand on that session's bars and hours alone. Training
frames compute labels anew from the same bars by the same function; these files are for people, notebooks and other
models.

    MarketDataError
    └── StaleLabels         the bars or hours that they stand on have changed since, or none were written
"""

from __future__ import annotations

import datetime as dt
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from feature_store.labels.forward_return import ForwardReturn
from feature_store.market.types import Bars, MarketDataError, Session
from feature_store.offline.layouts import Layout, TokenIndex
from feature_store.offline.session_files import SessionFile
from feature_store.offline.store import OfflineStore
from feature_store.provenance import code_commit

LAYOUT: Final = Layout(
    {
        "instrument_token": "int64",
        "end_ns": "int64",
        "entry_ns": "int64",
        "label_end_ns": "int64",
        "forward_return": "float64",
    },
    time="end_ns",
)


class StaleLabels(MarketDataError):
    """Stored labels that are not what would be computed now."""


class LabelRows(NamedTuple):
    """The labels of one session's bars, in order of ``(end_ns, instrument)``."""

    bars: Bars
    """Indexed by the store's universe."""
    forward_return: NDArray[np.float64]
    """As a fraction, shape ``(n,)``; NaN where there is no label."""
    entry_ns: NDArray[np.int64]
    """When the label entered; the bar's own end where there is none."""
    label_end_ns: NDArray[np.int64]
    """When the label was known; the bar's own end where there is none."""


def label_file(store: OfflineStore, label: ForwardReturn, session: Session | dt.date) -> SessionFile:
    """Give the file that holds a session's labels, whether it exists or not."""
    date = session.date if isinstance(session, Session) else session
    return store.session_file(store.root / "labels" / f"label={label.name}" / f"session={date}", LAYOUT)


def compute_labels(store: OfflineStore, session: Session, label: ForwardReturn) -> LabelRows:
    """Label the stored bars of a session.

    Raises
    ------
    UnreadableFile
        If the store has no bars of the session.
    """
    store = store.pinned([session])
    bars = store.read_bars([session])
    return LabelRows(bars, *label.of(bars, len(store.universe()), [session]))


def write_labels(store: OfflineStore, session: Session, label: ForwardReturn, rows: LabelRows) -> str:
    """Write a session's labels, as `compute_labels` gives them, replacing what was there; give their digest.

    Raises
    ------
    StaleLabels
        If the session's bars changed since they were computed.
    """
    bars_digest = store.manifest("bars", session)["digest"]
    if store.digest_of_bars(session, rows.bars) != bars_digest:
        raise StaleLabels(f"the bars of {session.date} changed since these labels were computed: compute them again")
    columns = {
        "instrument_token": store.universe().tokens[rows.bars.instrument],
        "end_ns": rows.bars.end_ns,
        "entry_ns": rows.entry_ns,
        "label_end_ns": rows.label_end_ns,
        "forward_return": rows.forward_return,
    }
    facts = {
        "market": store.market(),
        "session": session.date.isoformat(),
        "open_ns": session.open_ns,
        "close_ns": session.close_ns,
        "label": label.identity(),
        "bars": bars_digest,
        "code_version": code_commit(),
    }
    with store.writing(derived=True):
        return label_file(store, label, session).write(columns, facts)


def read_labels(store: OfflineStore, session: Session, label: ForwardReturn) -> LabelRows:
    """Read a session's labels.

    Raises
    ------
    StaleLabels
        If there are none, or they stand on other bars or session hours than those of the store.
    UnreadableFile
        If the file is damaged.
    """
    store = store.pinned([session])
    refuse_stale(store, session, label)
    columns = label_file(store, label, session).read()
    index = TokenIndex(store.universe()).of(columns["instrument_token"])
    order = np.lexsort((index, columns["end_ns"]))
    found = (columns[name][order] for name in ("forward_return", "entry_ns", "label_end_ns"))
    return LabelRows(store.read_bars([session]), *found)


def refuse_stale(store: OfflineStore, session: Session | dt.date, label: ForwardReturn) -> None:
    """Refuse labels that were never written, or stand on other bars or session hours.

    Raises
    ------
    StaleLabels
        Naming the session.
    """
    file = label_file(store, label, session)
    if not file.exists:
        raise StaleLabels(f"{file.folder} does not exist: materialise labels")
    held, bars = file.manifest(), store.manifest("bars", session)
    if held.get("bars") != bars["digest"]:
        raise StaleLabels(f"{file.folder} stands on bars that have changed since: materialise labels again")
    if any(held.get(name) != bars[name] for name in ("open_ns", "close_ns")):
        raise StaleLabels(f"{file.folder} stands on other hours of the session: materialise labels again")
