"""The charts of a report, as what plotly draws: ``data`` and ``layout`` of plain numbers. Pure.

Time runs in sessions: 3.5 is the middle of the fourth one, so that nights, weekends and holidays take no room. Traces
with ``meta: "sessions"`` are given the time of each point by the page.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from feature_store.market.types import Session
from live_services.backtest.figures import drawdown

if TYPE_CHECKING:
    from live_services.backtest.result import Backtested, PricePath

Chart = dict[str, Any]

BLUE: Final = "#1d4f91"
ORANGE: Final = "#d98014"
GREY: Final = "#8a94a3"
GREEN: Final = "#17815a"
RED: Final = "#c2362f"
_SHADES: Final = {
    "outage": "rgba(90,98,110,0.22)",
    "in sample": "rgba(194,54,47,0.10)",
    "after training": "rgba(29,79,145,0.08)",
}
_LABELS: Final = 12  # dates along an axis; more run into each other
_PATH_POINTS: Final = 8_000  # of the account's path; beyond it the ends of sessions and the extremes stay


def equity_chart(result: Backtested) -> Chart:
    """Draw the account with what it is held against, and its drawdown below."""
    at, equity = account_path(result)
    ends = np.arange(1, len(result.traded) + 1, dtype=np.float64)
    fall = _fall(equity)
    data = [
        _line(at, equity, result.title, BLUE, width=2, hover="₹%{y:,.0f}"),
        _line(at, 100.0 * fall, "drawdown", RED, axis="y2", fill="tozeroy", hover="%{y:.2f} %", legend=False),
    ]
    start = result.account.starting_cash_inr
    if result.holding is not None:
        held = result.holding.equity_inr
        place = {one.session.date: number for number, one in enumerate(result.traded)}
        x = [0.0, *(place[date] + 1.0 for date in held.index)]
        data.insert(1, _line(x, [start, *held], "buy and hold", GREY, width=1.5, hover="₹%{y:,.0f}"))
    if result.champion is not None:
        y = [start, *result.champion.equity_inr]
        data.insert(
            1, _line([0.0, *ends], y, f"champion {result.champion.title}", ORANGE, width=1.5, hover="₹%{y:,.0f}")
        )
    layout = _layout(result, height=520) | {
        "yaxis": _axis("equity, ₹", domain=[0.33, 1.0], tickformat=",.0f"),
        "yaxis2": _axis("drawdown, %", domain=[0.0, 0.26], tickformat=".1f", rangemode="tozero"),
        "legend": _LEGEND,
    }
    layout["xaxis"] |= {"anchor": "y2"}
    return _shaded({"data": data, "layout": layout}, result)


def exposure_chart(result: Backtested) -> Chart:
    """Draw what is held over time: gross and net in rupees, and how many positions."""
    parts = [(k, one) for k, one in enumerate(result.traded)]
    at = np.concatenate([_at(one.path.time_ns, one.session, k) for k, one in parts])
    step = max(1, len(at) // _PATH_POINTS)
    columns = {
        name: np.concatenate([getattr(o.path, name) for _, o in parts])[::step]
        for name in ("gross_inr", "net_inr", "positions")
    }
    at = at[::step]
    data = [
        _line(at, columns["gross_inr"], "gross", BLUE, fill="tozeroy", hover="₹%{y:,.0f}", shape="hv"),
        _line(at, columns["net_inr"], "net (long minus short)", ORANGE, hover="₹%{y:,.0f}", shape="hv"),
        _line(at, columns["positions"], "positions", GREY, axis="y2", hover="%{y} positions", shape="hv", legend=False),
    ]
    layout = _layout(result, height=380) | {
        "yaxis": _axis("held, ₹", domain=[0.36, 1.0], tickformat=",.0f"),
        "yaxis2": _axis("positions", domain=[0.0, 0.26], rangemode="tozero", dtick=None),
        "legend": _LEGEND,
    }
    layout["xaxis"] |= {"anchor": "y2"}
    return _shaded({"data": data, "layout": layout}, result)


def sessions_chart(result: Backtested) -> Chart:
    """Draw each session's net profit."""
    table = result.sessions
    net = table["net_inr"].to_numpy()
    x = (np.arange(len(table)) + 0.5).tolist()
    text = [f"{date:%a %d %b %Y}: {n} trades" for date, n in zip(table.index, table["trades"], strict=True)]
    bars = {
        "type": "bar", "x": x, "y": _plain(net, 2), "text": text, "textposition": "none",
        "marker": {"color": np.where(net >= 0, GREEN, RED).tolist()},
        "hovertemplate": "%{text}<br>₹%{y:,.0f}<extra></extra>", "showlegend": False,
    }  # fmt: skip
    layout = _layout(result, height=280) | {
        "yaxis": _axis("net, ₹", tickformat=",.0f"),
        "bargap": 0.25,
        "hovermode": "closest",
    }
    return _shaded({"data": [bars], "layout": layout}, result)


