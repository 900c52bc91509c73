"""A session to audit a strategy over."""

from __future__ import annotations

from dataclasses import dataclass

from feature_store.market.types import Bars, Session, Universe
from live_services.domain.strategy.history import SessionHistory
from live_services.domain.strategy.loaded_model import LoadedModel


@dataclass(frozen=True, slots=True, eq=False)
class AuditedSession:
    """A session that a model had not seen, with what the desk would have had at its open."""

    session: Session
    universe: Universe
    bars: Bars
    """On the desk's clock, in order of ``(end_ns, instrument)``; orders fill at the next bar's open."""
    history: SessionHistory
    model: LoadedModel
    """The version's, or that of the fold that is tested on this session, with its thresholds."""
