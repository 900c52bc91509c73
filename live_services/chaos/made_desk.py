"""The desk that faults are tried on: a generated market of two sessions, and a sample of a model."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import tomli_w

from feature_store.market.types import Session
from feature_store.offline.store import OfflineStore
from feature_store.sources.synthetic import synthetic_market
from live_services.cli.models import promote_as_person
from live_services.composition import build_registry
from live_services.demo.demo_home import note_own_promotions
from live_services.settings import CONFIG_NAME, Settings
from models_registry.sample import SAMPLE_DESCRIPTION, SAMPLE_TAG, sample_version

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


def store_market(settings: Settings, instruments: int, seed: int) -> tuple[Session, ...]:
    """Generate the market and put it into the desk's store; gives the sessions that are to be played."""
    made = synthetic_market(instruments, _SESSIONS_BEFORE, edge_bps=12.0, seed=seed, tick_sessions=2)
    store = OfflineStore(settings.store_root)
    store.write_universe(made.universe, made.name)
    for session, bars in zip(made.sessions, made.bars, strict=True):
        store.write_bars(session, made.universe, bars, made.name)
    for session, ticks in zip(made.tick_sessions, made.ticks, strict=True):
        store.write_ticks(session, made.universe, ticks, made.name)
    return made.tick_sessions


def promote_sample(settings: Settings) -> None:
    """Register the sample that all strategies ask, and make it champion, whatever the gate says.

    It proposes something at nearly every bar, which is all that is asked of it.
    """
    registry = build_registry(settings)
    spec = next(strategy for strategy in settings.strategies if strategy.name == MODEL)
    packed, sidecar = sample_version(spec, created_by="alpha-panda chaos", created_at_ns=time.time_ns())
    version = registry.register(packed, sidecar, SAMPLE_DESCRIPTION, tags={SAMPLE_TAG: "true"})
    promote_as_person(settings, registry, MODEL, version, "champion", reason=_WHY, override=_WHY)
    note_own_promotions(settings.alpha_panda_home)
