"""What every strategy keeps to: a model is loaded or refused, features come in order, scores become proposals."""

from __future__ import annotations

import pytest

from feature_store.features.schema import UnknownFeature
from live_services.backtest.engine import EngineConfig, MarketDay, assignments_at_open, run_session
from live_services.domain.basis import Stamp
from live_services.domain.events import SignalGenerated
from live_services.services.model_loading import prove
from models_registry.packing import FeatureSchemaMismatch
from models_registry.refusals import FLAT_FILE, TamperedModel
from models_registry.sample import sample_version
from models_registry.specification import StrategySpec
from tests.account_world import limits
from tests.live_world import SESSION, UNIVERSE, random_walk

STRATEGIES = (
    StrategySpec(name="plain", features=("last_return", "momentum")),
    StrategySpec(name="of_two_clocks", features=("last_return", "last_return@5m")),
    StrategySpec(name="slow", bar_minutes=5, features=("last_return",), holding_bars=2),
    StrategySpec(name="bracketed", features=("last_return",), stop_bps=30, target_bps=40, product="CNC"),
    StrategySpec(name="shared", model="plain", features=("momentum",), priority=3),
)

each = pytest.mark.parametrize("spec", STRATEGIES, ids=lambda spec: spec.name)


@each
def test_load_model_gives_what_was_registered_and_refuses_other_files_and_other_clocks(spec: StrategySpec) -> None:
    packed, sidecar = sample_version(spec, created_by="a test", created_at_ns=1)
    loaded = prove(sidecar, packed.files, "3", spec.bar_minutes)
    assert (loaded.identity.model_name, loaded.identity.model_version) == (spec.model_name, "3")
    assert loaded.schema.hash == spec.feature_schema().hash
    damaged = packed.files | {FLAT_FILE: packed.files[FLAT_FILE][:-1] + b"?"}
    with pytest.raises(TamperedModel):
        prove(sidecar, damaged, "3", spec.bar_minutes)
    with pytest.raises(FeatureSchemaMismatch):
        prove(sidecar, packed.files, "3", spec.bar_minutes + 1)


@each
def test_extract_features_and_predict_signal_say_what_the_model_was_asked_and_what_it_answered(
    spec: StrategySpec,
) -> None:
    packed, sidecar = sample_version(spec, created_by="a test", created_at_ns=1)
    loaded = prove(sidecar, packed.files, "3", spec.bar_minutes)
    config = EngineConfig((spec,), {"paper": limits()}, bar_minutes=spec.bar_minutes, stamp=Stamp("digest", "c0ffee"))
    market = random_walk(3, minutes=90, per_minute=4, seed=5)
    day = MarketDay(SESSION, UNIVERSE, market, assignments_at_open(SESSION, {spec.name: loaded}))
    proposals = [event for event in run_session(day, config) if isinstance(event, SignalGenerated)]
    assert {one.side for one in proposals} == {"BUY", "SELL"}
    for one in proposals:
        assert (one.strategy, one.model_name, one.model_version) == (spec.name, spec.model_name, "3")
        assert one.feature_schema_hash == sidecar.feature_schema_hash
        assert tuple(one.features) == spec.feature_schema().names
        buys = one.score >= loaded.buy_threshold
        assert one.side == ("BUY" if buys else "SELL")
        assert one.threshold == (loaded.buy_threshold if buys else loaded.sell_threshold)
        assert buys or one.score <= loaded.sell_threshold


@each
def test_without_a_model_nothing_is_proposed(spec: StrategySpec) -> None:
    config = EngineConfig((spec,), {"paper": limits()}, bar_minutes=spec.bar_minutes, stamp=Stamp("digest", "c0ffee"))
    day = MarketDay(SESSION, UNIVERSE, random_walk(3, minutes=30, per_minute=4, seed=5), ())
    assert not [event for event in run_session(day, config) if isinstance(event, SignalGenerated)]


def test_a_feature_that_does_not_exist_is_refused_with_the_nearest_ones() -> None:
    misspelt = StrategySpec.model_construct(**dict(STRATEGIES[0]) | {"features": ("last_retrun",)})
    with pytest.raises(UnknownFeature, match="did you mean last_return"):
        misspelt.feature_schema()
