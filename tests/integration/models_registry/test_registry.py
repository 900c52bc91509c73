import json
import re
import subprocess
import sys

import pytest
import requests
from typer.testing import CliRunner

from live_services.__main__ import app
from models_registry.description import describe
from models_registry.ledger import PromotionLedger
from models_registry.pictures import plots
from models_registry.promotion import promote, rollback
from models_registry.refs import ModelRef
from models_registry.refusals import TamperedModel
from models_registry.registry import Registry, RegistryUnavailable
from models_registry.run_rule import may_run
from tests.models_registry_frames import SESSIONS_PNL, gate, packed, sidecar, trained

pytestmark = pytest.mark.integration

READER = """
import sys
from models_registry.registry import Registry
from models_registry.refs import ModelRef
from models_registry.packing import load
registry = Registry(sys.argv[1])
version = registry.resolve(ModelRef(name="reader", alias="challenger"))
sidecar, files = registry.fetch("reader", version)
load(files, sidecar, expected_feature_schema_hash=sidecar.feature_schema_hash)
assert registry.version("reader", version).gate_verdict("champion") == "passed"
heavy = {"mlflow", "skops", "sklearn", "matplotlib", "pandas"} & set(sys.modules)
assert not heavy, heavy
sys.stdout.write("read " + version)
"""


@pytest.fixture
def registry(mlflow_server):
    return Registry(mlflow_server.url)


def register(registry, name, **changes):
    shown = plots(trained().oof, SESSIONS_PNL, generated=True, judged=False)
    return registry.register(packed(), sidecar(name=name, **changes), describe(sidecar(name=name), shown=shown), shown)


