"""The model registry on an MLflow server: writing through MLflow's client, reading over plain REST.

Live processes poll aliases and fetch versions with ``requests`` alone; importing MLflow there would cost 190 MB and
seconds. A read never deserialises a model: it gives bytes that were compared with the sidecar, and the sidecar with the
digest in the version's tag.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, cast, get_args
from urllib.parse import quote, unquote, urlsplit

import requests
from pydantic import ValidationError

from models_registry.addresses import version_page, without_credentials
from models_registry.refs import Alias, GateVerdict, ModelRef
from models_registry.refusals import (
    ARTIFACT_FILES,
    OUT_OF_FOLD_FILE,
    SIDECAR_FILE,
    TamperedModel,
    UnknownModelVersion,
    sha256_of,
    verify_digests,
)
from models_registry.sidecar import Sidecar, sidecar_bytes

if TYPE_CHECKING:
    from models_registry.packing import Packed

_API: Final = "/api/2.0/mlflow"
_TIMEOUT_S: Final = (3.05, 30.0)
"""Seconds to connect, seconds between bytes: no caller waits for ever."""
SIDECAR_TAG: Final = "sidecar_sha256"


class RegistryUnavailable(Exception):
    """The registry did not answer, or not as an MLflow server does; the message names the URL and what to do."""


@dataclass(frozen=True)
class VersionInfo:
    """What the registry says about a version, without reading its files."""

    name: str
    version: str
    aliases: tuple[Alias, ...]
    tags: dict[str, str]
    created_at_ns: int
    run_id: str
    source: str
    description: str = field(default="", repr=False)

    def gate_verdict(self, rung: Alias) -> GateVerdict | None:
        """Verdict of the gate for a rung; None if no gate has judged it."""
        verdict = self.tags.get(f"gate.{rung}")
        return cast("GateVerdict", verdict) if verdict in get_args(GateVerdict) else None

    @property
    def feature_schema_hash(self) -> str:
        """Hash of the features that the version was trained on; empty if it was not registered by Alpha Panda."""
        return self.tags.get("feature_schema_hash", "")


class Registry:
    """Names, versions and aliases of models on one MLflow server.

    Parameters
    ----------
    tracking_uri : str
        ``http(s)://host:port`` of a server that serves artifacts (the default of ``mlflow server``).
    """

    def __init__(self, tracking_uri: str) -> None:
        if urlsplit(tracking_uri).scheme not in {"http", "https"}:
            raise ValueError(
                f"mlflow.tracking_uri must be the http(s) address of an MLflow server, got {tracking_uri!r}; "
                "live processes read the registry over REST"
            )
        self.tracking_uri = tracking_uri.rstrip("/")
        self._session = requests.Session()
        # A proxy set for the internet must not swallow a call to this machine.
        self._session.trust_env = urlsplit(tracking_uri).hostname not in {"127.0.0.1", "localhost", "::1"}

    # --- reading ---

    def resolve(self, ref: ModelRef) -> str | None:
        """Version that an alias points to; None if the model or the alias does not exist."""
        return self.aliases(ref.name).get(ref.alias)

    def aliases(self, name: str) -> dict[Alias, str]:
        """Versions of a model by the aliases that name them; empty if the model does not exist."""
        found = self._get("/registered-models/get", name=name)
        if found is None:
            return {}
        rungs = get_args(Alias)
        listed = found["registered_model"].get("aliases", [])
        return {item["alias"]: str(item["version"]) for item in listed if item["alias"] in rungs}

    def version(self, name: str, version: str) -> VersionInfo:
        """Tags, aliases and gate verdicts of a version.

        Raises
        ------
        UnknownModelVersion
            If the registry holds no such version.
        RegistryUnavailable
            If the server does not answer.
        """
        found = self._get("/model-versions/get", name=name, version=version)
        if found is None:
            raise UnknownModelVersion(
                f"{name} has no version {version} in the registry at {self._shown}; "
                f"it has {', '.join(v.version for v in self.versions(name)) or 'none'}"
            )
        return _version_info(found["model_version"], self.aliases(name))

    def versions(self, name: str) -> tuple[VersionInfo, ...]:
        """All versions of a model, newest first; empty if there is no such model."""
        escaped = name.replace("'", "")
        pages = self._pages("/model-versions/search", "model_versions", filter=f"name='{escaped}'")
        aliases = self.aliases(name)
        found = [_version_info(item, aliases) for item in pages]
        return tuple(sorted(found, key=lambda info: int(info.version), reverse=True))

    def names(self) -> tuple[str, ...]:
        """Names of all registered models."""
        return tuple(sorted(item["name"] for item in self._pages("/registered-models/search", "registered_models")))

    def sidecar(self, name: str, version: str) -> Sidecar:
        """The sidecar of a version, compared with the digest in the version's tag.

        Raises
        ------
        TamperedModel
            If it is missing, unreadable, not what was registered, or names another model.
        """
        return self._sidecar(self.version(name, version))[0]

    def fetch(self, name: str, version: str) -> tuple[Sidecar, dict[str, bytes]]:
        """The sidecar and the artifact files of a version, all digests verified; nothing is deserialised.

        Raises
        ------
        TamperedModel, UnknownModelVersion, RegistryUnavailable
        """
        sidecar, folder = self._sidecar(self.version(name, version))
        files = {file: self._artifact(folder, file) for file in ARTIFACT_FILES}
        verify_digests(files, sidecar.artifact_sha256)
        return sidecar, files

    def out_of_fold(self, name: str, version: str) -> bytes | None:
        """What `out_of_fold.load_out_of_fold` reads of a version, its digest verified; None if it has no such file.

        Raises
        ------
        TamperedModel, UnknownModelVersion, RegistryUnavailable
        """
        sidecar, folder = self._sidecar(self.version(name, version))
        expected = sidecar.artifact_sha256.get(OUT_OF_FOLD_FILE)
        if expected is None:
            return None
        value = self._artifact(folder, OUT_OF_FOLD_FILE)
        if sha256_of(value) != expected:
            raise TamperedModel(
                f"{OUT_OF_FOLD_FILE} of {name} v{version} has SHA-256 {sha256_of(value)[:16]}…, the sidecar says "
                f"{expected[:16]}…: it was changed after registration. Train and register the model again."
            )
        return value

    def url_of(self, name: str, version: str) -> str:
        """Page of a version in the MLflow interface."""
        return version_page(self.tracking_uri, name, version)

    # --- aliases and tags ---

    def set_alias(self, name: str, alias: Alias, version: str) -> None:
        """Point an alias at a version. Only ``promotion.py`` calls this: an alias without a ledger entry is refused."""
        self._send("POST", "/registered-models/alias", {"name": name, "alias": alias, "version": version})

    def delete_alias(self, name: str, alias: Alias) -> None:
        """Take an alias away; what runs under it goes on until it is stopped."""
        self._send("DELETE", "/registered-models/alias", {"name": name, "alias": alias})

    def set_description(self, name: str, version: str, description: str) -> None:
        """Replace the markdown of a version's page."""
        self._send("PATCH", "/model-versions/update", {"name": name, "version": version, "description": description})

    # --- writing ---

    def register(  # noqa: PLR0917
        self,
        packed: Packed,
        sidecar: Sidecar,
        description: str,
        plots: Mapping[str, bytes] | None = None,
        run_name: str = "",
        tags: Mapping[str, str] | None = None,
    ) -> str:
        """Register a version of ``sidecar.model_name`` and give its version; sets no alias.

        Writes one MLflow run with parameters, metrics and plots, and one logged model that holds MLflow's own skops
        file (for its interface) beside our four files, which are what the digests stand for.

        Parameters
        ----------
        packed : Packed
            From ``packing.pack``.
        sidecar : Sidecar
            From ``version.build_sidecar``.
        description : str
            Markdown for a person; where it names a plot, the plot's address is put.
        plots : mapping of bytes, optional
            PNG by file name.
        run_name : str, optional
            Name of the MLflow run; default: the model's name.
        tags : mapping of str, optional
            Further tags, for example ``dagster_run_id``.

        Raises
        ------
        ModelRefusedError
            If the files are not those that the sidecar names, or live could not run them; or if the server gives back
            others than were written, and then no version was made of them.
        UnwritableSidecar
            If the sidecar could not be read back, because a figure in it is no finite number.
        RegistryUnavailable
            If the server does not answer.
        """
        from models_registry import publishing
        from models_registry.packing import load

        load(packed.files, sidecar, expected_feature_schema_hash=sidecar.feature_schema_hash)
        sidecar_json = sidecar_bytes(sidecar)
        self._get("/registered-models/search", max_results=1)  # fails in seconds where MLflow's client retries minutes
        files = dict(packed.files) | {SIDECAR_FILE: sidecar_json}
        marks = tags_of(sidecar, sidecar_json) | dict(tags or {})
        shown = plots or {}
        mlflow_run, model_id = publishing.log(
            self.tracking_uri, files, sidecar, plots=shown, run_name=run_name or sidecar.model_name, tags=marks
        )
        self._read_back(model_id, files, sidecar)
        version = publishing.add_version(
            self.tracking_uri,
            sidecar,
            description=description,
            plots=shown,
            run_id=mlflow_run,
            model_id=model_id,
            tags=marks,
        )
        self.sidecar(sidecar.model_name, version)
        return version

    # --- REST ---

    @property
    def _shown(self) -> str:
        return without_credentials(self.tracking_uri)

    def _read_back(self, model_id: str, files: Mapping[str, bytes], sidecar: Sidecar) -> None:
        """Compare what the server gives back with what was written, before there is a version of it."""
        what = f"the files of {sidecar.model_name}"
        folder = self._folder_of(model_id, what)
        for file, written in files.items():
            if self._artifact(folder, file) != written:
                raise TamperedModel(
                    f"{file} of {sidecar.model_name} reads back from {self._shown} as something else than was written: "
                    "no version was made of it. Look at the server's artifact store, and register again."
                )

    def _sidecar(self, info: VersionInfo) -> tuple[Sidecar, str]:
        folder = self._artifact_folder(info)
        value = self._artifact(folder, SIDECAR_FILE)
        registered = info.tags.get(SIDECAR_TAG)
        if sha256_of(value) != registered:
            raise TamperedModel(
                f"the sidecar of {info.name} v{info.version} has SHA-256 {sha256_of(value)[:16]}…, its version tag "
                f"says {(registered or 'nothing')[:16]}…: it was changed after registration. Promote another version."
            )
        try:
            sidecar = Sidecar.model_validate_json(value)
        except ValidationError as error:
            raise TamperedModel(f"the sidecar of {info.name} v{info.version} cannot be read: {error}") from error
        if sidecar.model_name != info.name:
            raise TamperedModel(f"{info.name} v{info.version} holds the files of the model {sidecar.model_name}")
        return sidecar, folder

    def _artifact_folder(self, info: VersionInfo) -> str:
        scheme, _, model_id = info.source.partition(":/")
        if scheme != "models" or not model_id or SIDECAR_TAG not in info.tags:
            raise TamperedModel(
                f"{info.name} v{info.version} was not registered by Alpha Panda (its source is {info.source!r}, tags "
                f"{sorted(info.tags)}); train it through the platform so that it carries a sidecar"
            )
        return self._folder_of(model_id.strip("/"), f"the files of {info.name} v{info.version}")

    def _folder_of(self, model_id: str, what: str) -> str:
        found = self._get(f"/logged-models/{quote(model_id, safe='')}")
        if found is None:
            raise TamperedModel(f"{what} were deleted from the registry")
        uri = urlsplit(found["model"]["info"]["artifact_uri"])
        if uri.scheme != "mlflow-artifacts":
            raise RegistryUnavailable(
                f"the server at {self._shown} does not serve artifacts ({uri.scheme}:…); start it with "
                "`mlflow server --serve-artifacts`, which is its default"
            )
        return quote(uri.path.strip("/"))

    def _artifact(self, folder: str, file: str) -> bytes:
        path = f"/api/2.0/mlflow-artifacts/artifacts/{folder}/extra_files/{quote(file)}"
        response = self._request("GET", path)
        # The server answers 500 for a file that is not on its disk, and for a trouble of its own.
        if response.status_code in {400, 404} or (response.status_code == 500 and not self._lists(folder, file)):
            raise TamperedModel(
                f"{file} cannot be read from the registry ({response.status_code} at {self._shown}{path}): "
                "the version is incomplete, promote another one or train again"
            )
        self._expect_ok(response, path)
        return response.content

    def _lists(self, folder: str, file: str) -> bool:
        path = "/api/2.0/mlflow-artifacts/artifacts"
        response = self._request("GET", path, params={"path": f"{unquote(folder)}/extra_files"})
        self._expect_ok(response, path)
        return file in {item["path"] for item in response.json().get("files", [])}

    def _pages(self, path: str, key: str, **query: str) -> Iterator[dict[str, Any]]:
        token = ""
        while True:
            page = self._get(path, max_results=200, **query, **({"page_token": token} if token else {})) or {}
            yield from page.get(key, [])
            token = page.get("next_page_token", "")
            if not token:
                return

    def _get(self, path: str, **query: str | int) -> dict[str, Any] | None:
        response = self._request("GET", _API + path, params=query)
        if response.status_code == 404 and "RESOURCE_DOES_NOT_EXIST" in response.text:
            return None
        self._expect_ok(response, path)
        try:
            return cast("dict[str, Any]", response.json())
        except requests.exceptions.JSONDecodeError as error:
            raise RegistryUnavailable(f"{self._shown}{_API}{path} did not answer as MLflow does: {error}") from error

    def _send(self, method: str, path: str, body: dict[str, str]) -> None:
        response = self._request(method, _API + path, json=body)
        if response.status_code == 404:
            raise UnknownModelVersion(f"{body} is not in the registry at {self._shown}: {response.text[:200]}")
        self._expect_ok(response, path)

    def _request(self, method: str, path: str, **arguments: Any) -> requests.Response:
        try:
            return self._session.request(method, self.tracking_uri + path, timeout=_TIMEOUT_S, **arguments)
        except requests.RequestException as error:
            raise RegistryUnavailable(
                f"the model registry at {self._shown} did not answer ({type(error).__name__}). Start it with "
                "`alpha-panda up`, or correct mlflow.tracking_uri."
            ) from error

    def _expect_ok(self, response: requests.Response, path: str) -> None:
        if not response.ok:
            raise RegistryUnavailable(
                f"{self._shown}{path} answered {response.status_code}: {response.text[:200]}. Is this an MLflow 3 "
                "server, and may this process use it?"
            )


def _version_info(item: Mapping[str, Any], aliases: Mapping[Alias, str]) -> VersionInfo:
    version = str(item["version"])
    return VersionInfo(
        name=item["name"],
        version=version,
        aliases=tuple(alias for alias in get_args(Alias) if aliases.get(alias) == version),
        tags={tag["key"]: tag["value"] for tag in item.get("tags", [])},
        created_at_ns=int(item["creation_timestamp"]) * 1_000_000,
        run_id=item.get("run_id", ""),
        source=item.get("source", ""),
        description=item.get("description", ""),
    )


def tags_of(sidecar: Sidecar, sidecar_json: bytes) -> dict[str, str]:
    """Tags of a version: what a poll must know without reading files."""
    gates = (gate for gate in (sidecar.gate, sidecar.live_gate) if gate is not None)
    return {f"gate.{gate.rung}": "passed" if gate.passed else "failed" for gate in gates} | {
        SIDECAR_TAG: sha256_of(sidecar_json),
        "feature_schema_hash": sidecar.feature_schema_hash,
        "identity": sidecar.identity,
    }
