"""What a person reads about a version in MLflow: its page, as markdown. Pure.

The page tells a story: what the version bets on, what the gates say and why, how it stands against the champion, what
it earned in sessions that no model had seen, what its scores are worth, how many tries stood behind it, and the data.
Ids come last. It is written to fit the registry's database together with what the ledger will say of it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Final

from pydantic import JsonValue

from models_registry.bet import bet, headline, market_in_words
from models_registry.pictures import EQUITY_PLOT, SCORES_PLOT
from models_registry.refs import GateResult, bars_in_words
from models_registry.sidecar import Sidecar
from models_registry.tables import Row, day_text, figure, fold_rows, metric_rows, number_of, reasons

LONGEST_PAGE: Final = 5000
"""Characters of a version's description in MLflow's database. SQLite holds more, PostgreSQL refuses it."""
ROOM_FOR_STANDING: Final = 600
"""Of these, for what the ledger will say of the version, and for the addresses of its plots."""
_PLACE: Final = "plots/"
_REASON: Final = re.compile(r"^(\* [✗⚠] \*\*[^*]+\*\*): (.+)$", re.MULTILINE)
_LONGEST_SEEN: Final = (150, 120, 90, 75, 60, 45, 30, 0)  # characters of what a check saw, where there is no more room
_RUNGS: Final = {"champion": "Paper", "live": "Money", "challenger": "Shadow"}
_FOLD_COLUMNS: Final = ("fold", "tested", "rows", "AUC", "trades", "net bps a trade")
_LEFT: Final = {"out of fold", "tested", "what", "in words"}
_DIGITS: Final = 40  # of a commit; an installation outside git names its release instead
_MOST_FACTS: Final = 160  # characters of where a market came from; the sidecar has it whole
_PROMOTED: Final = "Promote in Dagster or by `alpha-panda models promote`: an alias set here by hand is refused."


def describe(
    sidecar: Sidecar,
    champion: Sidecar | None = None,
    champion_version: str | None = None,
    *,
    shown: Collection[str] = (),
) -> str:
    """Write the markdown description of a version.

    Parameters
    ----------
    sidecar : Sidecar
        The candidate.
    champion : Sidecar, optional
        The sidecar of the version that holds the champion alias now, if it can be read.
    champion_version : str, optional
        Its version.
    shown : collection of str
        File names of the plots that are registered with it; `with_plots` gives them their addresses.
    """
    plot = {name: f"![{name.partition('.')[0]}]({_PLACE}{name})" for name in shown}
    sections = {
        "What it bets on": [f"* **{row['what']}**: {row['in words']}." for row in bet(sidecar)],
        "Verdict": _verdicts(sidecar),
        "Against the champion": _against(sidecar, champion, champion_version),
        "Equity in sessions that no model had seen": [plot.get(EQUITY_PLOT, ""), "", _earned(sidecar.metrics)],
        "What its scores are worth": [plot.get(SCORES_PLOT, "")],
        "Tries": tries(sidecar),
        "Walk-forward folds": _table(_of_folds(sidecar)),
        "Period and data": [" ".join(period_and_data(sidecar))],
        "Identity": [_identity(sidecar), "", _PROMOTED],
    }
    lines = [f"{headline(sidecar)}. {_in_short(sidecar)}"]
    for title, text in sections.items():
        if any(text):
            lines += ["", f"### {title}", "", *text]
    return "\n".join(lines)


def with_plots(page: str, addresses: Mapping[str, str]) -> str:
    """Put the addresses of plots, by file name, where the page names them."""
    for name, address in addresses.items():
        page = page.replace(f"({_PLACE}{name})", f"({address})")
    return page


def shortened(page: str, longest: int) -> str:
    """Take from a page until it is at most so many characters long.

    First what its gates' checks saw is cut, the reasons in words stay; then sections are left out, the last before its
    identity first, and named. The sidecar and Dagster have all of it.
    """
    for most in _LONGEST_SEEN:
        if len(page) <= longest:
            return page
        page = _REASON.sub(partial(_cut, most), page)
    before, *sections = re.split(r"\n\n(?=### )", page)
    left_out: list[str] = []

    def whole() -> str:
        said = f"Left out here, for want of room: {', '.join(left_out)}. Dagster shows it." if left_out else ""
        return "\n\n".join(part for part in (before, *sections, said) if part)

    while len(whole()) > longest and len(sections) > 1:
        left_out.append(sections.pop(-2).partition("\n")[0].removeprefix("### "))
    return whole()[:longest]


def _cut(most: int, reason: re.Match[str]) -> str:
    why, saw = reason.groups()
    if len(saw) <= most:
        return f"{why}: {saw}"
    return f"{why}: {saw[:most].rpartition(' ')[0]} …" if most else why


# --- verdicts -----------------------------------------------------------------------------------------------------


def _in_short(sidecar: Sidecar) -> str:
    # MLflow's list of versions shows this as it is written: plain words.
    said = [_short(gate) for gate in (sidecar.gate, sidecar.live_gate) if gate is not None]
    return " ".join(said)


def _short(gate: GateResult) -> str:
    rung, refused = _RUNGS[gate.rung], [row["why"] for row in reasons(gate)]
    if gate.passed:
        return f"{rung}: passed."
    return f"{rung}: refused, {refused[0]}{_more(len(refused) - 1)}." if refused else f"{rung}: refused, not judged."


def _more(others: int) -> str:
    return f" and {number_of(others, 'reason')} more" if others > 0 else ""


def _verdicts(sidecar: Sidecar) -> list[str]:
    lines: list[str] = []
    for gate in (sidecar.gate, sidecar.live_gate):
        if gate is None:
            continue
        passed = sum(check.verdict == "passed" for check in gate.checks)
        said = "passed" if gate.passed else "refused"
        lines += ["", f"**{_RUNGS[gate.rung]} ({gate.rung}): {said}**, {passed} of {len(gate.checks)} checks hold."]
        lines += [f"* ✗ **{row['why']}**: {row['saw']}" for row in reasons(gate)]
        lines += [f"* ⚠ **{row['why']}**: {row['saw']}" for row in reasons(gate, "warning")]
    return lines[1:]


# --- figures ------------------------------------------------------------------------------------------------------


def _against(sidecar: Sidecar, champion: Sidecar | None, version: str | None) -> list[str]:
    theirs = champion.metrics if champion is not None else {}
    said = (
        f"On the same rows: {on_the_same_rows(sidecar.gate)}"
        if version
        else "No version was champion when it was judged"
    )
    lines = [f"{said}.", "", *_table(metric_rows(sidecar.metrics, f"champion v{version}", theirs))]
    if champion is not None and _data_of(champion) != _data_of(sidecar):
        lines += ["", "The champion's column is of its registration, on other sessions or instruments."]
    return lines


def on_the_same_rows(gate: GateResult) -> str:
    """Say how the candidate compares with the champion where both were asked the same."""
    return next((check.observed for check in gate.checks if check.name == "better_than_champion"), "not compared")


def _data_of(sidecar: Sidecar) -> tuple[object, ...]:
    return (sidecar.lineage.sessions if sidecar.lineage is not None else None), sidecar.instruments


def _earned(metrics: Mapping[str, float]) -> str:
    if not metrics.get("trades"):
        return "The account would have made no trade."
    fell = f"; at its deepest ₹{metrics['max_drawdown_inr']:,.0f} down" if "max_drawdown_inr" in metrics else ""
    return (
        f"₹{figure(metrics, 'trades_net_pnl_inr', ',.0f')} after charges from {figure(metrics, 'trades', ',.0f')} "
        f"trades ({figure(metrics, 'long_trades', ',.0f')} long, {figure(metrics, 'short_trades', ',.0f')} short) in "
        f"{figure(metrics, 'traded_sessions', '.0f')} sessions{fell}. Fills at the next bar's open."
    )


def tries(sidecar: Sidecar) -> list[str]:
    """Say how many tries stood behind a version, and what is left of its record after them; nothing if unknown."""
    found = sidecar.metrics
    if "configurations_tried" not in found:
        return []
    number = int(found["configurations_tried"])
    alike = f", which count as {found['effective_trials']:.1f} independent ones" if number > 1 else ""
    said = [f"{number_of(number, 'configuration')} tried under this name{alike}."]
    if "sharpe_per_session" in found:
        said.append(
            f"Sharpe ratio {found['sharpe_per_session']:.3f} ± {figure(found, 'sharpe_standard_error', '.3f')} a "
            f"session; above what luck makes of the tries with probability "
            f"{figure(found, 'deflated_sharpe_probability', '.2f')} (deflated)."
        )
    if "minimum_track_record_sessions" in found:
        said.append(
            f"It takes {found['minimum_track_record_sessions']:,.0f} sessions like these to tell it from luck; there "
            f"are {figure(found, 'traded_sessions', '.0f')}."
        )
    if "overfitting_probability" in found:
        said.append(f"Probability of overfitting {found['overfitting_probability']:.2f}.")
    times = int(found.get("holdout_looks", 0))
    looks = f"had been looked at {number_of(times, 'time')}" if times else "had never been looked at"
    return [" ".join([*said, f"The sessions after {sidecar.train_through} {looks}."])]


def _of_folds(sidecar: Sidecar) -> list[Row]:
    return [{name: row[name] for name in _FOLD_COLUMNS if name in row} for row in fold_rows(sidecar.folds)]


# --- data and ids -------------------------------------------------------------------------------------------------


def period_and_data(sidecar: Sidecar) -> list[str]:
    """Say what it was trained on, in sentences without digests."""
    sessions = f" ({number_of(len(sidecar.lineage.sessions), 'session')})" if sidecar.lineage is not None else ""
    said = [
        f"{sidecar.training_rows:,} rows from {day_text(sidecar.training_start_ns)} to "
        f"{day_text(sidecar.training_end_ns - 1)}{sessions} of {market_in_words(sidecar)}, bars {sidecar.bar_clock} "
        f"({bars_in_words(sidecar.bar_source)})."
    ]
    if sidecar.specification:
        embargo = number_of(int(str(sidecar.fold_parameters.get("embargo_sessions", 0))), "session")
        said.append(f"{number_of(len(sidecar.instruments), 'instrument')}; embargo of {embargo} between folds.")
    if origin := sidecar.thresholds_from:
        sell = origin.sell_quantile
        are = "The threshold is the quantile" if sell is None else "Thresholds are the quantiles"
        at = f"{origin.buy_quantile:g}" + (f" and {sell:g}" if sell is not None else "")
        said.append(
            f"{are} {at} of what fold {origin.fold} leaned on {origin.rows:,} rows of "
            f"{origin.first_session} to {origin.last_session}, times {origin.scale:.3f}."
        )
    if made_of := _facts(sidecar.market_details):
        said.append(f"The market: {made_of}.")
    return said


def _facts(details: Mapping[str, JsonValue]) -> str:
    """Write plain facts as words, and count what is inside lists and tables."""
    words = [f"{name.replace('_', ' ')} {_fact(value)}".rstrip() for name, value in details.items() if value]
    text = ", ".join(words)
    return text if len(text) <= _MOST_FACTS else text[:_MOST_FACTS].rsplit(",", 1)[0] + " …"


def _fact(value: JsonValue) -> str:
    if isinstance(value, dict | list):
        first = next(iter(value), "")
        return f"{len(value):,}" + (f" (the first {first})" if isinstance(first, str) and first else "")
    return "" if value is True else str(value)


def _identity(sidecar: Sidecar) -> str:
    """Say what made it, by ids: an address would die with its port."""
    run = f" in Dagster's run `{sidecar.run_id}`" if sidecar.run_id else ""
    by = (
        ""
        if sidecar.run_id and sidecar.created_by.endswith(sidecar.run_id)
        else f"; registered by {sidecar.created_by}"
    )
    commit = sidecar.git_commit[:12] if len(sidecar.git_commit) == _DIGITS else sidecar.git_commit
    return (
        f"What live reads is `{sidecar.identity[:12]}`, of features `{sidecar.feature_schema_hash[:12]}` and data "
        f"`{sidecar.training_data_digest[:12]}`, fitted with seed {sidecar.seed} at commit "
        f"`{commit}`{run}{by}."
    )


def _table(rows: Sequence[Row]) -> list[str]:
    """Write rows as a table of markdown; columns of figures stand to the right."""
    if not rows:
        return []
    columns = list(rows[0])
    rule = ["---" if column in _LEFT else "---:" for column in columns]
    cells = [columns, *(list(row.values()) for row in rows)]
    # MLflow's tables have no padding and trim blanks; without these entities columns run into one another.
    first, *rest = (f"| {'&emsp;| '.join(line)} |" for line in cells)
    return [first, f"|{'|'.join(rule)}|", *rest, "", "&nbsp;"]  # nor have they a margin below
