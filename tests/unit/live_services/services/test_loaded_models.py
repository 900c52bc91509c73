"""What is loaded: how it is proved, counted and said."""

from __future__ import annotations

import numpy as np
import pytest

from feature_store.features.schema import feature_schema
from live_services.adapters.metrics import Metrics
from live_services.domain.strategy.loaded_model import RuleFailures
from live_services.services.model_loading import prove
from live_services.services.strategy_state import StrategyState
from models_registry.packing import FeatureSchemaMismatch, ModelRefusedError, pack
from models_registry.refs import FeatureColumn
from models_registry.specification import StrategySpec
from tests.live_world import MINUTE, OPEN
from tests.strategy_world import RISING, Registry, World, sidecar

# --- proving ----------------------------------------------------------------------------------------------------------


def test_a_model_of_unknown_features_or_other_bars_is_refused_with_what_to_do() -> None:
    unknown = FeatureColumn(name="phase_of_the_moon", parameters={}, dtype="float64", version=1, warm_up=1)
    with pytest.raises(FeatureSchemaMismatch, match="phase_of_the_moon"):
        prove(sidecar(feature_schema=(unknown,)), {}, "1", 1)
    with pytest.raises(FeatureSchemaMismatch, match=r"set market\.bar_minutes"):
        prove(sidecar(bar_clock="time:300s"), {}, "1", 1)


def test_files_that_are_missing_are_refused() -> None:
    with pytest.raises(ModelRefusedError):
        prove(sidecar(), {}, "1", 1)


def test_a_packed_model_is_proved_and_scores_as_it_was_trained() -> None:
    from sklearn.ensemble import HistGradientBoostingClassifier

    rng = np.random.default_rng(1)
    rows = rng.normal(size=(300, 2))
    estimator = HistGradientBoostingClassifier(max_iter=5, random_state=1).fit(rows, rows[:, 0] > 0)
    packed = pack(estimator, rows[:100])
    schema = feature_schema(["momentum", "rsi"], 1)
    card = sidecar(
        algorithm="hist_gradient_boosting",
        feature_schema=tuple(FeatureColumn.model_validate(column) for column in schema.columns()),
        feature_schema_hash=schema.hash,
        artifact_sha256=packed.sha256,
    )
    proved = prove(card, packed.files, "4", 1)
    assert (proved.identity.model_version, proved.training_end_ns) == ("4", card.training_end_ns)
    assert (proved.model.score(rows) == estimator.predict_proba(rows)[:, 1]).all()
    changed = packed.files | {"flat.npz": packed.files["flat.npz"] + b"x"}
    with pytest.raises(ModelRefusedError, match=r"flat\.npz"):
        prove(card, changed, "4", 1)
    with pytest.raises(FeatureSchemaMismatch):
        prove(card.model_copy(update={"feature_schema_hash": "other"}), packed.files, "4", 1)


# --- what is counted --------------------------------------------------------------------------------------------------


def counted(metrics: Metrics) -> tuple[float | None, float | None]:
    """Versions loaded, and versions missing or refused."""
    labels = {"strategy_id": "momentum"}
    registry = metrics.registry
    return (
        registry.get_sample_value("ml_model_load_success_total", labels),
        registry.get_sample_value("ml_model_load_failure_total", labels),
    )


async def test_loads_are_counted_once_for_each_version_and_failures_once_for_each_reason(registry: Registry) -> None:
    metrics = Metrics(["momentum"])
    world = World(registry, metrics=metrics)
    registry.alias = None
    await world.say()
    await world.say(OPEN + MINUTE)
    assert counted(metrics) == (None, 1.0)
    registry.alias = "1"
    await world.say(OPEN + 2 * MINUTE)
    await world.say(OPEN + 3 * MINUTE)
    assert counted(metrics) == (1.0, 1.0)
    registry.bad["2"] = "digest differs"
    registry.alias = "2"
    await world.say(OPEN + 4 * MINUTE)
    await world.say(OPEN + 5 * MINUTE)
    assert counted(metrics) == (1.0, 2.0)


