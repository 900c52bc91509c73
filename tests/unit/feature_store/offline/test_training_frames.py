import dataclasses
import datetime as dt
from pathlib import Path

import numpy as np
import pytest

from feature_store.bars.builder import aggregate_bars
from feature_store.features.schema import MOMENTUM_FEATURES, feature_schema
from feature_store.labels.forward_return import ForwardReturn
from feature_store.market.clocks import BarClock
from feature_store.market.types import Bars, MarketDataError, Universe, UnknownInstrument, UnreadableFile
from feature_store.offline import training_frames
from feature_store.offline.feature_rows import FeatureRows, compute_features, computed, write_features
from feature_store.offline.session_files import ReplacedMeanwhile
from feature_store.offline.store import OfflineStore
from feature_store.offline.training_frames import TrainingFrame, training_frame
from feature_store.sources.synthetic import SyntheticMarket, synthetic_market

SCHEMA = feature_schema(MOMENTUM_FEATURES, 1)
LABEL = ForwardReturn(10)
COLUMNS = ("X", "forward_return", "decision_ns", "entry_ns", "label_end_ns", "instrument")


@pytest.fixture(scope="module")
def market() -> SyntheticMarket:
    return synthetic_market(instruments=3, sessions=6, seed=1, index=False, quotes=False)


def whole(store: OfflineStore, schema=SCHEMA, label=LABEL, **more) -> TrainingFrame:
    sessions = store.sessions()
    return training_frame(store, None, sessions[0].date, sessions[-1].date, features=schema, label=label, **more)


def same(left: TrainingFrame, right: TrainingFrame) -> bool:
    return left.digest == right.digest and all(
        getattr(left, name).tobytes() == getattr(right, name).tobytes() for name in COLUMNS
    )


def write_all_features(store: OfflineStore, market: SyntheticMarket) -> None:
    for session, rows in zip(market.sessions, computed(store, market.sessions, SCHEMA), strict=True):
        write_features(store, session, SCHEMA, rows)


def test_a_training_frame_is_warm_labelled_and_tradable(store: OfflineStore, market: SyntheticMarket) -> None:
    frame = whole(store)
    parts = list(computed(store, market.sessions, SCHEMA))
    bars = Bars.concatenate(market.bars)
    rows, warm = np.concatenate([part.X for part in parts]), np.concatenate([part.warm for part in parts])
    returns, entry_ns, label_end_ns = LABEL.of(bars, 3, market.sessions)
    kept = warm & np.isfinite(returns)
    assert np.array_equal(frame.X, rows[kept])
    assert np.array_equal(frame.forward_return, returns[kept])
    assert np.array_equal(frame.label_end_ns, label_end_ns[kept])
    assert np.array_equal(frame.entry_ns, entry_ns[kept])
    assert frame.label == LABEL
    assert frame.instruments == ("SYN001", "SYN002", "SYN003")
    assert frame.sessions == {str(s.date): store.manifest("bars", s)["digest"] for s in market.sessions}
    assert set(frame.manifests) == set(frame.sessions)
    assert (frame.membership_digest, frame.actions_digest) == ("", market.actions.digest)
    assert np.array_equal(frame.decision_ns, bars.end_ns[kept])
    assert (frame.label_end_ns > frame.decision_ns).all()
    assert (frame.start_ns, frame.end_ns) == (market.sessions[0].open_ns, market.sessions[-1].close_ns)
    assert frame.market.startswith("SYNTHETIC")
    assert frame.market_details == store.market_details()
    assert frame.bar_source == "ticks"
    assert len(frame) == kept.sum()
    assert frame.left_out == {
        "not_tradable": 0,
        "not_member": 0,
        "not_warm": int((~warm).sum()),
        "no_label": int((warm & ~np.isfinite(returns)).sum()),
        "not_finite": 0,
    }
    assert len(frame) + sum(frame.left_out.values()) == len(bars)


def test_stored_and_computed_features_give_the_same_frame(store: OfflineStore, market: SyntheticMarket) -> None:
    all_computed = whole(store)
    for session in market.sessions[::2]:  # some are stored, some are not
        write_features(store, session, SCHEMA, compute_features(store, session, SCHEMA))
    assert same(whole(store), all_computed)
    write_all_features(store, market)
    assert same(whole(store), all_computed)


