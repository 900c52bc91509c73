"""Which version a strategy runs: what the alias, the log and the registry say of it."""

from __future__ import annotations

import pytest

from live_services.domain.events import ModelLoaded, ModelRefused, StrategyModelAssigned
from live_services.services.model_loading import ModelLoader, ModelUnavailable
from models_registry.reconciliation import Standing
from models_registry.specification import StrategySpec
from tests.live_world import MINUTE, OPEN
from tests.strategy_world import TASK, Registry, World


async def test_a_session_starts_with_the_version_its_alias_names(registry: Registry) -> None:
    world = World(registry)
    assigned, loaded = await world.say()
    assert isinstance(assigned, StrategyModelAssigned)
    assert isinstance(loaded, ModelLoaded)
    assert (assigned.model_version, assigned.event_time_ns) == ("1", OPEN)
    assert (loaded.causation_id, loaded.rung, loaded.task) == (assigned.event_id, "champion", str(TASK))
    assert await world.say(OPEN + MINUTE) == []


async def test_a_moved_alias_swaps_the_model(registry: Registry) -> None:
    world = World(registry)
    await world.say()
    registry.alias = "2"
    assert [type(event) for event in await world.say(OPEN + MINUTE)] == [StrategyModelAssigned, ModelLoaded]
    assert world.running == "2"


@pytest.mark.parametrize("by_gate", [True, False])
async def test_a_refused_version_is_announced_once_and_the_other_goes_on(registry: Registry, by_gate: bool) -> None:
    world = World(registry)
    await world.say()
    (registry.gate if by_gate else registry.bad)["2"] = "digest differs"
    registry.alias = "2"
    (refused,) = await world.say(OPEN + MINUTE)
    assert isinstance(refused, ModelRefused)
    assert (refused.model_version, refused.reason, refused.running_version) == ("2", "digest differs", "1")
    assert await world.say(OPEN + 2 * MINUTE) == []
    assert world.running == "1"


async def test_a_version_that_cannot_be_loaded_is_fetched_again_only_after_a_nudge(
    registry: Registry,
) -> None:
    world = World(registry)
    registry.bad["1"] = "tampered"
    await world.say()
    await world.say()
    assert registry.fetched == ["1"]
    registry.bad.clear()
    world.loader.nudge()
    await world.say()
    assert (registry.fetched, world.running) == (["1", "1"], "1")


async def test_without_any_valid_version_the_strategy_is_disabled_once_and_comes_back(registry: Registry) -> None:
    world = World(registry)
    registry.gate["1"] = "the gate failed"
    first = await world.say()
    assert [type(event) for event in first] == [StrategyModelAssigned, ModelRefused]
    assert isinstance(first[0], StrategyModelAssigned)
    assert first[0].model_version is None
    assert "the gate failed" in first[0].reason
    assert await world.say(OPEN + MINUTE) == []
    registry.gate.clear()
    assert [type(event) for event in await world.say(OPEN + 2 * MINUTE)] == [StrategyModelAssigned, ModelLoaded]


async def test_a_version_trained_on_the_session_is_refused_and_the_other_goes_on(registry: Registry) -> None:
    world = World(registry)
    await world.say()
    registry.alias, registry.trained_to = "2", {"2": OPEN + 1}
    (refused,) = await world.say(OPEN + MINUTE)
    assert isinstance(refused, ModelRefused)
    assert (refused.model_version, refused.running_version, world.running) == ("2", "1", "1")
    assert "trained on data up to" in refused.reason
    assert await world.say(OPEN + 2 * MINUTE) == []


async def test_a_first_version_trained_on_the_session_disables_the_strategy_until_another_comes(
    registry: Registry,
) -> None:
    world = World(registry)
    registry.trained_to["1"] = OPEN + 1
    assigned, refused = await world.say()
    assert isinstance(assigned, StrategyModelAssigned)
    assert isinstance(refused, ModelRefused)
    assert assigned.model_version is None
    assert "momentum@champion stands for version 1: it was trained on data up to" in assigned.reason
    assert await world.say(OPEN + MINUTE) == []
    registry.alias = "2"
    assert [type(event) for event in await world.say(OPEN + 2 * MINUTE)] == [StrategyModelAssigned, ModelLoaded]