async def test_a_registry_that_is_away_is_a_gauge_until_it_answers_again(registry: Registry) -> None:
    metrics = Metrics(["momentum"])
    world, shown = World(registry, metrics=metrics), list[float | None]()
    for registry.down in (False, True, False):
        await world.loader.refresh()
        labels = {"service": "strategy_runner"}
        shown.append(metrics.registry.get_sample_value("alpha_panda_model_registry_unavailable", labels))
    assert shown == [0.0, 1.0, 0.0]


async def test_every_row_that_a_model_scores_is_counted_and_each_call_is_timed(registry: Registry) -> None:
    metrics = Metrics(["momentum"])
    world, unwatched = World(registry, metrics=metrics), World(registry)
    for each in (world, unwatched):
        await each.say()
    assert world.trade(RISING) == unwatched.trade(RISING)
    labels = {"strategy": "momentum"}
    rows = metrics.registry.get_sample_value("ml_inference_total", labels)
    calls = metrics.registry.get_sample_value("ml_inference_latency_seconds_count", labels)
    assert rows is not None
    assert calls is not None
    assert rows >= calls > 0


async def test_what_is_said_to_run_is_what_is_loaded_and_never_what_is_only_configured(registry: Registry) -> None:
    strategies = StrategySpec(name="momentum"), StrategySpec(name="patient", model="other")
    registry.aliases_of["other"] = {}
    world = World(registry, *strategies)

    def said(state: StrategyState | None) -> dict[str, tuple[str, str, str]]:
        found = world.runner.strategies(state)
        return {one.strategy: (one.state, one.version, one.reason) for one in found if one.rung == "champion"}

    silence = ("waiting", "", "the model registry has not answered yet")
    assert said(None) == {"momentum": silence, "patient": silence}
    await world.loader.refresh()
    none = ("disabled", "", "other@champion stands for no version: no version was promoted to it")
    assert said(None) == {"momentum": ("ready", "1", ""), "patient": none}
    assert said(world.state)["momentum"][0] == "waiting"
    await world.say()
    assert said(world.state) == said(None)
    world.state.desk.failures["momentum", "champion"] = RuleFailures(123, "z_score=5.0")
    broken = "its rule failed on 100 rows or more, which proposed nothing; the first: z_score=5.0"
    assert said(world.state)["momentum"] == ("ready", "1", broken)
    world.state.desk.failures.clear()
    registry.alias, registry.bad = "2", {"2": "digest differs"}
    await world.say(OPEN + MINUTE)
    assert said(world.state)["momentum"] == ("ready", "1", "version 2 is refused: digest differs")
    assert said(None)["momentum"] == ("disabled", "", "version 2 is refused: digest differs")
    registry.down = True
    await world.say(OPEN + 2 * MINUTE)
    state, version, reason = said(world.state)["momentum"]
    assert (state, version, "connection refused" in reason) == ("ready", "1", True)


async def test_a_loading_summary_is_said_at_the_start_and_on_every_change_and_not_for_the_words_of_an_outage(
    registry: Registry,
) -> None:
    world = World(registry)
    await world.say()
    assert [one.brokers[0].ready for one in world.summaries] == [1]
    await world.say()
    registry.bad["2"], registry.alias = "its files are damaged", "2"
    await world.say()
    goes_on = next(one for one in world.summaries[-1].strategies if one.rung == "champion")
    assert (goes_on.state, goes_on.version) == ("ready", "1")
    assert "damaged" in goes_on.reason
    assert len(world.summaries) == 2
    registry.alias = None
    await world.say()
    assert world.summaries[-1].brokers[0].ready == 0
    assert "stands for no version" in world.summaries[-1].brokers[0].skipped["momentum"]
    before = len(world.summaries)
    registry.down = True
    for _ in range(3):
        await world.say()
    assert len(world.summaries) == before + 1
    assert world.summaries[-1].brokers[0].ready == 0
