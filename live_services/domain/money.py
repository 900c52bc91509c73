"""Exact money: integers of 1/10,000 rupee, a hundredth of a paisa. Whatever holds one ends in ``_inr_e4``.

Every rounding here is half-up with ties away from zero, so an amount and its negative round alike and nothing depends
on the order in which a book was kept.
"""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal
from typing import Final

RUPEE: Final = 10_000
"""One rupee as an amount."""

LARGEST_INR: Final = 10**11
"""The largest amount, in rupees. Up to it a float64 holds every 1/10,000 rupee (15 decimal digits) without doubt."""

HIGHEST_PRICE_INR: Final = 10**6
"""The highest price of a share that the platform believes, rupees: some three times the highest that India has seen."""

MOST_SHARES: Final = 10**7
"""The most shares of an instrument that an account may be allowed. At the highest price they are worth 10^13 rupees:
sums of such positions stay in 64 bits, and the charges of one order below `LARGEST_INR`."""

_STEP: Final = Decimal("0.0001")


def inr_e4(rupees: float | Decimal) -> int:
    """Turn rupees into an amount, half-up to 1/10,000 rupee.

    A float stands for the shortest decimal that reads back as it (its ``repr``), which is what a price file or a feed
    meant: 1234.05 is 12340500, although the binary value lies beside it. Below `LARGEST_INR` that decimal is unique up
    to 15 digits, so whatever has at most four decimals comes out unrounded.

    Parameters
    ----------
    rupees : float or Decimal
        A price, a distance or a sum, of either sign.

    Returns
    -------
    int
        Units of 1/10,000 rupee.

    Raises
    ------
    ValueError
        If it is NaN, infinite, or larger than `LARGEST_INR` either way.
    """
    if isinstance(rupees, float) and abs(rupees) < LARGEST_INR:
        nearest = round(rupees * RUPEE)
        if nearest / RUPEE == rupees:  # the float of this decimal: it is the one that was meant
            return nearest
    exact = rupees if isinstance(rupees, Decimal) else Decimal(float.__repr__(float(rupees)))
    if not exact.is_finite() or exact.copy_abs() > LARGEST_INR:
        raise ValueError(f"{rupees} is no amount of rupees; one is finite and at most {LARGEST_INR:,}")
    return int(exact.quantize(_STEP, ROUND_HALF_UP).scaleb(4))


def rupees(amount_inr_e4: int) -> float:
    """Give an amount in rupees as the nearest float, for marks and displays; never to calculate with and book."""
    return amount_inr_e4 / RUPEE


def paise_text(amount_inr_e4: int) -> str:
    """Write an amount half-up to paise: 12,345,650 is ``₹1,234.57``, and -50 is ``-₹0.01``."""
    paise = _divided_half_up(amount_inr_e4, 100)
    whole, rest = divmod(abs(paise), 100)
    return f"{'-' if paise < 0 else ''}₹{whole:,}.{rest:02d}"


def share(cost_inr_e4: int, part: int, whole: int) -> int:
    """Give what ``part`` of ``whole`` shares cost, half-up to 1/10,000 rupee.

    What is left costs the rest. Taking all that is left takes all of that, so a position that is closed in any parts
    ends at a cost of exactly 0.

    Parameters
    ----------
    cost_inr_e4 : int
        What the whole costs; negative for a short position.
    part, whole : int
        Shares; ``0 <= part <= whole`` and ``whole >= 1``.

    Raises
    ------
    ValueError
        If ``part`` is no part of ``whole``.
    """
    if not 0 <= part <= whole or whole == 0:
        raise ValueError(
            f"{part} of {whole} shares is no part; it is between 0 and the whole, and a whole is at least 1"
        )
    return _divided_half_up(cost_inr_e4 * part, whole)


def _divided_half_up(numerator: int, denominator: int) -> int:
    quotient, rest = divmod(abs(numerator), denominator)
    quotient += 2 * rest >= denominator
    return quotient if numerator >= 0 else -quotient
