"""Which features there are, what a choice of them says of itself, and the hash that it gives."""

import json
import subprocess
import sys

import numpy as np
import pytest

from feature_store.features.engine import feature_table
from feature_store.features.library import FeatureSpec, Mirror, declare, feature
from feature_store.features.schema import (
    EVENT_FEATURES,
    FEATURES,
    MOMENTUM_FEATURES,
    UnknownFeature,
    anchor_days,
    feature_schema,
    schema_hash,
)
from feature_store.features.window import CAPACITY, CLOSE, Window, units
from feature_store.market.clocks import BarClock
from feature_store.market.types import MINUTE_NS
from models_registry.refs import FeatureColumn
from tests.feature_markets import ALL, MIXED, FeatureMarket, feature_market


def test_there_are_more_than_24_features_and_each_declaration_is_complete() -> None:
    assert len({spec.name for spec in FEATURES}) == len(FEATURES) >= 24
    for spec in FEATURES:
        assert 1 <= spec.warm_up < CAPACITY
        assert all((spec.units, spec.source, spec.version >= 1, spec.dtype == "float64"))
        periods = [value for value in spec.parameters.values() if isinstance(value, int)]
        assert spec.warm_up in {1, 2, *periods, *(p + 1 for p in periods)}


def test_the_momentum_model_looks_only_at_features_that_are_finite_on_any_source_and_no_events() -> None:
    assert "beta" not in MOMENTUM_FEATURES
    assert "spread" not in MOMENTUM_FEATURES
    assert "rsi" in MOMENTUM_FEATURES
    assert not set(EVENT_FEATURES) & set(MOMENTUM_FEATURES)
    assert set(EVENT_FEATURES) < {spec.name for spec in FEATURES}


def test_models_that_name_no_features_go_on_with_the_columns_they_were_trained_on() -> None:
    """Versions that are promoted carry this hash: a feature that is added to the default set would refuse them all."""
    known = "24a86777bf5b17d39ad86338cadfa101b54b070f5e74bb52d493f1c8516a1488"
    assert feature_schema(MOMENTUM_FEATURES, 1).hash == known


def test_every_feature_of_the_platform_says_what_becomes_of_it_in_a_mirrored_market() -> None:
    assert [spec.name for spec in FEATURES if spec.mirror == "none"] == []


@pytest.mark.parametrize(("mirror", "top"), [("complement", None), ("sign", 1.0)])
def test_a_complement_and_nothing_else_names_what_it_is_the_rest_of(mirror: Mirror, top: float | None) -> None:
    with pytest.raises(ValueError, match="a complement names what a value and its mirror image add up to"):
        declare(lambda bars: 0.0, warm_up=1, units="1", source="tests", mirror=mirror, top=top)


def test_the_columns_fit_a_sidecar_and_give_the_hash() -> None:
    columns = [FeatureColumn.model_validate(column) for column in ALL.columns()]
    assert schema_hash([c.model_dump() for c in columns], ALL.bar_clock) == ALL.hash
    assert schema_hash(json.loads(json.dumps(ALL.columns())), ALL.bar_clock) == ALL.hash


def test_the_hash_tells_order_choice_clocks_parameters_and_version_apart() -> None:
    schema = feature_schema(["rsi", "z_score"], 1)
    columns = schema.columns()
    hashes = {
        schema.hash,
        feature_schema(["z_score", "rsi"], 1).hash,
        feature_schema(["rsi"], 1).hash,
        feature_schema(["rsi", "z_score"], 5).hash,
        feature_schema(["rsi", "z_score"], "session").hash,
        feature_schema(["rsi", "z_score@5m"], 1).hash,
        feature_schema(["rsi", "z_score@15m"], 1).hash,
        schema_hash([columns[0], {**columns[1], "parameters": {"period": 15}}], schema.bar_clock),
        schema_hash([columns[0], {**columns[1], "version": 2}], schema.bar_clock),
    }
    assert len(hashes) == 9
    assert feature_schema(("rsi", "z_score"), "60s").hash == schema.hash


def test_another_process_gives_the_same_hash() -> None:
    code = "import sys, feature_store.features.schema as s; sys.stdout.write(s.feature_schema(None, 1).hash)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout == ALL.hash