def test_stored_features_are_used_and_stale_ones_are_not(
    store: OfflineStore, market: SyntheticMarket, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_all_features(store, market)
    asked: list[dt.date] = []

    def seen(store, sessions, *rest):
        asked.extend(sessions)
        return computed(store, sessions, *rest)

    monkeypatch.setattr(training_frames, "computed", seen)
    whole(store)
    assert asked == []
    last = market.sessions[-1]
    store.write_bars(
        last, market.universe, dataclasses.replace(market.bars[-1], close=market.bars[-1].high.copy()), market.name
    )
    whole(store)
    assert asked == [last.date]


def test_a_damaged_file_of_features_is_not_passed_over(store: OfflineStore, market: SyntheticMarket) -> None:
    write_all_features(store, market)
    path = next((store.root / "features").glob("*/*/data-*.parquet"))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UnreadableFile, match="materialise"):
        whole(store)


def test_a_frame_of_some_days_and_instruments_is_that_part_of_the_whole(
    store: OfflineStore, market: SyntheticMarket
) -> None:
    all_rows = whole(store)
    start, end = market.sessions[4].date, market.sessions[4].date
    frame = training_frame(store, ["SYN003", "SYN001"], start, end, features=SCHEMA, label=LABEL)
    wanted = [market.universe.index_of_symbol[s] for s in ("SYN001", "SYN003")]
    session = market.sessions[4]
    mine = (
        np.isin(all_rows.instrument, wanted)
        & (all_rows.decision_ns > session.open_ns)
        & (all_rows.decision_ns <= session.close_ns)
    )
    for name in COLUMNS:
        assert np.array_equal(getattr(frame, name), getattr(all_rows, name)[mine]), name
    again = training_frame(store, ("SYN001", "SYN003"), start, end, features=SCHEMA, label=LABEL)
    assert again.digest == frame.digest


def test_a_weekend_at_either_end_of_the_period_changes_nothing(store: OfflineStore, market: SyntheticMarket) -> None:
    first, last = market.sessions[0].date, market.sessions[-1].date
    wider = training_frame(
        store, None, first - dt.timedelta(days=9), last + dt.timedelta(days=2), features=SCHEMA, label=LABEL
    )
    assert same(wider, whole(store))


def test_an_index_is_not_trained_on_and_is_counted(market: SyntheticMarket, tmp_path: Path) -> None:
    first = market.universe.instruments[0].model_copy(update={"tradable": False})
    universe = Universe(instruments=(first, *market.universe.instruments[1:]))
    store = OfflineStore(tmp_path)
    for session, bars in zip(market.sessions, market.bars, strict=True):
        store.write_bars(session, universe, bars, market.name)
    frame = whole(store)
    assert set(frame.instrument) == {1, 2}
    assert frame.left_out["not_tradable"] == 6 * 375
    assert frame.bar_source == "unknown"


def test_an_instrument_is_not_trained_on_while_it_is_no_member(store: OfflineStore, market: SyntheticMarket) -> None:
    joins_ns = market.sessions[4].open_ns

    class FromThirdSession:
        digest = "m" * 64

        def mask(self, instrument, time_ns, universe):
            return (instrument != universe.index_of_symbol["SYN002"]) | (time_ns >= joins_ns)

    frame = whole(store, membership=FromThirdSession())
    mine = frame.instrument == market.universe.index_of_symbol["SYN002"]
    assert mine.any()
    assert (frame.decision_ns[mine] >= joins_ns).all()
    assert frame.left_out["not_member"] == 4 * 375
    assert frame.membership_digest == "m" * 64
    assert frame.digest != whole(store).digest


