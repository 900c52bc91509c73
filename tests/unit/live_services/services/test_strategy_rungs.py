"""Several strategies, rungs and brokers of one runner: each has versions of its own."""

from __future__ import annotations

import pytest
import structlog

from live_services.domain.events import (
    DeadLetter,
    ModelLoaded,
    ModelRefused,
    SignalGenerated,
    SignalShadowed,
    StrategyModelAssigned,
    self_caused,
    topic_of,
)
from live_services.domain.strategy.asked import StrategyKey
from live_services.domain.topics import SIGNALS_SHADOW, STRATEGIES_CONTROL, broker_topics
from models_registry.refs import FeatureColumn
from models_registry.sidecar import Sidecar
from models_registry.specification import Broker, StrategySpec
from tests.live_world import MINUTE, OPEN
from tests.strategy_world import NEXT, RISING, Registry, World, sidecar

FADE = StrategySpec(name="fade", features=("rsi", "momentum"), holding_bars=5)


MOMENTUM_AND_FADE = (StrategySpec(name="momentum"), FADE)
FADES: StrategyKey = ("fade", "champion")


def of_fade(**changes: object) -> Sidecar:
    schema, label = FADE.feature_schema(), FADE.label().identity()
    facts = {"model_name": "fade", "feature_schema_hash": schema.hash, "label_identity": label}
    columns = tuple(FeatureColumn.model_validate(column) for column in schema.columns())
    return sidecar(**facts | {"feature_schema": columns} | changes)


async def test_two_strategies_run_versions_of_their_own(registry: Registry) -> None:
    registry.aliases_of = {"momentum": {"champion": "1"}, "fade": {"champion": "7"}}
    registry.sidecars["7"] = of_fade()
    world = World(registry, *MOMENTUM_AND_FADE)
    said = [event for event in await world.say() if isinstance(event, ModelLoaded)]
    assert [(event.strategy, event.model_name, event.model_version) for event in said] == [
        ("momentum", "momentum", "1"),
        ("fade", "fade", "7"),
    ]
    assert (world.running, world.runs(FADES)) == ("1", "7")


async def test_a_missing_model_disables_its_own_strategy_only(registry: Registry) -> None:
    registry.aliases_of = {"fade": {}}
    world = World(registry, *MOMENTUM_AND_FADE)
    said = [event for event in await world.say() if isinstance(event, StrategyModelAssigned)]
    assert [(event.strategy, event.model_version) for event in said] == [("momentum", "1"), ("fade", None)]
    assert "fade@champion stands for no version: no version was promoted to it" in said[1].reason


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"feature_schema_hash": "x"}, "other parameters or of another version"),
        ({"label_identity": StrategySpec(name="x").label().identity()}, "horizon_bars is 10 there and 5 here"),
        ({"label_identity": {}, "label_horizon_bars": 10}, "horizon_bars is 10 there and 5 here"),
    ],
)
async def test_a_version_that_is_not_what_a_strategy_trades_is_refused_for_it_alone(
    registry: Registry, changes: dict[str, object], said: str
) -> None:
    registry.aliases_of = {"momentum": {"champion": "1"}, "fade": {"champion": "7"}}
    registry.sidecars["7"] = of_fade(**changes)
    world = World(registry, *MOMENTUM_AND_FADE)
    events = await world.say()
    (refused,) = [event for event in events if isinstance(event, ModelRefused)]
    assert (refused.strategy, refused.model_version) == ("fade", "7")
    assert said in refused.reason
    assert "launch train_fade" in refused.reason
    assert (world.running, world.runs(FADES)) == ("1", None)


async def test_a_version_of_before_label_identities_runs_and_the_log_says_what_was_compared(registry: Registry) -> None:
    registry.aliases_of = {"momentum": {"champion": "1"}, "fade": {"champion": "7"}}
    registry.sidecars["7"] = of_fade(label_identity={}, label_horizon_bars=5, schema_version=1)
    world = World(registry, *MOMENTUM_AND_FADE)
    with structlog.testing.capture_logs() as logs:
        await world.say()
    assert world.runs(FADES) == "7"
    assert [line["strategy"] for line in logs if line["event"] == "model_of_an_older_sidecar"] == ["fade"]


# --- rungs and brokers ------------------------------------------------------------------------------------------------

BOTH: tuple[Broker, ...] = ("paper", "zerodha")


def on_both(**changes: object) -> StrategySpec:
    return StrategySpec.model_validate({"name": "momentum", "brokers": BOTH} | changes)


async def test_each_strategy_is_asked_on_the_rung_of_every_broker_it_names_that_runs(registry: Registry) -> None:
    registry.aliases_of = {"momentum": {"champion": "1", "live": "2"}}
    world = World(registry, on_both(), StrategySpec(name="other", model="momentum"), brokers=BOTH)
    said = [event for event in await world.say() if isinstance(event, StrategyModelAssigned)]
    assert [(event.strategy, event.rung, event.model_version) for event in said] == [
        ("momentum", "champion", "1"),
        ("momentum", "live", "2"),
        ("other", "champion", "1"),
    ]
    assert len({event.event_id for event in said}) == 3
    assert {topic_of(event) for event in said} == {STRATEGIES_CONTROL}


