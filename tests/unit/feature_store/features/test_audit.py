"""The audit finds each planted leak and fault, names it, and lets honest features pass."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from feature_store.features import kernels
from feature_store.features.audit import AuditReport, audit
from feature_store.features.guards import FrameFeatures, Guards
from feature_store.features.library import FeatureSpec, declare
from feature_store.features.schema import FeatureSchema, feature_schema
from feature_store.features.window import (
    CLOSE,
    EMA_5,
    HIGH,
    INDEX_CLOSE,
    PRICE_UNITS,
    SESSION_OPEN,
    SUM_CLOSE,
    SUM_SPREAD,
    Window,
    highest,
    lowest,
    of_session,
    return_deviation,
    smoothed,
    total,
    units,
)
from feature_store.market.types import Bars, Universe, ist_text
from tests.feature_markets import FeatureMarket, feature_market, with_split

EVERY_EDGE = "every row as the last"


@pytest.fixture(scope="module")
def market() -> FeatureMarket:
    """Few enough bars to try every row."""
    return feature_market(3, stocks=2, sessions=3, bars_per_session=45)


def with_prices(bars: Bars, change: Callable[[np.ndarray], np.ndarray]) -> Bars:
    return replace(bars, **{name: change(getattr(bars, name)) for name in ("open", "high", "low", "close")})


# --- functions on a data frame ----------------------------------------------------------------------------------------


def day(f: pd.DataFrame) -> "pd.Series[object]":
    return f.end.dt.date


def early_resample(f: pd.DataFrame) -> "pd.Series[float]":
    """Stamped with their starts, as pandas does, five-minute bars are known before they end."""
    longer = f.set_index("start").close.resample("5min").last().dropna()
    return longer.reindex(f.start, method="ffill").reset_index(drop=True)


def right_resample(f: pd.DataFrame) -> "pd.Series[float]":
    """The newest five-minute bar that has ended; the one under way is left out."""
    longer = f.set_index("start").close.resample("5min").last().dropna()
    ended = longer.set_axis(longer.index + pd.Timedelta("5min"))
    return ended.reindex(f.end, method="ffill").reset_index(drop=True)


def sparse(f: pd.DataFrame) -> "pd.Series[float]":
    """In one row of a hundred, by its time, the close of the next."""
    chosen = (f.end.astype("int64") // 60_000_000_000) % 100 == 7
    return f.close.where(~chosen, f.close.shift(-1))


def volume_only(f: pd.DataFrame) -> "pd.Series[float]":
    return f.close * (1 + 1e-12 * f.volume.shift(-1, fill_value=0))


def last_of_session(f: pd.DataFrame) -> "pd.Series[float]":
    """In the last row of each session only, the open of the next one."""
    last = day(f) != day(f).shift(-1)
    return f.close.where(~last, f.open.shift(-1).fillna(f.close))


def next_high_sometimes(f: pd.DataFrame) -> "pd.Series[float]":
    """The next bar's high, where a move was large: in about one row of a hundred."""
    large = f.close.diff().abs() > f.close.diff().abs().expanding().quantile(0.99)
    return f.high.where(~(large & (f.index > 20)), f.high.shift(-1).fillna(f.high))


def in_one_stock_only(f: pd.DataFrame) -> "pd.Series[float]":
    return f.close.shift(-1) if f.close.iloc[0] == min_first_close else f.close


min_first_close = -1.0  # set below: the first close of one stock of the market


def interpolated(f: pd.DataFrame) -> "pd.Series[float]":
    return f.close.where(f.index % 7 != 3).interpolate()


def own_noise(f: pd.DataFrame) -> "pd.Series[float]":
    return f.close + np.random.default_rng().random(len(f))


LEAKS: dict[str, Callable[[pd.DataFrame], object]] = {
    "shift(-1)": lambda f: f.close.shift(-1) / f.close - 1,
    "centred rolling": lambda f: f.close.rolling(5, center=True).mean(),
    "full-sample z-score": lambda f: (f.close - f.close.mean()) / f.close.std(),
    "backward fill": lambda f: f.close.where(f.index % 4 == 3).bfill(),
    "early resample": early_resample,
    "sparse": sparse,
    "volume only": volume_only,
    "last row of a session": last_of_session,
    "the next high in few rows": next_high_sometimes,
    "whole-session volume": lambda f: f.volume / f.volume.groupby(day(f)).transform("sum"),
    "rank in the whole sample": lambda f: f.close.rank(pct=True),
    "interpolation": interpolated,
    "reversed expanding": lambda f: f.close[::-1].expanding().max()[::-1],
    "a stock's own length": lambda f: f.close * len(f),
    "another answer every time": own_noise,
}
"""Every one of these knows something that was not there at the end of its bar."""

