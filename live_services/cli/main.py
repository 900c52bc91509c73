"""``alpha-panda``: the commands a person types. Thin: each reads settings, calls one function, shows what came back."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Column, Table

from live_services.cli import dlq as cli_dlq
from live_services.cli import models as cli_models
from live_services.cli.accept import accept
from live_services.cli.audit import audit
from live_services.cli.backtest import backtest
from live_services.cli.errors import ClearGroup, RootGroup, err, out, wide_enough
from live_services.cli.halts import flatten, halt, reduce, resume
from live_services.cli.logs import log_the_command, logs
from live_services.cli.output import JsonOption, tell_json
from live_services.cli.preflight import run_preflight
from live_services.cli.train import train
from live_services.composition import SERVICES, keep_loopback_off_the_proxy, read_settings
from live_services.failures import CommandFailed
from live_services.next_steps import of_home, to_type
from live_services.settings import load_settings
from models_registry.specification import Broker

app = typer.Typer(
    cls=RootGroup,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_show_locals=False,
    help="""Alpha Panda carries an ML trading model from research to orders, and explains every order.

Start with **alpha-panda demo**: the whole road on this machine, in about three minutes.

Settings come from options, the environment (`KAFKA__BOOTSTRAP_SERVERS`), `alpha-panda.toml`, the running stack and
defaults, in this order; **alpha-panda config show** says which it was.

