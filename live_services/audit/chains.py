"""Chains to audit: that of a strategy as the desk and the account run it, and that of research code of your own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from structlog.testing import capture_logs

from feature_store.features.engine import FeatureEngine
from feature_store.features.guards import CompiledFeatures, FrameFeatures, Subject, TableFeature
from feature_store.features.schema import FeatureSchema
from feature_store.market.types import Bars, Universe
from live_services.audit.sessions import AuditedSession
from live_services.audit.stages import Chain, Stage
from live_services.backtest.engine import EngineConfig, MarketDay, assignments_at_open, run_session
from live_services.domain.events import Event, OrderFilled, OrderSubmitted, SignalGenerated
from live_services.domain.limits import AccountConfig
from live_services.domain.strategy.loaded_model import judged, said
from models_registry.specification import StrategySpec

_PRICES: Final = ("open", "high", "low", "close", "volume")
_SIGNAL: Final = ("side", "quantity", "score", "threshold", "reference_price", "stop_inr_e4", "target_inr_e4", "expiry")
_ORDER: Final = ("side", "quantity", "closes")
_FILL: Final = ("side", "quantity", "price_inr_e4", "closes")


def own_chain(
    universe: Universe,
    features: FeatureSchema | Mapping[str, TableFeature],
    *,
    bars_of: Callable[[Bars], Bars] | None = None,
    rule: Callable[[pd.DataFrame], Any] | None = None,
    score: Callable[[NDArray[np.float64]], NDArray[np.float64]] | None = None,
) -> Chain:
    """Make a chain of research code, as it is written in a notebook.

    Parameters
    ----------
    universe : Universe
    features : FeatureSchema, or mapping of name to function
        The platform's features, or functions on a data frame of one instrument's bars.
    bars_of : callable, optional
        Makes the bars that all else stands on, for example longer ones.
    rule : callable, optional
        Takes one instrument's bars and features as a data frame, oldest first; gives a side for each row.
    score : callable, optional
        Takes all feature rows, shape ``(n, F)``, and gives a score for each.
    """
    compiled = isinstance(features, FeatureSchema)
    subject: Subject = (
        CompiledFeatures(features, universe, None, None) if compiled else FrameFeatures(dict(features), 0)  # type: ignore[arg-type]
    )

    def stages(source: Bars) -> Sequence[Stage]:
        bars = source if bars_of is None else bars_of(source)
        found = []
        if bars_of is not None:
            values = np.stack([getattr(bars, name).astype(np.float64) for name in _PRICES], axis=1)
            found.append(Stage.of("bars", bars.instrument, bars.end_ns, _PRICES, values))
        rows, warm = subject.rows(bars, universe)
        rows = np.where(warm[:, None], rows, np.nan)
        found.append(Stage.of("features", bars.instrument, bars.end_ns, subject.names, rows))
        if rule is not None:
            sides = _sides(rule, bars, rows, subject.names)
            found.append(Stage.of("proposals", bars.instrument, bars.end_ns, ("side",), sides))
        if score is not None:
            scores = np.asarray(score(rows.copy()), dtype=np.float64)
            found.append(Stage.of("scores", bars.instrument, bars.end_ns, ("score",), scores))
        return found

    return stages


def _sides(
    rule: Callable[[pd.DataFrame], Any], bars: Bars, rows: NDArray[np.float64], names: Sequence[str]
) -> NDArray[np.float64]:
    sides = np.zeros(len(bars))
    for i in np.unique(bars.instrument):
        mine = np.flatnonzero(bars.instrument == i)
        frame = FrameFeatures.frame(bars[mine])
        frame = frame.assign(**{name: rows[mine, k] for k, name in enumerate(names)})
        sides[mine] = np.asarray(rule(frame), dtype=np.float64)
    return sides


class StrategyChain:
    """A strategy's chain over one session: the very desk and account, and beside them what they decide by.

    Call it with bars of the session. Features, proposals and scores are computed in one batch; signals, orders and
    fills come out of the engine, which computes its own.

    Parameters
    ----------
    spec : StrategySpec
        It trades alone, on a new paper account.
    over : AuditedSession
        What the desk has at its open, and the model that it asks.
    account : AccountConfig
        The account's limits.
    """

    def __init__(self, spec: StrategySpec, over: AuditedSession, account: AccountConfig) -> None:
        self.spec, self.model, self.over = spec.model_copy(update={"brokers": ("paper",)}), over.model, over
        self.trades = True
        """Whether signals, orders and fills are among the stages; they take most of the time."""
        self._config = EngineConfig((self.spec,), {"paper": account}, bar_minutes=spec.bar_minutes)
        engine = FeatureEngine(self.model.schema, over.universe, over.history.actions)
        engine.step(over.history.before)
        self._after_history = engine.snapshot()
        self._proposer = self.spec.proposer()

    def __call__(self, bars: Bars) -> Sequence[Stage]:
        """Run it on bars of the session, all of them or some."""
        rows, warm = self.rows(bars)
        found = self._decided(bars, rows, warm)
        return [*found, *self._traded(bars)] if self.trades else found

    def rows(self, bars: Bars) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Compute the feature rows of bars in one batch, and whether each is warm."""
        engine = FeatureEngine(self.model.schema, self.over.universe, self.over.history.actions)
        engine.restore(self._after_history)
        return engine.step(bars)

    def said(self, rows: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int8]]:
        """Give the scores of rows, and the side that each opens."""
        if self._proposer is None:
            return said(self.model, rows)
        return judged(self.model, self._proposer, rows)[:2]

    def events(self, bars: Bars, frame_ns: int | None = None) -> tuple[Event, ...]:
        """Give what the desk and the account say of bars, worked in one batch or in frames of so many nanoseconds."""
        over = self.over
        assigned = assignments_at_open(over.session, {self.spec.name: self.model})
        day = MarketDay(over.session, over.universe, bars, assigned, over.history)
        with capture_logs():  # data that is cut leaves positions open, which is no fault that anybody should hear of
            return run_session(day, self._config, frame_ns)

    def _decided(self, bars: Bars, rows: NDArray[np.float64], warm: NDArray[np.bool_]) -> list[Stage]:
        asked = np.flatnonzero(warm & np.isfinite(rows).all(axis=1))
        instrument, known_ns = bars.instrument[asked], bars.end_ns[asked]
        finite = np.ascontiguousarray(rows[asked])
        score, side = self.said(finite)
        proposed = side if self._proposer is None else self._proposer.sides(finite, self.model.schema)
        of_warm = np.flatnonzero(warm)
        names = self.model.schema.names
        proposals = Stage.of("proposals", instrument, known_ns, ("side",), proposed.astype(np.float64))
        scores = Stage.of("scores", instrument, known_ns, ("score",), score)
        features = Stage.of("features", bars.instrument[of_warm], bars.end_ns[of_warm], names, rows[of_warm])
        # each stands on the one before: a rule's side is there before its score, a model's side comes of it
        return [features, scores, proposals] if self._proposer is None else [features, proposals, scores]

    def _traded(self, bars: Bars) -> list[Stage]:
        events, index = self.events(bars), self.over.universe.index_of_token
        signals = [one for one in events if isinstance(one, SignalGenerated)]
        orders = [one for one in events if isinstance(one, OrderSubmitted)]
        fills = [one for one in events if isinstance(one, OrderFilled)]
        return [
            _stage("signals", signals, index, _SIGNAL, [_of_signal(one) for one in signals]),
            _stage("orders", orders, index, _ORDER, [(_sign(o), o.quantity, o.intent == "close") for o in orders]),
            _stage("fills", fills, index, _FILL, [_of_fill(one) for one in fills]),
        ]

    def decisions(self) -> NDArray[np.int64]:
        """Give the times at which something opens, each once."""
        rows, warm = self.rows(self.over.bars)
        asked = np.flatnonzero(warm & np.isfinite(rows).all(axis=1))
        side = self.said(np.ascontiguousarray(rows[asked]))[1]
        return np.unique(self.over.bars.end_ns[asked[side != 0]])


