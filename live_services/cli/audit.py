"""``alpha-panda audit``: whether anything in a strategy's chain knew what came after its decision."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.console import Console
from rich.markup import escape

from feature_store.market.types import Session, ist_text
from live_services.audit.findings import WAY_OUT, AuditReport, joined
from live_services.cli.errors import err, out, wide_enough
from live_services.cli.output import Field, FittingTable, JsonOption, tell_json
from live_services.cli.progress import waiting
from live_services.composition import build_ledger, build_registry, read_settings
from live_services.failures import CommandFailed
from live_services.next_steps import to_type
from live_services.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from feature_store.offline.store import OfflineStore
    from live_services.audit.sessions import AuditedSession
    from live_services.backtest.versions import JudgedVersion, Role

_SESSIONS: Final = 3
_DAY_NS: Final = 86_400_000_000_000
_VERDICTS: Final = {
    "clean": "[green]clean[/]: nothing that was looked at knew the future",
    "leaks": "[bold red]it leaks[/]",
    "too_few": "[yellow]too little to say[/], which is no pass",
}


def audit(
    name: Annotated[str, typer.Argument(help="Strategy, for example momentum.")],
    model: Annotated[
        str | None, typer.Option("--model", help="NAME@7 or NAME@champion; default: the champion, else the newest.")
    ] = None,
    sessions: Annotated[int, typer.Option(min=1, help="How many stored sessions, the newest ones.")] = _SESSIONS,
    training: Annotated[
        bool, typer.Option("--training", help="Also train it three times, on changed test rows; takes as long.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Look for leaks in the whole chain of a strategy: features, proposals, scores, signals, orders, label, training.

    Runs it again on data cut at its decisions and on data whose future is another, and compares bit for bit; looks
    whether its training ended before what it trades. Takes stored sessions after the version's training, else those
    that a fold of it had not seen, with that fold's model. Shows no profit or loss, so it is no look at the hold-out.
    Ends with 1 where something leaks, or where there is too little to say.

    Example: `alpha-panda audit momentum`

    Example: `alpha-panda audit momentum --model momentum@3 --sessions 5 --training --json`
    """
    from live_services.backtest.versions import asked_versions, judged_version, specification_named

    settings = read_settings()
    spec = specification_named(settings.strategies, name)
    store = _store(settings)
    asked = asked_versions([model] if model else [], [spec]).get(spec.name)
    judged = judged_version(build_registry(settings), build_ledger(settings), spec, asked)
    chosen, note = _chosen(store.sessions("bars"), judged, sessions)
    with _progress(out, quietly=as_json) as progress:
        report = _audited(settings, store, judged, chosen, progress)
        if training:
            progress("training again on changed test rows")
            report = joined("", [report, _trained_again(settings, store, judged)])
    report = replace(report, name=f"{spec.name} ({judged.title})", notes=(*note, *report.notes))
    if as_json:
        facts = {"strategy": spec.name, "model": spec.model_name, "version": judged.version}
        tell_json(facts | {"sessions": [str(one.date) for one in chosen]} | report.record())
    else:
        _show(report)
    if not report.passed:
        raise typer.Exit(1)


def _store(settings: Settings) -> OfflineStore:
    from feature_store.offline.store import OfflineStore

    store = OfflineStore(settings.store_root).pinned()
    if not store.sessions("bars"):
        raise CommandFailed(
            f"no market is stored in {settings.store_root}: {to_type('train')} brings one in, and {to_type('demo')} "
            "makes one"
        )
    return store


def _chosen(stored: Sequence[Session], judged: JudgedVersion, count: int) -> tuple[Sequence[Session], tuple[str, ...]]:
    """Give the newest sessions of the best kind that there is, and what there is to say of them."""
    unseen: tuple[Role, ...] = ("after training", "out of fold")
    for role in unseen:
        if found := [session for session in stored if judged.role(session) == role]:
            return found[-count:], ()
    note = (
        f"{judged.title} was trained on every stored session, and kept no models of folds: the chain is looked at on "
        "the newest ones, and that it is older than what it trades is not shown"
    )
    return stored[-count:], (note,)


