"""Model loading: follows the ledger, proves versions off the event loop, and hands over what may run.

The last promotion done is followed and polled; a `models.promoted` event only makes the next poll come at once. An
alias that says otherwise is refused and changes nothing. A version is proved (gate, digests, structure, feature schema,
golden rows) before a strategy runner sees it, and a strategy gets it only if it is what that strategy trades: its
features, clock and label. What is refused changes nothing: the version that runs goes on. Nothing of earlier polls is
remembered here: which version runs is on the log, so that a process that lived through the night knows no more than one
that was started in the morning.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

import structlog
from sqlalchemy.exc import SQLAlchemyError

from feature_store.features.schema import UnknownFeature, feature_schema
from live_services.adapters.model_files import ModelFiles
from live_services.domain.strategy.asked import StrategyKey, asked
from live_services.domain.strategy.loaded_model import LoadedModel
from live_services.next_steps import of_home, to_type
from live_services.settings import Settings
from models_registry.agreement import disagreement, not_as_judged
from models_registry.ledger import LedgerError, PromotionLedger
from models_registry.packing import FeatureSchemaMismatch, ModelRefusedError, load
from models_registry.reconciliation import Standing, reconcile
from models_registry.refs import Alias, ModelIdentity
from models_registry.refusals import TamperedModel, sha256_of
from models_registry.registry import Registry, RegistryUnavailable
from models_registry.run_rule import content_objection, may_run
from models_registry.sidecar import Sidecar, sidecar_bytes
from models_registry.specification import Broker, StrategySpec

_log = structlog.get_logger("trading")

_FIRST_TRIES: Final = 5  # a registry that starts beside us needs a moment; then the session starts without a model
_FIRST_WAIT_SECONDS: Final = 1.0
_FIRST_LOOK_SECONDS: Final = 20.0  # enough to fetch models; a registry that hangs does not keep a session waiting

VersionKey = tuple[str, str]
"""Model name and version."""
Standings = Callable[[str], Mapping[Alias, Standing]]
"""``(model name)`` → what stands on its rungs, by the ledger, and what their aliases say."""
GateQuestion = Callable[[str, str, Alias], str | None]
"""``(name, version, rung)`` → None if the version may run there, else why not."""

ContentQuestion = Callable[[str, str], str | None]
"""``(name, version)`` → None if what the registry holds is what the ledger recorded, else how it differs."""


class LoadCounter(Protocol):
    """Who counts loads; `live_services.adapters.metrics.Metrics` does."""

    def model_loaded(self, strategy: str, /) -> None:
        """Count a version that was proved, and that a strategy may run."""
        ...

    def model_missing(self, strategy: str, /) -> None:
        """Count a version that is missing or refused, once for each reason."""
        ...

    def registry_answered(self, *, well: bool) -> None:
        """Take whether registry and ledger could be asked the last time."""
        ...


class ModelSource(Protocol):
    """What the loader needs of the registry."""

    def fetch(self, name: str, version: str, /) -> tuple[Sidecar, Mapping[str, bytes]]:
        """Give a version's sidecar and artifact files."""
        ...


class KeptFiles(Protocol):
    """What the loader needs of the files that are kept on this machine."""

    def read(self, name: str, version: str, /) -> tuple[bytes, Mapping[str, bytes]] | None:
        """Give a version's sidecar and artifact files, if they are here."""
        ...

    def keep(self, name: str, version: str, sidecar: bytes, files: Mapping[str, bytes], /) -> None:
        """Keep a version's files for the next start."""
        ...


