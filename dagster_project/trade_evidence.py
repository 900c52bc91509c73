"""The trades that the account would have made of a candidate in the sessions that it had not seen, for the gates.

They are those that `alpha-panda backtest` shows of the version's out-of-fold sessions: the same function trades them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from feature_store.market.types import MarketDataError
from live_services.domain.account.trades import round_trips
from live_services.domain.limits import AccountConfig
from live_services.domain.money import RUPEE, rupees
from live_services.settings import Settings
from models_registry.gates.evidence import FoldTrades, TradeEvidence
from models_registry.validation.capacity import TOLERATED_SHARE, capacity

if TYPE_CHECKING:
    from feature_store.market.types import Session
    from feature_store.offline.store import OfflineStore
    from live_services.backtest.traded import TradedSession
    from live_services.domain.account.trades import Trade
    from models_registry.training import TrainedModel

Told = Callable[[str], object]
"""Where progress goes, for example a run's log."""


def trade_evidence(
    store: OfflineStore, settings: Settings, trained: TrainedModel, told: Told, *, candidate_sha256: str
) -> TradeEvidence:
    """Trade every session that a fold had not seen with that fold's model, within the paper account's limits.

    Orders fill at the next stored bar's open, fills are charged by the schedule of their day; the strategy is alone on
    the account, whose cash and positions go from session to session.

    Parameters
    ----------
    store : OfflineStore
        With the bars of these sessions and of those before them, on the desk's clock.
    settings : Settings
        Of the account; its other strategies are left out.
    trained : TrainedModel
        With a model for each fold.
    told : callable
        Takes a line of progress now and then.
    candidate_sha256 : str
        Of the candidate, which the evidence carries.

    Raises
    ------
    MarketDataError
        If a session is not in the store any more, or has other bars than it was trained on, or a file cannot be used.
    """
    stored = as_trained_on(store, trained)
    fold_of = {date: fold.number for fold in trained.fold_models for date in fold.sessions}
    found: list[TradedSession] = []
    for traded in _traded(store, settings, trained, [stored[date] for date in sorted(fold_of)]):
        found.append(traded)
        if len(found) % 5 == 0 or len(found) == len(fold_of):
            told(f"traded {len(found)} of {len(fold_of)} unseen sessions: {len(_trades(found))} trades")
    return summary(found, fold_of, candidate_sha256, _entry_values(store, found))


def account_of(settings: Settings) -> AccountConfig:
    """Give the account that a candidate is judged on: paper's, as it is set."""
    return AccountConfig.model_validate(settings.trading.paper.model_dump(include=set(AccountConfig.model_fields)))


def as_trained_on(store: OfflineStore, trained: TrainedModel) -> dict[str, Session]:
    """Give the sessions that a model was trained on by date, if the store still has their bars as they were."""
    stored = {session.date.isoformat(): session for session in store.sessions("bars")}
    model = trained.spec.model_name
    for date, digest in trained.lineage.sessions.items():
        if date not in stored:
            raise MarketDataError(f"the bars of {date} are gone, which {model} was trained on: train again")
        if store.manifest("bars", stored[date])["digest"] != digest:
            raise MarketDataError(f"the bars of {date} have changed since {model} was trained on them: train again")
    return stored


def _traded(
    store: OfflineStore, settings: Settings, trained: TrainedModel, sessions: Sequence[Session]
) -> Iterator[TradedSession]:
    from live_services.adapters.history import StoredHistory
    from live_services.backtest.engine import EngineConfig
    from live_services.backtest.sessions import UnseenFolds
    from live_services.backtest.traded import trade

    on_paper = trained.spec.model_copy(update={"brokers": ("paper",)})
    config = EngineConfig((on_paper,), {"paper": account_of(settings)}, bar_minutes=trained.spec.bar_minutes)
    folds = UnseenFolds.of(trained)
    yield from trade(store, StoredHistory(settings), config, (folds,), sessions, fills="bars", in_sample=False)


