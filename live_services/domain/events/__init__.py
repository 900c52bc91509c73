"""What travels on the topics, as frozen values. Each event names its type, its broker and what caused it.

Ticks and bars travel in frames (``live_services/domain/frames.py``); everything rare is one of these.
"""

from live_services.domain.events.account import (
    AccountOpened,
    PnlSnapshot,
    Position,
    PositionMark,
    StrategyTotals,
    TradingSwitched,
)
from live_services.domain.events.codec import EVENT_CLASSES, AnyEvent, decode_event, event_or_none, topic_of
from live_services.domain.events.envelope import LAST_NS, Basis, Event, Instant, ModelStamped, event_id, self_caused
from live_services.domain.events.market import MarketGap, SessionOpened, Watermark
from live_services.domain.events.operations import DeadLetter
from live_services.domain.events.orders import (
    MOST_PROPOSED,
    BarValues,
    ExitReason,
    ExitTerms,
    FillModel,
    Intent,
    OrderCancelled,
    OrderFilled,
    OrderRejected,
    OrderSubmitted,
    Reason,
    Side,
    SignalGenerated,
    SignalRejected,
    SignalValidated,
)
from live_services.domain.events.strategy import (
    FeatureSkewMeasured,
    ModelLoaded,
    ModelPromoted,
    ModelRefused,
    SignalShadowed,
    SkewDifference,
    StrategyHistoryUsed,
    StrategyModelAssigned,
)

__all__ = [
    "EVENT_CLASSES",
    "LAST_NS",
    "MOST_PROPOSED",
    "AccountOpened",
    "AnyEvent",
    "BarValues",
    "Basis",
    "DeadLetter",
    "Event",
    "ExitReason",
    "ExitTerms",
    "FeatureSkewMeasured",
    "FillModel",
    "Instant",
    "Intent",
    "MarketGap",
    "ModelLoaded",
    "ModelPromoted",
    "ModelRefused",
    "ModelStamped",
    "OrderCancelled",
    "OrderFilled",
    "OrderRejected",
    "OrderSubmitted",
    "PnlSnapshot",
    "Position",
    "PositionMark",
    "Reason",
    "SessionOpened",
    "Side",
    "SignalGenerated",
    "SignalRejected",
    "SignalShadowed",
    "SignalValidated",
    "SkewDifference",
    "StrategyHistoryUsed",
    "StrategyModelAssigned",
    "StrategyTotals",
    "TradingSwitched",
    "Watermark",
    "decode_event",
    "event_id",
    "event_or_none",
    "self_caused",
    "topic_of",
]