HONEST: dict[str, Callable[[pd.DataFrame], object]] = {
    "return": lambda f: f.close / f.close.shift() - 1,
    "rolling": lambda f: f.close.rolling(5).mean(),
    "expanding": lambda f: (f.close - f.close.expanding().mean()) / f.close.expanding().std(),
    "forward fill": lambda f: f.close.where(f.index % 4 == 3).ffill(),
    "late resample": right_resample,
    "session so far": lambda f: f.volume / f.volume.groupby(day(f)).cumsum(),
    "an array": lambda f: f.high.to_numpy() - f.low.to_numpy(),
    "a list of whole numbers": lambda f: f.volume.tolist(),
    "times": lambda f: (f.end - f.start).dt.total_seconds(),
}


def truth_of(function: Callable[[pd.DataFrame], object], f: pd.DataFrame) -> np.ndarray:
    """What could have been known: each row from the bars up to it."""
    return np.array([np.asarray(function(f.iloc[: k + 1].copy()), dtype=float)[-1] for k in range(len(f))])


def frames(bars: Bars) -> dict[int, tuple[np.ndarray, pd.DataFrame]]:
    found = {}
    for i in np.unique(bars.instrument):
        rows = np.flatnonzero(bars.instrument == i)
        columns = {name: getattr(bars, name)[rows] for name in ("open", "high", "low", "close", "volume")}
        times = {
            name: pd.to_datetime(getattr(bars, f"{name}_ns")[rows], utc=True).tz_convert("Asia/Kolkata")
            for name in ("start", "end")
        }
        found[int(i)] = (rows, pd.DataFrame({**times, **columns}))
    return found


@pytest.mark.parametrize("leak", [name for name in LEAKS if name != "another answer every time"])
def test_a_leak_is_named_with_the_first_row_and_time_in_which_it_knows_too_much(
    leak: str, market: FeatureMarket
) -> None:
    report = audit({"honest": HONEST["return"], leak: LEAKS[leak]}, market.bars, market.universe)
    assert not report.passed
    assert report.of("honest") == ()
    by_guard = {difference.guard: difference for difference in report.of(leak)}
    found = by_guard[EVERY_EDGE]
    firsts = []
    for rows, f in frames(market.bars).values():
        at_once, in_time = np.asarray(LEAKS[leak](f.copy()), dtype=float), truth_of(LEAKS[leak], f)
        wrong = np.flatnonzero((at_once != in_time) & ~(np.isnan(at_once) & np.isnan(in_time)))
        if len(wrong):
            firsts.append((int(rows[wrong[0]]), at_once[wrong[0]]))
    row, expected = min(firsts)
    assert (found.feature, found.row) == (leak, row)
    assert np.array_equal(found.expected, expected, equal_nan=True)
    assert found.time_ns == market.bars.end_ns[row]
    assert found.symbol == market.universe.instruments[market.bars.instrument[row]].symbol
    assert ist_text(int(market.bars.end_ns[row])) in str(report)


def test_a_leak_in_most_rows_is_seen_by_every_guard_of_time(market: FeatureMarket) -> None:
    report = audit({"leak": LEAKS["full-sample z-score"]}, market.bars, market.universe)
    assert {difference.guard for difference in report.differences} == {"prefix", "future perturbation", EVERY_EDGE}
    assert {difference.row for difference in report.differences} <= {0, 1, 2}


def test_in_the_prefix_guard_the_row_is_the_last_one_before_a_cut(market: FeatureMarket) -> None:
    report = audit({"leak": LEAKS["shift(-1)"]}, market.bars, market.universe, cuts=1)
    (found,) = (d for d in report.of("leak") if d.guard == "prefix")
    assert np.isnan(found.found)
    assert np.isfinite(found.expected)
    cut = int(np.random.default_rng(7).integers(1, len(market.bars), 1)[0])
    assert found.row == cut - 3  # of the three instruments' last rows, the first


