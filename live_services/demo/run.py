"""``alpha-panda demo``: the whole road on real parts, from a market to an explained order."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import tomli_w
from rich.console import Console

from live_services.adapters.readiness import has_market
from live_services.cli import training_run
from live_services.cli.errors import wide_enough
from live_services.cli.progress import file_progress, jar_progress
from live_services.demo.demo_home import fresh_home, note_own_promotions, require_demo_home
from live_services.demo.market_files import MarketFiles, look_at, sessions_to_train
from live_services.failures import CommandFailed
from live_services.machine.embedded import stop
from live_services.machine.programs import SERVICES
from live_services.machine.stack import Stack, Tell, create_topics, environment, program_name
from live_services.machine.supervision import start_lock
from live_services.machine.up import interrupts_ignored, signals_as_interrupts
from live_services.next_steps import next_steps, of_home, program
from live_services.settings import CONFIG_NAME, Settings, SyntheticSettings, load_settings
from models_registry.addresses import models_page
from models_registry.refs import ModelRef
from models_registry.specification import TRAIN_ALL, StrategySpec, by_model

if TYPE_CHECKING:
    from feature_store.market.types import Session
    from models_registry.registry import Registry, VersionInfo

STRATEGIES: Final[tuple[StrategySpec, ...]] = Settings.model_fields["strategies"].default
"""What the demo runs, side by side on one account: the strategies of a desk that names none."""
_TRAINING_SECONDS: Final = 600.0
_PROMOTION_SECONDS: Final = 60.0
_REPLAY_SECONDS: Final = 900.0


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What a person chose on the command line."""

    home: Path
    bars: Path | None = None
    ticks: Path | None = None
    market: dict[str, Any] = field(default_factory=dict)
    """Settings under ``market`` that say how the files are to be read; see `live_services.cli.market_options`."""
    override_gate: str | None = None
    keep: bool = False
    summary: Path | None = None
    speed: float = 0.0
    sessions: int | None = None
    instruments: int | None = None


@dataclass
class Demo:
    """One run of the demo: where it is, and what it has found so far."""

    options: DemoOptions
    console: Console
    started: float = field(default_factory=time.monotonic)
    summary: dict[str, Any] = field(default_factory=dict)
    findings: tuple[str, ...] = ()
    """What was found in the person's files and told."""

    def tell(self, text: str) -> None:
        """Print one line with the seconds since the start."""
        self.console.print(f"{time.monotonic() - self.started:4.0f} s  {text}", soft_wrap=True, markup=False)


def run_demo(options: DemoOptions, console: Console) -> None:
    """Run the demo; whatever happens, nothing it started stays behind (unless ``keep``).

    Raises
    ------
    CommandFailed
        A step failed or took too long; the message says which and where to look.
    """
    demo = Demo(options, console)
    check_files(options)
    require_demo_home(options.home)  # before the files are read, which may take minutes
    files = None
    if options.bars is not None:
        quarantine = options.home / "store" / "quarantine"
        files = look_at(
            options.bars,
            options.ticks,
            quarantine,
            STRATEGIES,
            demo.tell,
            stated=options.market,
            progress=file_progress(console),
        )
        demo.findings = files.findings
    with ExitStack() as starting:
        starting.enter_context(start_lock(options.home))
        _run_at(demo, fresh_home(options.home), files, starting.close)


def _run_at(demo: Demo, home: Path, files: MarketFiles | None, started: Callable[[], None]) -> None:
    options = demo.options
    configuration = home / CONFIG_NAME
    configuration.write_text(configuration_toml(options, files), encoding="utf-8")
    chosen = {"ALPHA_PANDA_HOME": str(home), "ALPHA_PANDA_CONFIG": str(configuration)}
    try:
        with signals_as_interrupts(), own_settings_only(demo.tell), environment(chosen):
            _run(demo, started)
    except KeyboardInterrupt as interrupt:
        raise CommandFailed("interrupted; everything was stopped") from interrupt


@contextmanager
def own_settings_only(tell: Tell) -> Iterator[None]:
    """Take this person's settings out of the environment for a block, of this process and so of its children.

    The demo is the same for everybody: what it runs on stands in the file it writes.
    """
    names = [name for name in os.environ if name.lower().split("__")[0] in Settings.model_fields]
    before = {name: os.environ.pop(name) for name in names}
    unused = sorted(name for name, value in before.items() if value and name != "ALPHA_PANDA_HOME")
    if unused:
        tell(f"set in the environment but not used, because the demo has its own settings: {', '.join(unused)}")
    try:
        yield
    finally:
        os.environ.update(before)


