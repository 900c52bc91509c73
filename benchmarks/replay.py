"""Replay: 50 instruments over 20,000 minutes, from bars to books, beside what one would write without this engine.

    make bench NAME=replay OUT=replay.json

The engine runs what a desk runs, on one core: ten features, a model of 100 boosted trees, risk, market orders that fill
at the next bar's open, the charges that its account is billed, exits by time, snapshots of the books, and every event
of the journal. It computes features and scores as it goes.

Its rivals are given more. backtesting.py (https://kernc.github.io/backtesting.py) gets the scores, 0.5 wherever the
account opened nothing, so that it makes the very same trades, at 3 bps of costs: once with the ten features beside them
as its indicators, which is how a strategy is written for it, and once with the scores alone. A loop that asks
scikit-learn for each bar gets the finished feature rows, and does nothing else. Times are those of the process
(`time.process_time`): all of them work on one thread.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import io
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from threadpoolctl import threadpool_limits

from benchmarks.live_engine import INSTRUMENTS, STRATEGY, TEN, Market, market, noise_model
from benchmarks.measuring import Figure, at_least, report, seconds
from feature_store.features.engine import FeatureEngine, feature_table
from feature_store.market.types import Bars
from feature_store.proposals.seen import seen_from
from live_services.backtest.engine import Engine, EngineConfig, MarketDay, assignments_at_open
from live_services.domain.events import Event, OrderFilled, SignalValidated
from live_services.domain.limits import AccountConfig
from live_services.domain.strategy.loaded_model import LoadedModel
from models_registry.refs import ModelIdentity
from models_registry.specification import StrategySpec
from models_registry.strategies import BUILT_IN

BARS = 20_000
"""Of each instrument: 53 sessions and a third of one."""
COSTS = 0.0003
"""What backtesting.py charges of a fill's value."""
RIVAL_INSTRUMENTS, RIVAL_BARS = 10, 2_000
HOW_TO_INSTALL = (
    "backtesting.py is not installed here, so its line is left out; to have it, run "
    "`.venv/bin/pip install --require-hashes -r requirements-rivals.lock`"
)


@dataclass(frozen=True)
class Replayed:
    """What one run of the engine said."""

    events: int
    fills: int
    entries: NDArray[np.int8]
    """Side that the account opened at each bar of the market: 1, -1, or 0; shape ``(n_bars,)``."""