@pytest.mark.parametrize("leak", ["another answer every time"])
def test_a_feature_that_answers_anew_every_time_is_caught(leak: str, market: FeatureMarket) -> None:
    assert audit({leak: LEAKS[leak]}, market.bars, market.universe).of(leak)


def test_a_leak_in_one_stock_only_is_caught(market: FeatureMarket, monkeypatch: pytest.MonkeyPatch) -> None:
    for i, (rows, f) in frames(market.bars).items():
        monkeypatch.setattr(f"{__name__}.min_first_close", f.close[0])
        found = audit({"leak": in_one_stock_only}, market.bars, market.universe).of("leak")
        assert {d.symbol for d in found} == {market.universe.instruments[i].symbol}
        assert min(d.row for d in found) == rows[0]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("leak", ["sparse", "last row of a session"])
def test_leaks_in_few_rows_are_caught_in_more_bars_than_can_all_be_tried(leak: str, seed: int) -> None:
    market = feature_market(seed, stocks=2, sessions=3)
    report = audit({leak: LEAKS[leak]}, market.bars, market.universe, seed=seed, edges=400)
    assert report.of(leak)


def test_honest_functions_pass(market: FeatureMarket) -> None:
    report = audit(HONEST, market.bars, market.universe)
    assert report.passed, str(report)
    assert "passed" in str(report)
    assert set(report.compared) == {"prefix", "future perturbation", "permuted instruments", EVERY_EDGE}


@pytest.mark.parametrize("finer", [0.007, 0.0003, 1 / 3])
def test_honest_functions_pass_on_prices_of_any_precision(finer: float, market: FeatureMarket) -> None:
    fine = with_prices(market.bars, lambda prices: prices + finer)
    report = audit(HONEST, fine, market.universe)
    assert report.passed, str(report)


@pytest.mark.parametrize(("finer", "decimals"), [(0.0, 2), (0.007, 3), (0.0003, 4), (1 / 3, None)])
def test_a_future_is_made_of_other_prices_as_fine_as_those_before_it_which_stay(
    finer: float, decimals: int | None, market: FeatureMarket
) -> None:
    fine = with_prices(market.bars, lambda prices: np.round(prices + finer, 12))
    told: list[str] = []
    seen: dict[str, Bars] = {}

    class Recorder(FrameFeatures):
        def rows(self, bars: Bars, universe: Universe) -> tuple[np.ndarray, np.ndarray]:
            seen[told[-1] if told else "history"] = bars
            return super().rows(bars, universe)

    subject = Recorder({"close": lambda f: f.close}, 0)
    Guards(subject, fine, market.universe, np.random.default_rng(7), cuts=1, edges=1).run(told.append)
    rng = np.random.default_rng(7)
    cut = [int(rng.integers(1, len(fine), 1)[0]) for _ in ("prefix", "future perturbation")][-1]
    other = seen["future perturbation"]
    assert (other.close[:cut] == fine.close[:cut]).all()
    assert (other.close[cut:] != fine.close[cut:]).mean() > 0.9
    if decimals is not None:
        assert (np.round(other.close, decimals) == other.close).all()


def test_a_warm_up_that_is_told_is_tried_from_other_origins(market: FeatureMarket) -> None:
    functions = {
        "five": lambda f: f.close.to_numpy() - f.close.shift(4).to_numpy(),
        "six": lambda f: f.close.to_numpy() - f.close.shift(5).to_numpy(),
        "counts": lambda f: np.arange(len(f), dtype=float),
    }
    report = audit(functions, market.bars, market.universe, warm_up=4)
    assert {(d.guard, d.feature) for d in report.differences} == {("origin", "six"), ("origin", "counts")}


def test_a_result_of_another_shape_says_what_a_feature_gives(market: FeatureMarket) -> None:
    with pytest.raises(ValueError, match=r"short gave shape \(134,\) for 135 bars; a feature gives one value for each"):
        audit({"short": lambda f: f.close.iloc[1:]}, market.bars, market.universe)
    with pytest.raises(ValueError, match="gave shape"):
        audit({"one": lambda f: f.close.mean()}, market.bars, market.universe)


