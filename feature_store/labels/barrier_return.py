"""The barrier return: what a trade on a proposed side gains before costs until its stop, target or time ends it.

It is the triple barrier of López de Prado (2018), Advances in Financial Machine Learning, section 3.4, as the account
trades it on bars: the entry fills at the next open; stop and target rest from there on, the entry bar included, at
distances in volatilities of the decision, and end the trade by `feature_store.labels.barriers.barrier_step`; at the
decision + horizon they are cancelled, and the position is closed at the first open from then on. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from feature_store.labels.barriers import NO_TOUCH, barrier_label_rows
from feature_store.labels.forward_return import ForwardReturn, last_exits, require_rows
from feature_store.market.arrays import kernel_input
from feature_store.market.types import Bars, Session

VOLATILITY: Final = "volatility"
"""The feature that barriers are measured in: fraction per bar."""

_RUPEE: Final = 10_000.0  # units of 1/10,000 rupee
_NEAR_A_TIE: Final = 1e-3  # far more than the error of a float64 price in these units, up to a million rupees


class BarrierLabels(NamedTuple):
    """The label of each bar as a decision on a side, in the order of the bars; shapes ``(n,)``."""

    forward_return: NDArray[np.float64]
    """Side x (exit price over entry price less 1), as a fraction: what the trade gains before costs; NaN where there is
    no label."""
    entry_ns: NDArray[np.int64]
    """Start of the bar at whose open the trade enters; the end of the bar itself where there is no label."""
    label_end_ns: NDArray[np.int64]
    """When the label was known: the end of the bar that touched, or the start of the one at whose open time ends the
    trade; the bar's own end where there is no label."""
    outcome: NDArray[np.int8]
    """What ended the trade: `NO_TOUCH` (time), `STOP` or `TARGET`; `NO_TOUCH` where there is no label."""


