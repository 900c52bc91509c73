"""How a file writes its times, told by the times themselves; and how to say it where they leave a doubt.

A format is plain if it is the only one that reads the file's times. Whether ``03-04-2024`` is in March or in April is
never guessed: a day above 12 anywhere in the file decides, else both formats stay possible.
"""

from __future__ import annotations

import calendar
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from feature_store.sources.times import EPOCH_FORMATS

_EPOCH_SECONDS: Final = (700_000_000, 4_102_444_800)  # 1992, before the exchange's first session, to 2100
_COMPACT: Final = {8: "%Y%m%d", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}
_SHAPE: Final = re.compile(
    r"(?:(?P<a>\d{1,4})(?P<s>[-/. ])(?P<b>\d{1,2})(?P=s)(?P<c>\d{1,4})"
    r"|(?P<day>\d{1,2})(?P<n>[-/ ]?)(?P<month>[A-Za-z]{3,9})(?P=n)(?P<year>\d{4}|\d{2})"
    r"|(?P<compact>(?:19|20)\d{6}))"
    r"(?:(?P<gap>, ?|[ T] *)(?P<time>\d{1,2}:\d{2}(?::\d{2}(?P<part>\.\d{1,6})?)?|\d{6}|\d{4})"
    r"(?P<half> ?[AaPp][Mm])?(?P<zone> ?(?:Z|[+-]\d{2}:?\d{2}))?)?"
)


@dataclass(frozen=True, slots=True)
class _Skeleton:
    """A format but for the order of its date, whose three numbers are ``date``'s; or its date is a format already."""

    date: str
    rest: str


def epoch_format(text: str) -> str | None:
    """Give the epoch format of a time that is a number, by its size; None if it is no epoch of 1992 to 2100.

    >>> epoch_format("1711943100000"), epoch_format("20240401")
    ('epoch_ms', None)
    """
    if not re.fullmatch(r"\d{9,19}(?:\.\d*)?", text):
        return None
    whole = int(text.split(".", maxsplit=1)[0])
    first, last = _EPOCH_SECONDS
    return next((name for name, ns in EPOCH_FORMATS.items() if first <= whole * ns // 10**9 < last), None)


def possible_formats(values: Iterable[str]) -> tuple[str, ...]:
    """Give the formats of `datetime.strptime` that read most of some distinct times; none if no format is known.

    >>> possible_formats(["03-04-2024 09:15", "04-04-2024 09:15"])
    ('%d-%m-%Y %H:%M', '%m-%d-%Y %H:%M')
    >>> possible_formats(["03-04-2024 09:15", "28-03-2024 09:15"])
    ('%d-%m-%Y %H:%M',)
    >>> possible_formats(["04/01/2024 09:15:00 AM", "04/28/2024 03:29:00 PM"])
    ('%m/%d/%Y %I:%M:%S %p',)
    """
    texts = [value for value in values if value]
    if not texts:
        return ()
    compact = Counter(len(text) for text in texts if re.fullmatch(r"(?:19|20)\d{6,12}", text) and len(text) in _COMPACT)
    if compact and 2 * compact.most_common(1)[0][1] > len(texts):
        return (_COMPACT[compact.most_common(1)[0][0]],)
    shapes = [
        (_skeleton(found), found) for found in map(_SHAPE.fullmatch, texts) if found and _is_month(found["month"])
    ]
    if not shapes:
        return ()
    skeleton, count = Counter(skeleton for skeleton, _ in shapes).most_common(1)[0]
    if 2 * count <= len(texts):
        return ()
    if "?" not in skeleton.date:
        return (skeleton.date + skeleton.rest,)
    dates = [(int(m["a"]), int(m["b"]), int(m["c"])) for s, m in shapes if s == skeleton]
    return tuple(order + skeleton.rest for order in _orders(skeleton.date, dates))


def _is_month(name: str | None) -> bool:
    return name is None or name.title() in {*calendar.month_name, *calendar.month_abbr}


def _skeleton(found: re.Match[str]) -> _Skeleton:
    if found["compact"]:
        date = "%Y%m%d"
    elif found["month"]:
        name = "%b" if len(found["month"]) == 3 else "%B"
        date = found["n"].join(("%d", name, "%Y" if len(found["year"]) == 4 else "%y"))
    else:
        lengths = (len(found["a"]), len(found["c"]))
        date = {True: "year first", False: "year last"}[lengths[0] == 4] if 4 in lengths else "short year"
        date = f"?{found['s']}{date}"
    if found["time"] is None:
        return _Skeleton(date, "")
    time, hour = found["time"], "%I" if found["half"] else "%H"
    if ":" in time:
        written = f"{hour}:%M" + (":%S" if time.count(":") == 2 else "") + (".%f" if found["part"] else "")
    else:
        written = f"{hour}%M%S" if len(time) == 6 else f"{hour}%M"
    half = "" if not found["half"] else " %p" if found["half"].startswith(" ") else "%p"
    zone = "" if not found["zone"] else " %z" if found["zone"].startswith(" ") else "%z"
    return _Skeleton(date, found["gap"].replace("  ", " ") + written + half + zone)


def _orders(date: str, dates: list[tuple[int, int, int]]) -> list[str]:
    """Formats of three numbers that can be a day, a month and a year in all of some dates."""
    separator, kind = date[1], date[2:]
    first, second, third = (max(numbers) for numbers in zip(*dates, strict=True))
    if kind == "year first":  # nobody writes the day before the month behind a year, unless it is shown
        orders = ["%Y %m %d"] if second <= 12 else ["%Y %d %m"]
        return [order.replace(" ", separator) for order in orders if min(second, third) <= 12]
    year = "%Y" if kind == "year last" else "%y"
    orders = [f"%d %m {year}"] if second <= 12 and first <= 31 else []
    orders += [f"%m %d {year}"] if first <= 12 and second <= 31 else []
    if kind == "short year" and second <= 12 and third <= 31:
        orders.append("%y %m %d")
    return [order.replace(" ", separator) for order in orders]


def way_out(formats: tuple[str, ...], stated: str | None) -> str:
    """Say which option and which setting read times that have some possible formats, and were not read as stated."""
    said = "" if stated is None else f"They are not written as {stated!r}. "
    if not formats:
        return (
            f"{said}Say how they are written: --time-format FORMAT, setting market.time_format (a format of strptime "
            f"such as '%d-%m-%Y %H:%M', or {', '.join(EPOCH_FORMATS)})"
        )
    if len(formats) == 1:
        return f'{said}Give --time-format "{formats[0]}" (setting market.time_format = "{formats[0]}")'
    options = " or ".join(f'--time-format "{name}"' for name in formats)
    return (
        f"{said}Nothing in the file shows which number is the day and which the month: give {options} (setting "
        "market.time_format)"
    )
