"""What every registry promises; run against the one in memory and against a real MLflow server."""

import pytest

from models_registry.out_of_fold import with_out_of_fold
from models_registry.packing import load
from models_registry.refs import ModelRef
from models_registry.refusals import OUT_OF_FOLD_FILE, TamperedModel, UnknownModelVersion
from models_registry.registry import Registry
from models_registry.sidecar import UnwritableSidecar
from tests.models_registry_fakes import InMemoryRegistry
from tests.models_registry_frames import FAILED_GATE, SCHEMA_HASH, packed, sidecar, trained


class RegistryContract:
    name: str

    def register(self, registry, **changes):
        return registry.register(
            packed(), sidecar(name=self.name, **changes), "# a model", tags={"dagster_run_id": "r1"}
        )

    def test_a_registered_version_can_be_fetched_and_loaded(self, registry):
        version = self.register(registry)
        record, files = registry.fetch(self.name, version)
        assert record == sidecar(name=self.name)
        assert record == registry.sidecar(self.name, version)
        assert files == packed().files
        load(files, record, expected_feature_schema_hash=SCHEMA_HASH)

    def test_what_a_version_said_out_of_fold_is_kept_with_it_and_a_live_load_leaves_it_out(self, registry):
        whole = with_out_of_fold(packed(), trained())
        record = sidecar(name=self.name).model_copy(update={"artifact_sha256": whole.sha256})
        version = registry.register(whole, record, "# a model")
        assert registry.out_of_fold(self.name, version) == whole.files[OUT_OF_FOLD_FILE]
        assert registry.fetch(self.name, version) == (record, packed().files)
        assert record.identity == sidecar(name=self.name).identity
        assert registry.out_of_fold(self.name, self.register(registry)) is None

    def test_the_text_of_a_page_can_be_replaced(self, registry):
        version = self.register(registry)
        registry.set_description(self.name, version, "# a model\n\n<!-- of today -->\n\nnow")
        assert registry.version(self.name, version).description == "# a model\n\n<!-- of today -->\n\nnow"

    def test_tags_tell_the_verdict_the_schema_and_the_origin(self, registry):
        info = registry.version(self.name, self.register(registry))
        assert info.gate_verdict("champion") == "passed"
        assert info.gate_verdict("live") == "failed"
        assert info.gate_verdict("challenger") is None
        assert info.feature_schema_hash == SCHEMA_HASH
        assert info.tags["identity"] == sidecar(name=self.name).identity
        assert "sidecar_sha256" in info.tags
        assert info.tags["dagster_run_id"] == "r1"
        assert info.description.startswith("# a model")
        assert info.created_at_ns > 0
        failed = registry.version(self.name, self.register(registry, gate_result=FAILED_GATE))
        assert failed.gate_verdict("champion") == "failed"

    def test_a_figure_that_is_no_number_is_refused_before_anything_is_written(self, registry):
        spoilt = sidecar(name="spoilt").model_copy(update={"buy_threshold": float("nan")})
        with pytest.raises(UnwritableSidecar, match=r"spoilt is not registered.*buy_threshold"):
            registry.register(packed(), spoilt, "# a model")
        assert "spoilt" not in registry.names()

    def test_registering_sets_no_alias(self, registry):
        assert registry.version(self.name, self.register(registry)).aliases == ()

    def test_an_alias_points_where_it_was_set_last(self, registry):
        first, second = self.register(registry), self.register(registry)
        champion = ModelRef(name=self.name, alias="champion")
        registry.set_alias(self.name, "champion", first)
        registry.set_alias(self.name, "champion", second)
        assert registry.resolve(champion) == second
        assert registry.version(self.name, second).aliases == ("champion",)
        assert registry.aliases(self.name)["champion"] == second
        registry.delete_alias(self.name, "champion")
        assert registry.resolve(champion) is None

    def test_versions_come_newest_first(self, registry):
        added = [self.register(registry), self.register(registry)]
        assert [info.version for info in registry.versions(self.name)][:2] == added[::-1]
        assert self.name in registry.names()

    def test_what_is_not_there_is_said_not_to_be_there(self, registry):
        assert registry.resolve(ModelRef(name="nobody", alias="champion")) is None
        assert registry.versions("nobody") == ()
        with pytest.raises(UnknownModelVersion, match="nobody"):
            registry.version("nobody", "1")
        self.register(registry)
        with pytest.raises(UnknownModelVersion, match="no version 999"):
            registry.fetch(self.name, "999")

    def test_files_that_are_not_the_sidecars_are_not_registered(self, registry):
        import dataclasses

        wrong = dataclasses.replace(packed(), files=dict(packed().files) | {"flat.npz": b"x"})
        with pytest.raises(TamperedModel, match=r"flat\.npz"):
            registry.register(wrong, sidecar(name=self.name), "")

    def test_a_version_that_live_could_not_run_is_refused_before_anything_is_written(self, registry):
        record = sidecar(name="unrunnable")
        narrower = record.model_copy(update={"feature_schema": record.feature_schema[1:]})
        with pytest.raises(TamperedModel, match="has 4 features, the sidecar names 3"):
            registry.register(packed(), narrower, "")
        assert "unrunnable" not in registry.names()


class TestInMemoryRegistry(RegistryContract):
    name = "contract"

    @pytest.fixture
    def registry(self):
        return InMemoryRegistry()


@pytest.mark.integration
class TestMlflowRegistry(RegistryContract):
    name = "contract"

    @pytest.fixture
    def registry(self, mlflow_server):
        return Registry(mlflow_server.url)
