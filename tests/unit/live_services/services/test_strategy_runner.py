from __future__ import annotations

import datetime as dt
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import structlog

from feature_store.features.schema import feature_schema
from feature_store.market.types import Bars, Instrument, Session, Universe
from live_services.adapters.metrics import Metrics
from live_services.adapters.model_files import ModelFiles
from live_services.domain.basis import Stamp
from live_services.domain.events import (
    DeadLetter,
    Event,
    ModelLoaded,
    ModelRefused,
    SignalGenerated,
    SignalShadowed,
    StrategiesConfigured,
    StrategiesStopped,
    StrategiesSummarized,
    StrategyHistoryUsed,
    StrategyModelAssigned,
    self_caused,
    topic_of,
)
from live_services.domain.log import EventRecord, LogPosition, MarketSlice, TaskId
from live_services.domain.strategy.asked import StrategyKey
from live_services.domain.strategy.loaded_model import LoadedModel, RuleFailures
from live_services.domain.topics import SIGNALS_SHADOW, STRATEGIES_CONTROL, broker_topics
from live_services.runtime.service import Opening
from live_services.services import model_loading
from live_services.services.model_loading import ModelLoader, ModelUnavailable, prove
from live_services.services.strategy_runner import StrategyRunner
from live_services.services.strategy_state import StrategyState
from live_services.settings import MarketSettings, Settings
from models_registry.packing import FeatureSchemaMismatch, ModelRefusedError, pack
from models_registry.reconciliation import Standing
from models_registry.refs import Alias, FeatureColumn, GateResult
from models_registry.registry import RegistryUnavailable
from models_registry.sidecar import Sidecar, sidecar_bytes
from models_registry.specification import Broker, StrategySpec
from tests.live_world import MINUTE, OPEN, SESSION, UNIVERSE, bars, loaded_model

TASK = TaskId("strategy_runner", "shared", 0)
AT = LogPosition("market.bars", 0, 0)
NEXT = Session.regular(SESSION.date + dt.timedelta(days=1))
CHAMPION: StrategyKey = ("momentum", "champion")
_CONTROL = StrategiesConfigured | StrategyHistoryUsed | StrategyModelAssigned | StrategiesStopped
MOMENTUM = {
    "feature_schema_hash": StrategySpec(name="momentum").feature_schema().hash,
    "label_identity": StrategySpec(name="momentum").label().identity(),
}
"""What the sidecar of a version says that is what the default strategy trades."""


class Registry:
    """What stands, versions that are good or not, and a switch that cuts it off."""

    def __init__(self) -> None:
        self.alias: str | None = "1"
        """What every model's champion is, unless it has aliases of its own."""
        self.aliases_of: dict[str, dict[Alias, str]] = {}
        self.by_hand: dict[Alias, Standing] = {}
        """Rungs whose aliases were moved past the ledger."""
        self.bad: dict[str, str] = {}
        self.gate: dict[str, str] = {}
        self.down = False
        self.hangs_s = 0.0
        """How long an answer takes."""
        self.trained_to: dict[str, int] = {}
        self.asked: list[str] = []
        self.fetched: list[str] = []
        self.sidecars: dict[str, Sidecar] = {}

    def standings(self, name: str) -> dict[Alias, Standing]:
        self.asked.append(name)
        time.sleep(self.hangs_s)
        if self.down:
            raise RegistryUnavailable("connection refused")
        standing = self.aliases_of.get(name, {} if self.alias is None else {"champion": self.alias})
        return {rung: Standing(version, version, None) for rung, version in standing.items()} | self.by_hand

    def fetch(self, name: str, version: str) -> tuple[Sidecar, Mapping[str, bytes]]:
        if self.down:
            raise RegistryUnavailable("connection refused")
        self.fetched.append(version)
        if version in self.bad:
            raise ModelRefusedError(self.bad[version])
        files = dict.fromkeys(("model.skops", "flat.npz", "golden.npz"), version.encode())
        return self.sidecars.get(version, sidecar(**MOMENTUM)), files

    def may_run(self, name: str, version: str, rung: str) -> str | None:
        return self.gate.get(version)


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Registry:
    made = Registry()

    def accept(sidecar: Sidecar, files: Mapping[str, bytes], version: str, bar_minutes: int) -> LoadedModel:
        model = loaded_model(version)
        identity = model.identity.model_copy(update={"model_name": sidecar.model_name})
        return replace(model, identity=identity, training_end_ns=made.trained_to.get(version, OPEN))

    monkeypatch.setattr(model_loading, "prove", accept)
    monkeypatch.setattr(model_loading, "_FIRST_WAIT_SECONDS", 0.0)
    return made


