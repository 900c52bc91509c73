import numpy as np
import pytest

from feature_store.labels.quality import labels_end_in_time
from feature_store.market.types import MINUTE_NS

HOUR_NS = 60 * MINUTE_NS
NOON_NS = 12 * HOUR_NS


@pytest.mark.parametrize(
    ("decision_ns", "end_ns", "replay_ns", "passed"),
    [
        pytest.param(NOON_NS, NOON_NS + 1, None, True, id="a label after its decision"),
        pytest.param(NOON_NS, NOON_NS, None, False, id="a label at its decision"),
        pytest.param(NOON_NS, NOON_NS + 24 * HOUR_NS, None, False, id="a label over night"),
        pytest.param(NOON_NS, NOON_NS + 1, NOON_NS + 1, True, id="a label that ends as the replay opens"),
        pytest.param(NOON_NS, NOON_NS + 2, NOON_NS + 1, False, id="a label inside the replayed session"),
    ],
)
def test_labels_end_where_they_must(decision_ns, end_ns, replay_ns, passed):
    assert labels_end_in_time(np.array([decision_ns]), np.array([end_ns]), replay_ns).passed is passed


def test_no_labels_at_all_do_not_pass():
    nothing = np.array([], dtype=np.int64)
    assert not labels_end_in_time(nothing, nothing, None).passed
