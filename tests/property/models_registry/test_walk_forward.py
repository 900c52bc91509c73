import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store.market.types import DAY_NS, MINUTE_NS
from models_registry.validation.splitters import NotEnoughSessions, WalkForward


@settings(max_examples=60, deadline=None)
@given(
    sessions=st.integers(3, 16),
    folds=st.integers(1, 4),
    embargo_sessions=st.integers(0, 2),
    longest=st.integers(1, 3000),
    seed=st.integers(0, 1000),
)
def test_no_training_label_ever_overlaps_a_test_label(sessions, folds, embargo_sessions, longest, seed):
    random = np.random.default_rng(seed)
    day = random.integers(0, sessions, 300)
    decision = np.sort(day * DAY_NS + random.integers(240, 600, 300) * MINUTE_NS)
    day = decision // DAY_NS
    label_end = decision + random.integers(1, longest + 1, 300) * MINUTE_NS
    try:
        found = WalkForward(folds, embargo_sessions).split(decision, label_end, day)
    except NotEnoughSessions:
        return
    for fold in found:
        starts, ends = decision[fold.test][:, None], label_end[fold.test][:, None]
        assert not ((decision[fold.train] <= ends) & (label_end[fold.train] >= starts)).any()
        assert fold.train_end_ns <= fold.test_start_ns
        between = np.unique(day[(day > day[fold.train].max()) & (day < fold.test_days[0])])
        assert len(between) >= embargo_sessions
