"""The tables and sentences of a report. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from live_services.backtest.figures import SESSIONS_A_YEAR, ReturnFigures, TradeFigures, months_of
from live_services.domain.account.charge_schedules import schedule_on
from live_services.domain.account.charges import equity_segment
from models_registry.refs import bars_in_words, named_thresholds

if TYPE_CHECKING:
    from live_services.backtest.result import Backtested

_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_CHARGES: Final = {
    "brokerage": "brokerage", "stt": "STT", "exchange": "exchange and IPFT", "sebi": "SEBI", "stamp": "stamp duty",
    "gst": "GST", "dp": "depository",
}  # fmt: skip
_REASONS: Final = {"square_off": "square-off", "flatten": "flattened"}


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell: what it says, and whether it is good (1), bad (-1) or neither; ``strength`` 0 to 1 tints it."""

    text: str
    sign: int = 0
    strength: float = 0.0


@dataclass(frozen=True, slots=True)
class Grid:
    """A table: its heads, and rows of cells; the first column is a name, the others are numbers unless ``words``."""

    heads: Sequence[str]
    rows: Sequence[Sequence[Cell | str]]
    words: bool = False


@dataclass(frozen=True, slots=True)
class Tile:
    """A headline figure with what it assumes."""

    name: str
    value: str
    note: str
    sign: int = 0


# --- headline -----------------------------------------------------------------------------------------------------


def tiles(result: Backtested) -> list[Tile]:
    """Give the headline figures, each with what it stands on."""
    returns, trades, cash = result.returns, result.trade_figures, result.account.starting_cash_inr
    net, paid = result.net_inr, float(result.charges.sum())
    whole_year = returns.sessions >= SESSIONS_A_YEAR
    year = "compounded, 252 sessions" if whole_year else "under a year: not annualised"
    error = f"± {number(returns.sharpe_error)} standard error, daily × √252"
    within = f"{percent(result.deepest_within)} within sessions; longest {returns.longest_drawdown} sessions"
    a_session = f"{trades.trades / max(returns.sessions, 1):.1f} a session"
    minutes = f"{number(trades.median_holding_minutes, 0)} min at the median"
    found = [
        Tile("net result", percent(returns.total_return), f"{inr(net)} on {inr(cash)}", _sign(net)),
        Tile("by the year", percent(returns.annual_return), year, _sign(returns.annual_return)),
        Tile("Sharpe ratio", number(returns.sharpe), error, _sign(returns.sharpe)),
        Tile("deepest drawdown", percent(returns.max_drawdown), within, _sign(returns.max_drawdown)),
        Tile("trades", f"{trades.trades:,}", f"{a_session}, {minutes}"),
        Tile(
            "a trade",
            f"{number(trades.mean_net_bps, 1)} bps",
            f"after charges; {number(trades.mean_gross_bps, 1)} before",
            _sign(trades.mean_net_bps),
        ),
        Tile(
            "winners",
            percent(trades.win_rate, 1, plus=False),
            f"profit factor {number(trades.profit_factor)}, payoff {number(trades.payoff)}",
        ),
        Tile("charges", inr(paid), f"{_bps(paid, trades.turnover_inr)} bps of turnover"),
    ]
    if result.holding is not None:
        what = f"{result.holding.instruments} instruments, equal parts"
        found.append(Tile("buy and hold", percent(result.holding_return), what, _sign(result.holding_return)))
    if result.champion is not None:
        theirs = result.champion.returns.total_return
        found.append(Tile("champion", percent(theirs), f"{result.champion.title}, same sessions", _sign(theirs)))
    return found


def assumptions(result: Backtested) -> list[str]:
    """Say, in sentences, what the figures assume."""
    on = "at the next bar's open" if result.fills == "bars" else "at the next tick's last price"
    slip = result.account.slippage_bps
    slippage = (
        f"Market orders and stops fill {slip:g} bps worse than that; targets fill at their price."
        if slip
        else "Nothing slips: orders fill at that price whatever their size, which a real market does not promise."
    )
    watched = (
        "the high and low of bars, the stop first where a bar touched both" if result.fills == "bars" else "every tick"
    )
    roles = result.sessions["role"].value_counts()
    said = [
        f"A decision is made at a bar's close and its order fills {on}, never at the close it looked at. {slippage}",
        f"Stops and targets are watched on {watched}; positions of product MIS are squared off "
        f"{result.account.square_off_minutes_before_close} minutes before the close.",
        f"Every fill is charged by the schedule of its day ({_schedules(result)}).",
        f"The account began with {inr(result.account.starting_cash_inr)}; cash and positions went from session to "
        "session, and its limits refused what they would refuse live.",
        _models_in_words(roles),
        "Daily returns are from one session's end to the next as a share of the whole account, however little of it "
        "was in use; Sharpe and Sortino are over a return of nothing.",
    ]
    if open_at_end := int(result.trades["left_open"].gt(0).sum()):
        closing = inr(result.net_inr - result.trade_figures.net_inr, 2)
        said.append(
            f"{open_at_end:,} trades were open at the end. The account's result has them at their last price; their "
            f"rows and the figures of trades have the charges of closing them there too, {closing} in all."
        )
    if result.holding is not None:
        held = result.holding
        late = f"; {held.left_out} that had no bar in the first session are left out" if held.left_out else ""
        said.append(
            f"Buy and hold puts the whole cash in equal parts into {held.instruments} instruments at the first open "
            f"and sells at the last close, charged once as delivery ({inr(held.charges_inr)}){late}."
        )
    if result.no_champion:
        said.append(f"Without a champion beside it: {result.no_champion}.")
    return said


