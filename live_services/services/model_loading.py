"""Model loading: follows the aliases, proves versions off the event loop, and hands over what may run.

The alias is the truth and is polled; a `models.promoted` event only makes the next poll come at once. A version is
proved (gate, digests, structure, feature schema, golden rows) before a strategy runner sees it, and a strategy gets it
only if it is what that strategy trades: its features, clock and label. What is refused changes nothing: the version
that runs goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import structlog
from sqlalchemy.exc import SQLAlchemyError

from feature_store.features.schema import UnknownFeature, feature_schema
from live_services.domain.strategy.desk import LoadedModel
from live_services.settings import Settings
from models_registry.agreement import disagreement
from models_registry.ledger import LedgerError, PromotionLedger
from models_registry.packing import FeatureSchemaMismatch, ModelRefusedError, load
from models_registry.promotion import content_objection
from models_registry.refs import Alias, ModelIdentity, ModelRef
from models_registry.refusals import TamperedModel
from models_registry.registry import Registry, RegistryUnavailable
from models_registry.sidecar import Sidecar
from models_registry.specification import StrategySpec

_log = structlog.get_logger(__name__)

_FIRST_TRIES: Final = 5  # a registry that starts beside us needs a moment; then the session starts without a model
_FIRST_WAIT_SECONDS: Final = 1.0

VersionKey = tuple[str, str]
"""Model name and version."""
GateQuestion = Callable[[str, str, Alias], str | None]
"""``(name, version, rung)`` → None if the version may run there, else why not."""

ContentQuestion = Callable[[str, str], str | None]
"""``(name, version)`` → None if what the registry holds is what the ledger recorded, else how it differs."""


class ModelSource(Protocol):
    """What the loader needs of the registry."""

    def resolve(self, ref: ModelRef, /) -> str | None:
        """Give the version an alias names now."""
        ...

    def fetch(self, name: str, version: str, /) -> tuple[Sidecar, Mapping[str, bytes]]:
        """Give a version's sidecar and artifact files."""
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
    """A version that an alias names and that must not run."""

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
    )


@dataclass(frozen=True, slots=True)
class _Proved:
    model: LoadedModel
    sidecar: Sidecar