def check_files(options: DemoOptions) -> None:
    """Refuse missing files, and options that do not go together, before anything starts.

    Raises
    ------
    CommandFailed
        Names the file or the option.
    """
    files = {"--bars": options.bars, "--ticks": options.ticks}
    tables = {f"--{name.replace('_', '-')}": options.market.get(name) for name in ("universe", "corporate_actions")}
    for option, path in (files | tables).items():
        if path is not None and not Path(path).is_file():
            raise CommandFailed(f"{option}: there is no file {path}")
    if options.override_gate is not None and not options.override_gate.strip():
        raise CommandFailed("--override-gate: give the reason; the ledger keeps it")
    if options.ticks is not None and options.bars is None:
        raise CommandFailed("--ticks needs --bars as well: the model is trained on the bars of earlier sessions")
    if options.market and options.bars is None:
        named = ", ".join(f"--{name.replace('_', '-')}" for name in options.market)
        raise CommandFailed(f"{named}: is said of your own files; give them with --bars (and --ticks)")
    _require_sessions(options)
    if options.bars is not None and (options.sessions or options.instruments):
        raise CommandFailed("--sessions and --instruments shape the synthetic market; they do not go with --bars")


def _require_sessions(options: DemoOptions) -> None:
    from feature_store.sources.synthetic import synthetic_sessions

    if options.bars is not None or options.sessions is None:
        return
    made = SyntheticSettings()
    dates = [s.date for s in synthetic_sessions(dt.date.fromisoformat(made.first_session), made.sessions)]
    for spec in STRATEGIES:
        least, warming = sessions_to_train(dates, spec)
        if options.sessions < least:
            raise CommandFailed(
                f"--sessions {options.sessions}: training {spec.model_name} needs {least - warming} sessions for its "
                f"{spec.folds} folds, and {warming} before them to warm its features up; give {least} or more"
            )


def configuration_toml(options: DemoOptions, files: MarketFiles | None = None) -> str:
    """Write the demo's settings file; its strategies stand there in full, to be changed."""
    market: dict[str, Any] = {"source": "files" if options.bars else "synthetic"}
    if files is not None and files.bar_minutes > 1:
        market["bar_minutes"] = files.bar_minutes
    if options.bars:
        market["bars_file"] = str(options.bars.absolute())
        market["feed"] = "ticks" if options.ticks else "bars"
    if options.ticks:
        market["ticks_file"] = str(options.ticks.absolute())
    market["speed"] = options.speed
    market["train_through"] = (files.train_through if files is not None else _generated_through(options)).isoformat()
    market |= options.market
    synthetic = {
        k: v for k, v in (("sessions", options.sessions), ("instruments", options.instruments)) if v is not None
    }
    if synthetic:
        market["synthetic"] = synthetic
    # on the market's clock, which stands above
    strategies = [spec.model_dump(mode="json", exclude={"bar_minutes"}, exclude_none=True) for spec in STRATEGIES]
    return "# written by `alpha-panda demo`\n" + tomli_w.dumps({"market": market, "strategies": strategies})


def _generated_through(options: DemoOptions) -> dt.date:
    """Give the last session of the generated market before its session of ticks, which is replayed."""
    from feature_store.sources.synthetic import synthetic_sessions

    made = SyntheticSettings()
    count = options.sessions if options.sessions is not None else made.sessions
    return synthetic_sessions(dt.date.fromisoformat(made.first_session), count + 1)[-2].date


def _run(demo: Demo, started: Callable[[], None]) -> None:
    settings = load_settings()
    stack = Stack(settings)
    kept = False
    with _compiling():
        try:
            _start_servers(demo, stack)
            started()
            settings = load_settings()
            if _train_and_promote(demo, stack, settings):
                asyncio.run(_replay_and_explain(demo, stack, settings))
            elif demo.options.keep:
                stack.start_services()
                demo.tell("every service runs; the replay starts as soon as a person promotes a version")
            _finish(demo)
            kept = demo.options.keep
        finally:
            if not kept:
                with interrupts_ignored():
                    demo.tell("stopping everything")
                    stack.stop_own()
    _say_what_is_next(demo)


@contextmanager
def _compiling() -> Iterator[None]:
    """Compile the feature kernels beside the set-up, so that nobody waits for them later."""
    code = "from feature_store.features.engine import compile_kernels; compile_kernels()"
    from live_services.machine.research_servers import python_environment

    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env=os.environ | python_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        stop(process, 5.0)


