import dataclasses
from pathlib import Path

import pytest

from feature_store.labels.forward_return import ForwardReturn
from feature_store.offline.label_rows import StaleLabels, compute_labels, read_labels, write_labels
from feature_store.offline.store import OfflineStore
from feature_store.sources.synthetic import synthetic_market


def test_labels_are_neither_written_nor_read_once_their_bars_changed(tmp_path: Path) -> None:
    market, label, store = synthetic_market(instruments=2, sessions=1), ForwardReturn(5), OfflineStore(tmp_path)
    (session,), (bars,) = market.sessions, market.bars
    store.write_bars(session, market.universe, bars, market.name)
    computed = compute_labels(store, session, label)
    write_labels(store, session, label, computed)
    assert read_labels(store, session, label).forward_return.tobytes() == computed.forward_return.tobytes()

    store.write_bars(session, market.universe, dataclasses.replace(bars, close=bars.high.copy()), market.name)
    with pytest.raises(StaleLabels, match="materialise labels again"):
        read_labels(store, session, label)
    with pytest.raises(StaleLabels, match="compute them again"):
        write_labels(store, session, label, computed)