def measure(tell: Callable[[str], None]) -> list[Figure]:
    """Measure the engine, its stages, and its rivals."""
    tell("making a market of a million bars")
    made = market(-(-BARS // 375), BARS)
    whole = Bars.concatenate(made.bars)
    tell("the engine")
    bars_a_second, replayed = engine(made, whole)
    sessions = len(made.bars)
    figures = [
        at_least("engine: features, model, risk, fills, books, journal", bars_a_second, "bars/s", 300_000),
        Figure("events said in a session", replayed.events / sessions, "events"),
        Figure("fills in a session", replayed.fills / sessions, "fills"),
        *stages(made, whole, bars_a_second),
    ]
    tell("three judged strategies")
    figures += judged(made, whole)
    tell("scikit-learn, bar by bar")
    loop = sklearn_loop(made, whole)
    name = f"predict_proba for each bar, {RIVAL_BARS:,} bars taken for all"
    figures.append(Figure(name, loop, "bars/s", ratio=bars_a_second / loop, rival="this"))
    if importlib.util.find_spec("backtesting") is None:
        Console(stderr=True).print(HOW_TO_INSTALL, highlight=False)
        return figures
    for given, features in (("features and scores", True), ("scores alone", False)):
        tell(f"backtesting.py, {given}")
        rival = backtesting_py(made, whole, replayed.entries, features=features)
        name = f"backtesting.py, given {given}, {RIVAL_INSTRUMENTS} instruments taken for all"
        figures.append(Figure(name, rival, "bars/s", ratio=bars_a_second / rival, rival="this"))
    return figures


def engine(made: Market, whole: Bars) -> tuple[float, Replayed]:
    """Replay every session on one account; bars a second, and what was said."""
    said: list[Event] = []
    trading = EngineConfig((STRATEGY,), {"paper": AccountConfig()})

    def prepare() -> None:
        said.clear()
        gc.collect()

    def run() -> None:
        one = Engine(trading)
        for number in range(len(made.bars)):
            said.extend(one.run(made.day(number, history=False)))

    taken = seconds(run, repeats=3, prepare=prepare, clock=time.process_time)
    entries = np.zeros(len(whole), dtype=np.int8)
    at = {key: row for row, key in enumerate(zip(whole.end_ns.tolist(), whole.instrument.tolist(), strict=True))}
    for event in said:
        if isinstance(event, SignalValidated) and event.intent == "open":
            row = at[event.event_time_ns, made.universe.index_of_token[event.instrument_token]]
            entries[row] = 1 if event.side == "BUY" else -1
    fills = sum(isinstance(event, OrderFilled) for event in said)
    return len(whole) / taken, Replayed(len(said), fills, entries)


def judged(made: Market, whole: Bars) -> list[Figure]:
    """Replay the three built-in strategies on one account: rules, models that judge them, stops and targets."""
    strategies = tuple(spec.model_copy(update={"features": TEN.names}) for spec in BUILT_IN)
    models = {spec.name: _judge(spec, made, whole[: 8 * 375 * INSTRUMENTS]) for spec in strategies}
    said: list[int] = []

    def prepare() -> None:
        said.clear()
        gc.collect()

    def run() -> None:
        one = Engine(EngineConfig(strategies, {"paper": AccountConfig()}))
        for session, bars in zip(made.sessions, made.bars, strict=True):
            day = MarketDay(session, made.universe, bars, assignments_at_open(session, models))
            said.append(len(one.run(day)))

    taken = seconds(run, repeats=3, prepare=prepare, clock=time.process_time)
    return [
        Figure("engine: three judged strategies on one account", len(whole) / taken, "bars/s"),
        Figure("events said in a session by the three", sum(said) / len(said), "events"),
    ]


def _judge(spec: StrategySpec, made: Market, bars: Bars) -> LoadedModel:
    """Fit 100 trees to noise on what a rule proposes; half of it is accepted."""
    schema, proposer = spec.feature_schema(), spec.proposer()
    assert proposer is not None, spec.name
    rows, warm = feature_table(bars, schema, made.universe)
    rows = np.ascontiguousarray(rows[warm & np.isfinite(rows).all(axis=1)])
    side = proposer.sides(rows, schema)
    seen = seen_from(side[side != 0], rows[side != 0], schema)
    flat, _ = noise_model(seen)
    accept = float(np.quantile(flat.score(seen), spec.accept_quantile))
    identity = ModelIdentity(model_name=spec.model, model_version="1", feature_schema_hash=schema.hash)
    return LoadedModel(identity, schema, flat, accept, None)


def stages(made: Market, whole: Bars, bars_a_second: float) -> list[Figure]:
    """Say where the time of a session goes: the compiled stages alone, and the rest: Python, for what is rare."""
    of_session = 1000 * 375 * INSTRUMENTS / bars_a_second
    step: list[FeatureEngine] = []

    def begin() -> None:
        step[:] = [FeatureEngine(TEN, made.universe, threads=1)]

    def features() -> None:
        for bars in made.bars:
            step[0].step(bars)

    rows, warm = feature_table(whole, TEN, made.universe)
    rows = np.ascontiguousarray(rows[warm])[: 375 * INSTRUMENTS]
    per_session = 1000 * 375 * INSTRUMENTS / len(whole)
    in_features = seconds(features, repeats=3, prepare=begin, clock=time.process_time) * per_session
    in_model = seconds(lambda: made.model.model.score(rows), clock=time.process_time) * 1000
    return [
        Figure("a session of 18,750 bars", of_session, "ms"),
        Figure("of it: features", in_features, "ms"),
        Figure("of it: model, if it were asked for every bar", in_model, "ms"),
        Figure("of it: proposals, risk, orders, fills, books", of_session - in_features - in_model, "ms"),
    ]


def sklearn_loop(made: Market, whole: Bars) -> float:
    """Ask scikit-learn for one row after the other; bars a second."""
    rows, warm = feature_table(whole[: 4 * 375 * INSTRUMENTS], TEN, made.universe)
    rows = rows[warm][-RIVAL_BARS:]

    def run() -> None:
        with threadpool_limits(1):
            for row in rows:
                made.trees.predict_proba(row.reshape(1, -1))

    return RIVAL_BARS / seconds(run, repeats=3, clock=time.process_time)


def backtesting_py(made: Market, whole: Bars, entries: NDArray[np.int8], *, features: bool) -> float:
    """Give backtesting.py the scores of some instruments, one run for each as it wants it; bars a second."""
    from backtesting import Backtest, Strategy

    indicators = ("score", *TEN.names) if features else ("score",)

    class Replay(Strategy):  # type: ignore[misc]
        def init(self) -> None:
            for name in indicators:  # it follows what is an attribute of its own
                setattr(self, name, self.I(lambda name=name: self.data.df[name], plot=False))

        def next(self) -> None:
            if self.trades:
                if len(self.data) - 1 - self.trades[0].entry_bar >= STRATEGY.holding_bars - 1:
                    self.position.close()
                return
            score = self.score[-1]
            if score >= made.model.buy_threshold:
                self.buy(size=self.shares())
            elif score <= made.model.sell_threshold:
                self.sell(size=self.shares())

        def shares(self) -> int:
            return max(int(STRATEGY.notional_per_trade_inr // self.data.Close[-1]), 1)

    frames = [_frame(made, whole, entries, k) for k in range(RIVAL_INSTRUMENTS)]
    trades: list[int] = []

    def run() -> None:
        trades.clear()
        for frame in frames:
            test = Backtest(frame, Replay, cash=1e9, commission=COSTS, finalize_trades=True)
            trades.append(int(test.run()["# Trades"]))

    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):  # its advice and its progress
        warnings.simplefilter("ignore")
        taken = seconds(run, repeats=3, clock=time.process_time)
    expected = [int(np.count_nonzero(entries[whole.instrument == k])) for k in range(RIVAL_INSTRUMENTS)]
    assert trades == expected, f"backtesting.py made {trades} trades of {expected}"
    return sum(map(len, frames)) / taken


def _frame(made: Market, whole: Bars, entries: NDArray[np.int8], instrument: int) -> Any:
    """Give an instrument's bars, features, and the scores that opened something, as a frame of pandas.

    Without NaN: backtesting.py begins one bar behind the last one of any indicator, and would miss an entry there.
    """
    import pandas as pd

    mine = whole.instrument == instrument
    bars = whole[mine]
    rows, _ = feature_table(bars, TEN, made.universe)
    score = np.full(len(bars), 0.5)
    opened = np.flatnonzero(entries[mine])
    score[opened] = made.model.model.score(np.ascontiguousarray(rows[opened]))
    prices = {"Open": bars.open, "High": bars.high, "Low": bars.low, "Close": bars.close, "Volume": bars.volume}
    columns = prices | {"score": score} | dict(zip(TEN.names, np.nan_to_num(rows).T, strict=True))
    return pd.DataFrame(columns, index=pd.to_datetime(bars.start_ns))


if __name__ == "__main__":
    rivals = ["backtesting"] if importlib.util.find_spec("backtesting") else []
    report("replay", measure, ["numpy", "numba", "pydantic", "scikit-learn", *rivals])
