"""Against a reference that asks every side row of every decision."""

import datetime as dt

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store.offline.point_in_time import point_in_time_join

T = 1_767_600_000_000_000_000
KEYS = st.sampled_from("ABC")
TIMES = st.integers(0, 12).map(lambda k: T + 1000 * k)
DECISIONS = st.lists(st.tuples(KEYS, TIMES), max_size=30)
KNOWN = st.lists(st.tuples(KEYS, TIMES), max_size=30)


def reference(
    decisions: list[tuple[str, int]], known: list[tuple[str, int]], tolerance_ns: int | None
) -> list[int | None]:
    found: list[int | None] = []
    for key, at in decisions:
        best: int | None = None
        for place, (of, since) in enumerate(known):
            seen = of == key and since < at and (tolerance_ns is None or at - since <= tolerance_ns)
            if seen and (best is None or since >= known[best][1]):
                best = place
        found.append(best)
    return found


@settings(max_examples=200, deadline=None)
@given(DECISIONS, KNOWN, st.one_of(st.none(), st.integers(1, 8)), st.booleans())
def test_the_join_is_what_asking_every_side_row_gives(
    decisions: list[tuple[str, int]], known: list[tuple[str, int]], tolerance: int | None, globally: bool
) -> None:
    # in order of time over all keys, or only within each: both are accepted
    known = sorted(known, key=lambda row: row[1] if globally else (row[0], row[1]))
    schema = {"symbol": pl.String, "t": pl.Int64}
    left = pl.DataFrame(decisions, schema=schema, orient="row")
    right = pl.DataFrame(known, schema={"symbol": pl.String, "available_at": pl.Int64}, orient="row").with_row_index(
        "n"
    )
    length = None if tolerance is None else dt.timedelta(microseconds=tolerance)
    expected = reference(decisions, known, None if tolerance is None else tolerance * 1000)
    joined = point_in_time_join(left, right, by="symbol", at="t", tolerance=length)
    assert joined["n"].to_list() == expected
    assert joined.drop("n").equals(left)
    in_pandas = point_in_time_join(left.to_pandas(), right.to_pandas(), by="symbol", at="t", tolerance=length)
    assert [None if n != n else int(n) for n in in_pandas["n"]] == expected


@settings(max_examples=100, deadline=None)
@given(DECISIONS, KNOWN, TIMES)
def test_what_becomes_known_later_changes_no_earlier_decision(
    decisions: list[tuple[str, int]], known: list[tuple[str, int]], cut: int
) -> None:
    known = sorted(known, key=lambda row: row[1])
    left = pl.DataFrame(decisions, schema={"symbol": pl.String, "t": pl.Int64}, orient="row")
    right = pl.DataFrame(known, schema={"symbol": pl.String, "available_at": pl.Int64}, orient="row").with_row_index(
        "n"
    )
    whole = point_in_time_join(left, right, by="symbol", at="t")
    prefix = point_in_time_join(left, right.filter(pl.col("available_at") < cut), by="symbol", at="t")
    earlier = left["t"] <= cut
    assert whole.filter(earlier).equals(prefix.filter(earlier))
