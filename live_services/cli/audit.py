"""``alpha-panda audit``: whether anything in a strategy's chain knew what came after its decision."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.console import Console
from rich.markup import escape

from feature_store.market.types import Session, ist_text
from live_services.cli.errors import did_you_mean, err, out, wide_enough
from live_services.cli.output import Field, FittingTable, JsonOption, tell_json
from live_services.cli.progress import waiting
from live_services.composition import build_ledger, build_registry, read_settings
from live_services.failures import CommandFailed
from live_services.next_steps import to_type
from live_services.settings import Settings
from models_registry.ledger_entries import standing
from models_registry.specification import StrategySpec

if TYPE_CHECKING:
    from collections.abc import Callable

    from feature_store.offline.store import OfflineStore
    from live_services.audit.chains import AuditedSession
    from live_services.audit.findings import AuditReport
    from live_services.domain.strategy.loaded_model import LoadedModel
    from models_registry.sidecar import Sidecar

_SESSIONS: Final = 3
_DAY_NS: Final = 86_400_000_000_000
_VERDICTS: Final = {
    "clean": "[green]clean[/]: nothing that was looked at knew the future",
    "leaks": "[bold red]it leaks[/]",
    "too_few": "[yellow]too little to say[/], which is no pass",
}


def audit(
    name: Annotated[str, typer.Argument(help="Strategy, or model, for example momentum.")],
    version: Annotated[str | None, typer.Option(help="Version; default: the champion, else the newest.")] = None,
    sessions: Annotated[int, typer.Option(min=1, help="How many stored sessions, the newest ones.")] = _SESSIONS,
    as_json: JsonOption = False,
) -> None:
    """Look for leaks in the whole chain of a strategy: features, proposals, scores, signals, orders, training.

    Runs it again on data cut at its decisions and on data whose future is another, and compares bit for bit; looks
    whether its training ended before what it trades. Takes stored sessions after the version's training, where there
    are any. Shows no profit or loss, so it is no look at a hold-out. Ends with 1 where something leaks, or where there
    is too little to say.

    Example: `alpha-panda audit momentum`

    Example: `alpha-panda audit momentum --version 3 --sessions 5 --json`
    """
    settings = read_settings()
    spec = _strategy(settings, name)
    number, model, sidecar = _version(settings, spec, version)
    chosen, notes = _sessions(settings, sidecar, sessions)
    with _progress(out, quietly=as_json) as progress:
        report = _audited(settings, spec, (model, sidecar), chosen, progress)
    report = replace(report, name=f"{spec.name} ({spec.model_name} version {number})", notes=(*notes, *report.notes))
    if as_json:
        tell_json(report.record() | {"strategy": spec.name, "model": spec.model_name, "version": number})
    else:
        _show(report)
    if not report.passed:
        raise typer.Exit(1)


def _strategy(settings: Settings, name: str) -> StrategySpec:
    for spec in settings.strategies:
        if spec.name == name:
            return spec
    for spec in settings.strategies:
        if spec.model_name == name:
            return spec
    near = did_you_mean(name, [one.name for one in settings.strategies])
    raise CommandFailed(f"no strategy is named {name!r}{f'; {near}' if near else ''}")


def _version(settings: Settings, spec: StrategySpec, version: str | None) -> tuple[str, LoadedModel, Sidecar]:
    from live_services.services.model_loading import prove

    registry = build_registry(settings)
    if version is None:
        stands = standing(build_ledger(settings).history(spec.model_name), "champion")
        known = registry.versions(spec.model_name)
        if stands is None and not known:
            raise CommandFailed(
                f"the registry has no version of {spec.model_name}: train one with {to_type(f'train {spec.name}')}"
            )
        version = stands.to_version if stands is not None else max((one.version for one in known), key=int)
    sidecar, files = registry.fetch(spec.model_name, version)
    return version, prove(sidecar, files, version, spec.bar_minutes), sidecar


def _sessions(settings: Settings, sidecar: Sidecar, count: int) -> tuple[list[Session], tuple[str, ...]]:
    """Give the newest sessions, of those after the version's training if there are any."""
    from feature_store.offline.store import OfflineStore

    stored = OfflineStore(settings.store_root).sessions("bars")
    if not stored:
        raise CommandFailed(
            f"no market is stored in {settings.store_root}: bring one in with {to_type('train')} or {to_type('demo')}"
        )
    later = [one for one in stored if one.open_ns >= sidecar.training_end_ns]
    if later:
        return later[-count:], ()
    note = (
        f"every stored session lies before the end of its training ({ist_text(sidecar.training_end_ns)}): the chain is "
        "looked at on the newest of them, and that it is older than what it trades is not shown"
    )
    return list(stored[-count:]), (note,)


def _audited(
    settings: Settings,
    spec: StrategySpec,
    version: tuple[LoadedModel, Sidecar],
    chosen: Sequence[Session],
    progress: Callable[[str], None],
) -> AuditReport:
    from feature_store.offline.store import OfflineStore
    from live_services.audit.strategy import audit_strategy

    model, sidecar = version
    store = OfflineStore(settings.store_root)
    unseen = chosen[0].open_ns >= sidecar.training_end_ns
    progress("reading the sessions")
    return audit_strategy(
        spec,
        model,
        [*_read(settings, store, chosen, model)],
        settings.trading.paper,
        sidecar=sidecar,
        traded_from_ns=chosen[0].open_ns if unseen else sidecar.training_end_ns + _DAY_NS,
        known_sessions=[one.date.isoformat() for one in store.sessions("bars")] if unseen else (),
        progress=progress,
    )


def _read(
    settings: Settings, store: OfflineStore, chosen: Sequence[Session], model: LoadedModel
) -> Iterator[AuditedSession]:
    from live_services.adapters.history import StoredHistory
    from live_services.audit.chains import AuditedSession

    history, universe = StoredHistory(settings), store.universe()
    for session in chosen:
        before = history.of(session, universe, needed=model.schema.history_sessions)
        yield AuditedSession(session, universe, before.today, before)


@contextmanager
def _progress(console: Console, *, quietly: bool) -> Iterator[Callable[[str], None]]:
    with waiting(console, "reading the version", quietly=quietly) as status:
        yield lambda step: status.update(step) if hasattr(status, "update") else None


def _show(report: AuditReport) -> None:
    compared = FittingTable((Field("guard"), Field("values compared", right=True)), title=f"audit of {report.name}")
    for guard, n in report.compared.items():
        compared.add_row(guard, f"{n:,}")
    console = wide_enough(out)
    console.print(compared)
    if report.findings:
        found = FittingTable(
            (
                Field("kind of leak"), Field("stage"), Field("column"), Field("instrument", 1), Field("first at", 2),
                Field("what", text=True), Field("way out", 3, text=True),
            ),
            title="leaks",
        )  # fmt: skip
        for one in report.findings:
            when = "" if one.time_ns is None else ist_text(one.time_ns)
            cells = (one.stage, one.column, one.symbol, when, one.what, one.way_out)
            found.add_row(f"[red]{one.kind.value}[/]", *(escape(cell) for cell in cells))
        console.print(found)
    counts = ", ".join(f"{n:,} {what}" for what, n in report.counts.items())
    out.print(f"{_VERDICTS[report.verdict]} ({counts})", soft_wrap=True)
    for line in report.too_few:
        out.print(line, markup=False, soft_wrap=True)
    for line in report.notes:
        err.print(f"[yellow]note:[/] {escape(line)}", soft_wrap=True)
