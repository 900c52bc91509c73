"""``alpha-panda models``: versions, aliases, promotion and its history."""

from __future__ import annotations

import getpass
import time
from typing import TYPE_CHECKING, Annotated, get_args

import typer
from rich.table import Column, Table

from feature_store.market.types import ist_text
from live_services.cli.errors import ClearGroup, out
from live_services.composition import announcer, build_ledger, build_registry, read_settings
from live_services.failures import CommandFailed
from live_services.next_steps import of_home, to_type
from live_services.settings import Settings
from models_registry.addresses import run_page
from models_registry.refs import Alias, ModelRef, bars_in_words
from models_registry.refusals import GateNotPassed

if TYPE_CHECKING:
    from models_registry.promotion import PromotionRecord
    from models_registry.registry import Registry

_VERDICTS = {"passed": "passed", "failed": "FAILED", "warning": "WARNING"}

app = typer.Typer(
    cls=ClearGroup,
    no_args_is_help=True,
    help="Models in the registry: what there is, who trades, who promoted it and why.",
)

NameArgument = Annotated[str, typer.Argument(help="Model name, for example momentum.")]
AliasOption = Annotated[str, typer.Option("--alias", help="challenger, champion or live.")]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why; kept in the ledger.")]


@app.command("list")
def list_models() -> None:
    """List every version with its aliases and its gate's verdict.

    Example: `alpha-panda models list`
    """
    registry = build_registry(read_settings())
    table = Table("model", "version", "aliases", "champion gate", "created", "feature schema")
    for name in registry.names():
        for info in registry.versions(name):
            table.add_row(
                name,
                info.version,
                ", ".join(info.aliases),
                info.gate_verdict("champion") or "not judged",
                ist_text(info.created_at_ns),
                info.feature_schema_hash[:12],
            )
    out.print(table)


@app.command()
def show(
    name: NameArgument,
    version: Annotated[str | None, typer.Argument(help="Version; default: the champion, else the newest.")] = None,
) -> None:
    """Show a version's sidecar: data, period, label, metrics, gate, digests, commit.

    Example: `alpha-panda models show momentum 3`
    """
    settings = read_settings()
    registry = build_registry(settings)
    version = (
        (_number(version) if version else None)
        or registry.resolve(ModelRef(name=name, alias="champion"))
        or _newest(registry, name)
    )
    sidecar = registry.sidecar(name, version)
    table = Table(
        Column(overflow="fold"), Column(overflow="fold"), title=f"{name} version {version}", show_header=False
    )
    for key, value in (
        ("market", sidecar.market),
        ("algorithm", sidecar.algorithm),
        ("bars", f"{sidecar.bar_clock}, {bars_in_words(sidecar.bar_source)}"),
        ("label", f"{sidecar.label}, {sidecar.label_horizon_bars} bars"),
        ("training period", f"{ist_text(sidecar.training_start_ns)} to {ist_text(sidecar.training_end_ns)}"),
        ("training rows", f"{sidecar.training_rows:,}"),
        ("training data digest", sidecar.training_data_digest),
        ("feature schema", sidecar.feature_schema_hash),
        ("features", ", ".join(column.name for column in sidecar.feature_schema)),
        ("thresholds", f"buy ≥ {sidecar.buy_threshold:.6f}, sell ≤ {sidecar.sell_threshold:.6f}"),
        *((f"metric {metric}", f"{value:.6g}") for metric, value in sidecar.metrics.items()),
        *(
            (f"gate {c.name}", f"{_VERDICTS[c.verdict]}: {c.observed} (required {c.required})")
            for c in sidecar.gate.checks
        ),
        *((f"sha256 {file}", digest) for file, digest in sidecar.artifact_sha256.items()),
        ("git commit", sidecar.git_commit),
        ("seed", str(sidecar.seed)),
        ("made by", f"{sidecar.created_by} at {ist_text(sidecar.created_at_ns)}"),
        ("identity", sidecar.identity),
        ("run", run_page(settings.dagster.url, sidecar.run_id)),
        ("page", registry.url_of(name, version)),
    ):
        table.add_row(key, value)
    out.print(table)


@app.command()
def promote(
    name: NameArgument,
    version: Annotated[str, typer.Argument(help="Version to promote.")],
    alias: AliasOption = "champion",
    reason: ReasonOption = "promoted by hand",
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
    try:
        record = promote_as_person(
            settings, build_registry(settings), name, number, rung, reason=override or reason, override=override
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
def history(name: NameArgument) -> None:
    """Show the promotion ledger of a model: who moved which alias, when, from what to what, and why.

    Example: `alpha-panda models history momentum`
    """
    table = Table("#", "when", "alias", "from", "to", "what", "by", "why")
    entries = build_ledger(read_settings()).history(name)
    if not entries:
        out.print(f"the ledger has no promotion of {name!r}; {to_type('models list')} names the models", markup=False)
        return
    for entry in entries:
        table.add_row(
            str(entry.number),
            ist_text(entry.at_ns),
            entry.alias,
            entry.from_version or "",
            entry.to_version,
            entry.action,
            entry.by,
            entry.reason,
        )
    out.print(table)


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
    out.print(
        f"{record.model_name}@{record.alias}: {record.previous_version or 'nothing'} → {record.model_version} "
        f"by {record.promoted_by} (ledger entry {record.ledger_number}): {record.reason}",
        markup=False,
        soft_wrap=True,
    )