def test_a_function_cannot_change_the_bars_of_the_next(market: FeatureMarket) -> None:
    def vandal(f: pd.DataFrame) -> "pd.Series[float]":
        f["close"] = 0.0
        f.loc[:, "high"] = 0.0
        return f.close

    before = market.bars.digest()
    assert audit({"vandal": vandal, "range": lambda f: f.high - f.low}, market.bars, market.universe).passed
    assert market.bars.digest() == before


def test_too_few_bars_are_no_pass(market: FeatureMarket) -> None:
    report = audit({"slow": lambda f: f.close.rolling(100).mean()}, market.bars[:60], market.universe)
    assert not report.passed
    assert report.differences == ()
    assert report.never_seen == ("slow",)
    assert "slow: NEVER FINITE" in str(report)
    for bars in (market.bars[:0], market.bars[:1]):
        assert not audit(feature_schema(None, 1), bars, market.universe).passed


def test_a_guard_without_a_warm_row_says_that_it_had_nothing_to_compare(market: FeatureMarket) -> None:
    report = audit(feature_schema(["long_momentum"], 1), market.bars[:120], market.universe)
    assert not report.passed
    assert set(report.compared.values()) == {0}
    assert str(report).count("NOTHING TO COMPARE: give more bars") == len(report.compared)


def test_progress_names_each_guard_as_it_begins(market: FeatureMarket) -> None:
    told: list[str] = []
    report = audit({"range": lambda f: f.high - f.low}, market.bars, market.universe, progress=told.append)
    assert told == list(report.compared)


# --- compiled features ------------------------------------------------------------------------------------------------


def honest(bars: Window, period: int = 5) -> float:
    return units(bars, CLOSE) / units(bars, CLOSE, period) - 1.0


def short_warm_up(bars: Window, period: int = 5) -> float:
    """Needs six bars and says five."""
    return units(bars, CLOSE) / units(bars, CLOSE, period) - 1.0


def short_maximum(bars: Window, period: int = 20) -> float:
    """Needs twenty bars and says nineteen; it shows only where the oldest is the highest."""
    return highest(bars, period) / PRICE_UNITS


def bar_number(bars: Window) -> float:
    return float(bars.newest % 7)


def running_total(bars: Window) -> float:
    """A sum from the first bar on."""
    return float(units(bars, SUM_CLOSE))


def remembers(bars: Window) -> float:
    """Writes into what it reads."""
    bars.ring[bars.instrument, 0, HIGH] += 1
    return float(bars.ring[bars.instrument, 0, HIGH])


def other_instrument(bars: Window) -> float:
    """Reads whatever bar of the universe's second instrument happens to have been there last."""
    newest = 0
    for k in range(bars.ring.shape[1]):
        newest = max(newest, bars.ring[1, k, HIGH])
    return newest / PRICE_UNITS


def says_never_nan(bars: Window) -> float:
    return np.nan if units(bars, CLOSE) % 3 == 0 else 1.0


def infinite(bars: Window) -> float:
    return np.inf if units(bars, CLOSE) % 3 == 0 else 1.0


def fills_in_depth(bars: Window) -> float:
    """Gives 0 where there is no quote."""
    return float(total(bars, SUM_SPREAD, 1))


def nan_beside_the_index(bars: Window) -> float:
    return np.nan


def fills_in_the_index(bars: Window) -> float:
    return float(units(bars, INDEX_CLOSE))


def recursive_as_window(bars: Window) -> float:
    return smoothed(bars, EMA_5) / PRICE_UNITS


def session_as_window(bars: Window) -> float:
    return of_session(bars, SESSION_OPEN) / PRICE_UNITS


def calls_a_size_signed(bars: Window, period: int = 5) -> float:
    return return_deviation(bars, period)


def calls_a_move_a_size(bars: Window) -> float:
    return units(bars, CLOSE) / units(bars, CLOSE, 1) - 1.0


def sees_falls_only(bars: Window) -> float:
    return min(units(bars, CLOSE) / units(bars, CLOSE, 1) - 1.0, 0.0)


def names_another_top(bars: Window, period: int = 5) -> float:
    low, high = lowest(bars, period), highest(bars, period)
    return (units(bars, CLOSE) - low) / (high - low) if high > low else 0.5


