"""Names of earlier versions are refused with what replaced them, in the environment and in the file."""

import pytest
from typer.testing import CliRunner

from live_services import process
from live_services.__main__ import app
from live_services.replaced_settings import REPLACED, ReplacedSetting
from live_services.settings import load_settings


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ALPHA_PANDA_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("ALPHA_PANDA_CONFIG", raising=False)


@pytest.mark.parametrize(("old", "new"), REPLACED.items())
def test_a_name_of_an_earlier_version_is_refused_wherever_it_stands(tmp_path, monkeypatch, old, new):
    variable, replacement = (key.upper().replace(".", "__") for key in (old, new))
    monkeypatch.setenv(variable, "")
    load_settings()
    monkeypatch.setenv(variable, "paper")
    with pytest.raises(ReplacedSetting, match=rf"environment sets {variable}, .*: set {replacement} instead"):
        load_settings()
    monkeypatch.delenv(variable)
    section, _, name = old.rpartition(".")
    (tmp_path / "alpha-panda.toml").write_text(f"[{section}]\n{name} = true\n" if section else f"{name} = true\n")
    with pytest.raises(ReplacedSetting, match=rf"alpha-panda.toml sets {old}, .*: set {new} instead"):
        load_settings()


def test_a_command_and_a_process_say_it_in_one_sentence(monkeypatch, capsys):
    monkeypatch.setenv("ZERODHA__ENABLED", "true")
    said = "the environment sets ZERODHA__ENABLED, which is no setting any more: set TRADING__ZERODHA__ENABLED instead"
    typed = CliRunner().invoke(app, ["config", "show"])
    assert typed.exit_code == 1
    assert said in " ".join(typed.output.split())
    assert process.main(["market_feed"]) == 1
    assert said in capsys.readouterr().err
