"""The desk that faults are tried on: a generated market of two sessions and a model trained on the ones before."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import tomli_w

from feature_store.market.types import Session
from feature_store.offline.store import OfflineStore
from feature_store.offline.training_frames import training_frame
from feature_store.provenance import code_commit
from feature_store.sources.synthetic import SyntheticMarket, synthetic_market
from live_services.cli.models import promote_as_person
from live_services.composition import build_registry
from live_services.demo.demo_home import note_own_promotions
from live_services.settings import CONFIG_NAME, Settings
from models_registry.gates.evidence import NO_CHAMPION, Evidence, TradeEvidence
from models_registry.gates.limits import GateLimits
from models_registry.gates.plausible import plausibility_of
from models_registry.gates.verdicts import judge
from models_registry.packing import Packed, library_versions, pack, parity
from models_registry.sidecar import FitFacts, Sidecar
from models_registry.training import train
from models_registry.version import build_sidecar

MODEL: Final = "momentum"
_OFTEN: Final = {"buy_quantile": 0.92, "sell_quantile": 0.08}
"""Of scores, so that there is something to trade in nearly every minute."""
STRATEGIES: Final[tuple[Mapping[str, Any], ...]] = (
    {"name": "momentum", "model": MODEL, **_OFTEN},
    {"name": "bracketed", "model": MODEL, "priority": 1, "stop_bps": 25, "target_bps": 30, **_OFTEN},
)
MARKET_PARTITIONS: Final = 4
_SESSIONS_BEFORE: Final = 8
_FRAME_MS: Final = 10_000
_WHY: Final = "a desk on which faults are tried trades whatever the gate says"


def write_configuration(
    home: Path, sessions: tuple[Session, ...] = (), *, speed: float = 0.0, frame_ms: int = _FRAME_MS
) -> None:
    """Write the desk's settings; what is served when is the only thing that changes while it runs.

    ``sessions`` are replayed at ``speed``, 0 as fast as it goes.
    """
    played = {"replay_session": str(sessions[0].date), "replay_through": str(sessions[-1].date)} if sessions else {}
    settings = {
        # no Dagster is needed, and a desk that names one starts none
        "dagster": {"url": "http://127.0.0.1:9"},
        "kafka": {"market_partitions": MARKET_PARTITIONS},
        "market": {"speed": speed, "frame_ms": frame_ms} | played,
        # so that there is something to reject
        "trading": {"paper": {"enabled": True, "risk": {"max_open_positions": 3}}},
        "strategies": [dict(one) for one in STRATEGIES],
    }
    (home / CONFIG_NAME).write_text("# written by `alpha-panda chaos`\n" + tomli_w.dumps(settings), encoding="utf-8")


def store_market(settings: Settings, instruments: int, seed: int) -> tuple[SyntheticMarket, OfflineStore]:
    """Generate the market and put it into the desk's store."""
    made = synthetic_market(instruments, _SESSIONS_BEFORE, edge_bps=12.0, seed=seed, tick_sessions=2)
    store = OfflineStore(settings.store_root)
    store.write_universe(made.universe, made.name)
    for session, bars in zip(made.sessions, made.bars, strict=True):
        store.write_bars(session, made.universe, bars, made.name)
    for session, ticks in zip(made.tick_sessions, made.ticks, strict=True):
        store.write_ticks(session, made.universe, ticks, made.name)
    return made, store


def train_and_promote(settings: Settings, made: SyntheticMarket, store: OfflineStore) -> None:
    """Train the model that all strategies ask, register it and make it champion, whatever the gate says."""
    registry = build_registry(settings)
    packed, sidecar = trained_version(settings, made.sessions, store)
    version = registry.register(packed, sidecar, description="Made by `alpha-panda chaos`.")
    promote_as_person(settings, registry, MODEL, version, "champion", reason=_WHY, override=_WHY)
    note_own_promotions(settings.alpha_panda_home)


def trained_version(settings: Settings, sessions: Sequence[Session], store: OfflineStore) -> tuple[Packed, Sidecar]:
    """Train the model that all strategies ask on sessions of a store; nothing is registered."""
    spec = next(strategy for strategy in settings.strategies if strategy.name == MODEL)
    first, last = sessions[0].date, sessions[-1].date
    frame = training_frame(store, None, first, last, features=spec.feature_schema(), label=spec.label())
    facts = FitFacts(
        git_commit=code_commit(), library_versions=library_versions(), fitted_at_ns=time.time_ns(), run_id=""
    )
    trained = train(frame, spec, facts)
    packed = pack(trained.estimator, trained.golden_rows)
    evidence = Evidence.of(
        trained,
        parity=parity(packed, trained.estimator, frame.X[::50]),
        bar_source="ticks",
        trades_on="ticks",
        champion=NO_CHAMPION,
        trades=_no_trades(),
        plausibility=plausibility_of(trained, frame),
    )
    sidecar = build_sidecar(
        trained,
        frame,
        packed,
        evidence,
        gate=judge(evidence, "champion", GateLimits()),
        created_by="alpha-panda chaos",
        created_at_ns=time.time_ns(),
    )
    return packed, sidecar


def _no_trades() -> TradeEvidence:
    """Evidence of a model that nobody traded: the gate says no to it, and is overruled."""
    nothing = float("nan")
    return TradeEvidence(
        candidate_sha256="",
        sessions=0,
        trades=0,
        long_trades=0,
        short_trades=0,
        gross_expectancy_bps=nothing,
        net_expectancy_bps=nothing,
        long_net_expectancy_bps=nothing,
        short_net_expectancy_bps=nothing,
        net_pnl_inr=0.0,
        left_open=0,
        entries_proposed=0,
    )
