from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import structlog

from feature_store.features.schema import feature_schema
from live_services.domain.basis import Stamp
from live_services.domain.events import Event, ModelLoaded, ModelRefused, StrategyHistoryUsed, StrategyModelAssigned
from live_services.domain.log import EventRecord, LogPosition, TaskId
from live_services.domain.strategy.desk import LoadedModel
from live_services.services import model_loading
from live_services.services.model_loading import ModelLoader, ModelUnavailable, prove
from live_services.services.strategy_runner import StrategyRunner, StrategyState
from live_services.settings import Settings
from models_registry.packing import FeatureSchemaMismatch, ModelRefusedError, pack
from models_registry.refs import FeatureColumn, GateResult, ModelRef
from models_registry.registry import RegistryUnavailable
from models_registry.sidecar import Sidecar
from models_registry.specification import StrategySpec
from tests.live_world import MINUTE, OPEN, SESSION, UNIVERSE, loaded_model

TASK = TaskId("strategy_runner", "paper", 0)
MOMENTUM = {
    "feature_schema_hash": StrategySpec(name="momentum").feature_schema().hash,
    "label_identity": StrategySpec(name="momentum").label().identity(),
}
"""What the sidecar of a version says that is what the default strategy trades."""


class Registry:
    """An alias, versions that are good or not, and a switch that cuts it off."""

    def __init__(self) -> None:
        self.alias: str | None = "1"
        self.bad: dict[str, str] = {}
        self.gate: dict[str, str] = {}
        self.down = False
        self.trained_to: dict[str, int] = {}
        self.fetched: list[str] = []
        self.sidecars: dict[str, Sidecar] = {}
        self.aliases: dict[str, str | None] = {}

    def resolve(self, ref: ModelRef) -> str | None:
        if self.down:
            raise RegistryUnavailable("connection refused")
        return self.aliases.get(ref.name, self.alias)

    def fetch(self, name: str, version: str) -> tuple[Sidecar, Mapping[str, bytes]]:
        self.fetched.append(version)
        if version in self.bad:
            raise ModelRefusedError(self.bad[version])
        return self.sidecars.get(version, sidecar(**MOMENTUM)), {"version": version.encode()}

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

    def __init__(self, registry: Registry) -> None:
        strategies = (StrategySpec(name="momentum"),)
        self.loader = ModelLoader(registry, registry.may_run, strategies, bar_minutes=1, poll_seconds=60)
        self.runner = StrategyRunner(Settings(strategies=strategies), UNIVERSE, self.loader, Stamp())
        self.state: StrategyState = self.runner.open_session(SESSION, TASK)

    async def say(self, now_ns: int = OPEN) -> list[Event]:
        await self.loader.refresh()
        said: list[Event] = []
        for event in self.runner.commands(self.state, now_ns):
            if isinstance(event, StrategyHistoryUsed):
                self.runner.handle(EventRecord(event, LogPosition("paper.control", 0, -1)), self.state, now_ns)
                continue
            said.append(event)
            if isinstance(event, StrategyModelAssigned):
                said += self.runner.handle(EventRecord(event, LogPosition("paper.control", 0, -1)), self.state, now_ns)
        return said

    @property
    def running(self) -> str | None:
        current = self.state.desk.assigned("momentum")
        return current.model.identity.model_version if current is not None and current.model is not None else None


async def test_a_session_starts_with_the_version_its_alias_names(registry: Registry) -> None:
    world = World(registry)
    assigned, loaded = await world.say()
    assert isinstance(assigned, StrategyModelAssigned)
    assert isinstance(loaded, ModelLoaded)
    assert (assigned.model_version, assigned.event_time_ns) == ("1", OPEN)
    assert (loaded.causation_id, loaded.alias, loaded.task) == (assigned.event_id, "champion", str(TASK))
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
    assert "momentum@champion names version 1: it was trained on data up to" in assigned.reason
    assert await world.say(OPEN + MINUTE) == []
    registry.alias = "2"
    assert [type(event) for event in await world.say(OPEN + 2 * MINUTE)] == [StrategyModelAssigned, ModelLoaded]