def comparison(result: Backtested) -> Grid:
    """Lay out the strategy beside the champion and buy and hold."""
    columns: list[tuple[str, ReturnFigures | None, TradeFigures | None]] = [
        (result.title, result.returns, result.trade_figures)
    ]
    if result.champion is not None:
        columns.append((f"champion {result.champion.title}", result.champion.returns, result.champion.trades))
    if result.holding is not None:
        columns.append(("buy and hold", _held_returns(result), None))
    of_returns = (
        ("net result", "total_return", percent), ("by the year", "annual_return", percent),
        ("volatility by the year", "annual_volatility", lambda v: percent(v, plus=False)),
        ("Sharpe ratio", "sharpe", number), ("its standard error", "sharpe_error", number),
        ("Sortino ratio", "sortino", number), ("deepest drawdown", "max_drawdown", percent),
        ("best session", "best", percent), ("worst session", "worst", percent),
        ("sessions that gained", "positive_share", lambda v: percent(v, 0, plus=False)),
    )  # fmt: skip
    of_trades = (
        ("trades", "trades", lambda v: f"{v:,}"), ("winners", "win_rate", lambda v: percent(v, 1, plus=False)),
        ("profit factor", "profit_factor", number), ("a trade, bps after charges", "mean_net_bps", number),
        ("charges of trades", "charges_inr", inr),
    )  # fmt: skip
    rows: list[list[Cell | str]] = []
    rows += [[name, *(_figure(r, field, show) for _, r, _ in columns)] for name, field, show in of_returns]
    rows += [[name, *(_figure(t, field, show) for _, _, t in columns)] for name, field, show in of_trades]
    return Grid(["", *(name for name, _, _ in columns)], rows)


# --- time ---------------------------------------------------------------------------------------------------------


def monthly(result: Backtested) -> Grid:
    """Lay out compounded returns by year and month, and each year's."""
    returns = result.sessions["return"]
    months = months_of(returns)
    years = (1.0 + returns).groupby(pd.DatetimeIndex(returns.index).year).prod() - 1.0
    widest = float(np.nanmax(np.abs(months.to_numpy()))) or 1.0
    rows: list[list[Cell | str]] = [
        [str(year), *(_tinted(v, widest) for v in months.loc[year]), _tinted(float(years.loc[year]), 0.0)]
        for year in months.index
    ]
    return Grid(["", *_MONTHS, "year"], rows)


def session_rows(result: Backtested) -> Grid:
    """Lay out every session."""
    table = result.sessions
    widest = float(table["net_inr"].abs().max()) or 1.0
    rows = [
        [
            f"{one.Index:%a %d %b %Y}", _amount(one.net_inr, widest),
            Cell(percent(one.returned, 3), _sign(one.returned)), inr(one.equity_inr), f"{one.trades:,}",
            inr(one.charges_inr), f"{one.proposed:,}", f"{one.refused:,}", one.role,
        ]
        for one in _each(table.rename(columns={"return": "returned"}))
    ]  # fmt: skip
    return Grid(["session", "net", "return", "equity", "trades", "charges", "proposed", "refused", "models"], rows)


def outage_rows(result: Backtested) -> Grid:
    """Lay out when much of the market had no bars."""
    rows = [
        [f"{one.date:%a %d %b %Y}", f"{one.start} to {one.end}", f"{one.intervals:,}",
         f"{one.missing} of {one.expected}", "yes" if one.whole_market else "no"]
        for one in _each(result.outages)
    ]  # fmt: skip
    return Grid(["session", "IST", "bars", "instruments without", "whole market"], rows)


# --- groups of trades ---------------------------------------------------------------------------------------------


