"""What every strategy keeps to: the platform's own, those of every shape that a specification allows, and a user's."""

from __future__ import annotations

import dataclasses
import datetime as dt
import math
from collections.abc import Iterator

import numpy as np
import pytest

from feature_store.bars.builder import aggregate_bars
from feature_store.features.engine import feature_table
from feature_store.features.schema import UnknownFeature
from feature_store.labels.barrier_return import VOLATILITY, BarrierReturn
from feature_store.market.clocks import BarClock
from feature_store.market.types import Bars, Session
from feature_store.proposals.rules import RULES, declare
from feature_store.proposals.seen import seen_from
from live_services.audit.sessions import AuditedSession
from live_services.audit.strategy import Effort, audit_strategy
from live_services.backtest.engine import EngineConfig, MarketDay, assignments_at_open, run_session
from live_services.domain.account.trades import Trade, round_trips
from live_services.domain.basis import Stamp
from live_services.domain.events import Event, SignalGenerated
from live_services.domain.replay import within_session
from live_services.domain.strategy.history import SessionHistory
from live_services.domain.strategy.loaded_model import LoadedModel
from live_services.services.model_loading import prove
from models_registry.packing import FeatureSchemaMismatch
from models_registry.refusals import FLAT_FILE, TamperedModel
from models_registry.sample import sample_version
from models_registry.specification import StrategySpec
from models_registry.strategies import BUILT_IN
from tests.account_world import limits
from tests.live_world import SESSION, UNIVERSE, past_sessions, random_walk, session_bars

MINUTES = 240


def pullback(z_score: float, rise: float, depth: float = 0.5) -> int:
    """A user's own rule: buy what fell back while it rises on longer bars, sell what came up while it falls."""
    if rise > 0.0 and z_score < depth:
        return 1
    return -1 if rise < 0.0 and z_score > -depth else 0


OF_PULLBACK = {"rise": "last_return@5m"}
USERS = StrategySpec(name="users", rule="pullback", rule_parameters={"depth": 0.25}, features=("rsi",), holding_bars=8)
STRATEGIES = (
    StrategySpec(name="plain", features=("last_return", "momentum")),
    StrategySpec(name="of_two_clocks", features=("last_return", "last_return@5m")),
    StrategySpec(name="slow", bar_minutes=5, features=("last_return",), holding_bars=2),
    StrategySpec(name="bracketed", features=("last_return",), stop_bps=30, target_bps=40, product="CNC"),
    StrategySpec(name="shared", model="plain", features=("momentum",), priority=3),
    *BUILT_IN,
    USERS,
)
BYSTANDER = StrategySpec(name="bystander", features=("last_return",))

each = pytest.mark.parametrize("spec", STRATEGIES, ids=lambda spec: spec.name)
each_judged = pytest.mark.parametrize("spec", [s for s in STRATEGIES if s.judged], ids=lambda spec: spec.name)


