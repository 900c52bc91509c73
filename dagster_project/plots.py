"""Plots for Dagster's metadata, as SVG in a data URI.

Markdown of 1,000 characters or more hides behind a link: lines and columns stay below, heat maps and small multiples
are worth the click.
"""

from __future__ import annotations

import base64
import html
import itertools
import math
import textwrap
from collections.abc import Mapping, Sequence

WIDTH, HEIGHT = 240, 60
MAXIMUM_MARKDOWN = 999
"""Dagster shows shorter markdown inline, and longer behind a click."""
_LINE = 30  # characters that a column of metadata holds in a window of 1,400 pixels, beside long keys
_POINTS = 44
_WHOLE = 1_000  # from here on a caption leaves decimals out
_COLUMNS = 24
_MOST_SESSIONS, _EQUITY_HEIGHT, _SQUARE = 28, 116, 140
_MAP_WIDTH, _MOST_ROWS = 480, 120
_SHADES = ("#c0392b", "#e67e22", "#f1c40f", "#a9d18e", "#2e7d32")
_LEVELS = (0.01, 0.5, 0.8, 0.98)  # below these a share has the shade of that place
_MULTIPLE, _ACROSS, _BINS = 90, 6, 24


def line_plot(values: Sequence[float], caption: str) -> str:
    """Draw values in their order as one line, with the zero line where it is in range.

    Parameters
    ----------
    values
        Any number of values; more than 44 are thinned out evenly, NaN is left out.
    caption
        What is shown, with its unit.

    Returns
    -------
    str
        Markdown of fewer than 1,000 characters: the image, below it the caption with first, lowest, highest and last.
    """
    finite = [float(v) for v in values if math.isfinite(v)]
    if not finite:
        return f"{caption}: no values"
    thinned = (
        [finite[round(i * (len(finite) - 1) / (_POINTS - 1))] for i in range(_POINTS)]
        if len(finite) > _POINTS
        else finite
    )
    lowest, highest = min(thinned), max(thinned)
    step = WIDTH / max(1, len(thinned) - 1)
    points = " ".join(f"{i * step:.0f},{_y(v, lowest, highest)}" for i, v in enumerate(thinned))
    return _markdown(
        f'{_zero(lowest, highest)}<polyline points="{points}" fill="none" stroke="#27c"/>',
        f"{caption}:\n\nfirst {_short(finite[0])}, lowest {_short(min(finite))}, highest {_short(max(finite))}, "
        f"last {_short(finite[-1])}",
    )


def column_plot(values: Sequence[float], caption: str) -> str:
    """Draw up to 24 values as columns from zero.

    Returns
    -------
    str
        Markdown of fewer than 1,000 characters.
    """
    finite = [float(v) if math.isfinite(v) else 0.0 for v in values][:_COLUMNS]
    if not finite:
        return f"{caption}: no values"
    lowest, highest = min(0.0, *finite), max(0.0, *finite)
    zero, step = _y(0.0, lowest, highest), WIDTH / len(finite)
    path = "".join(f"M{(i + 0.5) * step:.0f},{zero}V{_y(v, lowest, highest)}" for i, v in enumerate(finite))
    return _markdown(f'<path d="{path}" stroke="#27c" stroke-width="{min(20, step * 0.7):.0f}"/>', caption)