async def test_what_the_log_assigned_is_followed_although_it_was_trained_on_the_session(registry: Registry) -> None:
    before = World(registry)
    control = [event for event in await before.say() if isinstance(event, StrategyModelAssigned)]
    registry.trained_to["1"] = OPEN + 1
    after = World(registry)
    await after.restart(control)
    assert await after.say(OPEN + MINUTE) == []
    assert after.running == "1"
    await after.loader.stop()


async def test_an_alias_that_is_gone_disables_the_strategy(registry: Registry) -> None:
    world = World(registry)
    await world.say()
    registry.alias = None
    (assigned,) = await world.say(OPEN + MINUTE)
    assert isinstance(assigned, StrategyModelAssigned)
    assert (assigned.model_version, world.running) == (None, None)
    registry.alias = "1"
    assert len(await world.say(OPEN + 2 * MINUTE)) == 2


async def test_a_registry_that_is_down_changes_nothing(registry: Registry) -> None:
    world = World(registry)
    await world.say()
    registry.down = True
    assert await world.say(OPEN + MINUTE) == []
    assert (world.running, "connection refused" in world.loader.outage) == ("1", True)


async def test_after_a_restart_what_the_log_says_runs_on_although_its_alias_is_refused(
    registry: Registry,
) -> None:
    before = World(registry)
    control = [event for event in await before.say() if isinstance(event, StrategyModelAssigned)]
    registry.alias, registry.gate = "2", {"2": "the gate failed"}
    after = World(registry)
    await after.restart(control)
    assert [type(event) for event in await after.say(OPEN + MINUTE)] == [ModelRefused]
    assert after.running == "1"
    await after.loader.stop()


async def test_an_alias_that_was_moved_by_hand_is_refused_and_the_last_promotion_runs(registry: Registry) -> None:
    world = World(registry)
    registry.by_hand = {"champion": Standing("1", "2", "the alias was moved past the ledger")}
    assigned, _loaded, refused = await world.say()
    assert isinstance(assigned, StrategyModelAssigned)
    assert isinstance(refused, ModelRefused)
    assert (assigned.model_version, world.running) == ("1", "1")
    assert (refused.model_version, refused.reason) == ("2", "the alias was moved past the ledger")
    assert await world.say() == []
    registry.by_hand = {"champion": Standing("1", None, "the alias was taken away")}
    assert await world.say() == []
    assert world.running == "1"
    registry.by_hand = {"champion": Standing(None, "2", "nobody promoted it")}
    (stopped,) = [event for event in await world.say() if isinstance(event, StrategyModelAssigned)]
    assert (stopped.model_version, "nobody promoted it" in stopped.reason) == (None, True)


async def test_a_version_of_the_log_that_is_gone_stops_the_runner_with_its_name(registry: Registry) -> None:
    world = World(registry)
    control = [event for event in await world.say() if isinstance(event, StrategyModelAssigned)]
    registry.bad["1"] = "deleted"
    with pytest.raises(ModelUnavailable, match=r"momentum version 1.*deleted"):
        await World(registry).runner.prepare(TASK, control)


async def test_a_restart_refuses_a_version_whose_content_the_ledger_never_saw(registry: Registry) -> None:
    strategies = (StrategySpec(name="momentum"),)
    loader = ModelLoader(
        registry,
        registry.standings,
        registry.may_run,
        strategies,
        bar_minutes=1,
        poll_seconds=60,
        content_objection=lambda name, version: "it was registered anew" if version == "1" else None,
    )
    with pytest.raises(ModelUnavailable, match=r"momentum version 1.*registered anew"):
        await loader.require("momentum", "1")
    await loader.require("momentum", "2")
    assert loader.loaded("momentum", "2").identity.model_version == "2"


async def test_a_registry_that_never_answers_starts_the_session_disabled_and_says_so(registry: Registry) -> None:
    world = World(registry)
    registry.down = True
    await world.loader.start()
    (assigned,) = await world.say()
    assert isinstance(assigned, StrategyModelAssigned)
    assert "connection refused" in assigned.reason
    await world.loader.stop()
