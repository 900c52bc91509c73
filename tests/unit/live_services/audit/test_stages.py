"""Stages are compared by what was said of whom and when, bit for bit."""

from __future__ import annotations

import numpy as np

from live_services.audit.stages import Stage, compared


def stage(*rows: tuple[int, int, float]) -> Stage:
    instrument, known_ns, values = (np.array(column) for column in zip(*rows, strict=True))
    return Stage.of("features", instrument.astype(np.int32), known_ns.astype(np.int64), ("x",), values)


def test_rows_come_in_order_of_time_and_instrument_whatever_order_they_were_given_in() -> None:
    made = stage((1, 20, 3.0), (0, 20, 2.0), (0, 10, 1.0))
    assert made.values[:, 0].tolist() == [1.0, 2.0, 3.0]
    assert made.value(1, 20, 0) == 3.0
    assert np.isnan(made.value(1, 10, 0))


def test_what_was_known_later_is_not_compared() -> None:
    whole, part = stage((0, 10, 1.0), (0, 20, 2.0)), stage((0, 10, 1.0), (0, 20, 9.0))
    assert compared(whole, part, 10) == (1, [])
    n, (different,) = compared(whole, part, 20)
    assert (n, different.column, different.known_ns.tolist()) == (2, 0, [20])
    assert (different.with_future.tolist(), different.without_future.tolist()) == ([2.0], [9.0])


def test_two_nan_are_equal_and_a_sign_of_zero_is_not() -> None:
    nan = float("nan")
    assert compared(stage((0, 10, nan)), stage((0, 10, nan)), 10) == (0, [])
    assert len(compared(stage((0, 10, 0.0)), stage((0, 10, -0.0)), 10)[1]) == 1


def test_a_row_that_is_there_on_one_side_only_differs_unless_the_part_may_have_fewer() -> None:
    whole, part = stage((0, 10, 1.0), (1, 10, 2.0)), stage((0, 10, 1.0))
    _, (alone,) = compared(whole, part, 10)
    assert (alone.column, alone.instrument.tolist(), alone.with_future.tolist()) == (-1, [1], [1.0])
    assert compared(whole, part, 10, fewer=True)[1] == []
    _, (more,) = compared(part, whole, 10, fewer=True)
    assert (more.column, more.with_future.tolist()) == (-1, [0.0])


def test_two_events_of_one_instrument_at_one_time_are_paired_in_their_order() -> None:
    whole, part = stage((0, 10, 1.0), (0, 10, 2.0), (0, 20, 3.0)), stage((0, 10, 1.0), (0, 10, 2.0))
    assert compared(whole, part, 10) == (2, [])
