"""What `train` asks of Dagster, and what it says before it asks."""

import pytest
from typer.testing import CliRunner

from live_services.__main__ import app
from live_services.cli.train import configuration
from live_services.failures import CommandFailed


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ALPHA_PANDA_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("ALPHA_PANDA_CONFIG", raising=False)


def refused(*arguments):
    result = CliRunner().invoke(app, ["train", *arguments])
    assert result.exit_code == 1, result.output
    return " ".join(result.output.split())


def test_without_a_running_stack_one_sentence_says_how_to_start_it():
    assert "no Dagster runs on this home: start it with" in refused("momentum")
    assert "up --detach`, then train" in refused("momentum")


def test_a_stack_that_does_not_answer_is_said_the_same_way(monkeypatch):
    monkeypatch.setenv("DAGSTER__URL", "http://127.0.0.1:9")
    assert "Dagster does not answer at http://127.0.0.1:9: start it with" in refused("momentum")


def test_a_name_that_no_strategy_has_is_refused_with_near_ones():
    assert "no strategy has a model 'momentun'; did you mean momentum?" in refused("momentun")


def test_the_options_are_the_configuration_of_the_asset_that_brings_the_market_in(tmp_path):
    file = tmp_path / "mine.csv"
    file.touch()
    assert configuration(None, None, {}) == {}
    assert configuration(file, None, {"timezone": "UTC"}) == {
        "ops": {"market_data": {"config": {"bars_file": str(file), "timezone": "UTC"}}}
    }


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(CommandFailed, match="--ticks: there is no file"):
        configuration(None, tmp_path / "gone.csv", {})