def price_chart(result: Backtested, path: PricePath) -> Chart:
    """Draw an instrument's closes with every trade on it: entries, exits, and whether it gained."""
    trades = result.trades[result.trades["symbol"] == path.symbol]
    data = [_line(path.at, path.close, "close", GREY, width=1, hover="close ₹%{y:,.2f}")]
    entry, exit_ = _places(trades["entry_time"], result), _places(trades["exit_time"], result)
    gained = trades["net_inr"].to_numpy() > 0
    for won, name, colour in ((True, "gained", GREEN), (False, "lost", RED)):
        rows = np.flatnonzero(gained == won)
        x = [v for k in rows for v in (round(float(entry[k]), 5), round(float(exit_[k]), 5), None)]
        y = [v for k in rows for v in (*trades[["entry_price", "exit_price"]].to_numpy()[k].tolist(), None)]
        data.append(
            {"type": "scatter", "mode": "lines", "x": x, "y": y, "name": name, "line": {"color": colour, "width": 2},
             "hoverinfo": "skip"}
        )  # fmt: skip
    for side, symbol in (("long", "triangle-up"), ("short", "triangle-down")):
        rows = np.flatnonzero((trades["side"] == side).to_numpy())
        if len(rows):
            data += _markers(trades.iloc[rows], entry[rows], "entry_price", f"{side} entry", symbol)
    if len(trades):
        data += _markers(trades, exit_, "exit_price", "exit", "x-thin")
    layout = _layout(result, height=460) | {"yaxis": _axis(f"{path.symbol}, ₹", tickformat=",.2f"), "legend": _LEGEND}
    layout |= {"hovermode": "closest"}
    return _shaded({"data": data, "layout": layout}, result, symbol=path.symbol)


def distribution_chart(trades: pd.DataFrame) -> Chart:
    """Draw how trades ended, in basis points after charges."""
    net = trades["net_bps"].to_numpy()
    low, high = np.quantile(net, [0.005, 0.995]) if len(net) else (-1.0, 1.0)
    edges = np.linspace(low, high, 61)
    counts, _ = np.histogram(np.clip(net, low, high), edges)
    middle = (edges[:-1] + edges[1:]) / 2
    bars = {
        "type": "bar", "x": _plain(middle, 2), "y": counts.tolist(), "width": float(edges[1] - edges[0]),
        "marker": {"color": np.where(middle >= 0, GREEN, RED).tolist(), "opacity": 0.85, "line": {"width": 0}},
        "hovertemplate": "%{x:.1f} bps: %{y} trades<extra></extra>", "showlegend": False,
    }  # fmt: skip
    layout = _bare(300) | {
        "xaxis": _axis("after charges, basis points of the entry"),
        "yaxis": _axis("trades"),
        "bargap": 0,
    }
    if len(net):
        mean = float(net.mean())
        layout["shapes"] = [_upright(0.0, "#222", "solid"), _upright(mean, BLUE, "dash")]
        said = f" mean {mean:+.1f} bps"
        layout["annotations"] = [
            {
                "x": mean,
                "y": 0.99,
                "yref": "paper",
                "xanchor": "left",
                "yanchor": "top",
                "text": said,
                "showarrow": False,
            }
        ]
    return {"data": [bars], "layout": layout}


def groups_chart(groups: pd.DataFrame, what: str, *, lying: bool = False) -> Chart:
    """Draw the net profit of groups of trades, one bar each, in the order of the table."""
    net, names = groups["net_inr"].to_numpy(), [str(name) for name in groups.index]
    colours = np.where(net >= 0, GREEN, RED).tolist()
    text = [f"{name}: {int(n)} trades" for name, n in zip(names, groups["trades"], strict=True)]
    bars = {
        "type": "bar", "orientation": "h" if lying else "v", "text": text, "textposition": "none",
        "x": _plain(net, 2) if lying else names, "y": names if lying else _plain(net, 2),
        "marker": {"color": colours}, "showlegend": False,
        "hovertemplate": f"%{{text}}<br>₹%{{{'x' if lying else 'y'}:,.0f}}<extra></extra>",
    }  # fmt: skip
    amounts, place = _axis("net, ₹", tickformat=",.0f"), _axis("" if lying else what) | {"type": "category"}
    if lying:
        place |= {"autorange": "reversed", "automargin": True}
    height = max(260, 60 + min(22 * len(groups), 14 * len(groups) + 200)) if lying else 260
    return {
        "data": [bars],
        "layout": _bare(height) | {"xaxis": amounts if lying else place, "yaxis": place if lying else amounts},
    }