def test_rows_that_are_not_finite_are_left_out_and_counted(
    store: OfflineStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    complete = whole(store)

    def holed(*arguments):
        for rows in computed(*arguments):
            if rows.warm.any():
                rows.X[np.flatnonzero(rows.warm)[5], 0] = np.nan
            yield rows

    monkeypatch.setattr(training_frames, "computed", holed)
    frame = whole(store)
    assert np.isfinite(frame.X).all()
    assert frame.left_out["not_finite"] == len(complete) - len(frame) == 4

    def never(*arguments):
        for rows in computed(*arguments):
            yield FeatureRows(rows.bars, np.where(np.arange(rows.X.shape[1]) == 2, np.nan, rows.X), rows.warm)

    monkeypatch.setattr(training_frames, "computed", never)
    with pytest.raises(MarketDataError, match=f"{SCHEMA.names[2]} has no value in any"):
        whole(store)


def test_a_frame_of_features_that_the_bars_cannot_have_names_them(store: OfflineStore) -> None:
    with pytest.raises(MarketDataError, match=r"spread has no value.*leave it out"):
        whole(store, schema=feature_schema(["momentum", "spread"], 1))


def test_the_frame_digest_follows_data_schema_label_and_sessions(store: OfflineStore, market: SyntheticMarket) -> None:
    first, fifth = market.sessions[0].date, market.sessions[4].date
    digests = [
        whole(store).digest,
        whole(store, label=ForwardReturn(5)).digest,
        training_frame(store, None, first, fifth, features=SCHEMA, label=LABEL).digest,
        training_frame(store, ["SYN001"], first, fifth, features=SCHEMA, label=LABEL).digest,
        whole(store, schema=feature_schema(["rsi"], 1)).digest,
    ]
    assert whole(store).digest == digests[0]
    bars = market.bars[0]
    volume = bars.volume.copy()
    volume[0] += 1  # not in any warm row, and still data it was made from
    store.write_bars(market.sessions[0], market.universe, dataclasses.replace(bars, volume=volume), market.name)
    digests.append(whole(store).digest)
    assert len(set(digests)) == 6


def test_bars_on_another_clock_are_refused(store: OfflineStore, market: SyntheticMarket) -> None:
    with pytest.raises(MarketDataError, match="time:300s"):
        whole(store, schema=feature_schema(None, 5), label=ForwardReturn(3, 5))
    five, n = BarClock.parse("5m"), len(market.universe)
    for session, bars in zip(market.sessions, market.bars, strict=True):
        store.write_bars(session, market.universe, aggregate_bars(bars, session, n, five), market.name)
    assert len(whole(store, schema=feature_schema(["momentum"], 5), label=ForwardReturn(3, 5))) > 0
    with pytest.raises(MarketDataError, match=r"bars of 5m, the label forward_return_v2_3x1m.*one clock"):
        whole(store, schema=feature_schema(["momentum"], 5), label=ForwardReturn(3))
    with pytest.raises(MarketDataError, match="take a time clock"):
        whole(store, schema=feature_schema(["momentum"], "100t"))


def test_no_sessions_no_rows_or_a_wrong_symbol_are_refused(store: OfflineStore, market: SyntheticMarket) -> None:
    first, last = market.sessions[0].date, market.sessions[-1].date
    with pytest.raises(MarketDataError, match="is after end"):
        training_frame(store, None, last, first, features=SCHEMA, label=LABEL)
    with pytest.raises(MarketDataError, match="holds bars of 6 sessions"):
        training_frame(store, None, dt.date(2020, 1, 1), dt.date(2020, 2, 1), features=SCHEMA, label=LABEL)
    with pytest.raises(MarketDataError, match="shorten the horizon"):
        whole(store, label=ForwardReturn(375))
    with pytest.raises(UnknownInstrument, match="SYN001"):
        training_frame(store, ["SYN01"], first, last, features=SCHEMA, label=LABEL)
    with pytest.raises(MarketDataError, match="no bars"):
        training_frame(store, [], first, last, features=SCHEMA, label=LABEL)


@pytest.mark.parametrize("before_they_are_read", [True, False])
def test_a_frame_is_of_the_bars_that_its_digest_names_though_others_are_written_meanwhile(
    store: OfflineStore, market: SyntheticMarket, monkeypatch: pytest.MonkeyPatch, *, before_they_are_read: bool
) -> None:
    undisturbed = whole(store)

    def write() -> None:
        changed = dataclasses.replace(market.bars[0], close=market.bars[0].high.copy())
        OfflineStore(store.root).write_bars(market.sessions[0], market.universe, changed, market.name)
        more = Universe.from_symbols(["ABC", *(i.symbol for i in market.universe.instruments)])
        OfflineStore(store.root).write_universe(more, market.name)

    def disturbed(*arguments):
        if before_they_are_read:
            write()
        yield from computed(*arguments)
        write()

    monkeypatch.setattr(training_frames, "computed", disturbed)
    if before_they_are_read:
        with pytest.raises(ReplacedMeanwhile, match="read again"):
            whole(store)
    else:
        assert whole(store).digest == undisturbed.digest
        assert whole(store).digest != undisturbed.digest


def test_a_return_of_zero_is_a_label_like_any_other(store: OfflineStore, market: SyntheticMarket) -> None:
    flat = dataclasses.replace(market.bars[-1], open=np.ones(len(market.bars[-1])))
    store.write_bars(market.sessions[-1], market.universe, flat, market.name, bar_source="ticks")
    frame = whole(store)
    last = frame.decision_ns > market.sessions[-1].open_ns
    assert last.sum() == 3 * (365 - 10)
    assert not frame.forward_return[last].any()


def test_bars_of_several_sources_say_so(store: OfflineStore, market: SyntheticMarket) -> None:
    store.write_bars(market.sessions[0], market.universe, market.bars[0], market.name, bar_source="vendor")
    assert whole(store).bar_source == "ticks + vendor"
