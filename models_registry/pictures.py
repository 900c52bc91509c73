"""Plots of a version for its page: equity with drawdown, and what its scores are worth. Pure: PNG bytes in memory."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from models_registry.tables import number_of, score_deciles
from models_registry.validation.calibration import calibration
from models_registry.validation.drawdown import drawdown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from models_registry.training import OutOfFold

EQUITY_PLOT: Final = "equity.png"
SCORES_PLOT: Final = "scores.png"
_BLUE, _RED, _GREEN, _GREY, _INK = "#1d4f91", "#c2362f", "#17815a", "#8a94a3", "#273142"
_MOST_DATES: Final = 7  # on an axis


def plots(
    oof: OutOfFold, net_pnl_by_session: Mapping[str, float], *, generated: bool, judged: bool
) -> dict[str, bytes]:
    """Draw a version.

    Parameters
    ----------
    oof : OutOfFold
        What it said of rows that it had not seen.
    net_pnl_by_session : mapping
        What the account's equity gained in sessions that it had not seen, rupees, by date; without any, no equity is
        drawn.
    generated : bool
        Whether the market is SYNTHETIC, which every plot then says.
    judged : bool
        Whether the rows are trades that a rule proposed; else they are moves of the price.

    Returns
    -------
    dict of bytes
        PNG by file name; equal arguments give equal bytes.
    """
    mark = "SYNTHETIC market: " if generated else ""
    found = {EQUITY_PLOT: _equity(net_pnl_by_session, mark)} if net_pnl_by_session else {}
    return found | {SCORES_PLOT: _scores(oof, mark, judged)}


def _equity(net_pnl_by_session: Mapping[str, float], mark: str) -> bytes:
    from matplotlib.ticker import MaxNLocator

    dates = sorted(net_pnl_by_session)
    earned = np.cumsum([net_pnl_by_session[date] for date in dates])
    fell, at = drawdown(earned), np.arange(len(dates) + 1)
    curve, under = np.concatenate([[0.0], earned]), np.concatenate([[0.0], 0.0 - fell.depth_inr])
    canvas = _canvas(7.8, 4.0)
    above, below = canvas.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": [3, 1]})
    above.plot(at, curve, color=_BLUE, linewidth=1.8, marker="o", markersize=3)
    above.axhline(0.0, color=_INK, linewidth=0.8)
    above.set_title(
        f"{mark}net profit of {number_of(len(dates), 'session')} that no model had seen, after charges", fontsize=10
    )
    above.set_ylabel("rupees")
    below.fill_between(at, under, 0.0, color=_RED, alpha=0.35, linewidth=0)
    below.plot(at, under, color=_RED, linewidth=1.0)
    below.set_ylabel("drawdown")
    below.set_ylim(1.1 * min(float(under.min()), -1.0), 0.0)
    shown = np.unique(np.linspace(1, len(dates), min(len(dates), _MOST_DATES)).round().astype(int))
    below.set_xticks(shown, [dates[k - 1] for k in shown])
    for axes in (above, below):
        _plain(axes)
        axes.yaxis.set_major_formatter(lambda value, _: f"{round(value):,}")
    below.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    return _png(canvas)


def _scores(oof: OutOfFold, mark: str, judged: bool) -> bytes:
    canvas = _canvas(7.8, 3.6)
    left, right = canvas.subplots(1, 2)
    _calibration(left, oof, "gained" if judged else "went up")
    _deciles(right, oof, "gain of a trade" if judged else "forward return")
    canvas.suptitle(f"{mark}what was said of {len(oof.score):,} rows that no model had seen", fontsize=10)
    return _png(canvas)


def _calibration(axes: Axes, oof: OutOfFold, did: str) -> None:
    found = calibration(oof.score, oof.up, oof.weight, oof.day)
    said, came, lower, upper = (
        np.array([getattr(one, name) for one in found.table]) for name in ("mean_score", "rate", "lower", "upper")
    )
    ends = [min(said.min(), came.min()), max(said.max(), came.max())]
    axes.plot(ends, ends, color=_GREY, linestyle="--", linewidth=1.2, label="perfect")
    error = np.nan_to_num(np.stack([came - lower, upper - came]))
    axes.errorbar(
        said, came, yerr=error, color=_BLUE, marker="o", markersize=4, linewidth=1.2, capsize=3,
        label=f"came, with {found.confidence:.0%} intervals by session",
    )  # fmt: skip
    axes.set(xlabel="score", ylabel=f"share that {did}")
    axes.set_title(f"Calibration: Brier {found.brier:.4f}, {found.base_rate_brier:.4f} by the rate alone", fontsize=10)
    axes.legend(fontsize=7, frameon=False)
    _plain(axes)


def _deciles(axes: Axes, oof: OutOfFold, what: str) -> None:
    means = score_deciles(oof).forward_return_bps
    axes.bar(np.arange(1, 11), means, color=[_GREEN if value > 0 else _RED for value in means])
    axes.axhline(0.0, color=_INK, linewidth=0.8)
    axes.set_xticks(np.arange(1, 11))
    axes.set(xlabel="tenth of the scores (1 lowest)", ylabel="bps before costs")
    axes.set_title(f"Mean {what} by score", fontsize=9)
    _plain(axes)


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e8ecf1", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8)


def _canvas(width: float, height: float) -> Figure:
    # Figure, not pyplot: no window system, no process-wide state.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    canvas = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(canvas)
    return canvas


def _png(canvas: Any) -> bytes:
    buffer = io.BytesIO()
    canvas.savefig(buffer, format="png", dpi=100, metadata={"Software": None})
    return buffer.getvalue()