class World:
    """A runner with one open session, and what it said."""

    def __init__(
        self,
        registry: Registry,
        *strategies: StrategySpec,
        brokers: Sequence[Broker] = ("paper",),
        kept: ModelFiles | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        strategies = strategies or (StrategySpec(name="momentum"),)
        self.loader = ModelLoader(
            registry,
            registry.standings,
            registry.may_run,
            strategies,
            brokers=brokers,
            bar_minutes=1,
            poll_seconds=60,
            kept=kept,
            counter=metrics,
        )
        settings = Settings(strategies=strategies, market=MarketSettings(feed="bars"))
        inferred = metrics.inferred if metrics is not None else None
        self.runner = StrategyRunner(settings, self.loader, Stamp(), brokers=brokers, inferred=inferred)
        self.state: StrategyState = self.runner.open_session(Opening(SESSION, UNIVERSE, TASK))
        self.summaries: list[StrategiesSummarized] = []

    def next_session(self, session: Session = NEXT, universe: Universe = UNIVERSE) -> None:
        """Open the session after the one at hand, as a process does that lives through the night."""
        self.state = self.runner.open_session(Opening(session, universe, TASK, self.state))

    async def say(self, now_ns: int = OPEN) -> list[Event]:
        await self.loader.refresh()
        said: list[Event] = []
        for event in self.runner.commands(self.state, now_ns):
            if isinstance(event, StrategiesSummarized):
                self.summaries.append(event)
            elif not isinstance(event, StrategiesConfigured | StrategyHistoryUsed):
                said.append(event)
            said += self.follow(event)
        return said

    def follow(self, event: Event) -> list[Event]:
        """Take back what stands on the control topic."""
        if not isinstance(event, _CONTROL):
            return []
        record = EventRecord(event, LogPosition(STRATEGIES_CONTROL.name, 0, -1))
        return list(self.runner.handle(record, self.state, event.event_time_ns))

    async def restart(self, control: Sequence[Event]) -> None:
        """Do what a process does that comes up in the middle of a session: prepare, then follow its control records."""
        await self.runner.prepare(TASK, control)
        for event in control:
            self.follow(event)

    def trade(self, market: Bars) -> list[Event]:
        self.runner.handle(MarketSlice(market, AT), self.state, int(market.end_ns[-1]))
        return list(self.runner.advance(self.state, int(market.end_ns[-1]) + 1))

    @property
    def running(self) -> str | None:
        return self.runs(CHAMPION)

    def runs(self, key: StrategyKey) -> str | None:
        model = self.state.running(key)
        return model.identity.model_version if model is not None else None


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


def sidecar(**changes: object) -> Sidecar:
    column = FeatureColumn(name="momentum", parameters={}, dtype="float64", version=1, warm_up=11)
    fields: dict[str, object] = {
        "model_name": "momentum",
        "algorithm": "logistic_regression",
        "market": "SYNTHETIC",
        "bar_clock": "time:60s",
        "feature_schema": (column,),
        "feature_schema_hash": "h",
        "training_data_digest": "d",
        "training_start_ns": 0,
        "training_end_ns": 1,
        "training_rows": 1,
        "label": "l",
        "label_horizon_bars": 1,
        "buy_threshold": 0.6,
        "sell_threshold": 0.4,
        "folds": (),
        "metrics": {},
        "gate": GateResult(rung="champion", checks=()),
        "feature_distributions": (),
        "artifact_sha256": {},
        "git_commit": "c",
        "library_versions": {},
        "seed": 1,
        "created_by": "me",
        "created_at_ns": 1,
    }
    return Sidecar.model_validate(fields | changes)


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
RISING = bars(*((i, k, 100.0 + k, 101.0 + k) for i in range(3) for k in range(30)))


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


# --- many days --------------------------------------------------------------------------------------------------------


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