PLANTED: dict[str, tuple[tuple[FeatureSpec, Callable[[Window], float]], set[str]]] = {
    "honest": (declare(honest, warm_up=6, mirror="sign", units="fraction", source="here"), set()),
    "short_warm_up": (declare(short_warm_up, warm_up=5, units="", source=""), {"origin of a short run", "NaN policy"}),
    "short_maximum": (declare(short_maximum, warm_up=19, units="", source=""), {"origin of a short run"}),
    "bar_number": (declare(bar_number, warm_up=1, units="", source=""), {"origin", "origin of a short run"}),
    "running_total": (declare(running_total, warm_up=1, units="", source=""), {"origin", "origin of a short run"}),
    "remembers": (declare(remembers, warm_up=1, units="", source=""), {"origin"}),
    "other_instrument": (
        declare(other_instrument, warm_up=1, units="", source=""),
        {"origin", "permuted instruments", "interleaving"},
    ),
    "says_never_nan": (declare(says_never_nan, warm_up=1, units="", source=""), {"NaN policy"}),
    "infinite": (
        declare(infinite, warm_up=1, nan_policy="without_depth", units="", source=""),
        {"NaN policy"},
    ),
    "fills_in_depth": (
        declare(fills_in_depth, warm_up=1, nan_policy="without_depth", units="", source=""),
        {"NaN policy"},
    ),
    "nan_beside_the_index": (
        declare(nan_beside_the_index, warm_up=1, nan_policy="without_index", units="", source=""),
        {"NaN policy"},
    ),
    "fills_in_the_index": (
        declare(fills_in_the_index, warm_up=1, nan_policy="without_index", units="", source=""),
        {"NaN policy"},
    ),
    "recursive_as_window": (declare(recursive_as_window, warm_up=20, units="", source=""), {"origin"}),
    "session_as_window": (
        declare(session_as_window, warm_up=20, units="", source=""),
        {"origin", "origin of a short run"},
    ),
    "calls_a_size_signed": (
        declare(calls_a_size_signed, warm_up=6, mirror="sign", units="", source=""),
        {"mirror"},
    ),
    "calls_a_move_a_size": (declare(calls_a_move_a_size, warm_up=2, mirror="same", units="", source=""), {"mirror"}),
    "sees_falls_only": (declare(sees_falls_only, warm_up=2, mirror="sign", units="", source=""), {"mirror"}),
    "names_another_top": (
        declare(names_another_top, warm_up=5, mirror="complement", top=100.0, units="", source=""),
        {"mirror"},
    ),
}
"""A compiled feature, and guards that must name it."""


@pytest.fixture(scope="module")
def planted() -> AuditReport:
    """One compilation and one audit for all of them; the tests only read it."""
    declared = [pair for pair, _ in PLANTED.values()]
    market = feature_market(21, stocks=3, sessions=5, bars_per_session=120, odd=True)
    schema = FeatureSchema(tuple(spec for spec, _ in declared), "time:60s")
    return audit(schema, market.bars, market.universe, declared=declared)


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_of_a_compiled_feature_is_named_by_the_guards_that_can_see_it(
    name: str, planted: AuditReport
) -> None:
    guards = {difference.guard for difference in planted.of(name)}
    assert guards >= PLANTED[name][1]
    if not PLANTED[name][1]:
        assert guards == set()


def test_the_mirror_guard_names_nobody_else_and_asks_nothing_of_who_declares_no_mirror_image(
    planted: AuditReport,
) -> None:
    named = {difference.feature for difference in planted.differences if difference.guard == "mirror"}
    assert named == {name for name, (_, guards) in PLANTED.items() if "mirror" in guards}


def test_features_are_compiled_once_for_an_audit() -> None:
    declared = [pair for pair, _ in PLANTED.values()]
    assert kernels.step_of(declared) is kernels.step_of(list(declared))


def test_an_audit_across_a_split_passes_with_the_action(market: FeatureMarket) -> None:
    bars, actions = with_split(market, "STOCK0", market.sessions[1].date)
    schema = feature_schema(["momentum", "overnight_gap", "obv_slope", "z_score@5m"], 1)
    assert audit(schema, bars, market.universe, actions=actions).passed


def test_a_wrong_warm_up_is_shown_with_the_value_that_it_should_have_been(planted: AuditReport) -> None:
    (found,) = (d for d in planted.of("short_warm_up") if d.guard == "origin of a short run")
    assert found.found == np.inf  # against a close that was never there
    assert abs(found.expected) < 0.5
    assert f"origin of a short run: short_warm_up differs first in row {found.row}, {found.symbol} at " in str(planted)
