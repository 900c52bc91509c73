"""``alpha-panda preflight``: what a desk needs before it starts, in one table."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

import typer
from rich.markup import escape

from live_services.cli.errors import err, out, wide_enough
from live_services.cli.output import Field, FittingTable, JsonOption, tell_json
from live_services.cli.progress import waiting
from live_services.composition import read_settings
from live_services.messages import expected_failures, message_of
from live_services.preflight.catalogue import preflight
from live_services.preflight.findings import LIVE_SERVICES, NOTHING, Preflight, summary
from live_services.preflight.run import tell_of, without_settings
from live_services.preflight.written import SUMMARY_NAME
from live_services.settings import Settings, home_directory

_COLOURS: Final = {"ok": "green", "warning": "yellow", "failed": "bold red", "not started": "dim"}


def run_preflight(as_json: JsonOption = False) -> None:
    """Check everything a desk needs before it starts: settings, servers, topics, models, market, disk, clock.

    A server that `up` would start here and that does not run is said, not failed. `environment` (development, testing,
    production) decides what a failure holds back; real money always follows production's policy. Also written to
    `logs/preflight_summary.json` in the home. Ends with 1 when the live services are held back.

    Example: `alpha-panda preflight`

    Example: `ENVIRONMENT=production alpha-panda preflight --json`
    """
    found, home = _ask(quietly=as_json)
    unwritten = tell_of(found, home)
    if as_json:
        tell_json(summary(found))
    else:
        show(found)
    if unwritten:
        err.print(unwritten, markup=False, soft_wrap=True)
    if found.blocking:
        raise typer.Exit(1)


def _ask(*, quietly: bool) -> tuple[Preflight, Path]:
    try:
        settings = read_settings()
    except expected_failures() as problem:
        return without_settings(message_of(problem), time.time_ns()), home_directory()
    with waiting(err, "asking", quietly=quietly):
        return preflight(settings), settings.alpha_panda_home


def settings_for_a_start() -> Settings:
    """Read the settings; where they cannot be read, write that down as preflight does before it is raised."""
    try:
        return read_settings()
    except expected_failures() as problem:
        tell_of(without_settings(message_of(problem), time.time_ns()), home_directory())
        raise


def show(found: Preflight) -> None:
    """Print the table, and what comes of it."""
    wide_enough(out).print(findings_table(found))
    took = f"{len(found.findings)} checks in {found.duration_seconds:.1f} s, policy of {found.policy}; {SUMMARY_NAME}"
    out.print(took, markup=False, soft_wrap=True)
    if found.blocking:
        names = ", ".join(dict.fromkeys(finding.check for finding in found.blocking))
        out.print(f"[bold red]The live services are held back[/] by {escape(names)}.", soft_wrap=True)
    elif any(finding.status == "not started" for finding in found.findings):
        out.print("Nothing holds the live services back so far; `up` asks again once its servers run.", soft_wrap=True)
    else:
        out.print("Nothing holds the live services back.")


def findings_table(found: Preflight) -> FittingTable:
    """Lay out the findings: what, how it is, what it holds back, why, and what to do."""
    table = FittingTable((Field("check", text=True), Field("status"), Field("holds back"), Field("found", text=True)))
    for finding in found.findings:
        blocks = found.blocks(finding)
        held = f"[bold red]{blocks}[/]" if blocks == LIVE_SERVICES else "" if blocks == NOTHING else escape(blocks)
        text = finding.reason + (f"\n→ {finding.way_out}" if finding.way_out else "")
        colour = _COLOURS[finding.status]
        table.add_row(escape(finding.check), f"[{colour}]{finding.status}[/]", held, escape(text))
    return table