def charges_chart(gross_inr: float, items: pd.Series[float]) -> Chart:
    """Draw the way from what was made before charges to what is left, item by item."""
    shown = items[items > 0]
    names = [
        "before charges",
        *(str(name).upper() if name in {"stt", "sebi", "gst", "dp"} else str(name) for name in shown.index),
        "after charges",
    ]
    bars = {
        "type": "waterfall", "x": names, "y": [round(gross_inr, 2), *(-shown).round(2).tolist(), 0],
        "measure": ["absolute", *["relative"] * len(shown), "total"],
        "decreasing": {"marker": {"color": RED}}, "increasing": {"marker": {"color": GREEN}},
        "totals": {"marker": {"color": BLUE}}, "connector": {"line": {"color": "#c5ccd6", "width": 1}},
        "hovertemplate": "%{x}: ₹%{y:,.0f}<extra></extra>", "showlegend": False,
    }  # fmt: skip
    return {
        "data": [bars],
        "layout": _bare(320) | {"xaxis": _axis("") | {"type": "category"}, "yaxis": _axis("₹", tickformat=",.0f")},
    }


def account_path(result: Backtested) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give the account's equity by time in sessions; of a long one the extremes and the sessions' ends."""
    at, equity = [], []
    for number, one in enumerate(result.traded):
        at.append(np.array([float(number), *_at(one.path.time_ns, one.session, number)]))
        equity.append(np.array([one.equity_at_open_inr, *one.path.equity_inr]))
    x, y = np.concatenate(at), np.concatenate(equity)
    if len(x) <= _PATH_POINTS:
        return x, y
    keep = np.zeros(len(x), dtype=np.bool_)
    keep[:: -(-len(x) // _PATH_POINTS)] = True
    keep[np.cumsum([len(one) for one in at]) - 1] = True
    peaks = np.maximum.accumulate(y)
    keep[[int(np.argmax(y)), int(np.argmin(y)), int(np.argmin(y / peaks))]] = True
    return x[keep], y[keep]


# --- parts --------------------------------------------------------------------------------------------------------

_LEGEND: Final = {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "font": {"size": 12}}


def _fall(equity: NDArray[np.float64]) -> NDArray[np.float64]:
    return drawdown(np.diff(equity, prepend=equity[:1]) / np.concatenate([equity[:1], equity[:-1]]))


def _at(time_ns: NDArray[np.int64], session: Session, number: int) -> NDArray[np.float64]:
    share = (time_ns - session.open_ns) / (session.close_ns - session.open_ns)
    return np.asarray(number + np.clip(share, 0.0, 1.0))  # the last snapshot is a second after the close


def _places(times: pd.Series[pd.Timestamp], result: Backtested) -> NDArray[np.float64]:
    """Give where in sessions times are; one in a session that was not traded is at the next one's open."""
    opens = np.array([one.session.open_ns for one in result.traded])
    closes = np.array([one.session.close_ns for one in result.traded])
    time_ns = times.dt.as_unit("ns").astype("int64").to_numpy()
    number = np.clip(np.searchsorted(opens, time_ns, side="right") - 1, 0, None)
    return np.asarray(number + np.clip((time_ns - opens[number]) / (closes[number] - opens[number]), 0.0, 1.0))


def _plain(values: Any, digits: int) -> list[float]:
    return np.round(np.asarray(values, dtype=np.float64), digits).tolist()  # type: ignore[no-any-return]


def _line(
    x: Any,
    y: Any,
    name: str,
    colour: str,
    *,
    width: float = 1.2,
    axis: str = "y",
    fill: str | None = None,
    hover: str = "%{y}",
    shape: str = "linear",
    legend: bool = True,
) -> Chart:
    return {
        "type": "scatter", "mode": "lines", "x": _plain(x, 5), "y": _plain(y, 4), "name": name, "yaxis": axis,
        "line": {"color": colour, "width": width, "shape": shape}, "showlegend": legend, "meta": "sessions",
        "hovertemplate": f"%{{text}}<br>{name}: {hover}<extra></extra>",
    } | ({"fill": fill, "fillcolor": _faint(colour)} if fill else {})  # fmt: skip


def _faint(colour: str) -> str:
    red, green, blue = (int(colour[k : k + 2], 16) for k in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.15)"


