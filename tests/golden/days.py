"""What the demo market and a real day come to, as files: a step that changes them says why in its commit.

    python -m tests.golden.days            write the demo market's signals, orders, fills and snapshots
    python -m tests.golden.days DATA       write the real day's too; DATA holds the NSE files

Each is the road of the demo without its servers: the market comes in, models are trained on the sessions before the
replayed one, and the engine replays that one's ticks. The demo market and one real day have the three built-in
strategies, which judge a rule's proposals, side by side; the other real days have a strategy whose model says the side,
without and with stops. The gate is not asked. What is live equals the engine event for event, by a test of its
own.
"""

from __future__ import annotations

import csv
import io
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final, TypeVar

from dagster_project.desk import Desk
from feature_store.market.types import ist_text
from feature_store.offline.stages import store_arrival, store_bars
from feature_store.offline.store import OfflineStore
from feature_store.offline.training_frames import training_frame
from live_services.adapters.history import StoredHistory
from live_services.backtest.engine import MarketDay, assignments_at_open, run_session
from live_services.composition import engine_config
from live_services.domain.events import Event, OrderFilled, OrderSubmitted, PnlSnapshot, SignalGenerated
from live_services.domain.money import RUPEE
from live_services.domain.strategy.loaded_model import LoadedModel
from live_services.settings import MarketSettings, Settings
from models_registry.flat import load_flat
from models_registry.packing import pack
from models_registry.refs import ModelIdentity
from models_registry.specification import StrategySpec, by_model
from models_registry.strategies import BUILT_IN
from models_registry.training import train
from tests.models_registry_frames import FIT

HERE: Final = Path(__file__).parent
REAL_BARS: Final = "nse_minute_2021-03-26_2021-06-03.parquet"
REAL_TICKS: Final = "nse_ticks_2021-05-31_2021-06-03.parquet"
REAL_TRAIN_THROUGH: Final = "2021-06-02"

Kind = TypeVar("Kind", bound=Event)


Tables = dict[str, str]
"""CSV by what it holds."""


def demo_market(home: Path) -> Tables:
    """Give what the market that ``make demo`` generates comes to."""
    return tables(Settings(alpha_panda_home=home))


def real_day(home: Path, data: Path, *more: StrategySpec) -> Tables:
    """Give what the last day of the real ticks comes to, the model trained on the real minutes before it."""
    return _real_day(home, data, (StrategySpec(name="momentum"), *more))


def real_day_with_stops(home: Path, data: Path) -> Tables:
    """Give the same day with a second strategy on the same model, whose positions have a stop and a target."""
    return real_day(home, data, StrategySpec(name="guarded", model="momentum", stop_bps=20.0, target_bps=30.0))


def real_day_of_rules(home: Path, data: Path) -> Tables:
    """Give the same day with the three built-in strategies: a rule proposes, a stop, a target or time ends."""
    return _real_day(home, data, BUILT_IN)


def _real_day(home: Path, data: Path, strategies: tuple[StrategySpec, ...]) -> Tables:
    market = MarketSettings(
        source="files", bars_file=data / REAL_BARS, ticks_file=data / REAL_TICKS, train_through=REAL_TRAIN_THROUGH
    )
    return tables(Settings(alpha_panda_home=home, market=market, strategies=strategies))


def tables(settings: Settings) -> Tables:
    """Bring a market in, train, replay; what the engine said, as CSV."""
    store = OfflineStore(settings.store_root)
    desk = Desk(store, settings)
    for _ in store_arrival(store, desk.read_market()):
        pass
    for _ in store_bars(store, desk.incoming_sessions(), desk.clock):
        pass
    session, universe = desk.replayed_session(), store.universe()
    assert session is not None
    models = {name: _model(store, desk, spec) for name, spec in by_model(settings.strategies).items()}
    day = MarketDay(
        session,
        universe,
        store.read_ticks(session),
        assignments_at_open(session, {one.name: models[one.model_name] for one in settings.strategies}),
        StoredHistory(settings).of(session, universe),
    )
    events = run_session(day, engine_config(settings))
    return {
        "signals": _signals(_of(SignalGenerated, events)),
        "orders": _orders(_of(OrderSubmitted, events)),
        "fills": _fills(_of(OrderFilled, events)),
        "snapshots": _snapshots(_of(PnlSnapshot, events)),
    }