def _audited(
    settings: Settings,
    store: OfflineStore,
    judged: JudgedVersion,
    chosen: Sequence[Session],
    progress: Callable[[str], None],
) -> AuditReport:
    from live_services.audit.strategy import audit_strategy
    from live_services.domain.limits import AccountConfig

    paper = settings.trading.paper.model_dump(include=set(AccountConfig.model_fields))
    later = judged.role(chosen[0]) == "after training"
    progress("reading the sessions")
    return audit_strategy(
        judged.spec,
        [*_read(settings, store, judged, chosen)],
        AccountConfig.model_validate(paper),
        sidecar=judged.sidecar,
        # sessions of folds are those folds' test, which the sidecar's folds are held against
        traded_from_ns=chosen[0].open_ns if later else judged.sidecar.training_end_ns + _DAY_NS,
        known_sessions=[str(one.date) for one in store.sessions("bars")] if later else (),
        progress=progress,
    )


def _trained_again(settings: Settings, store: OfflineStore, judged: JudgedVersion) -> AuditReport:
    """Make its training rows again, hold them against its sidecar, and fit where what folds test on is another."""
    from feature_store.offline.training_frames import training_frame
    from feature_store.sources.dated_tables import read_corporate_actions, read_membership
    from live_services.audit.training import folds_know_no_test
    from live_services.audit.versions import version_is_older
    from models_registry.sidecar import FitFacts
    from models_registry.training import train

    sidecar, spec = judged.sidecar, judged.spec
    if sidecar.lineage is None or not sidecar.lineage.sessions:
        return AuditReport(
            "", {}, notes=("its sidecar names no session that it was trained on: it is not trained again",)
        )
    dates = sorted(dt.date.fromisoformat(date) for date in sidecar.lineage.sessions)
    members, actions = settings.market.membership, read_corporate_actions(settings.market.corporate_actions)
    frame = training_frame(
        store,
        spec.instruments or None,
        dates[0],
        dates[-1],
        features=spec.feature_schema(),
        label=spec.label(),
        proposer=spec.proposer(),
        membership=None if members is None else read_membership(members),
        actions=actions,
    )
    fitted = FitFacts(
        git_commit=sidecar.git_commit,
        library_versions=sidecar.library_versions,
        fitted_at_ns=sidecar.fitted_at_ns,
    )
    again = folds_know_no_test(lambda changed: train(changed, spec, fitted), frame)
    if frame.sessions != sidecar.lineage.sessions:
        note = "the stored bars are others than it was trained on: its training rows are not held against its sidecar"
        return replace(again, notes=(note,))
    traded_from_ns = sidecar.training_end_ns + _DAY_NS
    return joined("", [again, version_is_older(sidecar, traded_from_ns, frame=frame)])


def _read(
    settings: Settings, store: OfflineStore, judged: JudgedVersion, chosen: Sequence[Session]
) -> Iterator[AuditedSession]:
    from live_services.adapters.history import StoredHistory
    from live_services.audit.sessions import AuditedSession

    history, universe = StoredHistory(settings), store.universe()
    for session in chosen:
        model = judged.model_on(session, in_sample=False)
        before = history.of(session, universe, needed=model.schema.history_sessions)
        yield AuditedSession(session, universe, before.today, before, model)


@contextmanager
def _progress(console: Console, *, quietly: bool) -> Iterator[Callable[[str], None]]:
    with waiting(console, "reading the version", quietly=quietly) as status:
        yield lambda step: status.update(step) if hasattr(status, "update") else None


def _show(report: AuditReport) -> None:
    compared = FittingTable((Field("guard"), Field("values compared", right=True)))
    for guard, n in report.compared.items():
        compared.add_row(guard, f"{n:,}")
    console = wide_enough(out)
    console.print(f"audit of {report.name}", markup=False)
    console.print(compared)
    if report.findings:
        console.print(_leaks(report))
        for kind in dict.fromkeys(one.kind for one in report.findings):
            console.print(f"[red]{kind.value}[/]: {escape(WAY_OUT[kind])}", soft_wrap=True)
    counts = ", ".join(f"{n:,} {what}" for what, n in report.counts.items())
    out.print(f"{_VERDICTS[report.verdict]} ({counts})", soft_wrap=True)
    for line in report.too_few:
        out.print(line, markup=False, soft_wrap=True)
    for line in report.notes:
        err.print(f"[yellow]note:[/] {escape(line)}", soft_wrap=True)


def _leaks(report: AuditReport) -> FittingTable:
    found = FittingTable(
        (
            Field("kind of leak"), Field("stage", 2), Field("column"), Field("instrument"), Field("first at"),
            Field("what", text=True), Field("found by", 1),
        ),
        title="leaks",
    )  # fmt: skip
    for one in report.findings:
        when = "" if one.time_ns is None else ist_text(one.time_ns)
        cells = (one.stage, one.column, one.symbol, when, one.what, one.guard)
        found.add_row(f"[red]{one.kind.value}[/]", *(escape(cell) for cell in cells))
    return found
