"""A version as training makes it, for benches whose figures hang on what a model costs."""

from __future__ import annotations

import time
from collections.abc import Sequence

from feature_store.market.types import Session
from feature_store.offline.store import OfflineStore
from feature_store.offline.training_frames import training_frame
from feature_store.provenance import code_commit
from feature_store.sources.synthetic import SyntheticMarket
from live_services.chaos.made_desk import MODEL
from live_services.cli.models import promote_as_person
from live_services.composition import build_registry
from live_services.demo.demo_home import note_own_promotions
from live_services.settings import Settings
from models_registry.gates.evidence import NO_CHAMPION, Evidence, TradeEvidence
from models_registry.gates.limits import GateLimits
from models_registry.gates.plausible import plausibility_of
from models_registry.gates.verdicts import judge
from models_registry.packing import Packed, library_versions, pack, parity
from models_registry.sidecar import FitFacts, Sidecar
from models_registry.training import train
from models_registry.version import build_sidecar

_WHY = "a desk that is measured trades whatever the gate says"


def train_and_promote(settings: Settings, made: SyntheticMarket, store: OfflineStore) -> None:
    """Train the model that all strategies ask, register it and make it champion, whatever the gate says."""
    registry = build_registry(settings)
    packed, sidecar = trained_version(settings, made.sessions, store)
    version = registry.register(packed, sidecar, description="Made by a benchmark.")
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
        created_by="a benchmark",
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
