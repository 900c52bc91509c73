"""``alpha-panda models``: versions, aliases, promotion and its history, and whether all who have a say agree."""

from __future__ import annotations

import asyncio
import datetime as dt
import getpass
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, get_args

import typer
from rich.markup import escape

from feature_store.market.types import IST, SECOND_NS, ist_text
from live_services.adapters.model_files import ModelFiles
from live_services.cli.errors import ClearGroup, did_you_mean, out
from live_services.cli.log_view import log_backwards
from live_services.cli.model_differences import compare, kept_differences, print_agreement
from live_services.cli.model_sample import sample
from live_services.cli.output import Document, Field, FittingTable, JsonOption, facts_table, tell_json
from live_services.cli.strategy_states import StrategyState, read_strategy_states
from live_services.composition import announcer, build_ledger, build_registry, read_settings
from live_services.failures import CommandFailed
from live_services.messages import expected_failures, message_of
from live_services.next_steps import of_home, to_type
from live_services.settings import Settings
from models_registry.addresses import run_page
from models_registry.ledger_entries import LedgerEntry, standing, standing_at
from models_registry.refs import Alias, bars_in_words, named_thresholds
from models_registry.refusals import GateNotPassed

if TYPE_CHECKING:
    from models_registry.ledger import PromotionLedger
    from models_registry.promotion import PromotionRecord
    from models_registry.registry import Registry, VersionInfo
    from models_registry.sidecar import Sidecar

_VERDICTS = {"passed": "passed", "failed": "FAILED", "warning": "WARNING"}

app = typer.Typer(
    cls=ClearGroup,
    no_args_is_help=True,
    help="Models in the registry: what there is, who trades, who promoted it and why.",
)

app.command("sample")(sample)

NameArgument = Annotated[str, typer.Argument(help="Model name, for example momentum.")]
AliasOption = Annotated[str, typer.Option("--alias", help="challenger, champion or live.")]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why; kept in the ledger.")]


@app.command("list")
def list_models(as_json: JsonOption = False) -> None:
    """List every version with its aliases and its gate's verdict.

    Example: `alpha-panda models list`
    """
    registry = build_registry(read_settings())
    versions = [info for name in registry.names() for info in registry.versions(name)]
    if as_json:
        tell_json([_version_record(info) for info in versions])
        return
    table = FittingTable(
        (
            Field("model"),
            Field("version", right=True),
            Field("aliases"),
            Field("champion gate"),
            Field("created", leave_out=1),
            Field("feature schema", leave_out=2),
        )
    )
    for info in versions:
        table.add_row(
            info.name,
            info.version,
            ", ".join(info.aliases),
            info.gate_verdict("champion") or "not judged",
            ist_text(info.created_at_ns),
            info.feature_schema_hash[:12],
        )
    out.print(table)


def _version_record(info: VersionInfo) -> Document:
    return {
        "model_name": info.name,
        "version": info.version,
        "aliases": list(info.aliases),
        "gates": {rung: info.gate_verdict(rung) for rung in get_args(Alias)},
        "created_at_ns": info.created_at_ns,
        "run_id": info.run_id,
        "tags": info.tags,
    }