@pytest.fixture(autouse=True)
def _users_rule(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(RULES, "pullback", declare(pullback, source="a desk of its own", features=OF_PULLBACK))
    yield


def sample(spec: StrategySpec) -> LoadedModel:
    packed, sidecar = sample_version(spec, created_by="a test", created_at_ns=1)
    return prove(sidecar, packed.files, "3", spec.bar_minutes)


def accepting_all(spec: StrategySpec) -> LoadedModel:
    """A model that says yes to everything: of a strategy without a rule, buys at every bar."""
    return dataclasses.replace(sample(spec), buy_threshold=0.0, sell_threshold=None if spec.judged else -1.0)


def config(*specs: StrategySpec) -> EngineConfig:
    return EngineConfig(specs, {"paper": limits()}, bar_minutes=specs[0].bar_minutes, stamp=Stamp("digest", "c0ffee"))


def on_clock(bars: Bars, session: Session, spec: StrategySpec) -> Bars:
    return aggregate_bars(bars, session, len(UNIVERSE), BarClock.minutes(spec.bar_minutes))


def session_of(spec: StrategySpec, model: LoadedModel, seed: int = 5) -> AuditedSession:
    """A session on bars of the strategy's clock, with those before it that it needs to get warm."""
    history = past_sessions(UNIVERSE, model.schema.history_sessions, seed=seed)
    days = [Session.regular(dt.date.fromisoformat(day)) for day in history.sessions]
    parts = [on_clock(within_session(history.before, day), day, spec) for day in days]
    before = SessionHistory(UNIVERSE, history.sessions, Bars.concatenate(parts))
    bars = on_clock(session_bars(SESSION, len(UNIVERSE), MINUTES, seed), SESSION, spec)
    return AuditedSession(SESSION, UNIVERSE, bars, before, model)


def traded(over: AuditedSession, spec: StrategySpec) -> tuple[Event, ...]:
    assigned = assignments_at_open(SESSION, {spec.name: over.model})
    return run_session(MarketDay(SESSION, UNIVERSE, over.bars, assigned, over.history), config(spec))


def proposals_of(events: tuple[Event, ...], strategy: str) -> list[SignalGenerated]:
    return [one for one in events if isinstance(one, SignalGenerated) and one.strategy == strategy]


# --- what it is -------------------------------------------------------------------------------------------------------


@each
def test_a_specification_reads_back_from_what_a_sidecar_keeps_of_it(spec: StrategySpec) -> None:
    again = StrategySpec.model_validate(spec.model_dump(mode="json"))
    assert again == spec
    assert again.recipe_digest() == spec.recipe_digest()


@each
def test_the_schema_holds_what_the_rule_and_the_barriers_ask(spec: StrategySpec) -> None:
    names = spec.feature_schema().names
    assert names[: len(spec.features)] == spec.features
    asks = spec.proposer()
    assert set(asks.rule.features if asks else ()) | ({VOLATILITY} if asks else set()) <= set(names)


@each_judged
def test_every_feature_can_be_seen_from_the_side_of_a_short(spec: StrategySpec) -> None:
    schema = spec.feature_schema()
    row = np.linspace(0.1, 0.9, len(schema.names))[None, :]
    short = seen_from(np.array([-1], dtype=np.int8), row, schema)
    np.testing.assert_allclose(seen_from(np.array([-1], dtype=np.int8), short, schema), row, rtol=1e-12)


@each_judged
def test_its_rule_proposes_both_sides_and_not_at_every_bar(spec: StrategySpec) -> None:
    over, asks, schema = session_of(spec, sample(spec)), spec.proposer(), spec.feature_schema()
    bars = Bars.concatenate([over.history.before, over.bars])
    rows, warm = feature_table(bars, schema, UNIVERSE)
    assert asks is not None
    sides = asks.sides(rows[warm], schema)
    assert set(np.unique(sides).tolist()) == {-1, 0, 1}


# --- its model --------------------------------------------------------------------------------------------------------


@each
def test_load_model_gives_what_was_registered_and_refuses_other_files_and_other_clocks(spec: StrategySpec) -> None:
    packed, sidecar = sample_version(spec, created_by="a test", created_at_ns=1)
    loaded = prove(sidecar, packed.files, "3", spec.bar_minutes)
    assert (loaded.identity.model_name, loaded.identity.model_version) == (spec.model_name, "3")
    assert loaded.schema.hash == spec.feature_schema().hash
    damaged = packed.files | {FLAT_FILE: packed.files[FLAT_FILE][:-1] + b"?"}
    with pytest.raises(TamperedModel):
        prove(sidecar, damaged, "3", spec.bar_minutes)
    with pytest.raises(FeatureSchemaMismatch):
        prove(sidecar, packed.files, "3", spec.bar_minutes + 1)


@each
def test_a_proposal_says_what_the_model_was_asked_and_what_it_answered(spec: StrategySpec) -> None:
    loaded, asks = sample(spec), spec.proposer()
    market = random_walk(3, minutes=MINUTES, per_minute=4, seed=5)
    history = session_of(spec, loaded).history
    day = MarketDay(SESSION, UNIVERSE, market, assignments_at_open(SESSION, {spec.name: loaded}), history)
    proposals = proposals_of(run_session(day, config(spec)), spec.name)
    assert proposals
    assert spec.judged or {one.side for one in proposals} == {"BUY", "SELL"}
    for one in proposals:
        assert (one.model_name, one.model_version) == (spec.model_name, "3")
        assert one.feature_schema_hash == loaded.schema.hash
        assert tuple(one.features) == spec.feature_schema().names
        bought = one.score >= loaded.buy_threshold
        if asks is not None:
            row = np.array([[math.nan if v is None else v for v in one.features.values()]])
            bought = bool(asks.sides(row, loaded.schema)[0] > 0)
            assert one.score >= loaded.buy_threshold
        assert one.side == ("BUY" if bought else "SELL")
        assert one.threshold == (loaded.buy_threshold if bought or asks is not None else loaded.sell_threshold)
        assert bought or loaded.sell_threshold is None or one.score <= loaded.sell_threshold


@each
def test_without_its_model_it_proposes_nothing_and_the_strategy_beside_it_goes_on(spec: StrategySpec) -> None:
    beside = BYSTANDER.model_copy(update={"bar_minutes": spec.bar_minutes})
    market = random_walk(3, minutes=30, per_minute=4, seed=5)
    assigned = assignments_at_open(SESSION, {beside.name: sample(beside)})
    day = MarketDay(SESSION, UNIVERSE, market, assigned)
    together, alone = run_session(day, config(beside, spec)), run_session(day, config(beside))
    assert not proposals_of(together, spec.name)
    assert proposals_of(together, beside.name) == proposals_of(alone, beside.name) != []


# --- its trades -------------------------------------------------------------------------------------------------------


@each
def test_a_trade_earns_what_its_label_says(spec: StrategySpec) -> None:
    over = session_of(spec, accepting_all(spec))
    events = traded(over, spec)
    decided = {one.event_id: one for one in proposals_of(events, spec.name)}
    trades = [one for one in round_trips(events) if not one.left_open and _of_label(one, spec)]
    rows = zip(over.bars.instrument.tolist(), over.bars.end_ns.tolist(), strict=True)
    place = {pair: row for row, pair in enumerate(rows)}
    side, volatility = np.zeros(len(over.bars), dtype=np.int8), np.full(len(over.bars), np.nan)
    at = []
    for one in trades:
        signal = decided[one.signal_id]
        at.append(place[UNIVERSE.index_of_symbol[signal.symbol], signal.event_time_ns])
        side[at[-1]] = 1 if signal.side == "BUY" else -1
        volatility[at[-1]] = signal.features.get(VOLATILITY) or math.nan
    label = spec.label()
    if isinstance(label, BarrierReturn):
        gains = label.of(over.bars, len(UNIVERSE), [SESSION], side, volatility).forward_return[at]
    else:
        gains = label.of(over.bars, len(UNIVERSE), [SESSION]).forward_return[at] * side[at]
    assert len(trades) > 3
    np.testing.assert_allclose([one.gross_bps / 1e4 for one in trades], gains, rtol=0, atol=1e-12)


def _of_label(trade: Trade, spec: StrategySpec) -> bool:
    """Whether what ended the trade is of the label: stop_bps and target_bps of a strategy without a rule are not."""
    return spec.judged or trade.exit_reason == "time"


@each
def test_nothing_in_its_chain_knows_the_future(spec: StrategySpec) -> None:
    quick = Effort(cuts=3, perturbations=2, traded_cuts=1)
    report = audit_strategy(spec, [session_of(spec, accepting_all(spec))], limits(), effort=quick)
    assert report.passed, (report.findings, report.too_few)


def test_a_feature_that_does_not_exist_is_refused_with_the_nearest_ones() -> None:
    misspelt = StrategySpec.model_construct(**dict(STRATEGIES[0]) | {"features": ("last_retrun",)})
    with pytest.raises(UnknownFeature, match="did you mean last_return"):
        misspelt.feature_schema()
