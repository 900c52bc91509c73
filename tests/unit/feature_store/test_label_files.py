import numpy as np
import pytest

from feature_store.label_files import (
    StaleLabels,
    compute_labels,
    drop_labels,
    label_file,
    read_labels,
    refuse_stale,
    write_labels,
)
from feature_store.labels import ForwardReturn
from feature_store.offline import OfflineStore
from feature_store.synthetic import synthetic_market

LABEL = ForwardReturn(10)


@pytest.fixture
def store(tmp_path):
    market = synthetic_market(instruments=3, sessions=2, seed=1)
    kept = OfflineStore(tmp_path)
    for session, bars in zip(market.sessions, market.bars, strict=True):
        kept.write_bars(session, market.universe, bars, market.name)
    return kept


def test_what_is_read_is_what_was_computed(store):
    session = store.sessions()[0]
    rows = compute_labels(store, session, LABEL)
    digest = write_labels(store, session, LABEL, rows)
    again = read_labels(store, session, LABEL)
    for name in ("forward_return", "label_end_ns"):
        assert getattr(again, name).tobytes() == getattr(rows, name).tobytes()
    assert again.bars.digest() == rows.bars.digest()
    assert write_labels(store, session, LABEL, rows) == digest


def test_the_end_of_a_session_has_no_label_and_nothing_looks_into_the_next(store):
    for session in store.sessions():
        rows = compute_labels(store, session, LABEL)
        last = rows.bars.end_ns > session.close_ns - 10 * 60_000_000_000
        assert np.isnan(rows.forward_return[last]).all()
        assert np.isfinite(rows.forward_return[~last]).all()
        assert rows.label_end_ns.max() <= session.close_ns


def test_labels_that_were_never_written_are_asked_for(store):
    with pytest.raises(StaleLabels, match="materialise labels"):
        read_labels(store, store.sessions()[0], LABEL)


def test_labels_of_other_bars_are_refused(store):
    session = store.sessions()[0]
    write_labels(store, session, LABEL, compute_labels(store, session, LABEL))
    refuse_stale(store, session, LABEL)
    store.write_bars(session, store.universe(), store.read_bars([session])[:-1], "again")
    with pytest.raises(StaleLabels, match=r"2026-01-05.*materialise labels again"):
        refuse_stale(store, session, LABEL)


def test_dropping_a_sessions_labels_takes_every_label_of_it_and_no_other_session(store):
    first, second = store.sessions()
    for label in (LABEL, ForwardReturn(5)):
        for session in (first, second):
            write_labels(store, session, label, compute_labels(store, session, label))
    drop_labels(store, first)
    for label in (LABEL, ForwardReturn(5)):
        assert not label_file(store, label, first).exists
        assert label_file(store, label, second).exists
