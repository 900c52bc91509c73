import pytest

from models_registry.refs import ModelRef
from models_registry.registry import Registry, RegistryUnavailable


def test_a_registry_that_does_not_answer_is_named_with_what_to_do_and_without_its_password():
    registry = Registry("http://desk:hunter2@127.0.0.1:9")
    with pytest.raises(RegistryUnavailable, match=r"http://127.0.0.1:9 .* `alpha-panda up`") as caught:
        registry.resolve(ModelRef(name="momentum", alias="champion"))
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in registry.url_of("momentum", "1")


@pytest.mark.parametrize("uri", ["sqlite:///mlflow.db", "mlruns", ""])
def test_a_registry_needs_the_address_of_a_server(uri):
    with pytest.raises(ValueError, match="http"):
        Registry(uri)
