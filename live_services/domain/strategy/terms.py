"""What a proposal says beside its side: how many shares, and how far from its opening fill stop and target lie."""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from feature_store.labels.barrier_return import BarrierReturn
from feature_store.labels.forward_return import ForwardReturn
from live_services.domain.money import RUPEE, inr_e4
from models_registry.specification import StrategySpec

_BPS: Final = 1e4


class Distances(NamedTuple):
    """Distances from the opening fill, in 1/10,000 rupee; None: there is no such barrier."""

    stop_inr_e4: int | None
    target_inr_e4: int | None


def distances(
    spec: StrategySpec,
    label: ForwardReturn | BarrierReturn,
    close: NDArray[np.float64],
    volatility: NDArray[np.float64],
) -> list[Distances | None]:
    """Give the barriers of trades decided at bars; None where a barrier would have no width: that is no trade.

    Parameters
    ----------
    spec : StrategySpec
        Without a rule its stop and target are parts of the price.
    label : ForwardReturn or BarrierReturn
        What its model foretells; barriers of the label are those of the trade.
    close : array of float64, shape (n,)
        Of the decision bars, rupees.
    volatility : array of float64, shape (n,)
        The feature at the decisions, fraction per bar; NaN if the model does not look at it.
    """
    if isinstance(label, ForwardReturn):
        return [Distances(_part(price, spec.stop_bps), _part(price, spec.target_bps)) for price in close.tolist()]
    stops, targets = (side.tolist() for side in label.distances_inr_e4(close, volatility))
    pairs = zip(stops, targets, strict=True)
    return [Distances(stop, target) if stop > 0 and target > 0 else None for stop, target in pairs]


def _part(price: float, bps: float | None) -> int | None:
    return None if bps is None else max(inr_e4(price * bps / _BPS), 1)


def shares(spec: StrategySpec, close: float, volatility: float, stop_inr_e4: int | None, lot_size: int = 1) -> int:
    """Give how many shares a trade has: whole lots, at least one.

    Parameters
    ----------
    spec : StrategySpec
        Its sizing; see `StrategySpec.sizing`.
    close : float
        Of the decision bar, rupees.
    volatility : float
        At the decision, fraction per bar. The deviation of a holding of n bars is taken as sqrt(n) times it, as if
        returns of bars were independent.
    stop_inr_e4 : int or None
        Distance of the stop, 1/10,000 rupee.
    lot_size : int
        Shares that are traded together.

    Examples
    --------
    >>> risky = StrategySpec(name="fade", stop_bps=50, sizing="risk_per_trade", risk_per_trade_inr=100)
    >>> shares(risky, 200.0, 0.001, 10_000), shares(risky, 200.0, 0.001, 10_000, lot_size=75)
    (100, 75)
    """
    most = spec.notional_per_trade_inr / close
    if spec.sizing == "risk_per_trade" and stop_inr_e4:
        most = min(most, spec.risk_per_trade_inr * RUPEE / stop_inr_e4)
    if spec.sizing == "volatility_target":
        deviation_inr = close * volatility * math.sqrt(spec.holding_bars)
        if deviation_inr > 0:  # of NaN and of a price that does not move nothing follows but the largest size
            most = min(most, spec.volatility_target_inr / deviation_inr)
    return max(int(most // lot_size), 1) * lot_size
