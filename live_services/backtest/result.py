"""What a backtest came to, as tables that a notebook goes on with."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from feature_store.market.types import GENERATED_MARKET, IST, MINUTE_NS, Session, Universe, is_generated
from live_services.backtest.figures import ReturnFigures, TradeFigures, return_figures, trade_figures
from live_services.domain.account.charges import ChargeBook, equity_segment
from live_services.domain.account.trades import Trade, round_trips
from live_services.domain.money import rupees

if TYPE_CHECKING:
    from live_services.backtest.holding import BuyAndHold
    from live_services.backtest.traded import Fills, TradedSession
    from live_services.backtest.versions import JudgedVersion
    from live_services.domain.limits import AccountConfig
    from live_services.domain.strategy.loaded_model import RuleFailures

CHARGES = ("brokerage", "stt", "exchange", "sebi", "stamp", "gst", "dp")
"""Items of a fill's charges."""


@dataclass(frozen=True, slots=True, eq=False)
class PricePath:
    """Closes of one instrument, for a chart: ``at`` in sessions since the first one's open, ``close`` in rupees."""

    symbol: str
    at: NDArray[np.float64]
    close: NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Opponent:
    """The champions of the strategies, on the same sessions by the same rules, side by side on one account."""

    title: str
    equity_inr: pd.Series[float]
    """At each session's end, by date."""
    returns: ReturnFigures
    trades: TradeFigures


