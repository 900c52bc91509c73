"""Speed of the engine over sessions with carried state, and of an account that judges many proposals of one instant.

    python -m benchmarks.live_engine

The engine runs what a desk runs: ten warm features, a model of 100 trees, risk, orders, fills, charges and snapshots,
and gives every event that was said. Its rival is the same engine, given the history of each session to step.
"""

from __future__ import annotations

import datetime as dt
import gc
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from benchmarks.features import walk
from benchmarks.measuring import Figure, at_least, at_most, report, seconds
from feature_store.features.engine import feature_table
from feature_store.features.schema import FEATURES, feature_schema
from feature_store.market.calendar import nse_sessions
from feature_store.market.types import MINUTE_NS, SECOND_NS, Bars, Session, Universe
from live_services.backtest.engine import Engine, EngineConfig, MarketDay, assignments_at_open
from live_services.domain.basis import Stamp
from live_services.domain.events import BarValues, Event, ExitTerms, SignalGenerated, self_caused
from live_services.domain.limits import AccountConfig, RiskLimits
from live_services.domain.log import NOWHERE, EventRecord, TaskId
from live_services.domain.strategy.history import SessionHistory
from live_services.domain.strategy.loaded_model import LoadedModel
from live_services.domain.topics import MARKET_TICKS
from live_services.runtime.chain import Chain, ChainState
from live_services.services.account import ACCOUNT, account_chain
from models_registry.estimators.families import FAMILIES
from models_registry.flat import FlatModel, load_flat
from models_registry.packing import pack
from models_registry.refs import ModelIdentity
from models_registry.specification import StrategySpec

INSTRUMENTS, WARM_UP, MEASURED = 50, 3, 5
TEN = feature_schema([spec.name for spec in FEATURES if spec.nan_policy == "never"][:10], 1)
STRATEGY = StrategySpec(name="momentum", features=TEN.names)
ENTRIES = 3000


@dataclass(frozen=True)
class Market:
    """Sessions of bars, and a model of 100 trees that opens on the 2 % of the highest and of the lowest scores."""

    universe: Universe
    sessions: tuple[Session, ...]
    bars: tuple[Bars, ...]
    model: LoadedModel
    trees: Any
    """The same model as scikit-learn has it."""

    def day(self, number: int, *, history: bool) -> MarketDay:
        """Give a session, with its history or to go on from the one before."""
        session, before = self.sessions[number], None
        if history and number:
            dates = tuple(one.date.isoformat() for one in self.sessions[:number])
            before = SessionHistory(self.universe, dates, Bars.concatenate(self.bars[:number]))
        assignments = assignments_at_open(session, {STRATEGY.name: self.model})
        return MarketDay(session, self.universe, self.bars[number], assignments, before)


def measure(tell: object = None) -> list[Figure]:
    """Measure the engine and the account."""
    del tell
    return [*engine_over_sessions(), *entries_at_one_instant()]


def market(n_sessions: int = WARM_UP + MEASURED, bars: int | None = None) -> Market:
    """Make a random market and fit a model of 100 trees to noise: as large as one that was fitted to something.

    Parameters
    ----------
    n_sessions : int
        How many sessions.
    bars : int, optional
        Of each instrument; default: every minute of the sessions. With fewer the last session closes early.
    """
    sessions = list(nse_sessions(dt.date(2026, 1, 5), dt.date(2026, 12, 31))[:n_sessions])
    universe, whole = walk(INSTRUMENTS, bars or 375 * n_sessions)
    sessions[-1] = replace(sessions[-1], close_ns=int(whole.end_ns[-1]))
    rows, warm = feature_table(whole[: INSTRUMENTS * 375 * (WARM_UP + MEASURED)], TEN, universe)
    rows = np.ascontiguousarray(rows[warm & np.isfinite(rows).all(axis=1)])
    flat, trees = noise_model(rows)
    buy, sell = np.quantile(flat.score(rows), [STRATEGY.buy_quantile, STRATEGY.sell_quantile])
    identity = ModelIdentity(model_name=STRATEGY.model, model_version="1", feature_schema_hash=TEN.hash)
    model = LoadedModel(identity, TEN, flat, float(buy), float(sell))
    of_session = tuple(whole[(whole.start_ns >= s.open_ns) & (whole.end_ns <= s.close_ns)] for s in sessions)
    return Market(universe, tuple(sessions), of_session, model, trees)


