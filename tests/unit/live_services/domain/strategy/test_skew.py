"""Skew: rows that went out are computed again from the recorded market; one flipped bit is found and named."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from feature_store.market.clocks import BarClock
from feature_store.market.types import Instrument, Session, Ticks, Universe
from feature_store.offline.store import OfflineStore
from feature_store.sources.synthetic import synthetic_market
from live_services.adapters.history import StoredHistory
from live_services.adapters.kafka import StoredRecord
from live_services.adapters.kept_histories import HistoryFiles
from live_services.adapters.metrics import Metrics
from live_services.adapters.snapshot_bytes import pack, unpack
from live_services.cli.skew_check import compared, session_on_log
from live_services.domain.events import (
    FeatureSkewMeasured,
    MarketGap,
    SignalGenerated,
    StrategyHistoryUsed,
    self_caused,
)
from live_services.domain.frames import encode_tick_frame
from live_services.domain.log import EventRecord, LogPosition, MarketSlice, TaskId
from live_services.domain.partitions import part_of
from live_services.domain.replay import cuts_of_session
from live_services.domain.strategy.asked import Assignment
from live_services.domain.strategy.desk import Proposal, StrategyDesk
from live_services.domain.strategy.history import SessionHistory
from live_services.domain.strategy.skew import (
    NO_BAR,
    bars_of_market,
    compare,
    describe,
    row_of_signal,
    rows_of_block,
    sampled,
)
from live_services.domain.topics import MARKET_TICKS
from live_services.failures import CommandFailed
from live_services.runtime.service import Opening
from live_services.services.skew_monitor import SkewMonitor, SkewState
from live_services.settings import KafkaSettings, Settings, SkewSettings
from models_registry.specification import StrategySpec
from tests.live_world import MINUTE, OPEN, SECOND, SESSION, loaded_model, past_sessions, random_walk

UNIVERSE = Universe.ordered(
    [Instrument(instrument_token=300, symbol="SYN INDEX", tradable=False)]
    + [Instrument(instrument_token=101 + k, symbol=f"S{k}") for k in range(5)]
)
CLOCK = BarClock.minutes(1)
HISTORY = past_sessions(UNIVERSE, 4, minutes=120, seed=4)
TICKS = random_walk(len(UNIVERSE), minutes=40, per_minute=12, seed=5)
NAMES = ["rsi", "momentum", "trend_slope@5m", "relative_strength", "vwap_distance"]
MODEL = loaded_model(names=NAMES, buy=-1e9, sell=-2e9)
AT = LogPosition("market.ticks", 0, 0)


class Source:
    def of(
        self, session: Session, universe: Universe, sessions: Sequence[str] | None = None, needed: int = 0
    ) -> SessionHistory:
        return HISTORY


def trade(partition: int = 0, partitions: int = 1) -> tuple[list[SignalGenerated], StrategyDesk]:
    settings = (StrategySpec(name="momentum", holding_bars=2),)
    desk = StrategyDesk(
        UNIVERSE, SESSION, settings, bar_minutes=1, partition=partition, partitions=partitions, history=HISTORY
    )
    desk.assign(Assignment(OPEN, "momentum", MODEL))
    part = part_of(TICKS, UNIVERSE, partition, partitions)
    assert isinstance(part, Ticks)
    said: list[Proposal] = []
    for first in range(0, len(part), 37):
        said += desk.on_ticks(part[first : first + 37])
    said += desk.advance(OPEN + 40 * MINUTE)
    return [signal for signal in said if isinstance(signal, SignalGenerated)], desk


SIGNALS, DESK = trade()
BARS = [HISTORY.before, bars_of_market([TICKS], SESSION, UNIVERSE, CLOCK)]


def flipped(signal: SignalGenerated, feature: str) -> SignalGenerated:
    value = signal.features[feature]
    assert value is not None
    return signal.model_copy(update={"features": signal.features | {feature: math.nextafter(value, math.inf)}})


def test_rows_of_all_signals_are_computed_again_bit_for_bit() -> None:
    report = compare([row_of_signal(s, UNIVERSE) for s in SIGNALS], BARS, UNIVERSE, CLOCK)
    assert (report.rows_equal, report.rows_different, report.rows_unverified) == (len(SIGNALS), 0, 0)
    assert len(SIGNALS) > 50


def test_rows_of_the_online_store_are_computed_again_bit_for_bit() -> None:
    ((schema, block),) = DESK.newest_rows()
    rows = rows_of_block(schema, block, UNIVERSE)
    assert len(rows) == len(UNIVERSE)
    assert compare(rows, BARS, UNIVERSE, CLOCK).rows_equal == len(rows)


@pytest.mark.parametrize("feature", NAMES)
def test_a_single_flipped_bit_is_found_and_named_with_instrument_time_and_both_values(feature: str) -> None:
    rows = [row_of_signal(s, UNIVERSE) for s in SIGNALS]
    wrong = SIGNALS[11]
    rows[11] = row_of_signal(flipped(wrong, feature), UNIVERSE)
    report = compare(rows, BARS, UNIVERSE, CLOCK)
    assert (report.rows_equal, report.rows_different) == (len(SIGNALS) - 1, 1)
    (difference,) = report.differences
    assert (difference.feature, difference.symbol, difference.bar_end_ns) == (feature, wrong.symbol, wrong.bar.end_ns)
    assert difference.recomputed == wrong.features[feature]
    assert abs(int(difference.live_bits, 16) - int(difference.recomputed_bits, 16)) == 1
    for part in (feature, wrong.symbol, difference.live_bits, difference.recomputed_bits):
        assert part in describe(difference)


def test_other_ticks_another_history_and_a_missing_bar_are_found() -> None:
    rows = [row_of_signal(s, UNIVERSE) for s in SIGNALS]
    price = TICKS.last_price.copy()
    price[200:300] += 0.05
    other = bars_of_market([replace(TICKS, last_price=price)], SESSION, UNIVERSE, CLOCK)
    assert compare(rows, [HISTORY.before, other], UNIVERSE, CLOCK).rows_different > 0
    assert compare(rows, [HISTORY.before[500:], BARS[1]], UNIVERSE, CLOCK).rows_different == 0  # finite memory
    close = HISTORY.before.close.copy()
    close[-50:] += 0.05
    assert compare(rows, [replace(HISTORY.before, close=close), BARS[1]], UNIVERSE, CLOCK).rows_different > 0
    gone = compare(rows[:1], [HISTORY.before], UNIVERSE, CLOCK)
    assert [d.feature for d in gone.differences] == [NO_BAR]
    assert "no such bar" in describe(gone.differences[0])


def test_rows_of_a_schema_that_this_code_does_not_have_are_not_verified_and_said_so() -> None:
    row = row_of_signal(SIGNALS[0], UNIVERSE)
    other = compare([replace(row, schema_hash="ab" * 32)], BARS, UNIVERSE, CLOCK)
    assert (other.rows, other.rows_unverified) == (0, 1)
    assert "declares otherwise" in other.notes[0]
    unknown = compare([replace(row, names=("phase_of_the_moon",), values=(1.0,))], BARS, UNIVERSE, CLOCK)
    assert "phase_of_the_moon" in unknown.notes[0]


def test_the_sample_is_the_same_at_every_restart_and_others_on_other_days() -> None:
    many = Universe.from_symbols([f"S{k}" for k in range(300)])
    everyone = np.ones(len(many), dtype=np.bool_)
    first = sampled(many, everyone, SESSION, 8)
    assert first.sum() == 8
    assert (sampled(many, everyone, SESSION, 8) == first).all()
    other = replace(SESSION, date=SESSION.date.replace(day=6))
    assert (sampled(many, everyone, other, 8) != first).any()
    assert not sampled(many, ~first, SESSION, 8)[first].any()


# --- the service ------------------------------------------------------------------------------------------------------


def monitored(signals: Sequence[SignalGenerated], frame_ms: int, partition: int = 0, partitions: int = 1):  # type: ignore[no-untyped-def]
    settings = Settings(skew=SkewSettings(instruments=len(UNIVERSE)), kafka=KafkaSettings(market_partitions=partitions))
    monitor = SkewMonitor(settings, Source())
    state = monitor.open_session(Opening(SESSION, UNIVERSE, TaskId("skew_monitor", "shared", partition)))
    said: list[FeatureSkewMeasured] = []
    waiting = list(signals)
    for cut in cuts_of_session(TICKS, SESSION, UNIVERSE, partitions, frame_ms=frame_ms, paced=False, frame_rows=1):
        part = cut.parts[partition]
        assert isinstance(part, Ticks)
        if len(part):
            monitor.handle(MarketSlice(part, AT), state, cut.watermark_ns)
        while waiting and waiting[0].event_time_ns < cut.watermark_ns:
            monitor.handle(EventRecord(waiting.pop(0), AT), state, cut.watermark_ns)
        said += monitor.advance(state, cut.watermark_ns)  # type: ignore[arg-type]
    return said


@pytest.mark.parametrize(("partition", "partitions"), [(0, 1), (0, 2), (1, 2)])
def test_the_monitor_says_every_minute_that_all_rows_are_equal_whatever_the_frames(
    partition: int, partitions: int
) -> None:
    signals, _ = trade(partition, partitions)
    said = monitored(signals, 1000, partition, partitions)
    assert said == monitored(signals, 60_000, partition, partitions)
    assert sum(event.rows_equal for event in said) == len(signals) > 10
    assert sum(event.rows_different + event.rows_unverified for event in said) == 0
    assert all(event.event_time_ns % MINUTE == 0 for event in said)
    assert {event.history_digest for event in said} == {HISTORY.digest}


def test_the_monitor_raises_the_metric_and_an_event_for_one_flipped_bit() -> None:
    signals = list(SIGNALS)
    signals[7] = flipped(signals[7], "rsi")
    said = monitored(signals, 1000)
    (wrong,) = [event for event in said if event.rows_different]
    assert (wrong.rows_different, wrong.differences[0].feature) == (1, "rsi")
    assert wrong.event_time_ns >= signals[7].event_time_ns
    metrics = Metrics()
    metrics.committed(said)
    for result, rows in (("different", 1), ("equal", len(signals) - 1)):
        labels = {"broker": "shared", "result": result}
        assert metrics.registry.get_sample_value("alpha_panda_feature_skew_rows_total", labels) == rows


def test_a_row_that_went_to_two_brokers_is_compared_once() -> None:
    live = [signal.model_copy(update={"broker": "zerodha", "rung": "live"}) for signal in SIGNALS]
    both = sorted([*SIGNALS, *live], key=lambda signal: signal.event_time_ns)
    assert monitored(both, 1000) == monitored(SIGNALS, 1000)
    broken = [*both]
    at = next(k for k, signal in enumerate(both) if signal == live[11])
    broken[at] = flipped(live[11], "rsi")  # of two copies that differ both are looked at
    report = monitored(broken, 1000)
    assert sum(event.rows_different for event in report) == 1
    assert sum(event.rows_equal for event in report) == len(SIGNALS)


def test_the_monitor_hears_every_broker_that_runs() -> None:
    monitor = SkewMonitor(Settings(), Source(), brokers=("paper", "zerodha"))
    assert [one.topic.name for one in monitor.inputs] == ["market.ticks", "paper.signals.raw", "zerodha.signals.raw"]
    assert monitor.scope == "shared"


@pytest.mark.parametrize("filled", [True, False])
def test_rows_behind_a_gap_are_computed_again_as_they_were(filled: bool) -> None:
    told = MarketGap(
        **self_caused("gap"),
        broker="shared",
        event_time_ns=OPEN + 370 * SECOND,
        until_ns=OPEN + 555 * SECOND,
        reason="away",
    )
    stored = bars_of_market([TICKS], SESSION, UNIVERSE, CLOCK) if filled else None
    history = replace(HISTORY, today=stored)
    before, behind = TICKS[TICKS.event_time_ns < told.event_time_ns], TICKS[TICKS.event_time_ns >= told.until_ns]
    names = NAMES if filled else ["momentum", "relative_volume"]
    spec = (StrategySpec(name="momentum", holding_bars=2),)
    desk = StrategyDesk(UNIVERSE, SESSION, spec, bar_minutes=1, history=history)
    desk.assign(Assignment(OPEN, "momentum", loaded_model(names=names, buy=-1e9, sell=-2e9)))
    said = [*desk.on_ticks(before), *desk.on_gap(told), *desk.on_ticks(behind), *desk.advance(OPEN + 40 * MINUTE)]

    class Stored(Source):
        def of(self, *_: object, **__: object) -> SessionHistory:
            return history

    monitor = SkewMonitor(Settings(skew=SkewSettings(instruments=len(UNIVERSE))), Stored())
    state = monitor.open_session(Opening(SESSION, UNIVERSE, TaskId("skew_monitor", "shared", 0)))
    for item in (MarketSlice(before, AT), EventRecord(told, AT), MarketSlice(behind, AT)):
        monitor.handle(item, state, OPEN)
    for proposal in said:
        monitor.handle(EventRecord(proposal, AT), state, OPEN)
    measured = [event for event in monitor.advance(state, SESSION.close_ns) if isinstance(event, FeatureSkewMeasured)]
    assert sum(event.rows_equal for event in measured) == len(said) > 50
    assert sum(event.rows_different for event in measured) == 0
    assert max(event.event_time_ns for event in measured) == OPEN + 40 * MINUTE


def test_a_monitor_that_goes_on_stands_on_what_its_session_was_opened_with(tmp_path: Path) -> None:
    opening: Opening[SkewState] = Opening(SESSION, UNIVERSE, TaskId("skew_monitor", "shared", 0))

    class Corrected(Source):
        def of(self, *_: object, **__: object) -> SessionHistory:
            return replace(HISTORY, before=HISTORY.before[5:])

    files = HistoryFiles(tmp_path)
    monitor = SkewMonitor(Settings(), Source(), kept=files)
    written = unpack(pack(monitor.snapshot(monitor.open_session(opening))))
    after = SkewMonitor(Settings(), Corrected(), kept=files)
    assert after.restore(opening, written).history.digest == HISTORY.digest
    for path in tmp_path.iterdir():
        path.unlink()
    assert after.restore(opening, written).history.digest != HISTORY.digest


# --- one look at the log ----------------------------------------------------------------------------------------------


def frames(session: Session = SESSION, frame_ms: int = 60_000) -> list[StoredRecord]:
    found = []
    for cut in cuts_of_session(TICKS, session, UNIVERSE, 2, frame_ms=frame_ms, paced=False, frame_rows=1):
        for partition, part in enumerate(cut.parts):
            if len(part):
                assert isinstance(part, Ticks)
                value, headers = encode_tick_frame(part, UNIVERSE, cut.number, cut.watermark_ns, session)
                found.append(StoredRecord(MARKET_TICKS.name, partition, len(found), 0, None, value, tuple(headers)))
    return found


def test_the_log_gives_its_newest_session_by_partition_without_what_was_sent_twice() -> None:
    once = frames()
    universes = {UNIVERSE.digest: UNIVERSE}
    session, universe, market = session_on_log([*once[:6], once[4], once[5], *once[6:]], universes.get)
    assert (session, universe) == (SESSION, UNIVERSE)
    for partition in range(2):
        whole = Ticks.concatenate(market[partition].market)  # type: ignore[arg-type]
        assert whole.digest() == part_of(TICKS, UNIVERSE, partition, 2).digest()
    with pytest.raises(CommandFailed, match="let a session run first"):
        session_on_log([], universes.get)
    with pytest.raises(CommandFailed, match="let a session run first"):
        session_on_log(once, {}.get)  # frames of a universe that nobody told


def test_a_history_that_was_changed_since_the_session_began_is_noted(tmp_path: Path) -> None:
    market = synthetic_market(instruments=2, sessions=3)
    settings = Settings(alpha_panda_home=tmp_path)
    store = OfflineStore(settings.store_root)
    for session, bars in zip(market.sessions, market.bars, strict=True):
        store.write_bars(session, market.universe, bars, market.name)
    today, universe = market.sessions[-1], store.universe()
    history = StoredHistory(settings).of(today, universe)
    used = StrategyHistoryUsed(
        event_id="e",
        correlation_id="e",
        causation_id="e",
        event_time_ns=today.open_ns,
        session_date=str(today.date),
        sessions=history.sessions,
        digest=history.digest,
        today_until_ns=0,
        today_digest="",
        broken=False,
    )
    assert compared(settings, universe, today, {}, [], used={0: used}).notes == ()
    higher = replace(market.bars[0], close=market.bars[0].high.copy())
    store.write_bars(market.sessions[0], market.universe, higher, market.name)
    (note,) = compared(settings, universe, today, {}, [], used={0: used}).notes
    assert f"{market.sessions[0].date} to {today.date}" in note
    assert "not those that the session began with" in note
