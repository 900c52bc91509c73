"""What a person who waits for a training is told: what was made, what was found, and why it stopped."""

import io

import pytest
from dagster_graphql.schema import create_schema
from graphql import parse, validate
from rich.console import Console

from live_services.cli.training_run import _RUN, RunLog, run_progress


def told_of(*events):
    """What a run's events tell, what they put into the line of progress, and the reason for which it failed."""
    log, told, progress = RunLog(), [], []
    for event in events:
        log.add(event, told.append, progress.append)
    return told, progress, log.reason


def made(asset, *findings):
    entry = {"label": "findings", "mdStr": "\n".join(f"* {line}" for line in findings)}
    return {
        "__typename": "MaterializationEvent",
        "assetKey": {"path": [asset]},
        "metadataEntries": [{"label": "rows"}, *([entry] if findings else [])],
    }


def checked(name, severity, said, *, success=False):
    seen = {"checkName": name, "success": success, "severity": severity, "description": said}
    return {"__typename": "AssetCheckEvaluationEvent", "stepKey": f"bars_{name}", "evaluation": seen}


def failed(step, message, *, of="Failure", causes=()):
    error = {"className": of, "message": message, "causes": [{"message": cause} for cause in causes]}
    return {"__typename": "ExecutionStepFailureEvent", "stepKey": step, "error": error}


def test_an_asset_is_told_once_however_many_days_it_has_and_its_findings_with_it():
    told, _, _ = told_of(made("bars"), made("bars"), made("market_data", "3 rows cannot be used", "1 thin day"))
    assert told == [
        "  Dagster made the asset bars",
        "  Dagster made the asset market_data",
        "    3 rows cannot be used",
        "    1 thin day",
    ]


def test_a_finding_that_the_person_knows_already_is_not_told_again():
    told = []
    RunLog(known=("3 rows cannot be used",)).add(made("market_data", "3 rows cannot be used", "b"), told.append, print)
    assert told == ["  Dagster made the asset market_data", "    b"]


def test_a_check_that_warns_is_told_and_one_that_passed_is_not():
    told, _, reason = told_of(
        checked("prices_are_sane", "ERROR", "fine", success=True), checked("outages_are_listed", "WARN", "2 outages")
    )
    assert told == ["  check warns: outages_are_listed: 2 outages"]
    assert not reason


def test_checks_that_had_nothing_to_look_at_are_told_together_at_the_end():
    log, told = RunLog(), []
    for name in ("seconds_are_not_repeated", "day_volumes_rise"):
        log.add(checked(name, "WARN", "nothing to look at: none of these days has ticks"), told.append, print)
    assert (told, log.idle) == ([], ["seconds_are_not_repeated", "day_volumes_rise"])


def test_the_reason_of_a_run_that_a_check_stopped_is_what_the_check_says():
    told, _, reason = told_of(
        checked("stale_prices", "WARN", "TCS stands still"),
        checked("splits_are_explained", "ERROR", "1 jump: TCS"),
        failed("bars_splits_are_explained", "1 blocking check failed: bars: x", of="DagsterAssetCheckFailedError"),
    )
    assert told[-1] == "  check FAILED: splits_are_explained: 1 jump: TCS"
    assert reason == "the check splits_are_explained: 1 jump: TCS"


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("models_registry.training.UntrainableFrame: 0 usable rows: give more", "train: 0 usable rows: give more"),
        ("UNIQUE failed: x", "train: UNIQUE failed: x"),
    ],
)
def test_the_reason_of_a_failed_step_is_told_without_the_name_of_a_class(message, said):
    assert told_of(failed("train", "outer", causes=[message]))[2] == said
    assert told_of(failed("train", message))[2] == said


def test_a_run_that_failed_outside_its_steps_says_why_too():
    error = {"className": "DagsterLaunchFailedError", "message": "the code server is gone", "causes": []}
    assert told_of({"__typename": "RunFailureEvent", "error": error})[2] == "the code server is gone"


def test_the_line_of_progress_is_the_runs_log():
    assert told_of({"__typename": "LogMessageEvent", "message": "bars: session 3 of 9"})[1] == ["bars: session 3 of 9"]


def test_a_log_line_with_brackets_is_shown_as_it_is():
    terminal = Console(force_terminal=True, width=80, file=io.StringIO())
    with run_progress(terminal) as progress:
        progress("read [/data/minute.csv] 3 of 9")
        terminal.print("done")
    assert "read [/data/minute.csv] 3 of 9" in terminal.file.getvalue()


def test_what_is_asked_of_a_run_is_what_dagster_can_answer():
    assert validate(create_schema().graphql_schema, parse(_RUN)) == []