def _start_servers(demo: Demo, stack: Stack) -> None:
    demo.tell(f"state of this demo: {stack.home}")
    with jar_progress(demo.console) as progress:
        stack.start_servers(tell=demo.tell, progress=progress)
    demo.tell("starting Apache Kafka, Valkey, MLflow and Dagster on loopback, and compiling the feature kernels")
    stack.wait_ready("kafka", "valkey", tell=demo.tell)
    settings = load_settings()
    asyncio.run(create_topics(settings))
    stack.wait_ready("mlflow", "dagster-code", "dagster-web", tell=demo.tell)
    demo.tell(f"MLflow   {models_page(settings.mlflow.tracking_uri)}")
    demo.tell(f"Dagster  {settings.dagster.url}")
    demo.tell(f"Kafka    {settings.kafka.bootstrap_servers}")
    demo.summary["urls"] = {
        "mlflow": settings.mlflow.tracking_uri,
        "dagster": settings.dagster.url,
        "kafka": settings.kafka.bootstrap_servers,
    }


def _train_and_promote(demo: Demo, stack: Stack, settings: Settings) -> bool:
    """Train every strategy's model and promote what may be; whether any was promoted."""
    from models_registry.registry import Registry

    registry, early = Registry(settings.mlflow.tracking_uri), _EarlyServices(demo, stack, settings)
    models = by_model(settings.strategies)
    job = TRAIN_ALL if len(models) > 1 else next(iter(models.values())).training_job
    run_id = training_run.launch(settings.dagster.url, job)
    _follow_training(demo, settings, early, ", ".join(models), run_id)
    registered = [training_run.registered_version(registry, name, run_id) for name in models]
    versions = [(version, _describe(demo, registry, version)) for version in registered]
    demo.summary["models"] = {
        version.name: described | {"promotion": _promotion(demo, settings, registry, version)}
        for version, described in versions
    }
    return any(model["promotion"] is not None for model in demo.summary["models"].values())


def _follow_training(demo: Demo, settings: Settings, early: _EarlyServices, what: str, run_id: str) -> None:
    """Follow the training of models to its end."""
    demo.tell(f"Dagster trains {what}: {settings.dagster.url}/runs/{run_id}")
    with training_run.run_progress(demo.console) as progress:
        training_run.follow(
            settings.dagster.url,
            run_id,
            tell=demo.tell,
            progress=progress,
            each_poll=early.start,
            known=demo.findings,
            budget_seconds=_TRAINING_SECONDS,
        )
    early.start()


def _promotion(demo: Demo, settings: Settings, registry: Registry, version: VersionInfo) -> dict[str, Any] | None:
    """Let the sensor promote a version, or the person who overrules the gate; None if nobody does."""
    if version.gate_verdict("champion") == "passed":
        return _by_sensor(demo, registry, version)
    if demo.options.override_gate is not None:
        return _by_person(demo, settings, registry, version, demo.options.override_gate)
    demo.tell(
        f"the gate said no to {version.name} version {version.version}, so the sensor does not promote it and no order "
        "follows from it; that is the system working"
    )
    demo.tell("a person may overrule it:")
    if demo.options.keep:
        demo.tell(f'  {of_home(demo.options.home)} models promote {version.name} {version.version} --override "REASON"')
    demo.tell(f'  {program()} demo … --override-gate "REASON"')
    return None


class _EarlyServices:
    """Starts what needs no model as soon as the market is in the store: it is up by the time the model is."""

    def __init__(self, demo: Demo, stack: Stack, settings: Settings) -> None:
        self._demo, self._stack, self._settings = demo, stack, settings
        self._started = False

    def start(self) -> None:
        """Start them once there is a market."""
        if self._started or not has_market(self._settings):
            return
        early = [process for process in self._stack.desk.processes if not process[0].needs_model]
        for process in early:
            self._stack.supervisor.start_program(SERVICES, program_name(*process))
        hosted = ", ".join(name.replace("_", " ") for entry, scope in early for name in entry.hosts(scope))
        self._demo.tell(f"what needs no model starts while it trains: {hosted}")
        self._started = True


def _describe(demo: Demo, registry: Registry, version: VersionInfo) -> dict[str, Any]:
    sidecar = training_run.tell_of_version(registry, version, demo.tell)
    demo.summary["market"] = sidecar.market
    return {
        "version": version.version,
        "feature_schema_hash": sidecar.feature_schema_hash,
        "training_data_digest": sidecar.training_data_digest,
        "metrics": sidecar.metrics,
        "gate_passed": sidecar.gate.passed,
        "gate": [check.model_dump() for check in sidecar.gate.checks],
    }


def _by_sensor(demo: Demo, registry: Registry, version: VersionInfo) -> dict[str, Any]:
    champion = ModelRef(name=version.name, alias="champion")
    demo.tell(f"the gate passed; Dagster's sensor now promotes it to {champion}")
    deadline = time.monotonic() + _PROMOTION_SECONDS
    while registry.resolve(champion) != version.version:
        if time.monotonic() > deadline:
            raise CommandFailed(
                f"the sensor did not promote {version.name} version {version.version} within {_PROMOTION_SECONDS:.0f} "
                f"s; see the sensors in Dagster and {demo.options.home / 'logs' / 'dagster-daemon.log'}"
            )
        time.sleep(0.5)
    demo.tell(f"{champion} is version {version.version}, promoted by the sensor")
    return {"promoted_by": "sensor", "override": None}