def grouped(trades: pd.DataFrame, by: pd.Series[Any]) -> pd.DataFrame:
    """Sum trades up by group: trades, win rate, net and gross rupees, mean net bps, charges."""
    groups = trades.assign(won=trades["net_inr"] > 0).groupby(by, observed=True)
    return groups.agg(
        trades=("net_inr", "size"),
        win_rate=("won", "mean"),
        net_inr=("net_inr", "sum"),
        gross_inr=("gross_inr", "sum"),
        charges_inr=("charges_inr", "sum"),
        net_bps=("net_bps", "mean"),
        minutes=("minutes", "median"),
    )


def by_side(trades: pd.DataFrame) -> pd.DataFrame:
    """Group trades by side."""
    return grouped(trades, trades["side"])


def by_reason(trades: pd.DataFrame) -> pd.DataFrame:
    """Group trades by the reason of their exit."""
    return grouped(trades, trades["exit_reason"].map(lambda reason: _REASONS.get(reason, reason))).sort_values(
        "trades", ascending=False
    )


def by_hour(trades: pd.DataFrame) -> pd.DataFrame:
    """Group trades by the hour of their entry, IST."""
    hours = trades["entry_time"].dt.hour.map(lambda hour: f"{hour:02d}:00")
    return grouped(trades, hours).sort_index()


def by_instrument(trades: pd.DataFrame) -> pd.DataFrame:
    """Group trades by instrument, the best first."""
    return grouped(trades, trades["symbol"]).sort_values("net_inr", ascending=False)


def by_strategy(trades: pd.DataFrame) -> pd.DataFrame:
    """Group trades by strategy."""
    return grouped(trades, trades["strategy"]).sort_index()


def group_rows(groups: pd.DataFrame, head: str) -> Grid:
    """Lay out groups of trades."""
    widest = float(groups["net_inr"].abs().max() or 1.0) if len(groups) else 1.0
    rows: list[list[Cell | str]] = [
        [
            str(one.Index), f"{one.trades:,}", percent(one.win_rate, 1, plus=False), _amount(one.net_inr, widest),
            Cell(number(one.net_bps, 1, plus=True), _sign(one.net_bps)), inr(one.gross_inr), inr(one.charges_inr),
            f"{one.minutes:,.0f}",
        ]
        for one in _each(groups)
    ]  # fmt: skip
    return Grid([head, "trades", "winners", "net", "bps a trade", "before charges", "charges", "minutes"], rows)


def extreme_trades(trades: pd.DataFrame, *, best: bool, number_of: int = 8) -> Grid:
    """Lay out the trades that gained or lost most rupees."""
    chosen = (trades.nlargest if best else trades.nsmallest)(number_of, "net_inr")
    rows = [
        [
            one.symbol, one.side, f"{one.entry_time:%d %b %Y %H:%M}", f"{one.minutes:,.0f}", f"{one.quantity:,}",
            f"{one.entry_price:,.2f}", f"{one.exit_price:,.2f}", _REASONS.get(one.exit_reason, one.exit_reason),
            Cell(inr(one.net_inr), _sign(one.net_inr)), Cell(number(one.net_bps, 1, plus=True), _sign(one.net_bps)),
        ]
        for one in _each(chosen)
    ]  # fmt: skip
    return Grid(["", "side", "entry", "minutes", "shares", "in at", "out at", "exit", "net", "bps"], rows)


def charge_rows(charges: pd.Series[float], turnover_inr: float) -> Grid:
    """Lay out charges by item."""
    total = float(charges.sum())
    parts = [(_CHARGES[str(item)], float(amount)) for item, amount in charges.items()]
    rows = [
        [name, inr(amount, 2), percent(amount / (total or np.nan), 1, plus=False), _bps(amount, turnover_inr, 3)]
        for name, amount in [*parts, ("together", total)]
    ]
    return Grid(["item", "amount", "share", "bps of turnover"], rows)


def refusal_rows(refusals: pd.Series[int]) -> Grid:
    """Lay out what risk refused."""
    return Grid(["rule", "entries refused"], [[str(rule), f"{n:,}"] for rule, n in refusals.items()])


# --- what it stands on --------------------------------------------------------------------------------------------


def versions(result: Backtested) -> Grid:
    """Lay out the versions that were judged."""
    rows = []
    for one in result.judged:
        sidecar = one.sidecar
        gate = "refused: " + ", ".join(one.refused) if one.refused else "passed"
        trained = f"{min(sidecar.lineage.sessions)} to {sidecar.train_through}" if sidecar.lineage else "not said"
        rows.append(
            [one.spec.name, one.title, ", ".join(one.rungs) or "none", gate, trained, sidecar.market,
             bars_in_words(sidecar.bar_source), sidecar.algorithm.replace("_", " ")]
        )  # fmt: skip
    heads = ["strategy", "version", "stands on", "gate for champion", "trained on", "market", "bars", "estimator"]
    return Grid(heads, rows, words=True)


