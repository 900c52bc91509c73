import dataclasses

import numpy as np
import pytest

from feature_store import checks, kernels
from feature_store.features import feature_schema, feature_table
from feature_store.market import MINUTE_NS, Bars
from feature_store.synthetic import SyntheticMarket, synthetic_market

SCHEMA = feature_schema(None, 1)


@pytest.fixture(scope="module")
def market() -> SyntheticMarket:
    return synthetic_market(instruments=4, sessions=2, seed=2, index=False)


@pytest.fixture
def bars(market: SyntheticMarket) -> Bars:
    return Bars.concatenate(market.bars)


def test_good_bars_pass_every_check(bars: Bars, market: SyntheticMarket) -> None:
    rows, warm = feature_table(bars, SCHEMA, 4)
    results = (
        checks.price_sanity(bars),
        checks.monotone_times(bars),
        checks.inside_sessions(bars, market.sessions),
        checks.missing_intervals(bars, market.sessions, MINUTE_NS),
        checks.instrument_coverage(bars, market.universe, market.sessions, MINUTE_NS),
        checks.features_know_no_future(bars, SCHEMA, 4),
        checks.history_equals_live(bars, SCHEMA, 4),
        checks.warm_rows_finite(rows, warm),
    )
    assert [r.name for r in results if not r.passed] == []
    assert len({r.name for r in results}) == len(results)


@pytest.mark.parametrize(("column", "value"), [("close", np.nan), ("low", -1.0), ("high", 1.0), ("volume", -1)])
def test_insane_prices_fail_with_their_row(bars: Bars, column: str, value: float) -> None:
    getattr(bars, column)[17] = value
    result = checks.price_sanity(bars)
    assert not result.passed
    assert result.details["wrong"] == 1
    assert "row 17" in str(result.details["examples"])


def test_disorder_repeats_and_overlaps_fail(bars: Bars) -> None:
    rows = np.arange(len(bars))
    swapped = rows.copy()
    swapped[[40, 80]] = swapped[[80, 40]]
    assert not checks.monotone_times(bars[swapped]).passed
    assert not checks.monotone_times(bars[np.sort(np.append(rows, 50))]).passed
    start = bars.start_ns.copy()
    start[60] -= 30 * MINUTE_NS // 60
    assert checks.monotone_times(dataclasses.replace(bars, start_ns=start)).details["wrong"] == 1


def test_bars_outside_the_sessions_fail(bars: Bars, market: SyntheticMarket) -> None:
    assert not checks.inside_sessions(bars, market.sessions[:1]).passed


def test_an_outage_fails_and_says_when_it_began(bars: Bars, market: SyntheticMarket) -> None:
    opened = market.sessions[1].open_ns
    outage = (bars.start_ns >= opened + 60 * MINUTE_NS) & (bars.start_ns < opened + 75 * MINUTE_NS)
    result = checks.missing_intervals(bars[~outage], market.sessions, MINUTE_NS)
    assert not result.passed
    assert (result.details["missing"], result.details["longest_gap"]) == (15, 15)
    assert "10:15:00" in str(result.details["longest_gap_at"])


def test_a_session_without_bars_fails(bars: Bars, market: SyntheticMarket) -> None:
    result = checks.missing_intervals(market.bars[0], market.sessions, MINUTE_NS)
    assert not result.passed
    assert result.details["longest_gap"] == 375


def test_an_instrument_that_hardly_trades_is_named(bars: Bars, market: SyntheticMarket) -> None:
    thin = (bars.instrument == 2) & (np.arange(len(bars)) % 3 == 0)
    result = checks.instrument_coverage(bars[~thin], market.universe, market.sessions, MINUTE_NS)
    assert not result.passed
    assert result.details["examples"] == "SYN003"


def test_rows_filled_before_warm_or_not_finite_after_fail(bars: Bars) -> None:
    rows, warm = feature_table(bars, SCHEMA, 4)
    rows[np.flatnonzero(warm)[0], 0] = np.inf
    rows[np.flatnonzero(~warm)[0], 0] = 0.0
    result = checks.warm_rows_finite(rows, warm)
    assert not result.passed
    assert (result.details["not_finite"], result.details["filled_before_warm"]) == (1, 1)


def test_a_feature_that_looks_ahead_is_caught(bars: Bars, monkeypatch: pytest.MonkeyPatch) -> None:
    """The guard itself: with a table that normalises by the whole history, the prefix check must fail."""

    def leaking(bars: Bars, schema: object, n_instruments: int) -> tuple[np.ndarray, np.ndarray]:
        rows, warm = feature_table(bars, SCHEMA, n_instruments)
        return rows - np.nanmean(rows, axis=0), warm

    monkeypatch.setattr(checks, "feature_table", leaking)
    assert not checks.features_know_no_future(bars, SCHEMA, 4).passed
    assert not checks.history_equals_live(bars, SCHEMA, 4).passed


def test_no_bars_pass_no_check_of_bars(bars: Bars) -> None:
    assert not checks.price_sanity(bars[:0]).passed
    assert not checks.monotone_times(bars[:0]).passed


def test_a_kernel_sees_one_signature_whatever_the_flags_of_the_arrays(bars: Bars) -> None:
    feature_table(bars, SCHEMA, 4)
    compiled = len(kernels.step_bars.signatures)
    bars.close.flags.writeable = False
    feature_table(bars[::2], SCHEMA, 4)
    assert len(kernels.step_bars.signatures) == compiled == 1