def _model(store: OfflineStore, desk: Desk, strategy: StrategySpec) -> LoadedModel:
    days, proposer = desk.training_sessions(), strategy.proposer()
    features, label = strategy.feature_schema(), strategy.label()
    frame = training_frame(store, None, days[0].date, days[-1].date, features=features, label=label, proposer=proposer)
    trained = train(frame, strategy, FIT)
    packed = pack(trained.estimator, trained.golden_rows)
    identity = ModelIdentity(model_name=strategy.model_name, model_version="1", feature_schema_hash=frame.schema.hash)
    model = load_flat(packed.files["flat.npz"], trained.spec.estimator, len(frame.schema.names))
    return LoadedModel(identity, frame.schema, model, trained.buy_threshold, trained.sell_threshold)


def _of(kind: type[Kind], events: Iterable[Event]) -> list[Kind]:
    return [event for event in events if isinstance(event, kind)]


def _signals(found: list[SignalGenerated]) -> str:
    header = ("decided", "strategy", "symbol", "side", "quantity", "score", "threshold")
    rows = (
        (
            ist_text(e.event_time_ns),
            e.strategy,
            e.symbol,
            e.side,
            e.quantity,
            f"{e.score:.12f}",
            f"{e.threshold:.12f}",
        )
        for e in found
    )
    return _table(header, rows)


def _orders(found: list[OrderSubmitted]) -> str:
    header = ("submitted", "strategy", "symbol", "intent", "reason", "side", "quantity", "stop", "target")
    rows = (
        (
            *(ist_text(e.event_time_ns), e.strategy, e.symbol, e.intent, e.reason, e.side, e.quantity),
            *("" if price is None else _inr(price) for price in (e.stop_price_inr_e4, e.target_price_inr_e4)),
        )
        for e in found
    )
    return _table(header, rows)


def _fills(found: list[OrderFilled]) -> str:
    header = ("priced", "strategy", "symbol", "intent", "reason", "side", "quantity", "price", "charges")
    rows = (
        (
            *(ist_text(e.price_time_ns), e.strategy, e.symbol, e.intent, e.reason, e.side, e.quantity),
            *(_inr(e.price_inr_e4), _inr(e.charges_inr_e4)),
        )
        for e in found
    )
    return _table(header, rows)


def _snapshots(found: list[PnlSnapshot]) -> str:
    header = ("at", "open", "fills", "cash", "realized", "charges", "unrealized", "equity")
    rows = (
        (
            ist_text(e.event_time_ns),
            sum(p.quantity != 0 for p in e.positions),
            e.fills,
            *(_inr(amount) for amount in (e.cash_inr_e4, e.realized_inr_e4, e.charges_inr_e4)),
            *(f"{amount:.2f}" for amount in (e.unrealized_inr, e.equity_inr)),
        )
        for e in found
    )
    return _table(header, rows)


def _inr(amount_inr_e4: int) -> str:
    return f"{amount_inr_e4 / RUPEE:.4f}"


def _table(header: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(header)
    table.writerows(rows)
    return text.getvalue()


def _write(name: str, found: Tables) -> None:
    (HERE / name).mkdir(exist_ok=True)
    for what, text in found.items():
        (HERE / name / f"{what}.csv").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        _write("demo_market", demo_market(Path(folder)))
    for one in (real_day, real_day_with_stops, real_day_of_rules) if len(sys.argv) > 1 else ():
        with tempfile.TemporaryDirectory() as folder:
            _write(one.__name__, one(Path(folder), Path(sys.argv[1])))