def equity_plot(earned: Sequence[float], caption: str) -> str:
    """Draw equity as a line, and below it how far it lies under its height so far, as a red area of the same scale.

    Parameters
    ----------
    earned
        What each session gained; more than 28 are thinned out evenly.
    caption
        What is shown, with its unit.

    Returns
    -------
    str
        Markdown of fewer than 1,000 characters.
    """
    if not earned:
        return f"{caption}: no values"
    equity = [0.0, *itertools.accumulate(earned)]
    under = [value - highest for value, highest in zip(equity, itertools.accumulate(equity, max), strict=True)]
    last = len(equity) - 1
    at = sorted({round(k * last / (_MOST_SESSIONS - 1)) for k in range(_MOST_SESSIONS)}) if last else [0]
    lowest, highest = min(equity), max(equity)
    scale = _EQUITY_HEIGHT / ((highest - lowest) - min(under) or 1.0)
    top = (highest - lowest) * scale + 2
    across = [round(k * WIDTH / max(last, 1)) for k in at]
    line = " ".join(f"{x},{(highest - equity[k]) * scale:.0f}" for x, k in zip(across, at, strict=True))
    area = " ".join(f"{x},{top - under[k] * scale:.0f}" for x, k in zip(across, at, strict=True))
    body = (
        f'<path d="M0,{highest * scale:.0f}H{WIDTH}" stroke="#bbb"/>'
        f'<polyline points="{line}" fill="none" stroke="#27c"/>'
        f'<polygon points="0,{top:.0f} {area} {WIDTH},{top:.0f}" fill="#d66"/>'
    )
    told = (
        f"{caption}:\n\nlast {equity[-1]:,.0f}, highest {highest:,.0f}, deepest fall {max(0.0, -min(under)):,.0f} (red)"
    )
    return _markdown(body, told, height=_EQUITY_HEIGHT + 4)


def interval_plot(
    said: Sequence[float], came: Sequence[float], lower: Sequence[float], upper: Sequence[float], caption: str
) -> str:
    """Draw what came against what was said, with intervals and the line where both are equal.

    Parameters
    ----------
    said, came, lower, upper
        Of up to ten groups; an interval that is NaN is left out.
    caption
        What is shown.

    Returns
    -------
    str
        Markdown of fewer than 1,000 characters.
    """
    finite = [value for value in (*said, *came, *lower, *upper) if math.isfinite(value)]
    if not finite:
        return f"{caption}: no values"
    lowest, highest = min(finite), max(finite)
    scale = (_SQUARE - 8) / ((highest - lowest) or 1.0)

    def place(value: float) -> int:
        return round(4 + (value - lowest) * scale)

    points = list(zip(map(place, said), came, lower, upper, strict=True))
    whiskers = "".join(
        f"M{x},{_SQUARE - place(low)}V{_SQUARE - place(high)}"
        for x, _, low, high in points
        if math.isfinite(low) and math.isfinite(high)
    )
    dots = "".join(f"M{x - 2},{_SQUARE - place(rate)}h4" for x, rate, _, _ in points)
    body = (
        f'<path d="M4,{_SQUARE - 4}L{_SQUARE - 4},4" stroke="#bbb"/>'
        f'<path d="{whiskers}" stroke="#27c"/><path d="{dots}" stroke="#27c" stroke-width="4"/>'
    )
    return _markdown(body, f"{caption}; both from {lowest:.3f} to {highest:.3f}", width=_SQUARE, height=_SQUARE)


def session_plot(values: Sequence[float], caption: str) -> str:
    """Draw one value for each session: columns while they fit, else a line, so that no session is left out.

    Returns
    -------
    str
        Markdown of fewer than 1,000 characters.
    """
    return column_plot(values, caption) if len(values) <= _COLUMNS else line_plot(values, caption)


