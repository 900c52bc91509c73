import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store.market.types import MINUTE_NS
from models_registry.validation.splitters import DAY_NS, NotEnoughSessions, walk_forward


@settings(max_examples=60, deadline=None)
@given(
    sessions=st.integers(3, 12),
    folds=st.integers(1, 4),
    embargo_minutes=st.integers(0, 2000),
    longest=st.integers(1, 3000),
    seed=st.integers(0, 1000),
)
def test_no_training_label_ever_overlaps_a_test_label(sessions, folds, embargo_minutes, longest, seed):
    random = np.random.default_rng(seed)
    decision = np.sort(random.integers(0, sessions, 300) * DAY_NS + random.integers(240, 600, 300) * MINUTE_NS)
    label_end = decision + random.integers(1, longest + 1, 300) * MINUTE_NS
    embargo = embargo_minutes * MINUTE_NS
    try:
        found = walk_forward(decision, label_end, folds=folds, embargo_ns=embargo)
    except NotEnoughSessions:
        return
    for fold in found:
        starts, ends = decision[fold.test][:, None], label_end[fold.test][:, None]
        overlap = (decision[fold.train] <= ends) & (label_end[fold.train] + embargo >= starts)
        assert not overlap.any()
        assert fold.train_end_ns <= fold.test_start_ns
