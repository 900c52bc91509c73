"""``alpha-panda backtest``: trade stored sessions by a registered version, and write a report that a person reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from live_services.cli.errors import err, out, wide_enough
from live_services.cli.output import facts_table, tell_json
from live_services.composition import read_settings
from live_services.failures import CommandFailed

if TYPE_CHECKING:
    from live_services.backtest.report import BacktestResult

Fills = Literal["bars", "ticks"]


def backtest(  # noqa: PLR0917 (each one is an option of the command line)
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Strategies, side by side on one account.")],
    first: Annotated[
        datetime | None, typer.Option("--from", formats=["%Y-%m-%d"], help="First session, YYYY-MM-DD.")
    ] = None,
    last: Annotated[
        datetime | None, typer.Option("--to", formats=["%Y-%m-%d"], help="Last session, YYYY-MM-DD.")
    ] = None,
    models: Annotated[
        list[str] | None,
        typer.Option("--model", help="NAME@7 or NAME@champion; default: the champion, else the newest."),
    ] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="FIELD=VALUE of how it is traded, for example stop_bps=30.")
    ] = None,
    fills: Annotated[
        str, typer.Option("--fills", help="Fill at the next bar's open (bars) or the next tick.")
    ] = "bars",
    in_sample: Annotated[
        bool, typer.Option("--in-sample", help="Run the model on what it was trained on; every page says so.")
    ] = False,
    alone: Annotated[bool, typer.Option("--alone", help="Do not trade the champion beside it.")] = False,
    directory: Annotated[
        Path | None, typer.Option("--out", help="Where report and tables go [HOME/backtests/NAME].")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Figures as JSON; the report is written too.")] = False,
) -> None:
    """Trade stored sessions by a registered version, each by a model that had not seen it, and write a report.

    Without dates: every session that a walk-forward fold of the version had not seen, with that fold's model. Sessions
    after the training run the registered model, and count as a look at the hold-out. Charges, limits and fills are
    those of the paper account; cash and positions go from session to session.

    Example: `alpha-panda backtest momentum`

    Example: `alpha-panda backtest momentum breakout --from 2021-05-01 --set slippage_bps=1 --set stop_bps=30`

    Example: `alpha-panda backtest momentum --model momentum@7 --out reports/`
    """
    from live_services.backtest.changes import read_changes
    from live_services.backtest.run import backtest as run

    settings = read_settings()
    try:
        with _bar(err) as progress:
            result = run(
                names,
                settings=settings,
                first=first.date() if first else None,
                last=last.date() if last else None,
                models=models or (),
                changes=read_changes(changes or ()),
                fills=_fills(fills),
                in_sample=in_sample,
                against_champion=not alone,
                progress=progress,
            )
            folder = directory or settings.alpha_panda_home / "backtests" / "+".join(names)
            written = write_all(result, folder)
    except KeyboardInterrupt:
        err.print("stopped; no report was written")
        raise typer.Exit(1) from None
    if as_json:
        tell_json(result.record() | {"report": str(written)})
    else:
        _tell(result, written)


def write_all(result: BacktestResult, folder: Path) -> Path:
    """Write ``report.html``, and the tables as CSV beside it; give the report's path.

    Raises
    ------
    OSError
        If they cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    result.trades.to_csv(folder / "trades.csv", index=False)
    result.sessions.to_csv(folder / "sessions.csv")
    return result.report(folder / "report.html").absolute()


@contextmanager
def _bar(console: Console) -> Iterator[Callable[[str, int, int], None]]:
    """Show what is under way and what is left in a terminal; elsewhere a line for each part."""
    columns: tuple[Any, ...] = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("sessions"),
        TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        tasks: dict[str, Any] = {}

        def progress(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total)
                if not console.is_terminal:
                    console.print(f"{what}: {total} sessions" if total > 1 else what, markup=False)
            bar.update(tasks[what], completed=done)

        yield progress


def _fills(text: str) -> Fills:
    for one in get_args(Fills):
        if one == text:
            return one  # type: ignore[no-any-return]
    raise CommandFailed(f"--fills {text!r}: orders fill on bars or on ticks")


def _tell(result: BacktestResult, written: Path) -> None:
    from live_services.backtest.tables import tiles

    for stamp in result.stamps:
        err.print(f"[bold yellow]{stamp}[/]", soft_wrap=True)
    first, last = result.traded[0].session.date, result.traded[-1].session.date
    title = f"{result.title}, {first} to {last}, {len(result.traded)} sessions"
    wide_enough(out).print(facts_table([(one.name, f"{one.value}  ({one.note})") for one in tiles(result)], title))
    out.print(f"report: {written}", soft_wrap=True, markup=False)
