"""What runs on in the next session, and after a restart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from feature_store.market.types import Bars, Instrument, Universe
from live_services.adapters.model_files import ModelFiles
from live_services.domain.events import Event, ModelRefused, SignalGenerated, StrategyModelAssigned
from live_services.services import model_loading
from live_services.services.model_loading import ModelUnavailable
from models_registry.sidecar import sidecar_bytes
from tests.live_world import MINUTE, OPEN, UNIVERSE
from tests.strategy_world import MOMENTUM, NEXT, RISING, Registry, World, sidecar


async def after_the_night(registry: Registry, *, restarted: bool, night: str, kept: ModelFiles) -> World:
    """Give a world in its second session, lived through or begun anew in the evening."""
    world = World(registry, kept=kept)
    control = [event for event in await world.say() if isinstance(event, StrategyModelAssigned)]
    if night == "the registry is away":
        registry.down = True
    elif night == "another version is refused":
        registry.alias, registry.gate["2"] = "2", "the gate failed"
    else:
        registry.alias, registry.bad["2"] = "2", "its files were changed"
    await world.loader.refresh()
    if restarted:
        world = World(registry, kept=kept)
        await world.restart(control)
    world.next_session()
    return world


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize(
    "night", ["the registry is away", "another version is refused", "another version cannot be loaded"]
)
async def test_what_ran_goes_on_in_the_next_session_whoever_was_restarted_overnight(
    registry: Registry, night: str, restarted: bool, tmp_path: Path
) -> None:
    world = await after_the_night(registry, restarted=restarted, night=night, kept=ModelFiles(tmp_path))
    said = await world.say(NEXT.open_ns)
    assigned = said[0]
    assert isinstance(assigned, StrategyModelAssigned)
    assert (assigned.model_version, world.running) == ("1", "1")
    assert "version 1 ran at the end of the session before and is carried over" in assigned.reason
    assert [event for event in said if isinstance(event, ModelRefused)] or registry.down
    assert await world.say(NEXT.open_ns + MINUTE) == []
    await world.loader.stop()


@pytest.mark.parametrize("restarted", [False, True])
async def test_a_night_in_which_the_alias_moved_begins_with_the_new_version(
    registry: Registry, restarted: bool, tmp_path: Path
) -> None:
    world = await after_the_night(
        registry, restarted=restarted, night="the registry is away", kept=ModelFiles(tmp_path)
    )
    registry.down, registry.alias = False, "2"
    await world.say(NEXT.open_ns)
    assert world.running == "2"
    await world.loader.stop()


async def test_what_was_disabled_is_carried_over_as_nothing(registry: Registry) -> None:
    world = World(registry)
    await world.say()
    registry.alias = None
    await world.say(OPEN + MINUTE)
    registry.down = True
    world.next_session()
    (assigned,) = await world.say(NEXT.open_ns)
    assert isinstance(assigned, StrategyModelAssigned)
    assert (assigned.model_version, "connection refused" in assigned.reason) == (None, True)


async def test_a_challenger_is_carried_over_too(registry: Registry) -> None:
    registry.aliases_of = {"momentum": {"champion": "1", "challenger": "2"}}
    world = World(registry)
    await world.say()
    registry.down = True
    world.next_session()
    await world.say(NEXT.open_ns)
    assert (world.running, world.runs(("momentum", "challenger"))) == ("1", "2")


async def test_a_version_that_knows_the_session_is_not_carried_into_it(registry: Registry) -> None:
    before = World(registry)
    control = [event for event in await before.say() if isinstance(event, StrategyModelAssigned)]
    registry.trained_to["1"] = NEXT.open_ns + 1  # it ran all the same, and the log is followed
    world = World(registry)
    await world.restart(control)
    registry.down = True
    world.next_session()
    (assigned,) = await world.say(NEXT.open_ns)
    assert isinstance(assigned, StrategyModelAssigned)
    assert assigned.model_version is None
    assert "version 1 ran at the end of the session before, but it was trained on data up to" in assigned.reason
    await world.loader.stop()


async def test_a_restart_needs_no_registry_for_versions_that_ran_here(registry: Registry, tmp_path: Path) -> None:
    kept = ModelFiles(tmp_path)
    control = [e for e in await World(registry, kept=kept).say() if isinstance(e, StrategyModelAssigned)]
    registry.down = True
    world = World(registry, kept=kept)
    await world.restart(control)
    assert await world.say(OPEN + MINUTE) == []
    assert (world.running, registry.fetched) == ("1", ["1"])
    await world.loader.stop()


async def test_a_restart_does_not_wait_for_a_registry_that_hangs(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = ModelFiles(tmp_path)
    control = [e for e in await World(registry, kept=kept).say() if isinstance(e, StrategyModelAssigned)]
    monkeypatch.setattr(model_loading, "_FIRST_LOOK_SECONDS", 0.05)
    registry.hangs_s = 0.5
    world = World(registry, kept=kept)
    await world.restart(control)
    assert (world.running, world.loader.outage) == ("1", "the model registry did not answer in 0 s")
    said = world.runner.commands(world.state, OPEN + MINUTE)
    assert not [event for event in said if isinstance(event, StrategyModelAssigned)]
    await world.loader.stop()


async def test_kept_files_that_are_not_those_of_the_log_are_passed_over(registry: Registry, tmp_path: Path) -> None:
    kept = ModelFiles(tmp_path)
    control = [e for e in await World(registry, kept=kept).say() if isinstance(e, StrategyModelAssigned)]
    other = sidecar_bytes(sidecar(**MOMENTUM | {"buy_threshold": 0.1}))
    kept.keep("momentum", "1", other, registry.fetch("momentum", "1")[1])
    registry.down = True
    with pytest.raises(ModelUnavailable, match="connection refused"):
        await World(registry, kept=kept).restart(control)


async def test_a_universe_that_changes_overnight_changes_what_is_traded_and_nothing_else(registry: Registry) -> None:
    listed = Instrument(instrument_token=99, symbol="NEW")
    tomorrow = Universe(instruments=(listed, *reversed(UNIVERSE.instruments)))
    world = World(registry)
    await world.say()
    first = world.trade(RISING)
    world.next_session(universe=tomorrow)
    await world.say(NEXT.open_ns)
    day = NEXT.open_ns - OPEN
    index = np.array([tomorrow.index_of_symbol[i.symbol] for i in UNIVERSE.instruments], dtype=np.int32)
    moved = replace(
        RISING, instrument=index[RISING.instrument], start_ns=RISING.start_ns + day, end_ns=RISING.end_ns + day
    )
    new = moved[moved.instrument == index[0]]
    new = replace(new, instrument=np.zeros(len(new), dtype=np.int32))
    both = Bars.concatenate([moved, new])
    second = world.trade(both[np.lexsort((both.instrument, both.end_ns))])
    assert {signal.symbol for signal in second if isinstance(signal, SignalGenerated)} == {"AAA", "BBB", "CCC", "NEW"}

    def of(said: Sequence[Event], symbol: str) -> list[tuple[int, int, float]]:
        mine = [event for event in said if isinstance(event, SignalGenerated) and event.symbol == symbol]
        return [(signal.instrument_token, signal.quantity, signal.score) for signal in mine]

    assert all(of(first, symbol) == of(second, symbol) for symbol in ("AAA", "BBB", "CCC"))
    assert len(of(first, "AAA")) > 10