def settings_rows(result: Backtested) -> Grid:
    """Lay out what decides how it was traded; what a person changed for this backtest is marked."""
    marks = {key.rpartition(".")[2]: "changed for this backtest" for key in result.changes}
    account = result.account.model_dump(exclude={"risk"}) | result.account.risk.model_dump()
    rows: list[list[Cell | str]] = []
    for one in result.judged:
        facts = one.spec.model_dump(mode="json", exclude={"model", "name"})
        facts |= named_thresholds(one.model.buy_threshold, one.model.sell_threshold)
        rows += [[one.spec.name, name, _said(value), marks.get(name, "")] for name, value in facts.items()]
    rows += [["account", name, _said(value), marks.get(name, "")] for name, value in account.items()]
    return Grid(["of", "setting", "value", ""], rows, words=True)


def provenance_rows(facts: Mapping[str, str]) -> Grid:
    """Lay out digests and commits."""
    return Grid(["what", "is"], [[name, value] for name, value in facts.items()], words=True)


# --- words and numbers --------------------------------------------------------------------------------------------


def percent(value: float, digits: int = 2, *, plus: bool = True) -> str:
    """Write a fraction as percent; a dash where it is none."""
    if not np.isfinite(value):
        return "–"
    shown = round(100 * value, digits)
    sign = "−" if shown < 0 else "+" if plus and shown > 0 else ""
    return f"{sign}{abs(shown):,.{digits}f} %"


def number(value: float, digits: int = 2, *, plus: bool = False) -> str:
    """Write a number; a dash where it is none."""
    return "–" if not np.isfinite(value) else f"{value:{'+' if plus else ''},.{digits}f}".replace("-", "−")


def inr(value: float, digits: int = 0) -> str:
    """Write rupees; a dash where it is no number."""
    return "–" if not np.isfinite(value) else f"{'−' if round(value, digits) < 0 else ''}₹{abs(value):,.{digits}f}"


def _each(table: pd.DataFrame) -> Iterable[Any]:
    return table.itertuples()


def _sign(value: float) -> int:
    return int(np.sign(value)) if np.isfinite(value) else 0


def _bps(amount: float, of: float, digits: int = 1) -> str:
    return number(1e4 * amount / of if of else np.nan, digits)


def _amount(value: float, widest: float) -> Cell:
    return Cell(inr(value), _sign(value), abs(value) / widest)


def _tinted(value: float, widest: float) -> Cell:
    if not np.isfinite(value):
        return Cell("")
    return Cell(percent(value), _sign(value), abs(value) / widest if widest else 0.0)


def _figure(figures: object, field: str, show: Any) -> Cell | str:
    return "–" if figures is None else show(getattr(figures, field))


def _held_returns(result: Backtested) -> ReturnFigures:
    from live_services.backtest.figures import return_figures

    assert result.holding is not None  # noqa: S101 - asked where there is one
    equity = result.holding.equity_inr
    return return_figures((equity / equity.shift(fill_value=result.account.starting_cash_inr) - 1.0).to_numpy())


def _said(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.6g}" if abs(value) < 1 else f"{value:,.2f}".rstrip("0").rstrip(".")
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "all"
    if isinstance(value, dict):
        return ", ".join(f"{name} {one}" for name, one in value.items()) or "as they are"
    return "none" if value is None else str(value)


def _schedules(result: Backtested) -> str:
    segments = sorted({equity_segment(one.spec.product) for one in result.judged})
    days = (result.traded[0].session.date, result.traded[-1].session.date)
    used = {schedule_on(segment, day) for segment in segments for day in days}
    dates = sorted({schedule.holds_from.isoformat() for schedule, _ in used})
    exact = all(exact for _, exact in used)
    return f"of {' and '.join(dates)}" + ("" if exact else ", the nearest one that is verified: not that of the day")


def _models_in_words(roles: pd.Series[int]) -> str:
    words = {
        "out of fold": "by the model of the walk-forward fold that had not seen it",
        "after training": "after the training, by the registered model: the hold-out, which is worth less each time it "
        "is looked at",
        "in sample": "by the registered model, which was trained on it: its profit there says nothing",
    }
    parts: Iterable[str] = (f"{int(n):,} {words[str(role)]}" for role, n in roles.items())
    return f"Sessions: {'; '.join(parts)}."