async def test_a_broker_that_does_not_run_is_asked_nothing(registry: Registry) -> None:
    world = World(registry, on_both(brokers=("zerodha",)))
    assert await world.say() == []
    assert broker_topics("zerodha").signals_raw not in world.runner.outputs


async def test_what_the_runner_may_say_are_the_signals_of_every_broker_and_the_shadow(registry: Registry) -> None:
    said = World(registry, on_both(), brokers=BOTH).runner.outputs
    assert {broker_topics(broker).signals_raw for broker in BOTH} | {SIGNALS_SHADOW} <= set(said)


async def test_every_broker_hears_the_version_of_its_rung_and_the_challenger_speaks_to_none(registry: Registry) -> None:
    registry.aliases_of = {"momentum": {"champion": "1", "live": "2", "challenger": "3"}}
    world = World(registry, on_both(), brokers=BOTH)
    await world.say()
    said = world.trade(RISING)
    heard = {(e.broker, e.rung, e.model_version) for e in said if isinstance(e, SignalGenerated)}
    assert heard == {("paper", "champion", "1"), ("zerodha", "live", "2")}
    shadows = [e for e in said if isinstance(e, SignalShadowed)]
    assert {(e.broker, e.model_version) for e in shadows} == {("shared", "3")}
    by_broker = [[e for e in said if isinstance(e, SignalGenerated) and e.broker == broker] for broker in BOTH]
    assert len(by_broker[0]) == len(by_broker[1]) == len(shadows) > 30
    assert len({event.event_id for event in said}) == len(said)


async def test_a_flood_of_dead_letters_stops_proposals_until_the_next_session_and_says_why(registry: Registry) -> None:
    registry.aliases_of = {"momentum": {"champion": "1", "challenger": "3"}}
    world = World(registry)
    await world.say()
    place = {"topic": "market.bars", "partition": 0, "offset": 9, "service": "strategy_runner", "failure": "BadFrame"}
    fields = {**self_caused("letter"), **place, "event_type": "dead_letter", "broker": "shared", "event_time_ns": OPEN}
    letter = DeadLetter.model_validate(fields | {"key_base64": None, "value_base64": ""})
    (stopped,) = world.runner.flooded(letter, "100 records within 60 s", world.state, OPEN)
    assert stopped.causation_id == letter.event_id
    world.follow(stopped)
    assert list(world.runner.flooded(letter, "again", world.state, OPEN)) == []
    assert world.trade(RISING) == []
    why = "it proposes nothing more in this session: 100 records within 60 s"
    assert {(one.state, one.reason) for one in world.runner.strategies(world.state)} == {("disabled", why)}
    await world.say()
    assert why in world.summaries[-1].model_dump_json()
    world.next_session()
    await world.say(NEXT.open_ns)
    assert world.running == "1"
    assert {one.state for one in world.runner.strategies(world.state)} == {"ready"}


async def test_without_a_challenger_nothing_is_assigned_and_nothing_is_said_of_it(registry: Registry) -> None:
    with structlog.testing.capture_logs() as logs:
        said = await World(registry).say()
    assert {event.rung for event in said if isinstance(event, StrategyModelAssigned | ModelLoaded)} == {"champion"}
    assert [line["event"] for line in logs] == ["strategies_loaded"]


async def test_a_challenger_comes_and_goes_without_touching_the_champion(registry: Registry) -> None:
    world = World(registry)
    await world.say()
    registry.aliases_of = {"momentum": {"champion": "1", "challenger": "2"}}
    assert [type(event) for event in await world.say(OPEN + MINUTE)] == [StrategyModelAssigned, ModelLoaded]
    assert (world.running, world.runs(("momentum", "challenger"))) == ("1", "2")
    registry.aliases_of = {"momentum": {"champion": "1"}}
    with structlog.testing.capture_logs() as logs:
        (gone,) = await world.say(OPEN + 2 * MINUTE)
    assert isinstance(gone, StrategyModelAssigned)
    assert (gone.rung, gone.model_version, world.running, logs) == ("challenger", None, "1", [])


async def test_a_refusal_on_one_rung_is_of_that_rung_alone(registry: Registry) -> None:
    registry.aliases_of = {"momentum": {"champion": "1", "live": "2"}}
    registry.gate["2"] = "nobody signed"
    world = World(registry, on_both(), brokers=BOTH)
    (refused,) = [event for event in await world.say() if isinstance(event, ModelRefused)]
    assert (refused.rung, refused.reason) == ("live", "nobody signed")
    assert (world.running, world.runs(("momentum", "live"))) == ("1", None)


async def test_each_model_is_asked_once_a_look_whatever_its_strategies_and_rungs(registry: Registry) -> None:
    world = World(registry, on_both(), StrategySpec(name="other", model="momentum"), FADE, brokers=BOTH)
    await world.loader.refresh()
    assert registry.asked == ["momentum", "fade"]
