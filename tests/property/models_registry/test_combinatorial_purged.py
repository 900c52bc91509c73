import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store.market.types import DAY_NS, MINUTE_NS
from models_registry.validation.splitters import CombinatorialPurged, NotEnoughSessions


@settings(max_examples=60, deadline=None)
@given(
    sessions=st.integers(6, 24),
    groups=st.integers(2, 6),
    test_groups=st.integers(1, 3),
    embargo_sessions=st.integers(0, 2),
    longest=st.integers(1, 4000),
    seed=st.integers(0, 1000),
)
def test_no_training_interval_meets_a_test_interval_plus_embargo(
    sessions, groups, test_groups, embargo_sessions, longest, seed
):
    random = np.random.default_rng(seed)
    day = random.integers(0, sessions, 300)
    decision = day * DAY_NS + random.integers(240, 600, 300) * MINUTE_NS
    label_end = decision + random.integers(1, longest + 1, 300) * MINUTE_NS
    splitter = CombinatorialPurged(groups, min(test_groups, groups - 1), embargo_sessions)
    try:
        folds = splitter.split(decision, label_end, day)
    except NotEnoughSessions:
        return
    opens = np.array([decision[day == one].min() for one in np.unique(day)])
    begins = np.searchsorted(np.unique(day), day)
    ends = np.searchsorted(opens, label_end, side="right") - 1  # the session that a label reaches into
    for fold in folds:
        train_begins, train_ends = begins[fold.train][:, None], ends[fold.train][:, None]
        before = train_ends < begins[fold.test][None, :] - embargo_sessions
        after = train_begins > ends[fold.test][None, :] + embargo_sessions
        assert (before | after).all()
        assert not np.intersect1d(fold.train, fold.test).size
        assert fold.purged == len(day) - len(fold.test) - len(fold.train)
