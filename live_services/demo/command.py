"""What a person types for the demo; `live_services.__main__` puts it among the other commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from live_services.cli.errors import out
from live_services.cli.market_options import (
    ColumnsOption,
    StampOption,
    TimeFormatOption,
    TimezoneOption,
    market_settings,
)


def demo(  # noqa: PLR0917 (each one is an option of the command line)
    context: typer.Context,
    bars: Annotated[Path | None, typer.Option(help="Your own minute bars, Parquet or CSV.")] = None,
    ticks: Annotated[Path | None, typer.Option(help="Your own ticks of a later session.")] = None,
    columns: ColumnsOption = None,
    time_format: TimeFormatOption = None,
    timezone: TimezoneOption = None,
    stamp: StampOption = None,
    universe: Annotated[
        Path | None, typer.Option(help="Table of what your instruments are: symbol, kind, instrument_token, tick_size.")
    ] = None,
    corporate_actions: Annotated[
        Path | None, typer.Option(help="Table of splits and the like: symbol, ex_date, kind, factor.")
    ] = None,
    override_gate: Annotated[
        str | None, typer.Option(help="Promote although the gate says no, for this REASON (kept in the ledger).")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave everything running at the end.")] = False,
    summary: Annotated[Path | None, typer.Option(help="Write the totals and the explanation as JSON.")] = None,
    speed: Annotated[float, typer.Option(min=0, help="Replay speed: 1 as it happened, 0 as fast as it goes.")] = 0.0,
    sessions: Annotated[int | None, typer.Option(min=3, help="Sessions of the synthetic market.")] = None,
    instruments: Annotated[int | None, typer.Option(min=2, help="Instruments of the synthetic market.")] = None,
) -> None:
    """Show the whole road: data, features, model, promotion, ticks, signals, orders, PnL, and one order explained.

    Without files the market is synthetic, with a small planted edge, and named SYNTHETIC wherever it shows.

    Its state is in `.alpha-panda/demo`, or where `--home` says, and is wiped at each start; a home in which a person
    promoted, or on which `up` was said, is refused.

    Example: `alpha-panda demo --bars minute.parquet --ticks ticks.csv --keep`

    Example: `alpha-panda demo --bars mine.csv --time-format "%d-%m-%Y %H:%M" --columns open=O,high=H,low=L,close=C`

    Example: `alpha-panda demo --bars minute.parquet --override-gate "to see orders on my data" --summary totals.json`
    """
    from live_services.demo.demo_home import DEMO_HOME
    from live_services.demo.run import DemoOptions, run_demo

    tables = {"universe": universe, "corporate_actions": corporate_actions}
    run_demo(
        DemoOptions(
            bars=bars,
            ticks=ticks,
            market=market_settings(columns, time_format, timezone, stamp)
            | {name: str(path.absolute()) for name, path in tables.items() if path is not None},
            override_gate=override_gate,
            keep=keep,
            summary=summary,
            home=context.obj or DEMO_HOME,
            speed=speed,
            sessions=sessions,
            instruments=instruments,
        ),
        out,
    )