@dataclass(frozen=True, eq=False)
class Backtested:
    """A backtest that was made."""

    judged: tuple[JudgedVersion, ...]
    account: AccountConfig
    fills: Fills
    in_sample: bool
    universe: Universe
    traded: tuple[TradedSession, ...]
    market: str
    changes: Mapping[str, Any]
    left_out: tuple[str, ...]
    """Sessions between the first and the last that were not traded, and why, one line each."""
    holding: BuyAndHold | None
    champion: Opponent | None
    no_champion: str
    """Why there is no comparison with the champions; empty if there is one."""
    prices: tuple[PricePath, ...]
    """Of the instruments that were traded most."""
    outages: pd.DataFrame
    """As `feature_store.bars.quality.outages` lists them."""
    provenance: Mapping[str, str]
    """Commit, digests and the like, by what a person calls them."""

    # --- tables ---------------------------------------------------------------------------------------------------

    @cached_property
    def trades(self) -> pd.DataFrame:
        """Round trips, in order of their end; amounts in rupees, times IST, what is left open at its mark."""
        events = [event for one in self.traded for event in one.kept]
        return trades_table(round_trips(events))

    @cached_property
    def equity(self) -> pd.DataFrame:
        """The account whenever it said how it stands, by time (IST): equity, gross and net exposure, positions."""
        rows = [
            pd.DataFrame(
                {
                    "equity_inr": [one.equity_at_open_inr, *one.path.equity_inr],
                    "gross_inr": [0.0, *one.path.gross_inr],
                    "net_inr": [0.0, *one.path.net_inr],
                    "positions": [0, *one.path.positions],
                },
                index=ist_times(np.array([one.session.open_ns, *one.path.time_ns])),
            )
            for one in self.traded
        ]
        return pd.concat(rows).rename_axis("time")

    @cached_property
    def sessions(self) -> pd.DataFrame:
        """One row for each session, by date: equity at its end, net profit, return, trades, charges, and its role."""
        ended = self.trades.groupby("session").size() if len(self.trades) else pd.Series(dtype=int)
        ends = [one.last.equity_inr for one in self.traded]
        begins = [self.account.starting_cash_inr, *ends[:-1]]
        dates = [one.session.date for one in self.traded]
        return pd.DataFrame(
            {
                "equity_inr": ends,
                "net_inr": np.subtract(ends, begins),
                "return": np.divide(ends, begins) - 1.0,
                "trades": [int(ended.get(date, 0)) for date in dates],
                "charges_inr": [rupees(sum(fill.charges_inr_e4 for fill in one.fills)) for one in self.traded],
                "proposed": [one.proposed for one in self.traded],
                "refused": [sum(one.refused.values()) for one in self.traded],
                "role": [self.role(one.session) for one in self.traded],
            },
            index=pd.Index(dates, name="session"),
        )

    @cached_property
    def charges(self) -> pd.Series[float]:
        """What all fills were charged, rupees by item (`CHARGES`); the sum is what the account booked."""
        return charges_by_item(self.traded)

    @cached_property
    def refusals(self) -> pd.Series[int]:
        """How many entries risk refused, by rule."""
        total: dict[str, int] = {}
        for one in self.traded:
            for rule, number in one.refused.items():
                total[rule] = total.get(rule, 0) + number
        return pd.Series(total, dtype=np.int64).sort_values(ascending=False)

    @cached_property
    def rule_failures(self) -> Mapping[str, RuleFailures]:
        """Rows at which the rule of a strategy failed, by strategy; empty if none did."""
        total: dict[str, RuleFailures] = {}
        for one in self.traded:
            for strategy, failed in one.rule_failures.items():
                total[strategy] = total[strategy] + failed if strategy in total else failed
        return total

    # --- figures --------------------------------------------------------------------------------------------------

    @property
    def net_inr(self) -> float:
        """What the account gained, rupees, after charges, with what is open at its last price: as the gate counts."""
        return float(self.sessions["net_inr"].sum())

    def daily_net_inr(self, strategy: str) -> dict[str, float]:
        """Give what a strategy gained by session (``YYYY-MM-DD``), rupees after charges, 0 where it did not trade.

        Alone on the account it is the account's gain. Beside others it is that of the trades that ended in the session.
        """
        if len(self.judged) == 1:
            earned = self.sessions["net_inr"]
        else:
            own = self.trades[self.trades["strategy"] == strategy]
            earned = own.groupby("session")["net_inr"].sum().reindex(self.sessions.index, fill_value=0.0)
        return {str(date): float(net) for date, net in earned.items()}

    @cached_property
    def returns(self) -> ReturnFigures:
        """Figures of the sessions' returns."""
        return return_figures(self.sessions["return"].to_numpy())

    @cached_property
    def trade_figures(self) -> TradeFigures:
        """Figures of the trades."""
        return trade_figures(self.trades)

    @cached_property
    def deepest_within(self) -> float:
        """The deepest fall of the account from an earlier height, at any moment of its sessions; at most 0."""
        equity = np.concatenate([[self.account.starting_cash_inr], self.equity["equity_inr"].to_numpy()])
        return float((equity / np.maximum.accumulate(equity) - 1.0).min())

    def role(self, session: Session) -> str:
        """Say what a session was to the versions; ``in sample`` if it was known to one of them."""
        roles = [one.role(session) for one in self.judged]
        if self.in_sample:
            roles = ["after training" if role == "after training" else "in sample" for role in roles]
        return next(role for role in ("in sample", "after training", "out of fold") if role in roles)

    @property
    def title(self) -> str:
        """The strategies and their versions."""
        return " + ".join(_titled(one) for one in self.judged)

    @property
    def stamps(self) -> tuple[str, ...]:
        """What every page says of it, in capitals: in sample, generated, refused, a rule that failed."""
        known = int((self.sessions["role"] == "in sample").sum())
        refused = dict.fromkeys(_refused(one) for one in self.judged if one.refused)
        failed = [f"{name} on {one.rows:,} rows ({one.first})" for name, one in self.rule_failures.items()]
        said = [
            (known, f"IN SAMPLE: the models were trained on {known} of these {len(self.traded)} sessions"),
            (is_generated(self.market), GENERATED_MARKET),
            (refused, f"REFUSED BY ITS GATE: {'; '.join(refused)}"),
            (failed, f"RULE FAILED: {'; '.join(failed)}"),
        ]
        return tuple(text for holds, text in said if holds)

    def record(self) -> dict[str, Any]:
        """Give what ``--json`` prints: headline figures, stamps, what it stands on."""
        return {
            "strategies": [
                {"name": one.spec.name, "model": one.sidecar.model_name, "version": one.version} for one in self.judged
            ],
            "first_session": self.traded[0].session.date.isoformat(),
            "last_session": self.traded[-1].session.date.isoformat(),
            "stamps": list(self.stamps),
            "fills": self.fills,
            "changes": dict(self.changes),
            "account": self.account.model_dump(mode="json"),
            "equity_inr": float(self.sessions["equity_inr"].iloc[-1]),
            "net_inr": self.net_inr,
            "returns": _plain(self.returns),
            "trades": _plain(self.trade_figures),
            "charges_inr": {name: float(value) for name, value in self.charges.items()},
            "refused": {str(rule): int(number) for rule, number in self.refusals.items()},
            "rule_failures": {name: dataclasses.asdict(failed) for name, failed in self.rule_failures.items()},
            "buy_and_hold_return": None if self.holding is None else self.holding_return,
            "champion": None
            if self.champion is None
            else {"title": self.champion.title, "returns": _plain(self.champion.returns)},
            "roles": {str(role): int(number) for role, number in self.sessions["role"].value_counts().items()},
            "left_out": list(self.left_out),
            "provenance": dict(self.provenance),
        }

    @property
    def holding_return(self) -> float:
        """What buying and holding came to, as a fraction of the cash that the account began with."""
        assert self.holding is not None  # noqa: S101 - asked where there is one
        return float(self.holding.equity_inr.iloc[-1] / self.account.starting_cash_inr - 1.0)


