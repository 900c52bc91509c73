import dagster as dg
import pytest

from dagster_project.candidates import Candidate
from dagster_project.model_facts import fitted_facts, report_facts, skill_gate_result, trade_facts, version_facts
from dagster_project.plots import MAXIMUM_MARKDOWN
from models_registry.packing import parity
from models_registry.refs import GateCheck, GateResult
from tests.models_registry_frames import FAILED_GATE, SCHEMA_HASH, TRADES, gate, packed, sidecar, trained

WIDEST = 33  # characters that Dagster shows of a line, in its narrowest column


@pytest.fixture(scope="module")
def candidate():
    model = trained()
    return Candidate(model, packed(), parity(packed(), model.estimator, model.golden_rows), "SYNTHETIC test")


@pytest.fixture(scope="module")
def version():
    return version_facts(sidecar(), "3", trained().oof, TRADES, sidecar())


def markdown(facts):
    return {name: value.value for name, value in facts.items() if isinstance(value, dg.MarkdownMetadataValue)}


def test_a_version_tells_its_story_in_the_order_of_its_page(version):
    told = [
        "what_it_bets_on", "verdict_for_paper", "verdict_for_money", "against_the_champion", "equity_and_drawdown",
        "calibration", "return_by_score", "tries", "folds", "period_and_data", "identity",
    ]  # fmt: skip
    assert [name for name in version if name in told] == told
    assert list(version)[-1] == "identity"


def test_everything_is_shown_inline_and_no_line_is_clipped_by_its_column(version, candidate):
    for facts in (version, report_facts(candidate), trade_facts(TRADES)):
        for name, text in markdown(facts).items():
            assert len(text) <= MAXIMUM_MARKDOWN, name
            lines = [line for line in text.splitlines() if not line.startswith("![")]
            words = [word for line in lines for word in line.split()]
            assert max(map(len, words if name == "identity" else lines)) <= WIDEST + 1, name
        for table in (value for value in facts.values() if isinstance(value, dg.TableMetadataValue)):
            assert all(len(record.data) <= 4 for record in table.records)


def test_digests_stand_in_short_and_whole_only_in_the_identity(version, candidate):
    for facts in (version, fitted_facts(candidate, SCHEMA_HASH)):
        assert facts["feature_schema_hash"] == SCHEMA_HASH[:12]
        assert f"{SCHEMA_HASH[:32]} {SCHEMA_HASH[32:]}" in facts["identity"].value
        assert all(SCHEMA_HASH not in str(value) for name, value in facts.items() if name != "identity")


def test_the_plots_of_the_page_are_in_the_assets(version, candidate):
    plots = {name for name, text in markdown(version).items() if text.startswith("![")}
    assert plots == {"equity_and_drawdown", "calibration", "return_by_score"}
    assert {"calibration", "return_by_score"} < markdown(report_facts(candidate)).keys()
    assert "equity_and_drawdown" in trade_facts(TRADES)
    assert trade_facts(TRADES)["trades_by_exit"] == "140 target, 100 stop"


def test_a_refused_version_is_red_and_says_why():
    refused = skill_gate_result(FAILED_GATE, "momentum", "3")
    assert (refused.passed, refused.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert refused.description == (
        "momentum version 3 is REFUSED and not promoted: its ranking is not shown to be better than chance."
    )
    assert refused.metadata["ranks_above_chance"].value == "✗ 0.49 (asked: > 0.5)"
    passed = skill_gate_result(gate(bar_source="vendor"), "momentum", "3")
    assert passed.passed
    assert passed.description.endswith("Warning: it trades on other bars than it was trained on.")


def test_a_verdict_too_long_to_be_inline_keeps_every_reason_and_drops_what_was_seen():
    checks = [GateCheck(name=f"own_check_{k}", passed=False, observed="seen " * 40, required="no") for k in range(9)]
    one = sidecar(gate_result=GateResult(rung="champion", checks=tuple(checks)))
    text = version_facts(one, "3", trained().oof, TRADES)["verdict_for_paper"].value
    assert len(text) <= MAXIMUM_MARKDOWN
    assert text.startswith("**REFUSED**, 0/9 checks hold\n\n✗ own check 0\n\n✗ own check 1")
    assert "✗ own check 8" in text
