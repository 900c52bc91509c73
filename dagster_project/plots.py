"""Small plots for Dagster's metadata: SVG in a data URI; markdown of 1,000 characters or more hides behind a link."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence

WIDTH, HEIGHT = 240, 60
MAXIMUM_MARKDOWN = 999
"""Dagster shows shorter markdown inline, and longer behind a click."""
_POINTS = 48


def line_plot(values: Sequence[float], caption: str) -> str:
    """Draw values in their order as one line, with the zero line where it is in range.

    Parameters
    ----------
    values
        Any number of values; more than 48 are thinned out evenly, NaN is left out.
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
        f"{caption}:\n\nfirst {finite[0]:.4g}, lowest {min(finite):.4g}, highest {max(finite):.4g}, "
        f"last {finite[-1]:.4g}",
    )


def column_plot(values: Sequence[float], caption: str) -> str:
    """Draw up to 24 values as columns from zero.

    Returns
    -------
    str
        Markdown of fewer than 1,000 characters.
    """
    finite = [float(v) if math.isfinite(v) else 0.0 for v in values][:24]
    if not finite:
        return f"{caption}: no values"
    lowest, highest = min(0.0, *finite), max(0.0, *finite)
    zero, step = _y(0.0, lowest, highest), WIDTH / len(finite)
    path = "".join(f"M{(i + 0.5) * step:.0f},{zero}V{_y(v, lowest, highest)}" for i, v in enumerate(finite))
    return _markdown(f'<path d="{path}" stroke="#27c" stroke-width="{min(20, step * 0.7):.0f}"/>', caption)


def _y(value: float, lowest: float, highest: float) -> int:
    span = (highest - lowest) or 1.0
    return round(HEIGHT - 2 - (value - lowest) / span * (HEIGHT - 4))


def _zero(lowest: float, highest: float) -> str:
    if not lowest < 0.0 < highest:
        return ""
    y = _y(0.0, lowest, highest)
    return f'<path d="M0,{y}H{WIDTH}" stroke="#bbb"/>'


def _markdown(body: str, caption: str) -> str:
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}">{body}</svg>'
    image = base64.b64encode(svg.encode()).decode()
    return f"![{caption.partition(':')[0]}](data:image/svg+xml;base64,{image})\n\n{caption}"
