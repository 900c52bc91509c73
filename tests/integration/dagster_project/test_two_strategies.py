"""A second strategy, written by hand: its own button, its own champion, and signals beside the first one's."""

import asyncio
import collections
import itertools

import dagster as dg
import numpy as np
import pytest

from dagster_project.candidates import read_candidate
from feature_store.market.types import MINUTE_NS
from feature_store.offline.store import OfflineStore
from live_services.adapters.history import StoredHistory
from live_services.backtest.engine import MarketDay, assignments_at_open, final_snapshot, run_session
from live_services.composition import build_ledger, build_registry, engine_config, stamp
from live_services.domain.events import ModelLoaded, PnlSnapshot, SignalGenerated, StrategyModelAssigned, topic_of
from live_services.domain.log import NOWHERE, EventRecord, LogPosition, MarketSlice, TaskId
from live_services.domain.topics import STRATEGIES_CONTROL
from live_services.runtime.service import Opening
from live_services.services.model_loading import build_loader
from live_services.services.strategy_runner import StrategyRunner
from models_registry.refs import ModelRef
from tests.research_desk import ResearchDesk

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

FIRST = """\
[market.synthetic]
instruments = 10
sessions = 12
edge_bps = 8.0
reversion_bps = 0.0
breakout_bps = 0.0
[[strategies]]
name = "trend"
"""
SECOND = """\
[[strategies]]
name = "quick"
features = ["momentum", "last_return", "trend_slope@5m"]
holding_bars = 5
estimator = "logistic_regression"
hyperparameters = {C = 0.5}
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patched:
        home = tmp_path_factory.mktemp("home")
        patched.setenv("ALPHA_PANDA_CONFIG", str(home / "alpha-panda.toml"))
        (home / "alpha-panda.toml").write_text(FIRST)
        yield home


@pytest.fixture(scope="module")
def desk(mlflow_server, environment):
    """A desk that had one strategy, trained and promoted, when the second was added to its settings."""
    with dg.DagsterInstance.ephemeral() as instance:

        def opened():
            return ResearchDesk(environment, mlflow_server.url, instance, market={})

        before = opened()
        assert [s.name for s in before.settings.strategies] == ["trend"]
        assert before.launch("train_trend").success
        assert before.look() == [("trend_champion", "1")]
        with (environment / "alpha-panda.toml").open("a") as file:
            file.write(SECOND)
        after = opened()
        after.cursor = before.cursor
        yield after


@pytest.fixture(scope="module")
def trained(desk):
    return desk.launch("train_quick")


def test_its_own_button_trains_its_own_model_on_its_own_features_and_label(desk, trained):
    assert trained.success
    failed = {check.check_name for check in trained.get_asset_check_evaluations() if not check.passed}
    assert failed == {"bars_of_ticks_equal_the_vendors"}  # it had nothing to compare
    first, second = (desk.registry.sidecar(name, "1") for name in ("trend", "quick"))
    assert (first.algorithm, second.algorithm) == ("hist_gradient_boosting", "logistic_regression")
    assert [column.name for column in second.feature_schema] == ["momentum", "last_return", "trend_slope@5m"]
    assert (first.label_horizon_bars, second.label_horizon_bars) == (10, 5)
    assert first.feature_schema_hash != second.feature_schema_hash
    kept = read_candidate(desk.settings.store_root / "candidates" / "quick_model" / trained.run_id).trained
    assert (kept.spec, kept.hyperparameters["C"]) == (desk.settings.strategies[1], 0.5)


def test_the_store_keeps_the_features_of_both(desk, trained):
    kept = desk.metadata("market_data")["features"]
    assert set(kept) >= {"momentum", "last_return", "trend_slope@5m"}
    assert len(kept) == len(set(kept)) > 3


def test_the_sensor_promotes_it_beside_the_first(desk, trained):
    assert desk.look() == [("quick_champion", "1")]
    assert desk.look() == []
    for name in ("trend", "quick"):
        assert desk.registry.resolve(ModelRef(name=name, alias="champion")) == "1"


def test_a_promotion_by_hand_asks_which_of_the_models(desk, trained):
    result = desk.launch("rollback_job")
    assert not result.success
    (failure,) = [event for event in result.all_events if event.event_type_value == "STEP_FAILURE"]
    said = failure.step_failure_data.user_failure_data.description
    assert said == "This desk has the models trend, quick: name one of them in model_name."
    wrong = desk.launch("rollback_job", roll_back_alias={"model_name": "quick"})
    (failure,) = [event for event in wrong.all_events if event.event_type_value == "STEP_FAILURE"]
    assert "quick" in failure.step_failure_data.user_failure_data.description


def test_both_signal_side_by_side_each_in_the_name_of_its_own_version(desk, trained):
    desk.look()
    said = asyncio.run(traded(desk.settings))
    assert {(e.strategy, e.model_name, e.model_version) for e in said if isinstance(e, ModelLoaded)} == {
        ("trend", "trend", "1"),
        ("quick", "quick", "1"),
    }
    signals = [event for event in said if isinstance(event, SignalGenerated)]
    for name in ("trend", "quick"):
        mine = [event for event in signals if event.strategy == name]
        sidecar = desk.registry.sidecar(name, "1")
        assert mine
        assert {(e.model_name, e.model_version, e.feature_schema_hash) for e in mine} == {
            (name, "1", sidecar.feature_schema_hash)
        }
        assert all(list(e.features) == [column.name for column in sidecar.feature_schema] for e in mine)


def test_both_hold_one_instrument_each_its_own_position(desk, trained):
    desk.look()
    settings = desk.settings
    store = OfflineStore(settings.store_root)
    (session,) = store.sessions("ticks")
    universe = store.universe()
    models = asyncio.run(champions(settings))
    history = StoredHistory(settings).of(session, universe)
    day = MarketDay(session, universe, store.read_ticks(session), assignments_at_open(session, models), history)
    events = run_session(day, engine_config(settings))
    held = [
        collections.Counter(p.instrument_token for p in event.positions if p.quantity)
        for event in events
        if isinstance(event, PnlSnapshot)
    ]
    assert max(count for tokens in held for count in tokens.values()) == 2
    last = final_snapshot(events)
    assert {totals.strategy for totals in last.strategies} == {"trend", "quick"}
    assert sum(totals.realized_inr_e4 for totals in last.strategies) == last.realized_inr_e4


async def champions(settings):
    loader = loader_of(settings)
    await loader.refresh()
    return {name: candidate.model for (name, rung), candidate in loader.candidates.items() if rung == "champion"}


def loader_of(settings):
    return build_loader(settings, build_registry(settings), build_ledger(settings))


async def traded(settings):
    """What the strategy runner says to the session of ticks, fed by the minute."""
    store, task = OfflineStore(settings.store_root), TaskId("strategy_runner", "shared", 0)
    (session,) = store.sessions("ticks")
    universe = store.universe()
    loader = loader_of(settings)
    runner = StrategyRunner(settings, loader, stamp(settings), history=StoredHistory(settings))
    await runner.prepare(task, ())
    state, said = runner.open_session(Opening(session, universe, task)), []
    for event in runner.commands(state, session.open_ns):
        if topic_of(event) != STRATEGIES_CONTROL:
            continue  # an announcement, which nobody reads back
        said += runner.handle(EventRecord(event, NOWHERE), state, session.open_ns)
    ticks, at = store.read_ticks(session), LogPosition("market.ticks", 0, 0)
    edges = np.searchsorted(ticks.event_time_ns, np.arange(session.open_ns, session.close_ns + 1, MINUTE_NS))
    for minute, (first, end) in enumerate(itertools.pairwise(edges)):
        said += runner.handle(MarketSlice(ticks[first:end], at), state, session.open_ns + minute * MINUTE_NS)
        said += runner.advance(state, session.open_ns + (minute + 1) * MINUTE_NS)
    await loader.stop()
    assert not any(isinstance(event, StrategyModelAssigned) and event.model_version is None for event in said)
    return said