def heat_map(rows: Mapping[str, Sequence[float]], caption: str) -> str:
    """Draw shares from 0 (red) to 1 (green) as a map: one line for each name, one column for each of its values.

    Parameters
    ----------
    rows
        Shares by name, equally many each; more than 120 names are thinned out evenly. NaN is drawn white.
    caption
        What is shown.

    Returns
    -------
    str
        Markdown: the image, below it the caption with how to read it.
    """
    names = list(rows)
    if not names or not len(rows[names[0]]):
        return f"{caption}: no values"
    if len(names) > _MOST_ROWS:
        names = [names[round(k * (len(names) - 1) / (_MOST_ROWS - 1))] for k in range(_MOST_ROWS)]
    height = max(3, min(12, 480 // len(names)))
    cell = _MAP_WIDTH / len(rows[names[0]])
    paths: dict[int, list[str]] = {}
    for line, name in enumerate(names):
        for shade, begin, end in _runs([_shade(share) for share in rows[name]]):
            if shade is not None:
                middle = line * height + height / 2
                paths.setdefault(shade, []).append(f"M{begin * cell:.0f},{middle:g}H{end * cell:.0f}")
    body = "".join(
        f'<path d="{"".join(runs)}" stroke="{_SHADES[shade]}" stroke-width="{height}"/>'
        for shade, runs in sorted(paths.items())
    )
    told = f"{caption}; red: none, orange: below 50 %, yellow: below 80 %, light green: below 98 %, green: the rest"
    return _markdown(body, told, width=_MAP_WIDTH, height=height * len(names))


def small_multiples(values: Mapping[str, Sequence[float]], caption: str) -> str:
    """Draw a histogram of each name's values between their 1 % and 99 % quantiles, six in a row.

    Parameters
    ----------
    values
        Any number of values by name; NaN is left out.
    caption
        What is shown.

    Returns
    -------
    str
        Markdown: the image, below it the caption.
    """
    import numpy as np

    parts = []
    for k, (name, column) in enumerate(values.items()):
        left, top = k % _ACROSS * _MULTIPLE, k // _ACROSS * 60
        finite = np.asarray(column, dtype=np.float64)
        finite = finite[np.isfinite(finite)]
        parts.append(f'<text x="{left}" y="{top + 56}">{html.escape(name[:18])}</text>')
        if not len(finite):
            continue
        lowest, highest = np.quantile(finite, [0.01, 0.99])
        counts, _ = np.histogram(finite.clip(lowest, highest), bins=_BINS)
        tops = counts / counts.max() * 44
        columns = "".join(
            f"M{left + 3.4 * b + 2:.0f},{top + 46}v{-y:.0f}" for b, y in enumerate(tops.tolist()) if round(y)
        )
        parts.append(f'<path d="{columns}" stroke="#27c" stroke-width="3"/>')
    if not parts:
        return f"{caption}: no values"
    width, height = min(len(values), _ACROSS) * _MULTIPLE, -(-len(values) // _ACROSS) * 60
    return _markdown(f'<g font-size="8">{"".join(parts)}</g>', caption, width=width, height=height)


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Write a table in markdown; a bar in a cell is escaped."""
    lines = [columns, ["---"] * len(columns), *rows]
    cells = ([str(cell).replace("|", "\\|") for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= _WHOLE else f"{value:.4g}"


def _shade(share: float) -> int | None:
    return None if math.isnan(share) else sum(share >= level for level in _LEVELS)


def _runs(values: Sequence[int | None]) -> list[tuple[int | None, int, int]]:
    """Give value, begin and end (exclusive) of each run of equal values."""
    found, begin = [], 0
    for value, group in itertools.groupby(values):
        end = begin + len(list(group))
        found.append((value, begin, end))
        begin = end
    return found


def _y(value: float, lowest: float, highest: float) -> int:
    span = (highest - lowest) or 1.0
    return round(HEIGHT - 2 - (value - lowest) / span * (HEIGHT - 4))


def _zero(lowest: float, highest: float) -> str:
    if not lowest < 0.0 < highest:
        return ""
    y = _y(0.0, lowest, highest)
    return f'<path d="M0,{y}H{WIDTH}" stroke="#bbb"/>'


def _markdown(body: str, caption: str, *, width: int = WIDTH, height: int = HEIGHT) -> str:
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}">{body}</svg>'
    image = base64.b64encode(svg.encode()).decode()
    told = textwrap.shorten(caption.partition(":")[0], _LINE, placeholder="")
    return f"![{told}](data:image/svg+xml;base64,{image})\n\n{short_lines(caption)}"


def short_lines(text: str) -> str:
    """Break paragraphs of markdown into lines that Dagster's narrowest column shows whole, with forced line breaks."""
    paragraphs = (textwrap.wrap(part, _LINE, break_long_words=False) for part in text.split("\n\n"))
    return "\n\n".join("\\\n".join(lines) for lines in paragraphs)