async def test_what_the_log_assigned_is_followed_although_it_was_trained_on_the_session(registry: Registry) -> None:
    before = World(registry)
    control = [event for event in await before.say() if isinstance(event, StrategyModelAssigned)]
    registry.trained_to["1"] = OPEN + 1
    after = World(registry)
    await after.runner.prepare(TASK, control)
    for event in control:
        after.runner.handle(EventRecord(event, LogPosition("paper.control", 0, 0)), after.state, OPEN)
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
    await after.runner.prepare(TASK, control)
    for event in control:
        after.runner.handle(EventRecord(event, LogPosition("paper.control", 0, 0)), after.state, OPEN)
    assert [type(event) for event in await after.say(OPEN + MINUTE)] == [ModelRefused]
    assert after.running == "1"
    await after.loader.stop()


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


class TwoStrategies(World):
    """A runner of two strategies, each with a model of its own."""

    def __init__(self, registry: Registry) -> None:
        strategies = (StrategySpec(name="momentum"), FADE)
        self.loader = ModelLoader(registry, registry.may_run, strategies, bar_minutes=1, poll_seconds=60)
        self.runner = StrategyRunner(Settings(strategies=strategies), UNIVERSE, self.loader, Stamp())
        self.state: StrategyState = self.runner.open_session(SESSION, TASK)

    def runs(self, strategy: str) -> str | None:
        current = self.state.desk.assigned(strategy)
        return current.model.identity.model_version if current is not None and current.model is not None else None


def of_fade(**changes: object) -> Sidecar:
    schema, label = FADE.feature_schema(), FADE.label().identity()
    facts = {"model_name": "fade", "feature_schema_hash": schema.hash, "label_identity": label}
    columns = tuple(FeatureColumn.model_validate(column) for column in schema.columns())
    return sidecar(**facts | {"feature_schema": columns} | changes)


async def test_two_strategies_run_versions_of_their_own(registry: Registry) -> None:
    registry.aliases = {"momentum": "1", "fade": "7"}
    registry.sidecars["7"] = of_fade()
    world = TwoStrategies(registry)
    said = [event for event in await world.say() if isinstance(event, ModelLoaded)]
    assert [(event.strategy, event.model_name, event.model_version) for event in said] == [
        ("momentum", "momentum", "1"),
        ("fade", "fade", "7"),
    ]
    assert (world.runs("momentum"), world.runs("fade")) == ("1", "7")


async def test_a_missing_model_disables_its_own_strategy_only(registry: Registry) -> None:
    registry.aliases = {"momentum": "1", "fade": None}
    world = TwoStrategies(registry)
    said = [event for event in await world.say() if isinstance(event, StrategyModelAssigned)]
    assert [(event.strategy, event.model_version) for event in said] == [("momentum", "1"), ("fade", None)]
    assert "fade@champion names no version" in said[1].reason


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
    registry.aliases = {"momentum": "1", "fade": "7"}
    registry.sidecars["7"] = of_fade(**changes)
    world = TwoStrategies(registry)
    events = await world.say()
    (refused,) = [event for event in events if isinstance(event, ModelRefused)]
    assert (refused.strategy, refused.model_version) == ("fade", "7")
    assert said in refused.reason
    assert "launch train_fade" in refused.reason
    assert (world.runs("momentum"), world.runs("fade")) == ("1", None)


async def test_a_version_of_before_label_identities_runs_and_the_log_says_what_was_compared(registry: Registry) -> None:
    registry.aliases = {"momentum": "1", "fade": "7"}
    registry.sidecars["7"] = of_fade(label_identity={}, label_horizon_bars=5, schema_version=1)
    world = TwoStrategies(registry)
    with structlog.testing.capture_logs() as logs:
        await world.say()
    assert world.runs("fade") == "7"
    assert [line["strategy"] for line in logs if line["event"] == "model_of_an_older_sidecar"] == ["fade"]


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
