import json

import pytest
import requests

from models_registry.addresses import model_page, models_page, run_page
from models_registry.refs import ModelRef
from models_registry.refusals import TamperedModel
from models_registry.registry import Registry, RegistryUnavailable


def test_a_registry_that_does_not_answer_is_named_with_what_to_do_and_without_its_password():
    registry = Registry("http://desk:hunter2@127.0.0.1:9")
    with pytest.raises(RegistryUnavailable, match=r"http://127.0.0.1:9 .* `alpha-panda up`") as caught:
        registry.resolve(ModelRef(name="momentum", alias="champion"))
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in registry.url_of("momentum", "1")


def test_addresses_are_built_of_ids_and_of_the_servers_of_now():
    assert model_page("http://127.0.0.1:5001/", "momentum") == (
        "http://127.0.0.1:5001/#/models/momentum?workflowType=machine_learning"
    )
    assert models_page("http://desk:secret@host:5001") == "http://host:5001/#/models?workflowType=machine_learning"
    assert run_page("http://desk:secret@host:3000/", "r1") == "http://host:3000/runs/r1"
    assert run_page("", "r1") == "r1"
    assert run_page("http://host:3000", "") == ""


def answers(**said):
    made = requests.Response()
    made.status_code, made._content = said["status"], json.dumps(said.get("body", {})).encode()
    return made


@pytest.mark.parametrize(
    ("listed", "said"),
    [
        pytest.param(answers(status=200, body={"files": [{"path": "flat.npz"}]}), RegistryUnavailable, id="there"),
        pytest.param(answers(status=200), TamperedModel, id="gone"),
        pytest.param(answers(status=503), RegistryUnavailable, id="unknown"),
    ],
)
def test_a_server_in_trouble_makes_no_version_a_tampered_one(monkeypatch, listed, said):
    def served(_session, _method, url, **_arguments):
        return listed if url.endswith("/mlflow-artifacts/artifacts") else answers(status=500)

    monkeypatch.setattr(requests.Session, "request", served)
    with pytest.raises(said):
        Registry("http://127.0.0.1:9")._artifact("1/models/m-1/artifacts", "flat.npz")


@pytest.mark.parametrize("uri", ["sqlite:///mlflow.db", "mlruns", ""])
def test_a_registry_needs_the_address_of_a_server(uri):
    with pytest.raises(ValueError, match="http"):
        Registry(uri)
