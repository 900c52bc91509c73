"""The notebooks: each runs from top to bottom on a small desk, and what is committed shows pictures and no machine."""

from __future__ import annotations

import asyncio
import sys

import nbformat
import pytest

from feature_store.offline.store import OfflineStore
from live_services.adapters.history import StoredHistory
from live_services.adapters.kafka import EventProducer
from live_services.backtest.engine import Engine, EngineConfig, MarketDay, assignments_at_open
from live_services.backtest.versions import judged_version
from live_services.domain.basis import Stamp
from live_services.domain.events import PnlSnapshot
from live_services.settings import load_settings
from models_registry.ledger import PromotionLedger
from models_registry.registry import Registry
from notebooks.execute import FOLDER, executed, notebooks, require_no_machine
from tests.backtest_world import JUDGED, backtest_world, register
from tests.kafka_desk import begin_anew

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

LARGEST = 700_000
"""Bytes of a notebook with its pictures; a page that a browser shows at once."""
SETTINGS = """\
[market.synthetic]
instruments = 4
sessions = 11
tick_sessions = 2
edge_bps = 8.0

[[strategies]]
name = "judged"
rule = "stretch"
rule_parameters = {threshold = 0.5}
features = ["last_return", "volatility"]
estimator = "logistic_regression"
folds = 2
"""


@pytest.fixture(scope="module")
def desk(mlflow_server, tmp_path_factory):
    """The settings of a home with a small market and a version in a real registry, named in the environment."""
    home = tmp_path_factory.mktemp("notebooks")
    world = backtest_world(home)
    register(world.settings, world.store, Registry(mlflow_server.url), JUDGED, whole=True)
    (home / "alpha-panda.toml").write_text(SETTINGS, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("ALPHA_PANDA_HOME", str(home))
        patched.setenv("MLFLOW__TRACKING_URI", mlflow_server.url)
        patched.setenv("NOTEBOOK_STRATEGY", "judged")
        patched.setenv("JUPYTER_PATH", f"{sys.prefix}/share/jupyter")
        yield load_settings()


@pytest.fixture
def traded(desk, kafka_servers, monkeypatch):
    """A session that the desk traded, on the log of a real Kafka."""
    monkeypatch.setenv("KAFKA__BOOTSTRAP_SERVERS", kafka_servers)
    settings = load_settings()
    asyncio.run(written(settings, said_on_a_day(settings)))
    return settings


async def written(settings, events):
    """Write events to an empty log; of the snapshots one in twenty, and the last."""
    snapshots = [event for event in events if isinstance(event, PnlSnapshot)]
    thinned = {id(event) for event in (*snapshots[::20], snapshots[-1])}
    await begin_anew(settings)
    async with EventProducer(settings.kafka) as producer:
        for event in events:
            if not isinstance(event, PnlSnapshot) or id(event) in thinned:
                await producer.produce(event)


def said_on_a_day(settings):
    store = OfflineStore(settings.store_root)
    session, universe = store.sessions("ticks")[-1], store.universe()
    judged = judged_version(Registry(settings.mlflow.tracking_uri), PromotionLedger(settings.ledger_url), JUDGED)
    runs = assignments_at_open(session, {"judged": judged.model})
    history = StoredHistory(settings).of(session, universe, needed=judged.model.schema.history_sessions)
    engine = Engine(EngineConfig((JUDGED,), stamp=Stamp("digest", "c0ffee")))
    return engine.run(MarketDay(session, universe, store.read_ticks(session), runs, history))


def run(number):
    (path,) = notebooks([number])
    notebook = executed(path, FOLDER.parent)
    pictures = [one for cell in notebook.cells for one in cell.get("outputs", ()) if "image/png" in one.get("data", {})]
    assert len(pictures) >= 3
    return "\n".join(
        str(one.get("text", "")) + str(one.get("data", {}).get("text/html", ""))
        for cell in notebook.cells
        for one in cell.get("outputs", ())
    )


def test_the_first_shows_the_stored_market_and_that_features_know_no_afternoon(desk):
    said = run("01")
    assert "SYNTHETIC" in said
    assert "the rows before noon are the same without the afternoon: True" in said


def test_the_second_trains_judges_and_counts_what_was_tried(desk):
    assert "configurations tried so far" in run("02")


def test_the_third_backtests_a_registered_version_by_name(desk):
    said = run("03")
    assert "judged v1" in said
    assert "SYNTHETIC MARKET" in said


def test_the_fourth_tells_a_day_from_its_topics(traded):
    said = run("04")
    assert "The fills on the log add up to the account" in said
    assert "judged proposed to" in said


@pytest.mark.parametrize("path", notebooks(), ids=lambda path: path.stem)
def test_what_is_committed_has_pictures_and_nothing_of_the_machine_it_was_made_on(path):
    notebook = nbformat.read(path, as_version=4)
    require_no_machine(notebook, path.name)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == [*range(1, len(code) + 1)]
    assert sum("image/png" in one.get("data", {}) for cell in code for one in cell.outputs) >= 3
    assert path.stat().st_size < LARGEST
