"""The rules. To add one, write one decorated function here: see `feature_store.proposals.rules.rule`.

A rule gets values of one feature row by the names of its arguments, and gives the side it proposes: 1 to buy, -1 to
sell, 0 for neither. Keyword defaults are its parameters. It sees nothing but that row, so it cannot know the future.
The default thresholds let 2 to 4 % of the one-minute bars of liquid NSE shares be events: enough to learn from, and few
enough to stand out (measured over 45 sessions of 50 shares, March to June 2021).
"""

from __future__ import annotations

from feature_store.proposals.rules import rule


@rule(source="López de Prado (2018), Advances in Financial Machine Learning, section 2.5.2.1: symmetric CUSUM filter")
def volatility_move(cusum_move: float, last_return: float, volatility: float, threshold: float = 8.0) -> int:
    """Propose to go with a move on the bar that carried it over ``threshold`` volatilities per bar.

    What the move was a bar ago is the move less the newest bar's part of it, both over the newest close.
    """
    if abs(cusum_move) < threshold or volatility <= 0.0:
        return 0
    before = cusum_move - last_return / (1.0 + last_return) / volatility
    if cusum_move > 0.0:
        return 1 if before < threshold else 0
    return -1 if before > -threshold else 0


@rule(source="Avellaneda and Lee (2010), Statistical arbitrage in the US equities market: s-score, open beyond a level")
def stretch(z_score: float, threshold: float = 2.5) -> int:
    """Propose against a close that lies ``threshold`` standard deviations or more from its mean."""
    if z_score == 0.0 or abs(z_score) < threshold:
        return 0
    return -1 if z_score > 0.0 else 1


@rule(source="Donchian (1960), Trend following methods in commodity price analysis: buy above the channel, sell below")
def donchian_break(donchian_break: float, threshold: float = 1.0) -> int:
    """Propose to go with a close that broke out of its channel by ``threshold`` volatilities per bar or more."""
    if donchian_break == 0.0 or abs(donchian_break) < threshold:
        return 0
    return 1 if donchian_break > 0.0 else -1