@dataclass(frozen=True)
class BarrierReturn:
    """The gain of a trade from the next open after a decision to its stop, its target or its time, in one session.

    A barrier's distance from the entry price is its multiple x the volatility at the decision (fraction per bar) x the
    square root of ``horizon_bars`` x the decision bar's close.

    Raises
    ------
    ValueError
        If a count is less than 1, or a multiple is no finite number above 0.
    """

    horizon_bars: int
    bar_minutes: int = 1
    """Length of a bar of the clock that is decided on."""
    exit_minutes_before_close: int = 10
    """The strategy's last exit; a decision whose time would end later has no label."""
    stop_volatility: float = 1.0
    """Multiple of the volatility over the horizon at which the stop rests."""
    target_volatility: float = 1.0

    def __post_init__(self) -> None:
        self.holding()  # checks the counts
        for name in ("stop_volatility", "target_volatility"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0.0):
                raise ValueError(
                    f"{name} of a label is {value}; a barrier without width ends every trade at once: give more than 0"
                )
            object.__setattr__(self, name, float(value))  # 1 and 1.0 are one identity

    def holding(self) -> ForwardReturn:
        """Give the label that is ended by time alone, after as long."""
        return ForwardReturn(self.horizon_bars, self.bar_minutes, self.exit_minutes_before_close)

    @property
    def horizon_ns(self) -> int:
        """Session time from the decision to the end of the holding, nanoseconds."""
        return self.holding().horizon_ns

    def last_exit_ns(self, session: Session) -> int:
        """Give the time from which on nothing is held any more; see `ForwardReturn.last_exit_ns`."""
        return self.holding().last_exit_ns(session)

    def identity(self) -> dict[str, str | int | float]:
        """Give everything that decides what the label of a row is, as the sidecar has it and the loader compares."""
        return {
            **self.holding().identity(),
            "kind": "barrier_return",
            "version": 1,
            "exit": "stop_or_target_or_first_open_at_or_after_horizon",
            "barriers": "volatility_x_sqrt_horizon_bars_x_close",
            "stop_volatility": self.stop_volatility,
            "target_volatility": self.target_volatility,
        }

    @property
    def name(self) -> str:
        """The label's name, one for each identity: ``barrier_return_v1_10x1m_exit10m_stop1.0_target1.5``."""
        barriers = f"stop{self.stop_volatility!r}_target{self.target_volatility!r}"
        held = f"{self.horizon_bars}x{self.bar_minutes}m_exit{self.exit_minutes_before_close}m"
        return f"barrier_return_v1_{held}_{barriers}"

    def distances_inr_e4(
        self, close: NDArray[np.float64], volatility: NDArray[np.float64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Give how far stop and target lie from the opening fill, as a proposal states it.

        Parameters
        ----------
        close : array of float64, shape (n,)
            Of the decision bars, rupees.
        volatility : array of float64, shape (n,)
            At the decisions, fraction per bar: the feature ``volatility``.

        Returns
        -------
        tuple of arrays of int64, shape (n,)
            Units of 1/10,000 rupee, half-up; 0 for both where one has no width: where a distance rounds to nothing, is
            no number, or is not less than the price. On such an event there is no trade.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            width = volatility * math.sqrt(self.horizon_bars) * close
            distances = [
                _inr_e4(multiple * width, close) for multiple in (self.stop_volatility, self.target_volatility)
            ]
        without = (distances[0] == 0) | (distances[1] == 0)
        stop, target = (np.where(without, 0, distance) for distance in distances)
        return stop, target

    def of(
        self,
        bars: Bars,
        n_instruments: int,
        sessions: Sequence[Session],
        side: NDArray[np.int8],
        volatility: NDArray[np.float64],
    ) -> BarrierLabels:
        """Label each bar as a decision at its end, on a side: see `barrier_return`."""
        return barrier_return(bars, n_instruments, sessions, self, side=side, volatility=volatility)


def barrier_return(
    bars: Bars,
    n_instruments: int,
    sessions: Sequence[Session],
    label: BarrierReturn,
    *,
    side: NDArray[np.int8],
    volatility: NDArray[np.float64],
) -> BarrierLabels:
    """Label each bar as a decision at its end, on the side that was proposed.

    The trade enters at the open of the instrument's first bar that starts at or after the decision. It ends where a bar
    that starts before decision + horizon first touches a barrier, the entry bar included, else at the open of the first
    bar that starts at or after it. There is no label where no side was proposed or a barrier has no width, if decision
    + horizon lies after the last exit of the session, if no bar to enter at starts before it, or if nothing touches and
    no bar starts from then on until the last exit.

    Parameters
    ----------
    bars : Bars
        In order of time for each instrument, of length ``label.bar_minutes`` at most.
    n_instruments : int
        Length of the universe.
    sessions : sequence of Session
        Those of the bars, with their own hours; more do no harm.
    label : BarrierReturn
        Horizon, last exit and barriers.
    side : array of int8, shape (n,)
        1, -1, or 0 for no trade.
    volatility : array of float64, shape (n,)
        At each bar as a decision, fraction per bar; NaN where it is not known.

    Returns
    -------
    BarrierLabels
        A purge removes training rows whose ``[end_ns, label_end_ns]`` overlaps the test period.

    Raises
    ------
    UnknownInstrument
        If an instrument index is outside the universe.
    MarketDataError
        If a bar lies in none of the sessions, or starts before its instrument's one before has ended.
    ValueError
        If sides or volatilities are not one for each bar, or a side is none of -1, 0 and 1.
    """
    n = len(bars)
    if side.shape != (n,) or volatility.shape != (n,):
        raise ValueError(
            f"{n} bars, sides of shape {side.shape}, volatilities of {volatility.shape}; give one for each"
        )
    if (wrong := ~np.isin(side, (-1, 0, 1))).any():
        row = int(wrong.argmax())
        raise ValueError(f"the side of bar {row} is {side[row]}; it is 1 (buy), -1 (sell) or 0 (no trade)")
    stop, target = label.distances_inr_e4(bars.close, volatility)
    returns, outcome = np.full(n, np.nan), np.full(n, NO_TOUCH, dtype=np.int8)
    entry_ns, label_end_ns = bars.end_ns.copy(), bars.end_ns.copy()
    status = barrier_label_rows(
        kernel_input(bars.instrument, np.int32),
        kernel_input(bars.start_ns, np.int64),
        kernel_input(bars.end_ns, np.int64),
        kernel_input(bars.open, np.float64),
        kernel_input(bars.high, np.float64),
        kernel_input(bars.low, np.float64),
        kernel_input(_inr_e4(bars.open, np.inf), np.int64),
        kernel_input(last_exits(bars, sessions, label.holding()), np.int64),
        label.horizon_ns,
        n_instruments,
        kernel_input(side, np.int8),
        kernel_input(stop, np.int64),
        kernel_input(target, np.int64),
        returns,
        entry_ns,
        label_end_ns,
        outcome,
    )
    require_rows(status, bars, n_instruments)
    return BarrierLabels(returns, entry_ns, label_end_ns, outcome)


def _inr_e4(rupees: NDArray[np.float64], below: NDArray[np.float64] | float) -> NDArray[np.int64]:
    """Turn rupees into units of 1/10,000 rupee, half-up; 0 for what is no number between 0 and ``below``.

    It is the rounding of the account's money (`live_services.domain.money.inr_e4`): a float stands for the shortest
    decimal that reads back as it.
    """
    fits = np.isfinite(rupees) & (rupees > 0.0) & (rupees < np.minimum(below, 1e11))
    scaled = np.where(fits, rupees, 0.0) * _RUPEE
    units = np.floor(scaled + 0.5).astype(np.int64)
    for row in np.flatnonzero(np.abs(scaled - np.floor(scaled) - 0.5) < np.maximum(_NEAR_A_TIE, scaled * 1e-15)):
        exact = Decimal(float.__repr__(float(rupees[row]))) * int(_RUPEE)
        units[row] = int(exact.quantize(Decimal(1), ROUND_HALF_UP))
    return units