def _sign(event: SignalGenerated | OrderSubmitted | OrderFilled) -> float:
    return 1.0 if event.side == "BUY" else -1.0


def _of_signal(one: SignalGenerated) -> tuple[float, ...]:
    stop, target = one.exit.stop_distance_inr_e4, one.exit.target_distance_inr_e4
    terms = tuple(float("nan") if distance is None else float(distance) for distance in (stop, target))
    later = float(one.exit.expiry_ns - one.event_time_ns)
    return (_sign(one), float(one.quantity), one.score, one.threshold, one.reference_price, *terms, later)


def _of_fill(one: OrderFilled) -> tuple[float, ...]:
    return (_sign(one), float(one.quantity), float(one.price_inr_e4), float(one.intent == "close"))


def _stage(
    name: str,
    events: Sequence[SignalGenerated | OrderSubmitted | OrderFilled],
    index: Mapping[int, int],
    columns: Sequence[str],
    values: Iterable[Sequence[float]],
) -> Stage:
    instrument = np.array([index[one.instrument_token] for one in events], dtype=np.int32)
    known_ns = np.array([one.event_time_ns for one in events], dtype=np.int64)
    table = np.array([list(row) for row in values], dtype=np.float64).reshape(len(events), len(columns))
    return Stage.of(name, instrument, known_ns, columns, table)