def _markers(trades: pd.DataFrame, x: NDArray[np.float64], price: str, name: str, symbol: str) -> tuple[Chart, Chart]:
    """Mark trades by whether they gained, and what the legend shows of them: their shape, of neither colour."""
    gained = np.where(trades["net_inr"].to_numpy() > 0, GREEN, RED).tolist()
    said = [
        f"{one.strategy}: {one.side} {one.quantity} at {one.entry_price:,.2f}, {one.entry_time:%d %b %H:%M}<br>"
        f"out at {one.exit_price:,.2f}, {one.exit_time:%d %b %H:%M} ({one.exit_reason})<br>"
        f"net ₹{one.net_inr:,.2f} ({one.net_bps:+.1f} bps)"
        for one in trades.itertuples()
    ]
    thin = symbol == "x-thin"
    edge = {"width": 1.5, "color": gained} if thin else {"width": 0.5, "color": "#fff"}
    marks = {"type": "scatter", "mode": "markers", "name": name, "legendgroup": name}
    shape = {"symbol": symbol, "size": 6 if thin else 9}
    shown = marks | {
        "x": _plain(x, 5), "y": _plain(trades[price], 2), "marker": shape | {"color": gained, "line": edge},
        "customdata": said, "hovertemplate": "%{customdata}<extra></extra>", "showlegend": False,
    }  # fmt: skip
    grey = {"color": GREY, "line": {"width": 1.5, "color": GREY}}
    return shown, marks | {"x": [None], "y": [None], "marker": shape | grey}


def _axis(title: str, **more: Any) -> Chart:
    return {
        "title": {"text": title, "font": {"size": 12}}, "gridcolor": "#e8ecf1", "zerolinecolor": "#c5ccd6",
        "linecolor": "#c5ccd6", "ticks": "outside", "tickcolor": "#c5ccd6", "automargin": True,
    } | more  # fmt: skip


def _bare(height: int) -> Chart:
    return {
        "height": height, "margin": {"l": 70, "r": 24, "t": 34, "b": 46}, "paper_bgcolor": "#fff",
        "plot_bgcolor": "#fff",
        "font": {"family": "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif", "size": 12, "color": "#273142"},
        "hoverlabel": {"bgcolor": "#fff", "bordercolor": "#c5ccd6", "font": {"size": 12}, "align": "left"},
    }  # fmt: skip


def _layout(result: Backtested, height: int) -> Chart:
    dates = [one.session.date for one in result.traded]
    step = -(-len(dates) // _LABELS)
    shown = range(0, len(dates), step)
    axis = _axis("") | {
        "range": [0, len(dates)], "tickvals": list(shown), "ticktext": [f"{dates[k]:%d %b}" for k in shown],
        "tickangle": 0, "zeroline": False,
    }  # fmt: skip
    return _bare(height) | {"xaxis": axis, "hovermode": "x"}


def _upright(x: float, colour: str, dash: str) -> Chart:
    return {
        "type": "line",
        "x0": x,
        "x1": x,
        "y0": 0,
        "y1": 1,
        "yref": "paper",
        "line": {"color": colour, "width": 1.2, "dash": dash},
    }


def _shaded(chart: Chart, result: Backtested, symbol: str | None = None) -> Chart:
    """Shade outages of the data, and the sessions that are no test: in sample, or after the training."""
    shapes = [_band(first, last, "outage") for first, last in outage_spans(result, symbol)]
    roles = [result.role(one.session) for one in result.traded]
    for role in ("in sample", "after training"):
        if len(set(roles)) > 1 or role == "in sample":
            shapes += [_band(first, last, role) for first, last in _runs([r == role for r in roles])]
    chart["layout"]["shapes"] = [*chart["layout"].get("shapes", []), *shapes]
    return chart


def outage_spans(result: Backtested, symbol: str | None = None) -> list[tuple[float, float]]:
    """Give when much of the market, or one instrument with it, had no bars: from and to, in sessions."""
    place = {one.session.date: (number, one.session) for number, one in enumerate(result.traded)}
    spans = []
    for row in result.outages.to_dict("records"):
        if row["date"] in place and (symbol is None or symbol in row["symbols"]):
            number, session = place[row["date"]]
            ends = [pd.Timestamp(f"{row['date']} {row[end]}", tz="Asia/Kolkata").value for end in ("start", "end")]
            at = _at(np.array(ends), session, number)
            spans.append((round(float(at[0]), 5), round(float(at[1]), 5)))
    return spans


def _runs(marked: Sequence[bool]) -> list[tuple[float, float]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], np.asarray(marked, dtype=np.int8), [0]])))
    return [(float(first), float(last)) for first, last in edges.reshape(-1, 2)]


def _band(first: float, last: float, what: str) -> Chart:
    return {
        "type": "rect", "x0": first, "x1": last, "y0": 0, "y1": 1, "yref": "paper", "layer": "below",
        "fillcolor": _SHADES[what], "line": {"width": 0},
    }  # fmt: skip