@app.command()
def show(
    name: NameArgument,
    version: Annotated[str | None, typer.Argument(help="Version; default: the champion, else the newest.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show a version's sidecar: data, period, label, metrics, gate, digests, commit.

    Example: `alpha-panda models show momentum 3`
    """
    settings = read_settings()
    registry = build_registry(settings)
    version = _number(version) if version else _champion(settings, name) or _newest(registry, name)
    sidecar = registry.sidecar(name, version)
    if as_json:
        tell_json(_version_record(registry.version(name, version)) | {"sidecar": sidecar.model_dump(mode="json")})
        return
    out.print(facts_table(_facts(registry, settings.dagster.url, sidecar, version), f"{name} version {version}"))


def _facts(registry: Registry, dagster_url: str, sidecar: Sidecar, version: str) -> Iterator[tuple[str, str]]:
    yield from (
        ("market", sidecar.market),
        ("algorithm", sidecar.algorithm),
        ("bars", f"{sidecar.bar_clock}, {bars_in_words(sidecar.bar_source)}"),
        ("label", f"{sidecar.label}, {sidecar.label_horizon_bars} bars"),
        ("training period", f"{ist_text(sidecar.training_start_ns)} to {ist_text(sidecar.training_end_ns)}"),
        ("training rows", f"{sidecar.training_rows:,}"),
        ("training data digest", sidecar.training_data_digest),
        ("feature schema", sidecar.feature_schema_hash),
        ("features", ", ".join(column.name for column in sidecar.feature_schema)),
        *(
            (name, f"{value:.6f}")
            for name, value in named_thresholds(sidecar.buy_threshold, sidecar.sell_threshold).items()
        ),
    )
    yield from ((f"metric {metric}", f"{value:.6g}") for metric, value in sidecar.metrics.items())
    for check in sidecar.gate.checks:
        yield f"gate {check.name}", f"{_VERDICTS[check.verdict]}: {check.observed} (required {check.required})"
    yield from ((f"sha256 {file}", digest) for file, digest in sidecar.artifact_sha256.items())
    yield from (
        ("git commit", sidecar.git_commit),
        ("seed", str(sidecar.seed)),
        ("made by", f"{sidecar.created_by} at {ist_text(sidecar.created_at_ns)}"),
        ("identity", sidecar.identity),
        ("run", run_page(dagster_url, sidecar.run_id)),
        ("page", registry.url_of(sidecar.model_name, version)),
    )


@app.command()
def promote(
    name: NameArgument,
    version: Annotated[str, typer.Argument(help="Version to promote.")],
    alias: AliasOption = "champion",
    reason: Annotated[str | None, typer.Option("--reason", help="Why; kept in the ledger.")] = None,
    override: Annotated[
        str | None, typer.Option("--override", help="Go against the gate for this REASON (kept in the ledger).")
    ] = None,
) -> None:
    """Move an alias to a version whose gate passed, or overrule the gate by name and with a reason.

    Example: `alpha-panda models promote momentum 3 --reason "reviewed"`

    Example: `alpha-panda models promote momentum 3 --override "small test on paper"`
    """
    if override is not None and not override.strip():
        raise CommandFailed("--override: give the reason; the ledger keeps it")
    settings, rung, number = read_settings(), _alias(alias), _number(version)
    why = reason if reason is not None else override or "promoted by hand"
    try:
        record = promote_as_person(
            settings, build_registry(settings), name, number, rung, reason=why, override=override
        )
    except GateNotPassed as refused:
        raise CommandFailed(f"{refused} {_how_to_overrule(settings, name, number, rung)}") from refused
    _say(record)


@app.command()
def rollback(name: NameArgument, reason: ReasonOption, alias: AliasOption = "champion") -> None:
    """Move an alias back to the version it named before.

    Example: `alpha-panda models rollback momentum --reason "worse than the one before"`
    """
    from models_registry import promotion

    settings = read_settings()
    record = promotion.rollback(
        build_registry(settings),
        build_ledger(settings),
        name,
        _alias(alias),
        promoted_by=getpass.getuser(),
        reason=reason,
        now_ns=time.time_ns(),
        announce=announcer(settings, out.print),
    )
    _say(record)


@app.command()
def history(
    name: NameArgument,
    every_step: Annotated[bool, typer.Option("--all", help="Intents, observations and notes too.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show the promotion ledger of a model: who moved which alias, when, from what to what, and why.

    Example: `alpha-panda models history momentum`
    """
    entries = _history(build_ledger(read_settings()), name)
    if as_json:
        tell_json([entry.model_dump(mode="json") for entry in entries])
        return
    table = FittingTable(
        (
            Field("#", right=True),
            Field("when (IST)"),
            Field("alias"),
            Field("from", leave_out=1, right=True),
            Field("to", right=True),
            Field("what"),
            Field("by whom and why", text=True),
        )
    )
    settled = {entry.refers_to for entry in entries if entry.phase in {"done", "undone"}}
    for entry in entries:
        if every_step or entry.phase != "intent" or entry.number not in settled:
            when, who_why = ist_text(entry.at_ns).removesuffix(" IST"), escape(f"{_who(entry)}: {entry.reason}")
            versions = entry.from_version or "", entry.to_version or "none"
            table.add_row(str(entry.number), when, entry.alias, *versions, _what(entry), who_why)
    out.print(table)


def _what(entry: LedgerEntry) -> str:
    return {
        "done": entry.action,
        "intent": f"{entry.action} under way",
        "undone": f"{entry.action} taken back",
        "observed": "moved by hand",
        "noted": f"{entry.action}, no change",
    }[entry.phase]


def _who(entry: LedgerEntry) -> str:
    carried_out = entry.settled_by not in {None, entry.by}
    return f"{entry.by}, settled by {entry.settled_by}" if carried_out else entry.by


@app.command()
def at(
    name: NameArgument,
    time_text: Annotated[
        str, typer.Option("--time", help="Date and time, IST unless it says otherwise: 2026-01-21T11:30.")
    ],
    alias: AliasOption = "champion",
    as_json: JsonOption = False,
) -> None:
    """Say which version stood on a rung at a time, by the ledger.

    Example: `alpha-panda models at momentum --time "2026-01-21 11:30"`
    """
    rung, at_ns = _alias(alias), _instant(time_text)
    stood = standing_at(_history(build_ledger(read_settings()), name), rung, at_ns)
    if stood is None:
        raise CommandFailed(f"no version of {name} was {rung} at {ist_text(at_ns)}, by the promotion ledger")
    if as_json:
        tell_json(stood.model_dump(mode="json"))
        return
    out.print(
        f"{name}@{rung} was version {stood.to_version} at {ist_text(at_ns)}: {stood.action} by {stood.by} at "
        f"{ist_text(stood.at_ns)} (ledger entry {stood.number}): {stood.reason}",
        markup=False,
        soft_wrap=True,
    )


@app.command()
def verify(as_json: JsonOption = False) -> None:
    """Compare the promotion ledger with MLflow's aliases and files, and with what the strategies run.

    Of the models that a strategy asks or the ledger knows; others on the same MLflow are not this desk's. Ends with 1
    if they do not say the same.

    Example: `alpha-panda models verify`
    """
    settings = read_settings()
    registry, ledger, home = build_registry(settings), build_ledger(settings), settings.alpha_panda_home
    entries, models = ledger.verify(), {strategy.name: strategy.model_name for strategy in settings.strategies}
    names = sorted({*ledger.names(), *models.values()})
    states, unread = _strategy_states(settings)
    views = [v for n in names for v in compare(registry, ledger, n, states, models=models, command=of_home(home))]
    found = kept_differences(ModelFiles(home / "models"), ledger, names)
    if as_json:
        record = {"ledger_entries": entries, "rungs": [asdict(view) for view in views], "kept": list(found)}
        tell_json(record | {"not_compared": unread or None})
    else:
        print_agreement(views, found, unread, entries)
    if found or any(view.differences for view in views) or (unread and settings.kafka.bootstrap_servers):
        raise typer.Exit(1)


def _strategy_states(settings: Settings) -> tuple[tuple[StrategyState, ...], str]:
    """Read what the strategies run, or say why that cannot be read."""
    try:
        return asyncio.run(read_strategy_states(log_backwards(settings), settings.strategies)), ""
    except expected_failures() as problem:
        return (), message_of(problem)


def _history(ledger: PromotionLedger, name: str) -> tuple[LedgerEntry, ...]:
    entries = ledger.history(name)
    if not entries:
        known = did_you_mean(name, ledger.names())
        raise CommandFailed(f"the ledger has no promotion of {name!r}{f'; {known}' if known else ''}")
    return entries


def _instant(text: str) -> int:
    """Read a time, IST unless it says otherwise, as UTC epoch nanoseconds; of a whole second its last one.

    Commands show times in whole seconds and IST: what happened within one that they show has happened at it.
    """
    try:
        found = dt.datetime.fromisoformat(text.removesuffix(" IST"))
    except ValueError as problem:
        raise CommandFailed(f"--time: {text!r} is no date and time; write 2026-01-21T11:30 (IST)") from problem
    aware = found if found.tzinfo is not None else found.replace(tzinfo=IST)
    return int(aware.timestamp()) * SECOND_NS + (aware.microsecond * 1_000 or SECOND_NS - 1)


def promote_as_person(
    settings: Settings,
    registry: Registry,
    name: str,
    version: str,
    alias: Alias,
    *,
    reason: str,
    override: str | None,
) -> PromotionRecord:
    """Promote in the name of the user who is logged in, and tell the live side.

    Raises
    ------
    models_registry.refusals.ModelRefusedError
        If the gate says no and there is no override.
    """
    from models_registry import promotion

    return promotion.promote(
        registry,
        build_ledger(settings),
        name,
        version,
        alias,
        promoted_by=getpass.getuser(),
        reason=reason,
        override=override,
        now_ns=time.time_ns(),
        announce=announcer(settings, out.print),
    )


def _how_to_overrule(settings: Settings, name: str, version: str, alias: Alias) -> str:
    rung = "" if alias == "champion" else f" --alias {alias}"
    command = f'{of_home(settings.alpha_panda_home)} models promote {name} {version}{rung} --override "REASON"'
    return f"To overrule it: `{command}`"


def _champion(settings: Settings, name: str) -> str | None:
    stands = standing(build_ledger(settings).history(name), "champion")
    return stands.to_version if stands is not None else None


def _newest(registry: Registry, name: str) -> str:
    versions = registry.versions(name)
    if not versions:
        raise CommandFailed(f"the registry has no model {name!r}; {to_type('models list')} names what there is")
    return max(versions, key=lambda info: int(info.version)).version


def _alias(text: str) -> Alias:
    rungs: tuple[Alias, ...] = get_args(Alias)
    for alias in rungs:
        if alias == text:
            return alias
    raise CommandFailed(f"there is no alias {text!r}; choose one of {', '.join(rungs)}")


def _number(version: str) -> str:
    if not version.isdecimal():
        raise CommandFailed(f"a version is a number, not {version!r}; {to_type('models list')} names them")
    return version


def _say(record: PromotionRecord) -> None:
    out.print(str(record), markup=False, soft_wrap=True)