def summary(
    sessions: Sequence[TradedSession],
    fold_of: Mapping[str, int],
    candidate_sha256: str,
    entry_values_inr: NDArray[np.float64],
) -> TradeEvidence:
    """Sum up the trades of sessions, and those of each fold by the ISO date of its sessions.

    Parameters
    ----------
    sessions : sequence of TradedSession
        In order, of one account.
    fold_of : mapping
        The fold by date.
    candidate_sha256 : str
    entry_values_inr : ndarray of float64, shape (trades,)
        Value that was traded in the bar that each trade entered in, NaN where it is not known.
    """
    trades, dates = _trades(sessions), [one.session.date.isoformat() for one in sessions]
    ends = np.array([one.session.close_ns for one in sessions], dtype=np.int64)
    by_fold: dict[int, list[Trade]] = {number: [] for number in fold_of.values()}
    for trade in trades:
        session = min(int(np.searchsorted(ends, trade.exit_time_ns)), len(dates) - 1)
        by_fold[fold_of[dates[session]]].append(trade)
    longs = [trade for trade in trades if trade.side == "BUY"]
    shorts = [trade for trade in trades if trade.side == "SELL"]
    earned = {date: one.last.equity_inr - one.equity_at_open_inr for date, one in zip(dates, sessions, strict=True)}
    notional = np.array([rupees(trade.entry_inr_e4) for trade in trades])
    room = capacity(notional, entry_values_inr)
    turned_over = [sum(fill.quantity * fill.price_inr_e4 for fill in one.fills) / RUPEE for one in sessions]
    return TradeEvidence(
        candidate_sha256=candidate_sha256,
        sessions=len(sessions),
        trades=len(trades),
        long_trades=len(longs),
        short_trades=len(shorts),
        gross_expectancy_bps=_mean([trade.gross_bps for trade in trades]),
        net_expectancy_bps=_mean([trade.net_bps for trade in trades]),
        long_net_expectancy_bps=_mean([trade.net_bps for trade in longs]),
        short_net_expectancy_bps=_mean([trade.net_bps for trade in shorts]),
        net_pnl_inr=sum(earned.values()),
        left_open=sum(trade.left_open > 0 for trade in trades),
        entries_proposed=sum(one.proposed for one in sessions),
        entries_refused=_added_up(one.refused for one in sessions),
        net_pnl_by_session=earned,
        by_fold={
            number: FoldTrades(len(made), _mean([trade.net_bps for trade in made])) for number, made in by_fold.items()
        },
        exits=_added_up({str(trade.exit_reason or "left_open"): 1} for trade in trades),
        turnover_a_session_inr=_mean(turned_over),
        median_participation=room.median_participation,
        high_participation=_high(notional, entry_values_inr),
        largest_notional_inr=room.largest_notional_inr,
    )


def _trades(sessions: Sequence[TradedSession]) -> tuple[Trade, ...]:
    return round_trips([event for one in sessions for event in one.kept])


def _entry_values(store: OfflineStore, sessions: Sequence[TradedSession]) -> NDArray[np.float64]:
    """Give close times volume of the bar that each trade entered in; NaN where that bar is not stored."""
    trades, tokens = _trades(sessions), store.universe().tokens
    found = np.full(len(trades), np.nan)
    for one in sessions:
        mine = [k for k, t in enumerate(trades) if one.session.open_ns <= t.entry_time_ns < one.session.close_ns]
        if mine:
            bars = store.read_bars([one.session])
            at = zip(tokens[bars.instrument].tolist(), bars.start_ns.tolist(), strict=True)
            value = dict(zip(at, (bars.close * bars.volume).tolist(), strict=True))
            found[mine] = [value.get((trades[k].instrument_token, trades[k].entry_time_ns), np.nan) for k in mine]
    return found


def _high(notional: NDArray[np.float64], values: NDArray[np.float64]) -> float:
    known = np.isfinite(values)
    if not known.any():
        return float("nan")
    share = np.full(int(known.sum()), np.inf)
    np.divide(notional[known], values[known], out=share, where=values[known] > 0.0)
    return float(np.quantile(share, 1.0 - TOLERATED_SHARE, method="higher"))


def _added_up(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for one in counts:
        total.update(one)
    return dict(sorted(total.items()))


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else float("nan")
