"""What strategies run, stand on and would propose; what becomes of their models."""

from __future__ import annotations

from typing import ClassVar, Literal

from live_services.domain.events.envelope import Count, Event, Frozen, Instant, Price, Whole
from live_services.domain.events.orders import Side
from live_services.domain.topics import (
    FEATURES_SKEW,
    MODELS_LOADED,
    MODELS_PROMOTED,
    MODELS_REFUSED,
    SIGNALS_SHADOW,
    STRATEGIES_CONTROL,
    STRATEGIES_SUMMARY,
    Topic,
)
from models_registry.refs import Alias
from models_registry.specification import Broker


class SignalShadowed(Event):
    """What a challenger's version would have proposed; no account reads it."""

    TOPIC: ClassVar[Topic | str | None] = SIGNALS_SHADOW

    event_type: Literal["signal.shadowed"] = "signal.shadowed"
    broker: Literal["shared"] = "shared"
    strategy: str
    rung: Literal["challenger"] = "challenger"
    model_name: str
    model_version: str
    feature_schema_hash: str
    instrument_token: Whole
    symbol: str
    side: Side
    score: float
    threshold: float
    reference_price: Price


class StrategyModelAssigned(Event):
    """Control: from ``event_time_ns`` on a strategy runs this version, or none. Restart and replay follow it."""

    TOPIC: ClassVar[Topic | str | None] = STRATEGIES_CONTROL

    event_type: Literal["strategy.model_assigned"] = "strategy.model_assigned"
    broker: Literal["shared"] = "shared"
    strategy: str
    rung: Alias
    model_name: str
    model_version: str | None
    """None: the strategy is disabled from here."""
    feature_schema_hash: str | None
    sidecar_sha256: str | None = None
    """Of the sidecar that was loaded, which names the digests of everything else; a restart compares its own copy."""
    reason: str


class StrategyHistoryUsed(Event):
    """Control: what the features of a task's session stand on. A restart that would stand on other bars is refused."""

    TOPIC: ClassVar[Topic | str | None] = STRATEGIES_CONTROL

    event_type: Literal["strategy.history_used"] = "strategy.history_used"
    broker: Literal["shared"] = "shared"
    session_date: str
    sessions: tuple[str, ...]
    """ISO dates of the sessions before it whose bars were stepped."""
    digest: str
    """SHA-256 over these bars (by instrument token) and the corporate actions."""
    today_until_ns: Instant
    """End of the last stored bar of the session itself that stood in for one that a gap of the market took; else 0."""
    today_digest: str
    broken: bool
    """No stored bar told what lay in a gap of the market: features began anew behind it, WARMING."""
    today_stored: str = ""
    """SHA-256 of the session's own bars that were stored when it was opened; empty without any."""


class StrategyStanding(Frozen):
    """What a task runs of a strategy on a rung."""

    strategy: str
    rung: Alias
    state: Literal["ready", "disabled", "waiting"]
    """ready: a version is loaded and scores. disabled: none does, and it is known why. waiting: the registry or the
    ledger has not answered yet."""
    model_name: str
    version: str
    """Empty unless ready."""
    reason: str
    """Why none scores, or what is amiss: what stands on the rung does not run, a rule fails. Empty if nothing is."""
    note: str = ""
    """What people must know of what scores, and is no fault: that its gate was overruled."""


class BrokerStrategies(Frozen):
    """How many of a broker's strategies run a version; also what Redis holds of them."""

    broker: Broker
    configured: Count
    ready: Count
    skipped: dict[str, str]
    """Those that run none, each with the reason."""


class StrategiesSummarized(Event):
    """What a task's strategies run: said at a start, at a session's open and on every change."""

    TOPIC: ClassVar[Topic | str | None] = STRATEGIES_SUMMARY

    event_type: Literal["strategies.summarized"] = "strategies.summarized"
    broker: Literal["shared"] = "shared"
    session_date: str
    task: str
    strategies: tuple[StrategyStanding, ...]
    brokers: tuple[BrokerStrategies, ...]


class SkewDifference(Frozen):
    """A feature of a row that went out live and is another number when it is computed again from the log."""

    feature: str
    instrument_token: Whole
    symbol: str
    bar_end_ns: Instant
    live: float | None
    recomputed: float | None
    live_bits: str
    """The 64 bits, hexadecimal; two numbers may print alike and differ in the last one."""
    recomputed_bits: str


class FeatureSkewMeasured(Event):
    """Rows that went out live were computed again from the recorded market; a single bit that differs is counted."""

    TOPIC: ClassVar[Topic | str | None] = FEATURES_SKEW

    event_type: Literal["feature.skew_measured"] = "feature.skew_measured"
    broker: Literal["shared"] = "shared"
    session_date: str
    partition: Count
    rows_equal: Count
    rows_different: Count
    rows_unverified: Count
    """Rows of a schema that this code declares otherwise, so that it cannot compute them."""
    history_digest: str
    differences: tuple[SkewDifference, ...]
    """The first ones."""


class ModelPromoted(Event):
    """A version was promoted. A nudge: the ledger decides, and is polled."""

    TOPIC: ClassVar[Topic | str | None] = MODELS_PROMOTED

    event_type: Literal["model.promoted"] = "model.promoted"
    broker: Literal["shared"] = "shared"
    model_name: str
    model_version: str
    alias: str
    previous_version: str | None
    reason: str
    promoted_by: str


class ModelLoaded(Event):
    """A strategy runner task swapped to a version, effective at ``event_time_ns``."""

    TOPIC: ClassVar[Topic | str | None] = MODELS_LOADED

    event_type: Literal["model.loaded"] = "model.loaded"
    broker: Literal["shared"] = "shared"
    strategy: str
    rung: Alias
    model_name: str
    model_version: str
    feature_schema_hash: str
    artifact_sha256: str
    task: str


class ModelRefused(Event):
    """A strategy runner task would not load a version; the one it ran goes on."""

    TOPIC: ClassVar[Topic | str | None] = MODELS_REFUSED

    event_type: Literal["model.refused"] = "model.refused"
    broker: Literal["shared"] = "shared"
    strategy: str
    rung: Alias
    model_name: str
    model_version: str
    reason: str
    running_version: str | None
    task: str
