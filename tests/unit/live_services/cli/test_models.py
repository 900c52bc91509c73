import pytest
from typer.testing import CliRunner

from live_services.cli import models as cli_models
from live_services.cli.main import app
from tests.models_registry_fakes import InMemoryRegistry
from tests.models_registry_frames import gate, packed, sidecar


class _Registry(InMemoryRegistry):
    def url_of(self, name: str, version: str) -> str:
        return f"http://mlflow/{name}/{version}"


@pytest.fixture
def registry(tmp_path, monkeypatch):
    monkeypatch.setenv("ALPHA_PANDA_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "250")
    kept = _Registry()
    monkeypatch.setattr(cli_models, "build_registry", lambda settings: kept)
    return kept


def test_show_says_what_made_the_bars_and_warns_when_it_trades_on_others(registry):
    registry.register(packed(), sidecar(gate_result=gate(bar_source="vendor")))
    text = CliRunner().invoke(app, ["models", "show", "momentum", "1"]).output
    assert "time:60s, bars built from ticks" in text
    assert "WARNING: trained on a vendor's bars, trades on bars built from ticks" in text
    assert "FAILED" not in text