def noise_model(rows: NDArray[np.float64]) -> tuple[FlatModel, Any]:
    """Fit 100 boosted trees, as a desk's are by default, to noise; give them flat and as scikit-learn has them."""
    up, weight = np.random.default_rng(1).random(len(rows)) < 0.5, np.ones(len(rows))
    family = FAMILIES["hist_gradient_boosting"]
    with threadpool_limits(1):
        trees = family.fit(family.build(1, len(rows), {}), rows, up, weight)
    return load_flat(pack(trees, rows[:200]).files["flat.npz"], "hist_gradient_boosting", rows.shape[1]), trees


def engine_over_sessions() -> list[Figure]:
    """Sessions one after the other on one engine; those that warm the features up are not counted."""
    made = market()
    config = EngineConfig((STRATEGY,), {"paper": AccountConfig()})
    bars = sum(len(table) for table in made.bars[WARM_UP:])
    engines: list[Engine] = []

    def warm_up() -> None:
        engines[:] = [Engine(config)]
        for number in range(WARM_UP):
            engines[0].run(made.day(number, history=False))
        gc.collect()

    def run(*, history: bool) -> int:
        measured = range(WARM_UP, WARM_UP + MEASURED)
        return sum(len(engines[0].run(made.day(number, history=history))) for number in measured)

    carried = bars / seconds(lambda: run(history=False), prepare=warm_up)
    stepped = bars / seconds(lambda: run(history=True), prepare=warm_up)
    warm_up()
    events = run(history=False)
    return [
        at_least("engine, sessions with carried state", carried, "bars/s", 300_000),
        Figure("engine, history stepped for each session", stepped, "bars/s", ratio=carried / stepped, rival="this"),
        Figure("events said in a session", events / MEASURED, "events"),
    ]


def entries_at_one_instant() -> list[Figure]:
    """Proposals of one instant on an account that takes them all, and on one that takes ten."""
    universe = Universe.from_symbols([f"S{number:04d}" for number in range(ENTRIES)])
    session = Session.regular(dt.date(2026, 1, 5))
    proposals = [_proposal(universe, number, session) for number in range(ENTRIES)]
    wide = RiskLimits(max_gross_notional_inr=1e11, max_open_positions=ENTRIES)
    figures = []
    for name, limits in (("all accepted", wide), ("ten accepted", RiskLimits())):
        opened: list[tuple[Chain, ChainState]] = []

        def prepare(limits: RiskLimits = limits, opened: list[tuple[Chain, ChainState]] = opened) -> None:
            opened[:] = [_account(universe, session, AccountConfig(risk=limits))]
            chain, state = opened[0]
            for proposal in proposals:
                chain.handle(EventRecord(proposal, NOWHERE), state, proposal.event_time_ns, _unheard)
            gc.collect()
            gc.freeze()

        def run(opened: list[tuple[Chain, ChainState]] = opened) -> None:
            chain, state = opened[0]
            said: list[Event] = []
            chain.advance(state, session.open_ns + MINUTE_NS + SECOND_NS, said.append)
            assert len(said) >= ENTRIES

        taken = seconds(run, prepare=prepare)
        figures.append(at_most(f"{ENTRIES:,} entries at one instant, {name}", taken * 1000, "ms", 100))
    gc.unfreeze()
    return figures


def _account(universe: Universe, session: Session, config: AccountConfig) -> tuple[Chain, ChainState]:
    chain = account_chain("paper", MARKET_TICKS, config, Stamp())
    state = chain.open_session(session, universe, TaskId(ACCOUNT, "paper", 0))
    for event in chain.commands(state, session.open_ns):
        chain.handle_control(EventRecord(event, NOWHERE), state, _unheard)
    return chain, state


def _unheard(_event: Event) -> None:
    """Take what is not to be counted."""


def _proposal(universe: Universe, number: int, session: Session) -> SignalGenerated:
    instrument, at_ns = universe.instruments[number], session.open_ns + MINUTE_NS
    prices = dict.fromkeys(("open", "high", "low", "close"), 100.0)
    return SignalGenerated(
        **self_caused("signal", "paper", number),
        broker="paper",
        event_time_ns=at_ns,
        model_name="momentum",
        model_version="1",
        feature_schema_hash=TEN.hash,
        strategy="momentum",
        rung="champion",
        instrument_token=instrument.instrument_token,
        symbol=instrument.symbol,
        side="BUY",
        quantity=10,
        exit=ExitTerms(expiry_ns=at_ns + 10 * MINUTE_NS),
        score=0.6,
        threshold=0.55,
        reference_price=100.0,
        bar=BarValues(start_ns=session.open_ns, end_ns=at_ns, volume=1, tick_count=1, **prices),
        features=dict.fromkeys(TEN.names, 0.1),
    )


if __name__ == "__main__":
    report("live_engine", measure, ["numpy", "numba", "pydantic", "scikit-learn"])
