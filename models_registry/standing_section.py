"""What the ledger says of a version, as one section of its page in MLflow. Pure, and the same however often it is put.

The rest of a page is of the day of training; this section follows the ledger.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from textwrap import shorten
from typing import Final, get_args

from feature_store.market.types import ist_text
from models_registry.ledger_entries import LedgerEntry, done
from models_registry.refs import Alias

_BEGIN: Final = "<!-- what the promotion ledger says -->"
_END: Final = "<!-- end of what the promotion ledger says -->"
_LONGEST_REASON: Final = 200  # the ledger has it whole
_SECTION: Final = re.compile(f"{_BEGIN}.*?{_END}\n*", re.DOTALL)


def with_standing(description: str, history: Sequence[LedgerEntry], version: str) -> str:
    """Put what the ledger says of a version into the markdown of its page, under its first paragraph.

    That one is what MLflow's list of versions shows: plain words. Nothing is put if the ledger says nothing.

    Parameters
    ----------
    description : str
        With or without such a section from before.
    history : sequence of LedgerEntry
        Of the model, oldest first.
    """
    rest = _SECTION.sub("", description)
    lines = [line for alias in get_args(Alias) if (line := _line(done(history, alias), version))]
    if not lines:
        return rest
    section = "\n\n".join((_BEGIN, *lines, _END)) + "\n\n"
    first, _, below = rest.partition("\n\n")
    return f"{first}\n\n{section}{below}" if below else section + rest


def _line(promotions: Sequence[LedgerEntry], version: str) -> str:
    """Say when a version came onto a rung the last time, by whom and why, and who ended it; empty if it never did."""
    came = next((at for at in reversed(range(len(promotions))) if promotions[at].to_version == version), None)
    if came is None:
        return ""
    entry, then = promotions[came], promotions[came + 1 :]
    until = f", until {_said(then[0])} put v{then[0].to_version} there" if then else ""
    against = " **against its gate**" if entry.override else ""
    back = "was brought back to" if entry.action == "rollback" else "was put on"
    state = "Was" if then else "Is"
    why = shorten(entry.reason, _LONGEST_REASON, placeholder="…")  # a line break would end the paragraph
    return (
        f"**{state} {entry.alias}**{against}: it {back} this rung by {_said(entry)}{until}. Reason: {why} (ledger "
        f"entry {entry.number})"
    )


def _said(entry: LedgerEntry) -> str:
    return f"{entry.by} on {ist_text(entry.at_ns)}"
