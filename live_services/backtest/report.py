"""The report of a backtest: one HTML file with everything in it, for a screen and for paper."""

from __future__ import annotations

import datetime as dt
import json
import os
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from feature_store.market.types import IST
from live_services.backtest import charts, tables
from live_services.backtest.result import Backtested

if TYPE_CHECKING:
    from jinja2 import Environment

_TEMPLATES: Final = Path(__file__).parent / "templates"
_SHORT: Final = 70  # sessions that are listed one by one


def write_report(result: Backtested, path: Path) -> Path:
    """Write the report, whole or not at all.

    Parameters
    ----------
    result : Backtested
    path : Path
        Of the file; its folder is made.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    from plotly.offline import get_plotlyjs

    page = (
        _environment()
        .get_template("report.html.j2")
        .render(
            **_said(result),
            plotly=get_plotlyjs(),
            drawn=_drawn(result),
            made_at=f"{dt.datetime.now(IST):%d %b %Y, %H:%M IST}",
        )
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    partly = path.with_name(f".{path.name}.writing")
    try:
        partly.write_text(page, encoding="utf-8")
        os.replace(partly, path)  # noqa: PTH105 (said as what it is: one step)
    finally:
        partly.unlink(missing_ok=True)
    return path


def summary_html(result: Backtested) -> str:
    """Give the headline of a backtest for a notebook: stamps, figures, what they assume."""
    return _environment().get_template("summary.html.j2").render(**_said(result))


class BacktestResult(Backtested):
    """A backtest that was made: tables, figures, and the report that a person reads."""

    def report(self, path: Path | str) -> Path:
        """Write the report as one HTML file that needs no network, and give its path."""
        return write_report(self, Path(path))

    def _repr_html_(self) -> str:
        return summary_html(self)


def chart_figures(result: Backtested) -> dict[str, charts.Chart]:
    """Give the charts by name, as plotly draws them; prices by ``price SYMBOL``."""
    trades = result.trades
    found = {
        "equity": charts.equity_chart(result),
        "sessions": charts.sessions_chart(result),
        "exposure": charts.exposure_chart(result),
        "distribution": charts.distribution_chart(trades),
        "hours": charts.groups_chart(tables.by_hour(trades), "hour of the entry, IST"),
        "instruments": charts.groups_chart(tables.by_instrument(trades), "instrument", lying=True),
        "charges": charts.charges_chart(result.trade_figures.gross_inr, result.charges),
    }
    return found | {f"price {path.symbol}": charts.price_chart(result, path) for path in result.prices}


def _said(result: Backtested) -> dict[str, Any]:
    trades, sessions = result.trades, result.traded
    groups = {
        "by side": tables.group_rows(tables.by_side(trades), "side"),
        "by exit reason": tables.group_rows(tables.by_reason(trades), "exit"),
        "by hour of the entry (IST)": tables.group_rows(tables.by_hour(trades), "hour"),
        "by instrument": tables.group_rows(tables.by_instrument(trades), "instrument"),
    }
    if len(result.judged) > 1:
        groups = {"by strategy": tables.group_rows(tables.by_strategy(trades), "strategy")} | groups
    return {
        "title": result.title,
        "stamps": result.stamps,
        "market": result.market,
        "first": f"{sessions[0].session.date:%d %b %Y}",
        "last": f"{sessions[-1].session.date:%d %b %Y}",
        "sessions": len(sessions),
        "fills": "next bar's open" if result.fills == "bars" else "next tick",
        "tiles": tables.tiles(result),
        "assumptions": tables.assumptions(result),
        "comparison": tables.comparison(result),
        "monthly": tables.monthly(result),
        "session_rows": tables.session_rows(result) if len(sessions) <= _SHORT else None,
        "groups": groups,
        "best": tables.extreme_trades(trades, best=True),
        "worst": tables.extreme_trades(trades, best=False),
        "charges": tables.charge_rows(result.charges, result.trade_figures.turnover_inr),
        "refusals": tables.refusal_rows(result.refusals),
        "proposed": sum(one.proposed for one in sessions),
        "outages": tables.outage_rows(result),
        "left_out": result.left_out,
        "versions": tables.versions(result),
        "settings": tables.settings_rows(result),
        "provenance": tables.provenance_rows(result.provenance),
        "charted": [path.symbol for path in result.prices],
        "trades": len(trades),
        "roles": sorted(set(result.sessions["role"])),
    }


def _drawn(result: Backtested) -> str:
    opens = [
        [f"{one.session.date:%a %d %b %Y}", one.session.open_ns // 1_000_000, one.session.close_ns // 1_000_000]
        for one in result.traded
    ]
    text = json.dumps({"charts": chart_figures(result), "sessions": opens}, separators=(",", ":"), allow_nan=False)
    return text.replace("</", "<\\/")  # a symbol cannot end the script that it stands in


@lru_cache(maxsize=1)
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(_TEMPLATES)
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
