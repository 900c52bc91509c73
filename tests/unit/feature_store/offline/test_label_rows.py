import dataclasses
from pathlib import Path

import numpy as np
import pytest

from feature_store.labels.forward_return import ForwardReturn
from feature_store.market.types import MINUTE_NS
from feature_store.offline.label_rows import StaleLabels, compute_labels, read_labels, write_labels
from feature_store.offline.store import OfflineStore
from feature_store.sources.synthetic import synthetic_market


def test_labels_are_neither_written_nor_read_once_their_bars_changed(tmp_path: Path) -> None:
    market, label, store = synthetic_market(instruments=2, sessions=1), ForwardReturn(5), OfflineStore(tmp_path)
    (session,), (bars,) = market.sessions, market.bars
    store.write_bars(session, market.universe, bars, market.name)
    computed = compute_labels(store, session, label)
    write_labels(store, session, label, computed)
    read = read_labels(store, session, label)
    for name in ("forward_return", "entry_ns", "label_end_ns"):
        assert getattr(read, name).tobytes() == getattr(computed, name).tobytes()

    store.write_bars(session, market.universe, dataclasses.replace(bars, close=bars.high.copy()), market.name)
    with pytest.raises(StaleLabels, match="materialise labels again"):
        read_labels(store, session, label)
    with pytest.raises(StaleLabels, match="compute them again"):
        write_labels(store, session, label, computed)


def test_labels_are_stale_once_the_session_has_other_hours(tmp_path: Path) -> None:
    market, label, store = synthetic_market(instruments=2, sessions=1), ForwardReturn(5), OfflineStore(tmp_path)
    (session,), (bars,) = market.sessions, market.bars
    early = bars[bars.end_ns <= session.close_ns - 30 * MINUTE_NS]
    store.write_bars(session, market.universe, early, market.name)
    write_labels(store, session, label, compute_labels(store, session, label))
    shorter = dataclasses.replace(session, close_ns=session.close_ns - 30 * MINUTE_NS)
    store.write_bars(shorter, market.universe, early, market.name)
    with pytest.raises(StaleLabels, match="other hours of the session"):
        read_labels(store, shorter, label)


def test_each_label_has_a_folder_of_its_own(tmp_path: Path) -> None:
    market, store = synthetic_market(instruments=2, sessions=1), OfflineStore(tmp_path)
    (session,), (bars,) = market.sessions, market.bars
    store.write_bars(session, market.universe, bars, market.name)
    labels = (ForwardReturn(5), ForwardReturn(5, exit_minutes_before_close=30))
    for label in labels:
        write_labels(store, session, label, compute_labels(store, session, label))
    with_label = [np.isfinite(read_labels(store, session, label).forward_return).sum() for label in labels]
    assert with_label[0] - with_label[1] == 20 * len(market.universe)
