"""Bars from micro-batches of any size equal bars of a whole session, bit for bit."""

import datetime as dt

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store.bars import BarBuilder, aggregate_bars, bars_of_session
from feature_store.market import MINUTE_NS, SECOND_NS, Bars, Session, Ticks

N = 3
SESSION = Session.regular(dt.date(2026, 1, 5))
examples = settings(max_examples=60, deadline=None)


@st.composite
def ticks_of_a_session(draw: st.DrawFn) -> Ticks:
    """Ticks with quiet stretches, ties, exact boundaries, and times before the open and after the close."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = draw(st.integers(0, 120))
    step = rng.choice([0, 1, 7, 30, 60, 61, 900], n) * SECOND_NS
    first = SESSION.open_ns + draw(st.sampled_from([-90, 0, 1, 22_400, 22_499])) * SECOND_NS
    instrument = rng.integers(0, N, n).astype(np.int32)
    volume = np.zeros(n, dtype=np.int64)
    for i in range(N):
        mine = instrument == i
        volume[mine] = np.cumsum(rng.integers(-3, 50, mine.sum())).clip(0)
    return Ticks(instrument, first + np.cumsum(step), rng.integers(1, 50, n) * 0.05, volume)


def reference_bars(ticks: Ticks, bar_ns: int) -> list[tuple[object, ...]]:
    """The definition of a bar, written as plainly as possible."""
    inside = [k for k in range(len(ticks)) if SESSION.open_ns <= ticks.event_time_ns[k] < SESSION.close_ns]
    groups: dict[tuple[int, int], list[int]] = {}
    for k in inside:
        interval = int(ticks.event_time_ns[k] - SESSION.open_ns) // bar_ns
        groups.setdefault((interval, int(ticks.instrument[k])), []).append(k)
    reached = dict.fromkeys(range(N), 0)
    bars: list[tuple[object, ...]] = []
    for (interval, i), rows in sorted(groups.items()):
        prices = [float(ticks.last_price[k]) for k in rows]
        before, reached[i] = reached[i], max(reached[i], *(int(ticks.day_volume[k]) for k in rows))
        start = SESSION.open_ns + interval * bar_ns
        end = min(start + bar_ns, SESSION.close_ns)
        bars.append((i, start, end, prices[0], max(prices), min(prices), prices[-1], reached[i] - before, len(rows)))
    return bars


def as_tuples(bars: Bars) -> list[tuple[object, ...]]:
    return list(zip(*(getattr(bars, name).tolist() for name in Bars.__dataclass_fields__), strict=True))


@examples
@given(ticks=ticks_of_a_session(), minutes=st.sampled_from([1, 5, 60]))
def test_bars_are_what_their_definition_says(ticks: Ticks, minutes: int) -> None:
    assert as_tuples(bars_of_session(ticks, SESSION, N, minutes * MINUTE_NS)) == reference_bars(
        ticks, minutes * MINUTE_NS
    )


@examples
@given(ticks=ticks_of_a_session(), cuts=st.lists(st.integers(1, 40), min_size=1, max_size=6))
def test_micro_batches_of_any_size_give_the_same_bars(ticks: Ticks, cuts: list[int]) -> None:
    builder, begin, parts = BarBuilder(N, MINUTE_NS), 0, []
    while begin < len(ticks):
        size = cuts[len(parts) % len(cuts)]
        parts.append(builder.step(ticks[begin : begin + size], SESSION))
        begin += size
    parts.append(builder.advance(SESSION.close_ns + SECOND_NS))
    assert Bars.concatenate(parts).digest() == bars_of_session(ticks, SESSION, N, MINUTE_NS).digest()


@examples
@given(ticks=ticks_of_a_session(), frame_s=st.sampled_from([1, 10, 60, 77, 600]))
def test_watermarks_between_frames_change_no_bar(ticks: Ticks, frame_s: int) -> None:
    builder, parts = BarBuilder(N, MINUTE_NS), []
    frame = (ticks.event_time_ns - SESSION.open_ns) // (frame_s * SECOND_NS)
    for number in np.unique(frame):
        parts.append(builder.step(ticks[frame == number], SESSION))
        parts.append(builder.advance(int(SESSION.open_ns + (number + 1) * frame_s * SECOND_NS)))
    parts.append(builder.advance(SESSION.close_ns))
    assert builder.late_ticks == 0
    assert Bars.concatenate(parts).digest() == bars_of_session(ticks, SESSION, N, MINUTE_NS).digest()


@examples
@given(ticks=ticks_of_a_session(), minutes=st.sampled_from([2, 5, 60]))
def test_bars_of_bars_equal_bars_of_ticks(ticks: Ticks, minutes: int) -> None:
    short = bars_of_session(ticks, SESSION, N, MINUTE_NS)
    long = bars_of_session(ticks, SESSION, N, minutes * MINUTE_NS)
    assert aggregate_bars(short, SESSION, N, minutes * MINUTE_NS).digest() == long.digest()
