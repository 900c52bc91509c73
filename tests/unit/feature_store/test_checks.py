import numpy as np
import pytest

from feature_store import checks, kernels
from feature_store.features import feature_schema, feature_table
from feature_store.market import Bars
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
        checks.features_know_no_future(bars, SCHEMA, 4),
        checks.history_equals_live(bars, SCHEMA, 4),
        checks.warm_rows_finite(rows, warm),
    )
    assert [r.name for r in results if not r.passed] == []
    assert len({r.name for r in results}) == len(results)


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


def test_a_kernel_sees_one_signature_whatever_the_flags_of_the_arrays(bars: Bars) -> None:
    feature_table(bars, SCHEMA, 4)
    compiled = len(kernels.step_bars.signatures)
    bars.close.flags.writeable = False
    feature_table(bars[::2], SCHEMA, 4)
    assert len(kernels.step_bars.signatures) == compiled == 1