Exit codes: 0 done, 1 it failed (the message says why), 2 wrong command line; of **status** also 3: the desk is not
well.""",
)
topics_app = typer.Typer(cls=ClearGroup, no_args_is_help=True, help="Look at what is on the topics.")
config_app = typer.Typer(cls=ClearGroup, no_args_is_help=True, help="Look at the settings in force.")
features_app = typer.Typer(cls=ClearGroup, no_args_is_help=True, help="Look at feature values.")
app.command("preflight")(run_preflight)
app.command()(train)
app.command()(audit)
app.command()(backtest)
app.command()(logs)
for _change in (halt, reduce, flatten, resume, accept):
    app.command()(_change)
app.add_typer(topics_app, name="topics")
app.add_typer(config_app, name="config")
app.add_typer(features_app, name="features")
app.add_typer(cli_models.app, name="models")
app.add_typer(cli_dlq.app, name="dlq")

HomeOption = Annotated[
    Path | None,
    typer.Option("--home", help="State directory, of every command [ALPHA_PANDA_HOME, else .alpha-panda]."),
]
BrokerOption = Annotated[str, typer.Option("--broker", help="paper or zerodha.")]


def _say_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        from feature_store.provenance import code_commit

        out.print(f"alpha-panda {version('alpha-panda')}, commit {code_commit()}", markup=False, soft_wrap=True)
        raise typer.Exit


VersionOption = Annotated[
    bool, typer.Option("--version", is_eager=True, callback=_say_version, help="Say version and commit.")
]


@app.callback()
def main(context: typer.Context, home: HomeOption = None, _version: VersionOption = False) -> None:
    """Choose the home directory before anything reads settings."""
    from live_services.settings_report import misspelt_environment

    keep_loopback_off_the_proxy()
    if home is not None:
        os.environ["ALPHA_PANDA_HOME"] = str(home)
        context.obj = home  # the demo asks whether it was said: what the environment names is a desk's
    log_the_command(context)
    if context.invoked_subcommand != "run":
        logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # its "unable to connect" comes back as our message
    for line in misspelt_environment():
        err.print(f"[yellow]warning:[/] {line}", soft_wrap=True)


def _tell(line: str) -> None:
    out.print(line, soft_wrap=True, markup=False)


@app.command()
def up(
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Come back at once; stop with `down`.")] = False,
) -> None:
    """Start everything for real use: the servers that no setting names, then the services.

    Ctrl-C stops all of it. With KAFKA__BOOTSTRAP_SERVERS, REDIS__URL or MLFLOW__TRACKING_URI set, those are used
    instead of starting one here.

    Example: `alpha-panda up --detach`

    Example: `KAFKA__BOOTSTRAP_SERVERS=kafka-1:9092 alpha-panda up`
    """
    from live_services.cli.preflight import settings_for_a_start
    from live_services.cli.progress import jar_progress
    from live_services.machine.stack import Ports
    from live_services.machine.up import hold, signals_as_interrupts, start_everything
    from models_registry.addresses import models_page

    settings = settings_for_a_start()
    try:
        with signals_as_interrupts():
            with jar_progress(out) as progress:
                stack = start_everything(settings, tell=_tell, ports=Ports(), progress=progress)
            running = load_settings()
            _tell(f"MLflow {models_page(running.mlflow.tracking_uri)}")
            _tell(f"Dagster {running.dagster.url}")
            if detach:
                again = of_home(settings.alpha_panda_home)
                if stack.held_back:
                    raise CommandFailed(
                        f"the servers run (`{again} down` stops them), the live services do not: mend what preflight "
                        f"says, then `{again} up -d`"
                    )
                _tell(f"running; `{again} status` shows it, `{again} down` stops it")
                return
            _tell("Ctrl-C stops everything")
            hold(stack, _tell)
    except KeyboardInterrupt:
        _tell("stopped")


@app.command()
def down() -> None:
    """Stop everything that `up` started on this home.

    Example: `alpha-panda --home .alpha-panda/demo down`
    """
    from live_services.machine.orphans import orphans
    from live_services.machine.stack import Stack
    from live_services.machine.up import interrupts_ignored

    stack = Stack(read_settings())
    if not orphans(stack.supervisor.socket_path):
        stack.supervisor.processes()  # says so if nothing runs
    with interrupts_ignored():
        stack.stop()
    _tell("stopped")


@app.command()
def status(
    as_json: JsonOption = False,
    watch: Annotated[bool, typer.Option("--watch", help="Look again every two seconds, until Ctrl-C.")] = False,
) -> None:
    """Show the processes, the health of every task, each strategy as it is configured and as it runs, and each account:
    cash, equity, open positions, profit or loss by strategy and version, and what risk said in the session.

    Every reason why the desk is not well stands at the end as an ALARM. Exit code: 0 it is well, 3 it is not.

    Example: `alpha-panda status --watch`

    Example: `alpha-panda status --json`
    """
    from live_services.cli.status import show_status

    code = show_status(read_settings(), wide_enough(out), as_json=as_json, watch=watch)
    if code:
        raise typer.Exit(code)


@app.command(epilog=f"SERVICE is one of {', '.join(entry.name for entry in SERVICES)}.")
def run(
    service: Annotated[str, typer.Argument(help="Name of the service.")],
    broker: BrokerOption = "paper",
) -> None:
    """Run one service in the foreground; `up` runs them all.

    Example: `alpha-panda run account --broker paper`
    """
    from live_services import process

    process.run(service, broker, read_settings())


@app.command()
def explain(
    id_: Annotated[
        str | None,
        typer.Argument(
            metavar="[ID]",
            help="Of an order, a signal or an event about one, or its first six characters or more; default: the last "
            "order filled.",
        ),
    ] = None,
    broker: BrokerOption = "paper",
    as_json: JsonOption = False,
) -> None:
    """Trace an order or a signal back: how it ended and why, what the trade came to, what risk said, signal, model,
    features, bar, input offsets, training data, commit.

    Of an exit it names the reason and the order that opened the position; of a rejected signal the rule, its limit and
    what it saw.

    Example: `alpha-panda explain 517ce0ab --json`
    """
    from live_services.cli.explain import explain_from_log
    from live_services.cli.explanation_tree import render

    settings = read_settings()
    explanation = asyncio.run(explain_from_log(settings, _broker(broker), id_))
    if as_json:
        out.print_json(explanation.model_dump_json())
    else:
        wide_enough(out).print(render(explanation, settings.dagster.url))


@app.command()
def trades(
    strategy: Annotated[str | None, typer.Option("--strategy", help="Only those of this strategy.")] = None,
    date: Annotated[
        datetime | None,
        typer.Option("--date", formats=["%Y-%m-%d"], help="Only those that began or ended on this day."),
    ] = None,
    broker: BrokerOption = "paper",
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, one object per trade and line.")] = False,
) -> None:
    """Show every round trip of an account: entry, exit and its reason, holding time, charges, profit or loss.

    Of all sessions on the log. What is open is valued at its mark. Times are IST, gross is before charges, net after.
    Says of a version that ran by a person's override what its gate had refused.

    Example: `alpha-panda trades --strategy momentum --date 2026-02-16`

    Example: `alpha-panda trades --json`
    """
    from feature_store.market.types import GENERATED_MARKET, is_generated
    from live_services.adapters.stored_market import market_name
    from live_services.cli.log_view import log_backwards
    from live_services.cli.trades import read_trades, render, trade_record

    settings, day = read_settings(), None if date is None else date.date()
    log = log_backwards(settings)
    found = asyncio.run(read_trades(log, _broker(broker), settings.strategies, strategy=strategy, date=day))
    if as_json:
        for trade in found.trades:
            _tell(json.dumps(trade_record(trade, found.overruled)))
        if found.disagreement:
            err.print(found.disagreement, markup=False, soft_wrap=True)
    else:
        wide_enough(out).print(render(found))
    if is_generated(market_name(settings)):
        (err if as_json else out).print(GENERATED_MARKET, style="bold yellow")


@topics_app.command("tail")
def topics_tail(
    topic: Annotated[str, typer.Argument(help="For example paper.signals.raw; `topics list` names them.")],
    from_beginning: Annotated[bool, typer.Option("--from-beginning", help="Start at the first record.")] = False,
    limit: Annotated[int | None, typer.Option("--limit", "-n", min=1, help="Stop after so many records.")] = None,
    watermarks: Annotated[bool, typer.Option("--watermarks", help="Show watermarks too.")] = False,
) -> None:
    """Print committed records as they come, one JSON line each; frames are summed up. Ctrl-C ends it.

    Amounts are in rupees here; on the topic they are exact, integers of 1/10,000 rupee in fields ending in `_inr_e4`.

    Example: `alpha-panda topics tail paper.orders.filled --from-beginning -n 10`
    """
    from live_services.cli.topic_lines import tail

    try:
        asyncio.run(
            tail(read_settings(), topic, from_beginning=from_beginning, limit=limit, watermarks=watermarks, write=out)
        )
    except KeyboardInterrupt:
        err.print("ended")


@topics_app.command("list")
def topics_list(as_json: JsonOption = False) -> None:
    """List every topic, its scope, its partitions, and whether its producer forwards watermarks on it.

    Example: `alpha-panda topics list`
    """
    from live_services.cli.topic_lines import topic_records, topics_table

    records = topic_records(read_settings())
    if as_json:
        tell_json(records)
    else:
        wide_enough(out).print(topics_table(records))


@config_app.command("show")
def config_show(
    as_json: JsonOption = False,
) -> None:
    """Show each setting, its value and where it came from; secrets are hidden. Ends with 1 when a strategy names a
    feature or a hyperparameter that there is not.

    Example: `MARKET__SPEED=60 alpha-panda config show --json`
    """
    from live_services.domain.strategy.checks import require_known_names
    from live_services.settings_report import report

    options: Mapping[str, Any] = {}
    lines = report(options)
    if as_json:
        tell_json([{"key": s.key, "value": s.value, "origin": s.origin} for s in lines])
    else:
        table = Table(*(Column(header, overflow="fold") for header in ("setting", "value", "from")))
        for line in lines:
            table.add_row(line.key, line.value, line.origin, style=None if line.origin == "default" else "bold")
        out.print(table)
    require_known_names(load_settings(**options).strategies)


@features_app.command("show")
def features_show(
    symbol: Annotated[str, typer.Argument(help="Instrument, for example RELIANCE.")],
    broker: BrokerOption = "paper",
    as_json: JsonOption = False,
) -> None:
    """Show an instrument's newest feature row, where it is from, its bar time, age and schema, and whether it is warm.

    Looked for in the online store (the row of its last closed bar, from a running strategy), then in its last signal,
    then in the offline store; a place that comes first and has none that may be used is named with the reason.

    A row is refused as *stale* when its bar ended more than three bars ago, as *foreign* when this code declares its
    features differently. WARMING: the row does not equal that of a full-history run yet, and nothing is opened on it.

    Example: `alpha-panda features show RELIANCE`

    Example: `alpha-panda features show RELIANCE --broker paper`
    """
    from live_services.cli.feature_rows import newest_row, row_record

    row = asyncio.run(newest_row(read_settings(), _broker(broker), symbol))
    if as_json:
        tell_json(row_record(row, symbol))
        return
    for line in row.passed_over:
        err.print(f"[yellow]not from[/] {escape(line)}", soft_wrap=True)
    out.print(f"{symbol}: {row.title}", markup=False, soft_wrap=True)
    table = Table("feature", "value")
    for name, value in row.values.items():
        table.add_row(name, f"{value:.6g}")
    out.print(table)


@features_app.command("verify")
def features_verify(broker: BrokerOption = "paper") -> None:
    """Compute the feature rows that went out in the newest session again from its recorded market, bit for bit.

    Reads the market topic and the signals from Kafka, the newest rows from the online store, and the sessions before
    from the offline store; nothing of the running services is asked. Ends with 1 when a single bit differs, or when
    there is nothing to compare. The same is done all the time, for a few instruments, by the service skew_monitor.

    Example: `alpha-panda features verify`
    """
    from live_services.cli.skew_check import check_skew
    from live_services.domain.strategy.skew import describe

    report = asyncio.run(check_skew(read_settings(), _broker(broker)))
    for note in report.notes:
        err.print(f"[yellow]note:[/] {escape(note)}", soft_wrap=True)
    for difference in report.differences:
        out.print(describe(difference), markup=False, soft_wrap=True)
    counts = f"{report.rows_equal} rows equal, {report.rows_different} different, {report.rows_unverified} not verified"
    if report.rows_different:
        raise CommandFailed(
            f"{counts}: live and history do not compute the same; see {to_type('features show SYMBOL')}"
        )
    if not report.rows:
        raise CommandFailed(f"{counts}: there is nothing to verify yet")
    _tell(counts)


def _broker(name: str) -> Broker:
    from live_services.domain.topics import BROKERS

    for broker in BROKERS:
        if broker == name:
            return broker
    raise CommandFailed(f"there is no broker {name!r}; choose one of {', '.join(BROKERS)}")
