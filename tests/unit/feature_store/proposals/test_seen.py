import math
from dataclasses import replace

import numpy as np
import pytest

from feature_store.features.schema import feature_schema
from feature_store.proposals.seen import NotMirrored, seen_from

SCHEMA = feature_schema(["momentum", "volatility", "rsi", "donchian_position@5m"], 1)
ROW = np.array([0.01, 0.002, 70.0, 0.9])


def test_a_short_sees_the_market_in_the_mirror_and_a_long_as_it_is() -> None:
    seen = seen_from(np.array([1, -1, 0], np.int8), np.array([ROW] * 3), SCHEMA)
    np.testing.assert_array_equal(seen[0], ROW)
    np.testing.assert_allclose(seen[1], [-0.01, 0.002, 30.0, 0.1])
    np.testing.assert_array_equal(seen[2], ROW)


def test_the_rows_that_were_given_are_not_changed_and_none_are_none() -> None:
    rows = np.array([ROW, ROW])
    rows.flags.writeable = False
    seen = seen_from(np.array([-1, 1], np.int8), rows, SCHEMA)
    np.testing.assert_array_equal(rows[0], ROW)
    assert seen.flags.writeable
    assert seen_from(np.zeros(0, np.int8), rows[:0], SCHEMA).shape == (0, 4)


def test_to_be_mirrored_twice_is_to_be_as_before_and_what_is_missing_stays_missing() -> None:
    rows = np.array([[0.25, 0.5, 25.0, 0.75], [math.nan, 0.5, math.nan, 0.75]])
    short = np.full(2, -1, np.int8)
    np.testing.assert_array_equal(seen_from(short, seen_from(short, rows, SCHEMA), SCHEMA), rows)


def test_a_feature_that_declares_no_mirror_image_is_named_once_a_short_is_judged_by_it() -> None:
    features = tuple(replace(spec, mirror="none") if spec.name == "momentum" else spec for spec in SCHEMA.features)
    schema = replace(SCHEMA, features=features)
    rows = np.array([ROW, ROW])
    np.testing.assert_array_equal(seen_from(np.ones(2, np.int8), rows, schema), rows)
    with pytest.raises(NotMirrored, match=r"momentum: nothing says what becomes of it .* leave it out of the strategy"):
        seen_from(np.array([1, -1], np.int8), rows, schema)