def trades_table(trades: Sequence[Trade]) -> pd.DataFrame:
    """Lay out trades, one to a row; amounts in rupees, times IST."""
    table = pd.DataFrame(
        {
            "strategy": [one.strategy for one in trades],
            "symbol": [one.symbol for one in trades],
            "side": ["long" if one.side == "BUY" else "short" for one in trades],
            "quantity": np.array([one.quantity for one in trades], dtype=np.int64),
            "entry_time": ist_times(np.array([one.entry_time_ns for one in trades], dtype=np.int64)),
            "entry_price": np.array([one.entry_price for one in trades], dtype=np.float64),
            "exit_time": ist_times(np.array([one.exit_time_ns for one in trades], dtype=np.int64)),
            "exit_price": np.array([one.exit_price for one in trades], dtype=np.float64),
            "exit_reason": [one.exit_reason or "left open" for one in trades],
            "left_open": np.array([one.left_open for one in trades], dtype=np.int64),
            "minutes": np.array([(one.exit_time_ns - one.entry_time_ns) / MINUTE_NS for one in trades]),
            "gross_inr": np.array([rupees(one.gross_pnl_inr_e4) for one in trades], dtype=np.float64),
            "charges_inr": np.array([rupees(one.charges_inr_e4) for one in trades], dtype=np.float64),
            "net_inr": np.array([rupees(one.net_pnl_inr_e4) for one in trades], dtype=np.float64),
            "gross_bps": np.array([one.gross_bps for one in trades], dtype=np.float64),
            "net_bps": np.array([one.net_bps for one in trades], dtype=np.float64),
            "model_version": [one.model_version for one in trades],
            "order_id": [one.opening_order_id for one in trades],
        }
    )
    table["session"] = table["exit_time"].dt.date
    return table


def charges_by_item(traded: Sequence[TradedSession]) -> pd.Series[float]:
    """Take the charges of fills apart by charging them again, in order, as the account did."""
    total = dict.fromkeys(CHARGES, Decimal(0))
    for one in traded:
        book = ChargeBook()
        for fill in one.fills:
            charges = book.charges_of_fill(
                fill.order_id,
                equity_segment(fill.product),
                fill.side,
                quantity=fill.quantity,
                price_inr_e4=fill.price_inr_e4,
                instrument_token=fill.instrument_token,
                date=one.session.date,
            )
            for item in CHARGES:
                total[item] += getattr(charges, item)
    return pd.Series({item: float(amount) for item, amount in total.items()})


def ist_times(time_ns: NDArray[np.int64]) -> pd.DatetimeIndex:
    """Give UTC epoch nanoseconds as times of the exchange."""
    return pd.DatetimeIndex(time_ns, tz=dt.UTC).tz_convert(IST)


def _titled(one: JudgedVersion) -> str:
    name = one.spec.name
    return f"{name} v{one.version}" if name == one.sidecar.model_name else f"{name} ({one.title})"


def _refused(one: JudgedVersion) -> str:
    standing = f", which is {one.overruled}" if one.overruled else ""
    return f"{one.title} ({', '.join(one.refused)}){standing}"


def _plain(figures: ReturnFigures | TradeFigures) -> dict[str, float | int | None]:
    """Give figures as JSON holds them: None where there is none."""
    return {name: value if np.isfinite(value) else None for name, value in dataclasses.asdict(figures).items()}