class ModelUnavailable(Exception):
    """A version that the log says was running can no longer be loaded, so the session cannot be run again as it was."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """What a strategy should run now: a proved model, or none and why."""

    model: LoadedModel | None
    reason: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """A version that stands on a rung, or that an alias names, and that must not run."""

    version: str
    reason: str


def prove(sidecar: Sidecar, files: Mapping[str, bytes], version: str, bar_minutes: int) -> LoadedModel:
    """Turn a version's files into a model that may score; never unpickles.

    Raises
    ------
    models_registry.packing.ModelRefusedError
        If anything does not fit; says what to do.
    """
    try:
        schema = feature_schema([column.name for column in sidecar.feature_schema], bar_minutes)
    except UnknownFeature as unknown:
        raise FeatureSchemaMismatch(
            f"{sidecar.model_name} version {version} needs features that this code does not have: {unknown}"
        ) from unknown
    if sidecar.bar_clock != schema.bar_clock:
        raise FeatureSchemaMismatch(
            f"{sidecar.model_name} version {version} was trained on bars of {sidecar.bar_clock}, this process builds "
            f"{schema.bar_clock}: set market.bar_minutes to what it was trained on, or train on these bars"
        )
    model = load(files, sidecar, expected_feature_schema_hash=schema.hash)
    identity = ModelIdentity(model_name=sidecar.model_name, model_version=version, feature_schema_hash=schema.hash)
    sha256 = sidecar.artifact_sha256.get("flat.npz", "")
    return LoadedModel(
        identity,
        schema,
        model,
        sidecar.buy_threshold,
        sidecar.sell_threshold,
        artifact_sha256=sha256,
        training_end_ns=sidecar.training_end_ns,
        refused_by={"champion": sidecar.gate.failed, "live": sidecar.live_gate.failed if sidecar.live_gate else ()},
    )


@dataclass(frozen=True, slots=True)
class _Proved:
    model: LoadedModel
    sidecar: Sidecar


class ModelLoader:
    """Keeps, for every strategy on every rung it is asked on, the model it should run; shared by a process's tasks.

    Parameters
    ----------
    source
        The registry.
    standings
        What the ledger says of the rungs of a model, each time they are looked at.
    may_run
        Whether a version may run on a rung: its gate passed, or the ledger overrules it.
    strategies
        Whose models to follow.
    brokers
        Those that run; they give the rungs, beside the challenger's.
    bar_minutes
        Length of the bars this process computes features on.
    poll_seconds
        How often the ledger is looked at.
    content_objection
        Whether a version that was fetched is not what the ledger recorded; None asks nobody. A restart loads what the
        log names without asking ``may_run``, so this is all that stands between it and a version registered anew.
    kept
        Files of versions that were loaded here before; None keeps none.
    counter
        Who counts loads; None: nobody.
    """

    def __init__(
        self,
        source: ModelSource,
        standings: Standings,
        may_run: GateQuestion,
        strategies: Sequence[StrategySpec],
        *,
        brokers: Sequence[Broker] = ("paper",),
        bar_minutes: int,
        poll_seconds: float,
        content_objection: ContentQuestion | None = None,
        kept: KeptFiles | None = None,
        counter: LoadCounter | None = None,
    ) -> None:
        self.candidates: dict[StrategyKey, Candidate] = {}
        """What the last look found; absent while ledger or registry is silent, or where a version is refused."""
        self.refusals: dict[StrategyKey, Refusal] = {}
        """The versions that stand now, where they are refused."""
        self.strayed: dict[StrategyKey, Refusal] = {}
        """The versions that aliases name past the ledger; what stands goes on."""
        self.outage = ""
        """Why the registry or the ledger could not be asked the last time; empty while they answer."""
        self._source = source
        self._standings = standings
        self._may_run = may_run
        self._content_objection = content_objection
        self._kept = kept
        self._counter = counter
        self._missed: dict[StrategyKey, str] = {}
        """Why a strategy was last counted as without its version."""
        self._strategies = {(one.spec.name, one.rung): one.spec for one in asked(strategies, brokers)}
        self._bar_minutes = bar_minutes
        self._poll_seconds = poll_seconds
        self._proved: dict[VersionKey, _Proved] = {}
        self._unloadable: dict[VersionKey, str] = {}
        self._nudged = asyncio.Event()
        self._refreshing = asyncio.Lock()
        self._starting = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._beside: list[ModelLoader] = []

    def beside(self, strategies: Sequence[StrategySpec], *, brokers: Sequence[Broker], bar_minutes: int) -> ModelLoader:
        """Give a loader that follows other strategies by the same registry, ledger and files; it ends with this one."""
        made = ModelLoader(
            self._source,
            self._standings,
            self._may_run,
            strategies,
            brokers=brokers,
            bar_minutes=bar_minutes,
            poll_seconds=self._poll_seconds,
            content_objection=self._content_objection,
            kept=self._kept,
            counter=self._counter,
        )
        self._beside.append(made)
        return made

    # --- what a strategy runner asks ------------------------------------------------------------------------------

    def loaded(self, name: str, version: str) -> LoadedModel:
        """Give a version that was proved before.

        Raises
        ------
        ModelUnavailable
            If it was not.
        """
        model = self.known(name, version)
        if model is None:
            raise ModelUnavailable(f"{name} version {version} was not loaded before the session's records")
        return model

    def known(self, name: str, version: str) -> LoadedModel | None:
        """Give a version if it was proved before."""
        proved = self._proved.get((name, version))
        return proved.model if proved is not None else None

    def check(self) -> None:
        """Raise what ended the background loop, if anything did."""
        if self._task is not None and self._task.done() and not self._task.cancelled():
            self._task.result()

    def nudge(self) -> None:
        """Look at the ledger now, and look again at what could not be loaded."""
        self._unloadable.clear()
        self._nudged.set()
        for loader in self._beside:
            loader.nudge()

    async def require(self, name: str, version: str, sidecar_sha256: str | None = None) -> None:
        """Load a version that the log names, whatever its alias or the strategies say now.

        Files that were kept here are taken if their sidecar has the digest that the log names: then neither the
        registry nor the ledger is asked.

        Raises
        ------
        ModelUnavailable
            If it cannot be loaded.
        """
        key = (name, version)
        if key not in self._proved and sidecar_sha256:
            kept = await asyncio.to_thread(self._prove_kept, name, version, sidecar_sha256)
            if kept is not None:
                self._proved[key] = kept
        try:
            await self._load(name, version)
        except (ModelRefusedError, RegistryUnavailable, LedgerError, OSError) as cause:
            raise ModelUnavailable(
                f"the log says that {name} version {version} traded in this session, but it cannot be loaded: "
                f"{str(cause).rstrip('.')}. "
                "In this session only one thing helps: bring its files back as they were. The session began with this "
                "version, so promoting another one holds from the next session on. The account ends open positions "
                f"without the runner; {to_type('flatten')} closes them now"
            ) from cause

    async def start(self) -> None:
        """Look at the ledger once and go on in the background; a second call changes nothing."""
        async with self._starting:
            if self._task is None:
                await self._first_look()
                self._task = asyncio.create_task(self._follow(), name="model-loader")

    async def stop(self) -> None:
        """End the background loop."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for loader in self._beside:
            await loader.stop()

    async def _first_look(self) -> None:
        try:
            async with asyncio.timeout(_FIRST_LOOK_SECONDS):
                for waits_left in reversed(range(_FIRST_TRIES)):
                    await self.refresh()
                    if not self.outage or not waits_left:
                        return
                    await asyncio.sleep(_FIRST_WAIT_SECONDS)
        except TimeoutError:
            self._note_outage(self.outage or f"the model registry did not answer in {_FIRST_LOOK_SECONDS:.0f} s")

    def _note_outage(self, reason: str) -> None:
        """Go on with what runs; what would run by the ledger is not known."""
        if not self.outage:
            _log.warning("model_registry_unreachable", reason=reason, running="goes on")
        self.outage = reason
        self._tell_answered(well=False)
        self.candidates.clear()
        self.refusals.clear()
        self.strayed.clear()

    # --- the loop -------------------------------------------------------------------------------------------------

    async def _follow(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._poll_seconds):
                    await self._nudged.wait()
            except TimeoutError:
                pass
            self._nudged.clear()
            await self.refresh()

    async def refresh(self) -> None:
        """Look at every rung, each model once, and prove what is new there."""
        async with self._refreshing:
            try:
                names = dict.fromkeys(strategy.model_name for strategy in self._strategies.values())
                standings = {name: await asyncio.to_thread(self._standings, name) for name in names}
                for (name, rung), strategy in self._strategies.items():
                    await self._refresh_one((name, rung), standings[strategy.model_name].get(rung))
            except (RegistryUnavailable, LedgerError, OSError, SQLAlchemyError) as failure:
                self._note_outage(f"the model registry or the ledger cannot be asked: {failure}")
            else:
                self.outage = ""
                self._tell_answered(well=True)

    async def _refresh_one(self, key: StrategyKey, standing: Standing | None) -> None:
        strategy, rung = self._strategies[key], key[1]
        ref = strategy.ref(rung)
        version = standing.version if standing is not None else None
        self._note_alias(key, standing)
        if version is None:
            why = self.strayed[key].reason if key in self.strayed else "no version was promoted to it"
            self.candidates[key] = Candidate(None, f"{ref} stands for no version: {why}")
            self.refusals.pop(key, None)
            if rung != "challenger":  # most of the time none stands there, and nothing is amiss
                self._count_missing(key, why)
            return
        current = self.candidates.get(key)
        if current is not None and current.model is not None and current.model.identity.model_version == version:
            return
        try:
            model = await self._for_strategy(strategy, rung, version)
        except ModelRefusedError as refused:
            self.refusals[key] = Refusal(version, str(refused))
            self.candidates.pop(key, None)
            self._count_missing(key, f"{version}: {refused}")
        else:
            self.candidates[key] = Candidate(model, f"{ref} stands for version {version}")
            self.refusals.pop(key, None)
            self._missed.pop(key, None)
            if self._counter is not None:
                self._counter.model_loaded(strategy.name)

    def _tell_answered(self, *, well: bool) -> None:
        if self._counter is not None:
            self._counter.registry_answered(well=well)

    def _count_missing(self, key: StrategyKey, why: str) -> None:
        if self._counter is not None and self._missed.get(key) != why:
            self._counter.model_missing(key[0])
        self._missed[key] = why

    def _note_alias(self, key: StrategyKey, standing: Standing | None) -> None:
        if standing is None or standing.objection is None or standing.named is None:
            self.strayed.pop(key, None)  # an alias that was taken away names nothing to refuse; the ledger notes it
        else:
            self.strayed[key] = Refusal(standing.named, standing.objection)

    async def _for_strategy(self, strategy: StrategySpec, rung: Alias, version: str) -> LoadedModel:
        """Give a version if it may run, can be proved, and is what the strategy trades."""
        name = strategy.model_name
        reason = await asyncio.to_thread(self._may_run, name, version, rung)
        if reason is not None:
            raise ModelRefusedError(reason)
        proved = await self._load(name, version)
        other = disagreement(proved.sidecar, version, strategy)
        if other is None and rung == "live":
            other = not_as_judged(proved.sidecar, version, strategy)
        if other is not None:
            raise ModelRefusedError(other)
        if not proved.sidecar.label_identity:
            _log.warning(
                "model_of_an_older_sidecar",
                strategy=strategy.name,
                version=version,
                consequence="it says no more of its label than the horizon, so only that was compared",
            )
        return proved.model

    # --- versions -------------------------------------------------------------------------------------------------

    async def _load(self, name: str, version: str) -> _Proved:
        key = (name, version)
        if key in self._unloadable:
            raise ModelRefusedError(self._unloadable[key])
        if key not in self._proved:
            try:
                self._proved[key] = await asyncio.to_thread(self._fetch_and_prove, name, version)
            except ModelRefusedError as refused:
                self._unloadable[key] = str(refused)
                raise
        return self._proved[key]

    def _fetch_and_prove(self, name: str, version: str) -> _Proved:
        sidecar, files = self._source.fetch(name, version)
        changed = self._content_objection(name, version) if self._content_objection is not None else None
        if changed is not None:
            raise TamperedModel(changed)
        written = sidecar_bytes(sidecar)
        proved = self._prove(written, sidecar, files, version)
        if self._kept is not None:
            try:
                self._kept.keep(name, version, written, files)
            except OSError as failure:
                _log.warning("model_files_not_kept", model=name, version=version, reason=str(failure))
        return proved

    def _prove_kept(self, name: str, version: str, sidecar_sha256: str) -> _Proved | None:
        """Prove a version by the files kept here; None if they are not here, or not what the log says."""
        try:
            kept = self._kept.read(name, version) if self._kept is not None else None
            if kept is None:
                return None
            written, files = kept
            if sha256_of(written) != sidecar_sha256:
                raise TamperedModel("their sidecar is not the one that the log names")
            return self._prove(written, Sidecar.model_validate_json(written), files, version)
        except (ModelRefusedError, OSError, ValueError) as failure:
            _log.warning("kept_model_files_passed_over", model=name, version=version, reason=str(failure))
            return None

    def _prove(self, written: bytes, sidecar: Sidecar, files: Mapping[str, bytes], version: str) -> _Proved:
        model = prove(sidecar, files, version, self._bar_minutes)
        return _Proved(replace(model, sidecar_sha256=sha256_of(written)), sidecar)


def build_loader(
    settings: Settings,
    source: Registry,
    ledger: PromotionLedger,
    brokers: Sequence[Broker] = ("paper",),
    counter: LoadCounter | None = None,
) -> ModelLoader:
    """Build the loader of a process's strategies; what another left under way on their rungs, its looks settle."""
    command = of_home(settings.alpha_panda_home)

    def standings(name: str) -> Mapping[Alias, Standing]:
        return reconcile(source, ledger, name, by="strategy runner", now_ns=time.time_ns(), command=command)

    def objection(name: str, version: str, rung: Alias) -> str | None:
        return may_run(source.version(name, version), ledger, rung)

    def changed(name: str, version: str) -> str | None:
        return content_objection(source.version(name, version), ledger)

    return ModelLoader(
        source,
        standings,
        objection,
        settings.strategies,
        brokers=brokers,
        bar_minutes=settings.market.bar_minutes,
        poll_seconds=settings.mlflow.poll_seconds,
        content_objection=changed,
        kept=ModelFiles(settings.alpha_panda_home / "models"),
        counter=counter,
    )
