"""Bars are what their definition says, however the ticks were cut, held up, or the builder restored."""

import datetime as dt
import io
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store.bars.builder import BarBuilder, aggregate_bars, bars_of_session
from feature_store.market.clocks import BarClock
from feature_store.market.types import MINUTE_NS, SECOND_NS, Bars, Session, Ticks

N = 3
SESSION = Session.regular(dt.date(2026, 1, 5))
NEXT = Session.regular(dt.date(2026, 1, 6))
CLOCKS = [BarClock.parse(text) for text in ("1m", "7s", "5m", "60m", "session", "1t", "3t", "10t")]
LONGER = [BarClock.parse(text) for text in ("2m", "5m", "15m", "60m", "session")]
examples = settings(max_examples=60, deadline=None)
clocks = st.sampled_from(CLOCKS)
graces = st.sampled_from([0, 1, SECOND_NS, 70 * SECOND_NS])
cut_sizes = st.lists(st.integers(1, 40), min_size=1, max_size=6)


@st.composite
def ticks_of_a_session(draw: st.DrawFn, session: Session = SESSION) -> Ticks:
    """Ticks with quiet stretches, ties, repeats, volume resets, exact boundaries, and times outside the session."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = draw(st.integers(0, 120))
    step = rng.choice([0, 1, 7, 30, 60, 61, 900], n, p=[0.3, 0.2, 0.1, 0.1, 0.1, 0.1, 0.1]) * SECOND_NS
    first = session.open_ns + draw(st.sampled_from([-90, 0, 1, 22_400, 22_499])) * SECOND_NS
    instrument = rng.integers(0, N, n).astype(np.int32)
    volume = np.zeros(n, dtype=np.int64)
    for i in range(N):
        mine = instrument == i
        counted = np.cumsum(rng.integers(-3, 50, mine.sum())).clip(0)
        volume[mine] = counted % draw(st.sampled_from([40, 500, 10**9]))
    table = Ticks(instrument, first + np.cumsum(step), rng.integers(1, 4, n) * 0.05, volume)
    if not draw(st.booleans()):
        return table
    bid = np.where(rng.random(n) < 0.3, np.nan, rng.integers(1, 50, n) * 0.05)
    ask = np.where(rng.random(n) < 0.3, np.nan, rng.integers(50, 99, n) * 0.05)
    quantities = rng.integers(0, 5, (2, n))
    return replace(table, bid_price=bid, ask_price=ask, bid_quantity=quantities[0], ask_quantity=quantities[1])


def shuffled(draw: st.DrawFn, ticks: Ticks) -> Ticks:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    delay = rng.integers(0, draw(st.sampled_from([1, 2, 200])), len(ticks)) * SECOND_NS
    return ticks[np.argsort(ticks.event_time_ns + delay, kind="stable")]


@st.composite
def ticks_out_of_order(draw: st.DrawFn) -> Ticks:
    return shuffled(draw, draw(ticks_of_a_session()))


def volumes_of(ticks: Ticks, rows: list[int]) -> list[int]:
    """Shares traded since the open by tick of one instrument, by the stated rule."""
    traded, carried, highest, low = [], 0, 0, -1
    for value in (int(ticks.day_volume[k]) for k in rows):
        if value >= highest:
            highest, low = value, -1
        elif 2 * value > highest:
            low = -1
        elif low >= 0 and value > low:
            carried, highest, low = carried + highest, value, -1
        else:
            low = value
        traded.append(carried + highest)
    return traded


def quote_of(ticks: Ticks, rows: list[int]) -> tuple[float, float]:
    found = (np.nan, np.nan)
    for k in rows if ticks.has_depth else []:
        bid, ask = float(ticks.bid_price[k]), float(ticks.ask_price[k])  # type: ignore[index]
        bids, asks = int(ticks.bid_quantity[k]), int(ticks.ask_quantity[k])  # type: ignore[index]
        if bid > 0 and ask > 0 and bids and asks:
            found = ((ask - bid) / (0.5 * (ask + bid)) * 1e4, (bids - asks) / (bids + asks))
    return found


def reference_bars(ticks: Ticks, clock: BarClock, session: Session = SESSION) -> list[tuple[object, ...]]:
    """The definition of a bar, written as plainly as possible, for ticks in order of event time."""
    bars: list[tuple[object, ...]] = []
    bar_ns = clock.size if clock.kind == "time" else session.close_ns - session.open_ns
    for i in range(N):
        inside = (ticks.event_time_ns >= session.open_ns) & (ticks.event_time_ns < session.close_ns)
        mine = np.flatnonzero(inside & (ticks.instrument == i)).tolist()
        traded = dict(zip(mine, volumes_of(ticks, mine), strict=True))
        groups: dict[int, list[int]] = {}
        for place, k in enumerate(mine):
            since_open = int(ticks.event_time_ns[k]) - session.open_ns
            groups.setdefault(place // clock.size if clock.kind == "ticks" else since_open // bar_ns, []).append(k)
        before, end_before = 0, 0
        for group, rows in groups.items():
            prices = [float(ticks.last_price[k]) for k in rows]
            start = session.open_ns + group * bar_ns
            end = min(start + bar_ns, session.close_ns)
            if clock.kind == "ticks":
                start = max(int(ticks.event_time_ns[rows[0]]), end_before)
                full = max(int(ticks.event_time_ns[rows[-1]]), start) + 1
                end = full if len(rows) == clock.size else max(session.close_ns, start + 1)
            row = (i, start, end, prices[0], max(prices), min(prices), prices[-1])
            bars.append((*row, traded[rows[-1]] - before, len(rows), *quote_of(ticks, rows)))
            before, end_before = traded[rows[-1]], end
    return sorted(bars, key=lambda bar: (bar[2], bar[0]))


def assert_equal(bars: Bars, expected: list[tuple[object, ...]]) -> None:
    columns = [getattr(bars, name) for name in Bars.__dataclass_fields__]
    assert len(bars) == len(expected)
    for column, values in zip(columns, zip(*expected, strict=True), strict=False):
        np.testing.assert_array_equal(column, values)


def stepped(builder: BarBuilder, ticks: Ticks, cuts: list[int], session: Session = SESSION) -> Bars:
    begin, parts = 0, []
    while begin < len(ticks):
        size = cuts[len(parts) % len(cuts)]
        parts.append(builder.step(ticks[begin : begin + size], session))
        begin += size
    return Bars.concatenate([*parts, builder.advance(session.close_ns + SECOND_NS)])


def counters(builder: BarBuilder) -> tuple[int, ...]:
    return (
        builder.late_ticks,
        builder.ticks_outside_session,
        builder.reordered_ticks,
        builder.repeated_ticks,
        builder.volume_decreases,
        builder.volume_resets,
    )


@examples
@given(ticks=ticks_of_a_session(), clock=clocks)
def test_bars_are_what_their_definition_says(ticks: Ticks, clock: BarClock) -> None:
    assert_equal(bars_of_session(ticks, SESSION, N, clock), reference_bars(ticks, clock))


@examples
@given(ticks=ticks_out_of_order(), clock=clocks, grace_ns=graces)
def test_with_a_grace_bars_are_those_of_the_ticks_that_came_in_time_put_in_order(
    ticks: Ticks, clock: BarClock, grace_ns: int
) -> None:
    kept, newest, late = [], SESSION.open_ns, 0
    for k, time_ns in enumerate(ticks.event_time_ns.tolist()):
        inside = SESSION.open_ns <= time_ns < SESSION.close_ns
        late += inside and time_ns < newest - grace_ns
        if not inside or time_ns >= newest - grace_ns:
            kept.append(k)
        newest = max(newest, time_ns)
    in_time = ticks[np.array(kept, dtype=np.intp)]
    in_order = in_time[np.argsort(in_time.event_time_ns, kind="stable")]
    builder = BarBuilder(N, clock, grace_ns=grace_ns)
    assert_equal(stepped(builder, ticks, [7]), reference_bars(in_order, clock))
    assert builder.late_ticks == late


@examples
@given(ticks=ticks_out_of_order(), cuts=cut_sizes, clock=clocks, grace_ns=graces)
def test_micro_batches_of_any_size_give_the_same_bars_and_counts(
    ticks: Ticks, cuts: list[int], clock: BarClock, grace_ns: int
) -> None:
    whole, cut = (BarBuilder(N, clock, grace_ns=grace_ns) for _ in range(2))
    expected = stepped(whole, ticks, [max(len(ticks), 1)])
    assert stepped(cut, ticks, cuts).digest() == expected.digest()
    assert counters(cut) == counters(whole)
    assert (np.lexsort((expected.instrument, expected.end_ns)) == np.arange(len(expected))).all()


@examples
@given(
    ticks=ticks_out_of_order(),
    following=ticks_of_a_session(NEXT),
    cuts=cut_sizes,
    clock=clocks,
    grace_ns=graces,
    data=st.data(),
)
def test_a_snapshot_restored_anywhere_changes_no_bar(
    ticks: Ticks, following: Ticks, cuts: list[int], clock: BarClock, grace_ns: int, data: st.DataObject
) -> None:
    expected = BarBuilder(N, clock, grace_ns=grace_ns)
    whole = [stepped(expected, ticks, cuts), stepped(expected, following, cuts, NEXT)]
    at = data.draw(st.integers(0, len(ticks)))
    builder = BarBuilder(N, clock, grace_ns=grace_ns)
    parts = [builder.step(ticks[:at], SESSION)]
    stored = io.BytesIO()
    np.savez(stored, **builder.snapshot())
    stored.seek(0)
    restored = BarBuilder(N, clock, grace_ns=grace_ns)
    restored.step(following, NEXT)  # whatever a builder held is dropped
    with np.load(stored, allow_pickle=False) as arrays:
        restored.restore(dict(arrays))
    parts += [stepped(restored, ticks[at:], cuts), stepped(restored, following, cuts, NEXT)]
    assert Bars.concatenate(parts).digest() == Bars.concatenate(whole).digest()
    assert counters(restored) == counters(expected)


@examples
@given(ticks=ticks_of_a_session(), frame_s=st.sampled_from([1, 10, 60, 77, 600]), clock=clocks)
def test_watermarks_between_frames_change_no_bar(ticks: Ticks, frame_s: int, clock: BarClock) -> None:
    builder, parts = BarBuilder(N, clock), []
    frame = (ticks.event_time_ns - SESSION.open_ns) // (frame_s * SECOND_NS)
    for number in np.unique(frame):
        parts.append(builder.step(ticks[frame == number], SESSION))
        parts.append(builder.advance(int(SESSION.open_ns + (number + 1) * frame_s * SECOND_NS)))
    parts.append(builder.advance(SESSION.close_ns))
    assert builder.late_ticks == 0
    assert Bars.concatenate(parts).digest() == bars_of_session(ticks, SESSION, N, clock).digest()


@examples
@given(ticks=ticks_of_a_session(), clock=clocks)
def test_nothing_in_a_bar_was_known_before_its_end_and_bars_do_not_overlap(ticks: Ticks, clock: BarClock) -> None:
    builder = BarBuilder(N, clock)
    for k in range(len(ticks)):
        given_out = builder.step(ticks[k : k + 1], SESSION)
        assert (given_out.end_ns <= ticks.event_time_ns[k]).all()
    bars = bars_of_session(ticks, SESSION, N, clock)
    assert (bars.start_ns < bars.end_ns).all()
    for i in range(N):
        mine = bars[bars.instrument == i]
        assert (mine.start_ns[1:] >= mine.end_ns[:-1]).all()


@examples
@given(ticks=ticks_of_a_session(), short=st.sampled_from(["1m", "5m"]), clock=st.sampled_from(LONGER))
def test_bars_of_bars_equal_bars_of_ticks(ticks: Ticks, short: str, clock: BarClock) -> None:
    if clock.kind == "time" and clock.size % BarClock.parse(short).size:
        return
    shorter = bars_of_session(ticks, SESSION, N, BarClock.parse(short))
    longer = bars_of_session(ticks, SESSION, N, clock)
    assert aggregate_bars(shorter, SESSION, N, clock).digest() == longer.digest()


@pytest.mark.parametrize("clock", ["15m", "60m", "session"])
def test_bars_of_bars_of_bars_equal_bars_of_ticks(clock: str) -> None:
    rng = np.random.default_rng(3)
    n = 20_000
    time_ns = SESSION.open_ns + np.sort(rng.integers(0, 375 * MINUTE_NS, n))
    ticks = Ticks(
        rng.integers(0, N, n).astype(np.int32), time_ns, rng.random(n) + 1, np.arange(n, dtype=np.int64)
    ).with_depth()
    bars = bars_of_session(ticks, SESSION, N, BarClock.minutes(1))
    five = aggregate_bars(bars, SESSION, N, BarClock.minutes(5))
    expected = bars_of_session(ticks, SESSION, N, BarClock.parse(clock))
    assert aggregate_bars(five, SESSION, N, BarClock.parse(clock)).digest() == expected.digest()
