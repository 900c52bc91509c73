"""Buy and hold: the same instruments, bought at the first open in equal parts and sold at the last close. Pure."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from feature_store.market.types import Bars, Session
from live_services.domain.account.charges import ChargeBook
from live_services.domain.money import inr_e4, rupees


@dataclass(frozen=True, slots=True, eq=False)
class BuyAndHold:
    """What an equal part of each instrument came to."""

    equity_inr: pd.Series[float]
    """At each session's close, by date, what was paid at the entry taken off; charges of the sale at the last one."""
    instruments: int
    left_out: int
    """Instruments without a bar in the first session: nothing was put into them."""
    charges_inr: float
    """Of delivery, of buying once and selling once."""


def buy_and_hold(
    bars: Iterable[tuple[Session, Bars]],
    chosen: NDArray[np.bool_],
    starting_cash_inr: float,
) -> BuyAndHold | None:
    """Hold equal parts from the first open to the last close.

    Parameters
    ----------
    bars : iterable of (Session, Bars)
        In order, at the prices of the last one (`CorporateActions.adjust`).
    chosen : ndarray of bool, shape (n_instruments,)
        What may be held, by the index of the bars.
    starting_cash_inr : float
        What is put in; parts of shares are held, so that all of it is.

    Returns
    -------
    BuyAndHold or None
        None if there is no bar to buy at.
    """
    entry, last = np.full(len(chosen), np.nan), np.full(len(chosen), np.nan)
    worth: dict[dt.date, float] = {}
    first: Session | None = None
    for session, table in bars:
        last[table.instrument] = table.close  # in order of time: the last bar stays
        if first is None:
            first = session
            entry[table.instrument[::-1]] = table.open[::-1]
            held = chosen & np.isfinite(entry)
            if not held.any():
                return None
        worth[session.date] = float(np.mean(last[held] / entry[held]))
    if first is None:
        return None
    dates = list(worth)
    part = starting_cash_inr / int(held.sum())
    bought = _charges([part] * int(held.sum()), "BUY", first.date)
    sold = _charges((part * last[held] / entry[held]).tolist(), "SELL", dates[-1])
    equity = pd.Series(worth, dtype=np.float64) * starting_cash_inr - bought
    equity.iloc[-1] -= sold
    return BuyAndHold(equity, int(held.sum()), int((chosen & ~held).sum()), bought + sold)


def _charges(amounts: Sequence[float], side: str, date: dt.date) -> float:
    book = ChargeBook()
    return sum(
        rupees(
            book.charges_of_fill(
                f"{side}{k}",
                "equity_delivery",
                "BUY" if side == "BUY" else "SELL",
                quantity=1,  # charges are of the turnover, whatever share of it one piece is
                price_inr_e4=inr_e4(amount),
                instrument_token=k,
                date=date,
            ).total_inr_e4
        )
        for k, amount in enumerate(amounts)
    )
