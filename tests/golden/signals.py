"""The signals of the demo market and of a real day, as files: a step that changes them says why in its commit.

    python -m tests.golden.signals            write the demo market's
    python -m tests.golden.signals DATA       write the real day's too; DATA holds the NSE files

Each is the road of the demo without its servers: the market comes in, a model is trained on the sessions before the
replayed one, and the engine replays that one's ticks. What is live equals the engine event for event, by a test of its
own.
"""

from __future__ import annotations

import csv
import io
import sys
import tempfile
from pathlib import Path
from typing import Final

from dagster_project.desk import Desk
from feature_store.market.types import ist_text
from feature_store.offline.stages import store_arrival, store_bars
from feature_store.offline.store import OfflineStore
from feature_store.offline.training_frames import training_frame
from live_services.domain.engine import EngineConfig, assignments_at_open, run_session
from live_services.domain.events import SignalGenerated
from live_services.domain.strategy import LoadedModel
from live_services.settings import MarketSettings, Settings
from live_services.warm_start import StoredHistory
from models_registry.flat import load_flat
from models_registry.packing import pack
from models_registry.refs import ModelIdentity
from models_registry.training import train
from tests.models_registry_frames import FIT

HERE: Final = Path(__file__).parent
REAL_BARS: Final = "nse_minute_2021-03-26_2021-06-03.parquet"
REAL_TICKS: Final = "nse_ticks_2021-05-31_2021-06-03.parquet"
REAL_TRAIN_THROUGH: Final = "2021-06-02"


def demo_market(home: Path) -> str:
    """Signals of the market that ``make demo`` generates."""
    return signals(Settings(alpha_panda_home=home))


def real_day(home: Path, data: Path) -> str:
    """Signals of the last day of the real ticks, the model trained on the real minutes before it."""
    market = MarketSettings(
        source="files", bars_file=data / REAL_BARS, ticks_file=data / REAL_TICKS, train_through=REAL_TRAIN_THROUGH
    )
    return signals(Settings(alpha_panda_home=home, market=market))


def signals(settings: Settings) -> str:
    """Bring a market in, train, replay; the signals as CSV."""
    store = OfflineStore(settings.store_root)
    desk = Desk(store, settings)
    for _ in store_arrival(store, desk.read_market()):
        pass
    for _ in store_bars(store, desk.incoming_sessions(), desk.clock):
        pass
    days = desk.training_sessions()
    (strategy,) = settings.strategies
    features, label = strategy.feature_schema(), strategy.label()
    frame = training_frame(store, None, days[0].date, days[-1].date, features=features, label=label)
    session = desk.replayed_session()
    trained = train(frame, strategy, FIT)
    packed = pack(trained.estimator, trained.golden_rows)
    assert session is not None
    identity = ModelIdentity(model_name="momentum", model_version="1", feature_schema_hash=frame.schema.hash)
    model = load_flat(packed.files["flat.npz"], trained.spec.estimator, len(frame.schema.names))
    loaded = LoadedModel(identity, frame.schema, model, trained.buy_threshold, trained.sell_threshold)
    universe = store.universe()
    events = run_session(
        store.read_ticks(session),
        session,
        assignments_at_open(session, {strategy.name: loaded}),
        EngineConfig.of(settings, universe),
        history=StoredHistory(settings, universe).of(session),
    )
    return _table([event for event in events if isinstance(event, SignalGenerated)])


def _table(found: list[SignalGenerated]) -> str:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("decided", "strategy", "symbol", "intent", "side", "quantity", "score", "threshold"))
    for one in found:
        score, threshold = f"{one.score:.12f}", f"{one.threshold:.12f}"
        decided = ist_text(one.event_time_ns)
        rows.writerow((decided, one.strategy, one.symbol, one.intent, one.side, one.quantity, score, threshold))
    return text.getvalue()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        (HERE / "demo_market.csv").write_text(demo_market(Path(folder)), encoding="utf-8")
    if len(sys.argv) > 1:
        with tempfile.TemporaryDirectory() as folder:
            (HERE / "real_day.csv").write_text(real_day(Path(folder), Path(sys.argv[1])), encoding="utf-8")