def test_columns_stand_in_the_order_they_were_named(market: FeatureMarket) -> None:
    names = ["z_score@5m", "rsi", "momentum@15m", "momentum"]
    rows, _ = feature_table(market.bars, feature_schema(names, 1), market.universe)
    for k, name in enumerate(names):
        alone, _ = feature_table(market.bars, feature_schema([name], 1), market.universe)
        assert np.array_equal(rows[:, k], alone[:, 0], equal_nan=True)


@pytest.mark.parametrize(
    ("names", "clock", "message"),
    [
        (["no_such"], 1, "there are last_return, momentum"),
        (["momentun"], 1, "did you mean momentum"),
        (["rsi", "vwap_distanc@5m"], 1, "did you mean vwap_distance"),
        ([], 1, "at least one"),
        (["rsi", "rsi"], 1, "each once"),
        (["rsi@1m"], 1, "cannot be made of bars of 1m"),
        (["rsi@7m"], 5, "name a multiple"),
        (["rsi@1m"], 5, "cannot be made"),
        (["rsi@100t"], 1, "cannot be made"),
        (["rsi@5m"], "100t", "cannot be made"),
        (["rsi@60m"], "session", "cannot be made"),
        (["rsi@soon"], 1, "'soon' is no bar clock"),
    ],
)
def test_a_wrong_choice_of_features_says_what_is_wrong(names: list[str], clock: str | int, message: str) -> None:
    with pytest.raises(UnknownFeature, match=message):
        feature_schema(names, clock)


def test_features_are_grouped_by_clock_under_their_plain_names() -> None:
    found = {clock.short: [spec.name for spec in specs] for clock, specs in MIXED.by_clock.items()}
    assert found == {"1m": ["momentum", "rsi", "beta", "spread"], "5m": ["trend_slope"], "15m": ["z_score"]}


def test_bar_clock_and_warm_up_come_from_the_choice() -> None:
    schema = feature_schema(["momentum", "time_of_day"], 5)
    assert (schema.bar_clock, schema.bar_ns, schema.warm_up) == ("time:300s", 5 * MINUTE_NS, 11)
    assert feature_schema(["momentum"], "100t").bar_ns == 0


@pytest.mark.parametrize(
    ("names", "clock", "sessions"),
    [
        (["momentum"], "1m", 2),  # one that the window may reach into, and a spare one for missing bars
        (["overnight_gap"], "1m", 2),
        (["rsi"], "1m", 3),
        (["momentum"], "60m", 3),
        (["momentum"], "session", 12),
        (["momentum", "momentum@session"], "1m", 12),
        (["rsi@5m"], "1m", 7),
    ],
)
def test_so_many_sessions_before_the_first_make_every_row_warm_and_equal(
    names: list[str], clock: str, sessions: int
) -> None:
    schema = feature_schema(names, clock)
    assert schema.history_sessions == sessions
    market = feature_market(4, stocks=1, sessions=sessions + 3, clock=clock)
    rows, _ = feature_table(market.bars, schema, market.universe)
    late = np.flatnonzero(market.bars.start_ns >= market.sessions[3].open_ns)
    found, warm = feature_table(market.bars[late], schema, market.universe)
    after = np.flatnonzero(market.bars.start_ns[late] >= market.sessions[-1].open_ns)
    assert warm[after].all()
    assert np.array_equal(found[after].view(np.int64), rows[late][after].view(np.int64))


@pytest.mark.parametrize("clock", ["1m", "5m", "15m", "60m", "session"])
def test_a_block_between_anchors_holds_at_least_128_bars_of_any_clock(clock: str) -> None:
    bar_clock = BarClock.parse(clock)
    a_session = 1 if clock == "session" else -(-22_500 * 10**9 // bar_clock.size)
    assert anchor_days(bar_clock) * 5 / 7 * a_session >= 128 or anchor_days(bar_clock) == 1
    assert anchor_days(BarClock.parse("100t")) == 1


def test_the_decorator_adds_a_feature_and_declare_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    def closing(bars: Window, ago: int = 1) -> float:
        return float(units(bars, CLOSE, ago))

    added: list[tuple[FeatureSpec, object]] = []
    monkeypatch.setattr("feature_store.features.library.DECLARED", added)
    spec, _ = declare(closing, warm_up=2, units="units", source="here")
    assert (spec.name, spec.parameters, spec.warm_up, spec.memory) == ("closing", {"ago": 1}, 2, "window")
    assert added == []
    feature(warm_up=2, units="units", source="here")(closing)
    assert [spec.name for spec, _ in added] == ["closing"]