def _by_person(demo: Demo, settings: Settings, registry: Registry, version: VersionInfo, reason: str) -> dict[str, Any]:
    from live_services.cli.models import promote_as_person

    promote_as_person(settings, registry, version.name, version.version, "champion", reason=reason, override=reason)
    note_own_promotions(demo.options.home)
    demo.tell(f"the gate said no; overruled for this reason, which the ledger keeps: {reason}")
    demo.tell(f"{version.name}@champion is version {version.version}, promoted by you")
    return {"promoted_by": "person", "override": reason}


async def _replay_and_explain(demo: Demo, stack: Stack, settings: Settings) -> None:
    from live_services.cli.explain import explain_from_log
    from live_services.cli.explanation_tree import render
    from live_services.cli.task_health import read_health
    from live_services.composition import replay_sessions
    from live_services.demo.replay_view import Tally, strategies_table, table, watch

    sessions, feed = await asyncio.to_thread(replay_sessions, settings), settings.market.feed
    stack.start_services()
    fills = "the next bar's open" if feed == "bars" else "the next tick"
    demo.tell(f"replaying {feed} of {_dates(sessions)} through Kafka; orders fill at {fills}")
    tally = Tally(feed)
    await watch(settings, stack, tally, sessions[-1], demo.console, budget_seconds=_replay_budget(settings, sessions))
    demo.summary |= {
        "sessions": [str(session.date) for session in sessions],
        "feed": feed,
        "totals": tally.totals(),
        "exits_by_reason": dict(tally.exits.most_common()),
        "rejections_by_rule": dict(tally.rejections.most_common()),
        "strategies": tally.of_strategies([strategy.name for strategy in settings.strategies]),
    }
    demo.tell("the portfolio has passed the last session's end")
    console = wide_enough(demo.console)
    console.print(table(tally, await asyncio.to_thread(read_health, settings)))
    console.print(strategies_table(demo.summary["strategies"], demo.summary["market"]))
    for position in tally.left_open:
        console.print(
            f"[bold red]ALARM:[/] {position.quantity:+,} {position.symbol} of {position.strategy} is open after the "
            "close; it is carried into the next session and closed at its open"
        )
    if tally.last_filled is None:
        demo.tell("no order was filled, so there is none to explain")
        demo.summary["explanation"] = None
        return
    explanation = await explain_from_log(settings, "paper", tally.last_filled.order_id)
    console.print(render(explanation, settings.dagster.url))
    demo.summary["explanation"] = explanation.model_dump(mode="json")


def _dates(sessions: Sequence[Session]) -> str:
    first, last = sessions[0].date, sessions[-1].date
    return str(first) if len(sessions) == 1 else f"{len(sessions)} sessions, {first} to {last},"


def _replay_budget(settings: Settings, sessions: Sequence[Session]) -> float:
    budget = _REPLAY_SECONDS * len(sessions)
    if settings.market.speed == 0:
        return budget
    return budget + sum(session.close_ns - session.open_ns for session in sessions) / 1e9 / settings.market.speed


def _finish(demo: Demo) -> None:
    demo.summary["seconds"] = round(time.monotonic() - demo.started, 1)
    for name, value in demo.summary.get("totals", {}).items():
        demo.console.print(f"  {name:28} {value:>16,}", markup=False)
    for what in ("exits_by_reason", "rejections_by_rule"):
        if counts := demo.summary.get(what):
            said = ", ".join(f"{name} {count:,}" for name, count in counts.items())
            demo.console.print(f"  {what.replace('_', ' ')}: {said}", markup=False)
    if demo.options.summary is not None:
        demo.options.summary.parent.mkdir(parents=True, exist_ok=True)
        demo.options.summary.write_text(json.dumps(demo.summary, indent=2, default=str) + "\n")
        demo.tell(f"summary written to {demo.options.summary}")
    demo.tell("done" + (f" (market: {demo.summary['market']})" if "market" in demo.summary else ""))


def _say_what_is_next(demo: Demo) -> None:
    demo.console.print("\nNext:", markup=False)
    for command, what in next_steps(demo.options.home, STRATEGIES, running=demo.options.keep):
        demo.console.print(f"  {command}", markup=False, soft_wrap=True)
        demo.console.print(f"      {what}", markup=False, style="dim", soft_wrap=True)
