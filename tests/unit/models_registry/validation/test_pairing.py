import numpy as np

from models_registry.validation.pairing import paired_rows


def test_equal_time_and_instrument_are_the_same_decision_whatever_the_order():
    rows, others = paired_rows(
        np.array([30, 10, 10, 20]), np.array([0, 1, 0, 5]), np.array([10, 20, 30, 40]), np.array([1, 5, 1, 0])
    )
    assert rows.tolist() == [1, 3]
    assert others.tolist() == [0, 1]


def test_times_of_epoch_nanoseconds_are_told_apart():
    late = np.array([2**62, 2**62 + 1])
    rows, others = paired_rows(late, np.array([3, 3]), late[::-1], np.array([3, 3]))
    assert rows.tolist() == [0, 1]
    assert others.tolist() == [1, 0]


def test_sets_without_a_common_decision_or_without_any_give_no_row():
    empty = np.array([], dtype=np.int64)
    for times, instruments in ((np.array([5]), np.array([1])), (empty, empty)):
        rows, others = paired_rows(np.array([5]), np.array([0]), times, instruments)
        assert len(rows) == len(others) == 0
