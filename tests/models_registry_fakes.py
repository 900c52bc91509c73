"""A registry in memory: what promotion and runners need of one, with the same refusals as the real one."""

from __future__ import annotations

from dataclasses import replace

from models_registry.ledger import PromotionLedger
from models_registry.ledger_entries import LedgerEntry
from models_registry.packing import Packed, load
from models_registry.refs import Alias, ModelRef
from models_registry.refusals import (
    ARTIFACT_FILES,
    OUT_OF_FOLD_FILE,
    SIDECAR_FILE,
    TamperedModel,
    UnknownModelVersion,
    sha256_of,
    verify_digests,
)
from models_registry.registry import SIDECAR_TAG, VersionInfo, tags_of
from models_registry.sidecar import Sidecar, sidecar_bytes


def stand(ledger: PromotionLedger, name: str, alias: Alias, version: str, *, override: bool = False) -> None:
    """Let a version stand on an empty rung, by the ledger alone: no gate is asked and no alias moves."""
    entry = LedgerEntry(
        at_ns=1, model_name=name, alias=alias, from_version=None, to_version=version, action="promote", by="asha",
        reason="a test", override=override, phase="intent", refers_to=0,
    )  # fmt: skip
    ledger.settle(ledger.append(entry), "done", by="asha", at_ns=1, act=lambda: None)


class InMemoryRegistry:
    def __init__(self) -> None:
        self.infos: dict[tuple[str, str], VersionInfo] = {}
        self.files: dict[tuple[str, str], dict[str, bytes]] = {}
        self.held: dict[tuple[str, Alias], str] = {}

    def register(self, packed: Packed, sidecar: Sidecar, description="", plots=None, run_name="", tags=None) -> str:
        load(packed.files, sidecar, expected_feature_schema_hash=sidecar.feature_schema_hash)
        version = str(1 + sum(name == sidecar.model_name for name, _ in self.infos))
        key = (sidecar.model_name, version)
        sidecar_json = sidecar_bytes(sidecar)
        self.files[key] = dict(packed.files) | {SIDECAR_FILE: sidecar_json}
        self.infos[key] = VersionInfo(
            name=key[0],
            version=version,
            aliases=(),
            tags=tags_of(sidecar, sidecar_json) | dict(tags or {}),
            created_at_ns=1,
            run_id="run",
            source="memory",
            description=description,
        )
        return version

    def names(self) -> tuple[str, ...]:
        return tuple(sorted({name for name, _ in self.infos}))

    def versions(self, name: str) -> tuple[VersionInfo, ...]:
        found = [self.version(*key) for key in self.infos if key[0] == name]
        return tuple(sorted(found, key=lambda info: int(info.version), reverse=True))

    def resolve(self, ref: ModelRef) -> str | None:
        return self.held.get((ref.name, ref.alias))

    def aliases(self, name: str) -> dict[Alias, str]:
        return {alias: version for (n, alias), version in self.held.items() if n == name}

    def version(self, name: str, version: str) -> VersionInfo:
        if (name, version) not in self.infos:
            raise UnknownModelVersion(f"{name} has no version {version}")
        held = tuple(alias for (n, alias), v in self.held.items() if (n, v) == (name, version))
        return replace(self.infos[name, version], aliases=held)

    def sidecar(self, name: str, version: str) -> Sidecar:
        info = self.version(name, version)
        value = self.files[name, version][SIDECAR_FILE]
        if sha256_of(value) != info.tags[SIDECAR_TAG]:
            raise TamperedModel("the sidecar was changed after registration")
        return Sidecar.model_validate_json(value)

    def fetch(self, name: str, version: str) -> tuple[Sidecar, dict[str, bytes]]:
        sidecar = self.sidecar(name, version)
        files = {file: self.files[name, version][file] for file in ARTIFACT_FILES}
        verify_digests(files, sidecar.artifact_sha256)
        return sidecar, files

    def out_of_fold(self, name: str, version: str) -> bytes | None:
        return self.files[name, version].get(OUT_OF_FOLD_FILE)

    def set_alias(self, name: str, alias: Alias, version: str) -> None:
        if (name, version) not in self.infos:
            raise UnknownModelVersion(f"{name} has no version {version}")
        self.held[name, alias] = version

    def delete_alias(self, name: str, alias: Alias) -> None:
        self.held.pop((name, alias), None)

    def set_description(self, name: str, version: str, description: str) -> None:
        self.infos[name, version] = replace(self.infos[name, version], description=description)
