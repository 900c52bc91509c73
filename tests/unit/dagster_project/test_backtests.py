import dataclasses

import dagster as dg
import pytest

from dagster_project.assets.backtests import backtest_asset
from dagster_project.plots import MAXIMUM_MARKDOWN
from tests.backtest_world import GUARDED


@dataclasses.dataclass(frozen=True)
class Handed:
    """What the resources open."""

    what: object

    def registry(self):
        return self.what

    def ledger(self):
        return self.what


@pytest.fixture
def world(backtest_market):
    return backtest_market


def materialise(world, **config):
    run_config = {"ops": {"guarded_backtest": {"config": config}}}
    handed = {"settings": world.settings, "mlflow": Handed(world.registry), "ledger": Handed(world.ledger)}
    with dg.DagsterInstance.ephemeral() as instance:
        return dg.materialize(
            [backtest_asset(GUARDED)], run_config=run_config, resources=handed, instance=instance, raise_on_error=False
        )


def test_a_strategys_backtest_writes_a_report_and_says_first_what_must_be_said(world):
    done = materialise(world, version="1", changes={"slippage_bps": 1.0})
    assert done.success
    (event,) = done.asset_materializations_for_node("guarded_backtest")
    facts = {name: value.value for name, value in event.metadata.items()}
    assert "SYNTHETIC MARKET" in facts["said_on_every_page"]
    assert facts["judged"] == "guarded (momentum v1)"
    assert facts["trades"] > 10
    assert facts["equity_and_drawdown"].startswith("![Net result, ₹, after charges")
    assert len(facts["equity_and_drawdown"]) < MAXIMUM_MARKDOWN
    assert facts["champion"].startswith("not beside it: no version stands for momentum@champion; ")
    assert "A decision is made at a bar's close" in facts["what_it_assumes"]
    report = world.settings.alpha_panda_home / "backtests" / "guarded" / done.run_id / "report.html"
    assert facts["report"] == str(report)
    assert "guarded (momentum v1)" in report.read_text(encoding="utf-8")


def test_what_cannot_be_judged_fails_with_the_reason(world):
    done = materialise(world, version="2")
    assert not done.success
    (failed,) = done.get_step_failure_events()
    assert "train it again" in failed.event_specific_data.error_display_string
