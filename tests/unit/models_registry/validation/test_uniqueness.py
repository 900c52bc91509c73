from __future__ import annotations

import numpy as np
import pytest

from models_registry.validation.uniqueness import average_uniqueness, row_weights

MINUTE = 60_000_000_000


def counted(instrument: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """López de Prado's snippets 4.1 and 4.2 on a grid of whole numbers."""
    found = []
    for i, a, b in zip(instrument, start, end, strict=True):
        ticks = range(a, b)
        open_labels = [np.sum((instrument == i) & (start <= t) & (t < end)) for t in ticks]
        found.append(np.mean(1.0 / np.array(open_labels)))
    return np.array(found)


def test_uniqueness_is_the_one_that_counting_bars_gives() -> None:
    rng = np.random.default_rng(7)
    instrument = rng.integers(0, 3, 60)
    start = rng.integers(0, 80, 60)
    end = start + rng.integers(1, 15, 60)
    np.testing.assert_allclose(average_uniqueness(instrument, start, end), counted(instrument, start, end))


def test_labels_of_equal_times_share_it() -> None:
    same = np.zeros(4, dtype=np.int64)
    np.testing.assert_allclose(average_uniqueness(same, same, same + 10), 0.25)


def test_rows_may_come_in_any_order() -> None:
    rng = np.random.default_rng(8)
    instrument, start = rng.integers(0, 3, 50), rng.integers(0, 40, 50)
    end, order = start + 5, rng.permutation(50)
    np.testing.assert_allclose(
        average_uniqueness(instrument[order], start[order], end[order]),
        average_uniqueness(instrument, start, end)[order],
    )


def test_epoch_nanoseconds_lose_nothing() -> None:
    first = 1_767_584_700_000_000_000 + np.arange(375, dtype=np.int64) * MINUTE
    decision = np.concatenate([first, first + 86_400_000_000_000])
    instrument = np.zeros(len(decision), dtype=np.int32)
    found = average_uniqueness(instrument, decision, decision + 10 * MINUTE)
    np.testing.assert_allclose(found[10:360], 0.1, rtol=1e-9)
    np.testing.assert_allclose(found[:375], found[375:], rtol=1e-9)
    assert found[0] == pytest.approx(np.mean(1.0 / np.arange(1, 11)))


def test_a_label_that_ends_with_its_decision_is_refused() -> None:
    with pytest.raises(ValueError, match="no later than its decision"):
        average_uniqueness(np.zeros(2, int), np.array([0, 5]), np.array([1, 5]))


def test_every_session_weighs_the_same_and_rows_weigh_one_on_average() -> None:
    rng = np.random.default_rng(9)
    day = np.repeat([0, 1, 5], [10, 200, 30])
    decision = day * 1000 + rng.integers(0, 300, len(day))
    weight = row_weights(rng.integers(0, 4, len(day)), decision, decision + 20, day)
    assert weight.mean() == pytest.approx(1.0)
    assert (weight > 0).all()
    np.testing.assert_allclose([weight[day == d].sum() for d in (0, 1, 5)], len(day) / 3)


def test_no_rows_have_no_weights() -> None:
    none = np.array([], dtype=np.int64)
    assert len(row_weights(none, none, none, none)) == 0