def test_a_process_that_only_reads_never_imports_mlflow(registry):
    registry.set_alias("reader", "challenger", register(registry, "reader"))
    done = subprocess.run(
        [sys.executable, "-c", READER, registry.tracking_uri], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.stdout == "read 1", done.stderr


def test_the_description_and_its_plots_can_be_opened(registry):
    version = register(registry, "described")
    text = registry.version("described", version).description
    images = re.findall(r"!\[[^]]+]\(([^)]+)\)", text)
    assert len(images) == 2
    for image in images:  # relative to the page, so they outlive the server's port
        response = requests.get(f"{registry.tracking_uri}/{image}", timeout=10)
        assert response.content.startswith(b"\x89PNG"), image


def test_the_page_of_a_version_opens_in_the_machine_learning_view(registry):
    assert registry.url_of("momentum", "3").endswith("/#/models/momentum/versions/3?workflowType=machine_learning")


def test_the_tables_of_mlflow_hold_data_set_parameters_and_metrics(registry):
    import mlflow

    client = mlflow.MlflowClient(registry.tracking_uri, registry.tracking_uri)
    info = registry.version("tabled", register(registry, "tabled"))
    record = sidecar(name="tabled")
    run = client.get_run(info.run_id)
    (used,) = run.inputs.dataset_inputs
    assert (used.dataset.name, used.dataset.digest) == ("SYNTHETIC test time:60s", record.training_data_digest[:36])
    assert record.lineage.sessions == json.loads(used.dataset.source)["sessions"]
    (model,) = client.search_logged_models(
        [run.info.experiment_id],
        filter_string="metrics.auc > 0.5",
        order_by=[{"field_name": "metrics.trade_net_expectancy_bps", "ascending": False}],
    )
    assert f"models:/{model.model_id}" == info.source
    assert {metric.key: metric.value for metric in model.metrics} == record.metrics
    assert {metric.dataset_name for metric in model.metrics} == {used.dataset.name}
    assert run.data.metrics["auc"] == record.metrics["auc"]
    assert len(client.get_metric_history(info.run_id, "fold_auc")) == len(record.folds)
    assert model.params["training_data_digest"] == record.training_data_digest
    folder = model.artifact_location.removeprefix("mlflow-artifacts:")
    mlmodel = requests.get(f"{registry.tracking_uri}/api/2.0/mlflow-artifacts/artifacts{folder}/MLmodel", timeout=10)
    assert [column.name for column in record.feature_schema] == re.findall(r'"name": "([^"]+)"', mlmodel.text)
    about = client.get_registered_model("tabled").description
    assert not set(about) & set("*`#[")


def test_a_server_that_gives_back_other_bytes_makes_no_version(registry, monkeypatch):
    from models_registry import publishing

    written = publishing.log

    def spoilt(uri, files, *arguments, **options):
        return written(uri, dict(files) | {"golden.npz": b"lost on the way"}, *arguments, **options)

    monkeypatch.setattr(publishing, "log", spoilt)
    with pytest.raises(TamperedModel, match=r"golden\.npz of lossy reads back .* no version was made of it"):
        register(registry, "lossy")
    assert registry.versions("lossy") == ()


@pytest.mark.parametrize("file", ["model.skops", "flat.npz", "golden.npz", "sidecar.json"])
@pytest.mark.parametrize("change", ["flip", "delete"])
def test_a_file_changed_on_the_servers_disk_is_refused(registry, mlflow_server, file, change):
    name = f"broken_{change}_{file.partition('.')[0]}"
    version = register(registry, name)
    stored = [p for p in mlflow_server.artifacts.rglob(file) if p.parent.name == "extra_files"]
    newest = max(stored, key=lambda path: path.stat().st_mtime_ns)
    if change == "flip":
        value = bytearray(newest.read_bytes())
        value[len(value) // 2] ^= 1
        newest.write_bytes(bytes(value))
    else:
        newest.unlink()
    with pytest.raises(TamperedModel, match=file.replace(".json", "")):
        registry.fetch(name, version)


def test_a_file_that_the_server_has_and_cannot_give_makes_no_version_a_tampered_one(registry, monkeypatch):
    version = register(registry, "stuck")
    ask = requests.Session.request

    def in_trouble(session, method, url, **arguments):
        answer = ask(session, method, url, **arguments)
        if url.endswith("/flat.npz"):
            answer.status_code = 500
        return answer

    monkeypatch.setattr(requests.Session, "request", in_trouble)
    with pytest.raises(RegistryUnavailable, match="answered 500"):
        registry.fetch("stuck", version)


def test_a_promotion_moves_the_real_alias_and_a_rollback_moves_it_back(registry, tmp_path):
    ledger = PromotionLedger(f"sqlite:///{tmp_path}/ledger.sqlite")
    announced = []
    first = register(registry, "climber")
    second = register(registry, "climber", gate_result=gate(champion_version=first))
    arguments = {"promoted_by": "tests", "reason": "test", "now_ns": 1, "announce": announced.append}
    for version in (first, second):
        promote(registry, ledger, "climber", version, "champion", override=None, **arguments)
        assert registry.resolve(ModelRef(name="climber", alias="champion")) == version
        assert may_run(registry.version("climber", version), ledger, "champion") is None
    rollback(registry, ledger, "climber", "champion", **arguments)
    assert registry.resolve(ModelRef(name="climber", alias="champion")) == first
    assert [record.action for record in announced] == ["promote", "promote", "rollback"]
    assert ledger.verify() == 6
    page = registry.version("climber", first).description
    assert "**Is champion**: it was brought back to this rung by tests" in page
    page = registry.version("climber", second).description
    assert "**Was champion**" in page
    assert len(re.findall(r"!\[[^]]+]", page)) == 2  # the rest of the page is as it was


def test_an_alias_moved_in_the_mlflow_interface_is_refused(registry, tmp_path):
    ledger = PromotionLedger(f"sqlite:///{tmp_path}/ledger.sqlite")
    version = register(registry, "by_hand")
    registry.set_alias("by_hand", "champion", version)
    assert "moved past the ledger" in may_run(registry.version("by_hand", version), ledger, "champion")


def test_a_version_that_alpha_panda_did_not_register_is_refused(registry):
    import mlflow

    client = mlflow.MlflowClient(registry.tracking_uri, registry.tracking_uri)
    ours = registry.version("domestic", register(registry, "domestic"))
    client.create_registered_model("foreign")
    client.create_model_version("foreign", source=ours.source, model_id=ours.source.removeprefix("models:/"))
    with pytest.raises(TamperedModel, match="not registered by Alpha Panda"):
        registry.fetch("foreign", "1")


def test_a_server_that_is_no_mlflow_is_named(mlflow_server):
    registry = Registry(mlflow_server.url + "/elsewhere")
    with pytest.raises(RegistryUnavailable, match="/elsewhere"):
        registry.names()


def test_a_sample_is_registered_by_one_command_which_says_what_it_is_and_how_it_may_trade(
    registry, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ALPHA_PANDA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MLFLOW__TRACKING_URI", registry.tracking_uri)
    monkeypatch.setenv("STRATEGIES", json.dumps([{"name": "smoke"}]))
    done = CliRunner().invoke(app, ["models", "sample"], env={"COLUMNS": "300"})
    assert done.exit_code == 0, done.output
    said = " ".join(done.output.split())
    assert "smoke version 1 is a SAMPLE for smoke tests" in said
    assert 'models promote smoke 1 --override "smoke test"' in said
    info = registry.version("smoke", "1")
    assert (info.gate_verdict("champion"), info.tags["sample"]) == ("failed", "true")
    assert "A SAMPLE for smoke tests" in info.description
    assert registry.sidecar("smoke", "1").market == "SYNTHETIC sample of no market"
    unknown = CliRunner().invoke(app, ["models", "sample", "smok"])
    assert unknown.exit_code == 1
    assert "no strategy has a model 'smok'; did you mean smoke?" in " ".join(unknown.output.split())