class ModelLoader:
    """Keeps, for every strategy, the model it should run; shared by all tasks of a process.

    Parameters
    ----------
    source
        The registry.
    may_run
        Whether a version may run on a rung: its gate passed, or the ledger overrules it.
    strategies
        Whose aliases to follow.
    bar_minutes
        Length of the bars this process computes features on.
    poll_seconds
        How often the aliases are looked at.
    content_objection
        Whether a version that was fetched is not what the ledger recorded; None asks nobody. A restart loads what the
        log names without asking ``may_run``, so this is all that stands between it and a version registered anew.
    """

    def __init__(
        self,
        source: ModelSource,
        may_run: GateQuestion,
        strategies: Sequence[StrategySpec],
        *,
        bar_minutes: int,
        poll_seconds: float,
        content_objection: ContentQuestion | None = None,
    ) -> None:
        self.candidates: dict[str, Candidate] = {}
        """By strategy; absent until the registry answered about it, or while its first version is refused."""
        self.refusals: dict[str, Refusal] = {}
        """By strategy: the version its alias names now, if it is refused."""
        self.outage = ""
        """Why the registry or the ledger could not be asked the last time; empty while they answer."""
        self._source = source
        self._may_run = may_run
        self._content_objection = content_objection
        self._strategies = tuple(strategies)
        self._bar_minutes = bar_minutes
        self._poll_seconds = poll_seconds
        self._proved: dict[VersionKey, _Proved] = {}
        self._unloadable: dict[VersionKey, str] = {}
        self._nudged = asyncio.Event()
        self._refreshing = asyncio.Lock()
        self._starting = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    # --- what a strategy runner asks ------------------------------------------------------------------------------

    @property
    def history_sessions(self) -> int:
        """Sessions before a session that the models loaded so far need to be warm from its first bar; 0 without any."""
        return max((proved.model.schema.history_sessions for proved in self._proved.values()), default=0)

    def loaded(self, name: str, version: str) -> LoadedModel:
        """Give a version that was proved before.

        Raises
        ------
        ModelUnavailable
            If it was not.
        """
        try:
            return self._proved[name, version].model
        except KeyError:
            raise ModelUnavailable(f"{name} version {version} was not loaded before the session's records") from None

    def check(self) -> None:
        """Raise what ended the background loop, if anything did."""
        if self._task is not None and self._task.done() and not self._task.cancelled():
            self._task.result()

    def nudge(self) -> None:
        """Look at the aliases now, and look again at what could not be loaded."""
        self._unloadable.clear()
        self._nudged.set()

    async def require(self, name: str, version: str) -> None:
        """Load a version that the log names, whatever its alias or the strategies say now.

        Raises
        ------
        ModelUnavailable
            If it cannot be loaded.
        """
        try:
            await self._load(name, version)
        except (ModelRefusedError, RegistryUnavailable, LedgerError, OSError) as cause:
            raise ModelUnavailable(
                f"the log says that {name} version {version} traded in this session, but it cannot be loaded: "
                f"{str(cause).rstrip('.')}. "
                "Make the version available again; without it the session cannot be continued as it was"
            ) from cause

    async def start(self) -> None:
        """Look at the aliases once and go on in the background; a second call changes nothing."""
        async with self._starting:
            if self._task is None:
                await self._first_look()
                self._task = asyncio.create_task(self._follow(), name="model-loader")

    async def stop(self) -> None:
        """End the background loop."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _first_look(self) -> None:
        for waits_left in reversed(range(_FIRST_TRIES)):
            await self.refresh()
            if not self.outage or not waits_left:
                return
            await asyncio.sleep(_FIRST_WAIT_SECONDS)

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
        """Look at every strategy's alias, and prove what is new behind it."""
        async with self._refreshing:
            try:
                for strategy in self._strategies:
                    await self._refresh_one(strategy)
            except (RegistryUnavailable, LedgerError, OSError, SQLAlchemyError) as failure:
                if not self.outage:
                    _log.warning("model_registry_unreachable", reason=str(failure), running="goes on")
                self.outage = f"the model registry or the ledger does not answer: {failure}"
            else:
                self.outage = ""

    async def _refresh_one(self, strategy: StrategySpec) -> None:
        name, ref = strategy.name, strategy.ref("champion")
        version = await asyncio.to_thread(self._source.resolve, ref)
        if version is None:
            self.candidates[name] = Candidate(None, f"{ref} names no version")
            self.refusals.pop(name, None)
            return
        current = self.candidates.get(name)
        if current is not None and current.model is not None and current.model.identity.model_version == version:
            self.refusals.pop(name, None)
            return
        try:
            model = await self._for_strategy(strategy, version)
        except ModelRefusedError as refused:
            self.refusals[name] = Refusal(version, str(refused))
            if current is not None and current.model is None:
                self.candidates[name] = Candidate(None, f"{ref} names version {version}: {refused}")
        else:
            self.candidates[name] = Candidate(model, f"{ref} names version {version}")
            self.refusals.pop(name, None)

    async def _for_strategy(self, strategy: StrategySpec, version: str) -> LoadedModel:
        """Give a version if it may run, can be proved, and is what the strategy trades."""
        ref = strategy.ref("champion")
        reason = await asyncio.to_thread(self._may_run, ref.name, version, ref.alias)
        if reason is not None:
            raise ModelRefusedError(reason)
        proved = await self._load(ref.name, version)
        other = disagreement(proved.sidecar, version, strategy)
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
        return _Proved(prove(sidecar, files, version, self._bar_minutes), sidecar)


def build_loader(settings: Settings, source: Registry, may_run: GateQuestion) -> ModelLoader:
    """Build the loader of a process's strategies; what it fetches is compared with the ledger of the settings."""
    ledger = PromotionLedger(settings.ledger_url)

    def changed(name: str, version: str) -> str | None:
        return content_objection(source.version(name, version), ledger)

    return ModelLoader(
        source,
        may_run,
        settings.strategies,
        bar_minutes=settings.market.bar_minutes,
        poll_seconds=settings.mlflow.poll_seconds,
        content_objection=changed,
    )
