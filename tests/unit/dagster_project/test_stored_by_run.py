"""What a run reads is what it made itself, whatever other runs write meanwhile."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from dagster_project.stored_by_run import KEPT_RUNS, StoredByRun


class Notes(StoredByRun):
    extension = ".txt"

    def write(self, path: Path, value: Any) -> None:
        path.write_text(value, encoding="utf-8")

    def read(self, path: Path) -> Any:
        found = path.read_text(encoding="utf-8")
        if "strange" in found:
            raise KeyError("spec")
        return found


@dg.asset(io_manager_key="notes")
def made(context: dg.AssetExecutionContext) -> str:
    return f"by {context.run.run_id}"


class Desk:
    """Three assets of which the last one reads the first, on an instance of their own."""

    def __init__(self, folder: Path, instance: dg.DagsterInstance) -> None:
        self.folder, self.instance = folder, instance
        self.meanwhile: list[str] = []
        self.seen = ""
        desk = self

        @dg.asset(deps=[made])
        def pause() -> None:
            for asset in desk.meanwhile:
                desk.run(asset)

        @dg.asset(deps=[pause])
        def used(made: str) -> None:
            desk.seen = made

        self.definitions = dg.Definitions([made, pause, used], resources={"notes": Notes(str(folder))})

    def run(self, *assets: str) -> dg.ExecuteInProcessResult:
        job = self.definitions.resolve_implicit_global_asset_job_def()
        return job.execute_in_process(
            asset_selection=[dg.AssetKey(asset) for asset in assets], instance=self.instance, raise_on_error=False
        )

    def kept(self) -> list[str]:
        return sorted(path.stem for path in (self.folder / "made").iterdir())

    def refusal(self) -> str:
        (failure,) = [event for event in self.run("used").all_events if event.event_type_value == "STEP_FAILURE"]
        return str(failure.step_failure_data.user_failure_data.description)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield Desk(tmp_path, instance)


def test_a_run_reads_what_it_made_though_another_wrote_since(desk: Desk) -> None:
    desk.meanwhile = ["made"]
    run = desk.run("made", "pause", "used")
    assert run.success
    assert desk.seen == f"by {run.run_id}"
    assert len(desk.kept()) == 2


def test_a_run_that_takes_long_keeps_what_it_made_however_many_others_write(desk: Desk) -> None:
    desk.meanwhile = ["made"] * (KEPT_RUNS + 1)
    run = desk.run("made", "pause", "used")
    assert run.success
    assert desk.seen == f"by {run.run_id}"
    desk.run("made")
    assert len(desk.kept()) == KEPT_RUNS


def test_a_run_that_makes_only_the_rest_reads_what_was_made_last(desk: Desk) -> None:
    desk.run("made")
    last = desk.run("made")
    assert desk.run("used").success
    assert desk.seen == f"by {last.run_id}"


def test_values_of_runs_long_past_are_let_go(desk: Desk) -> None:
    runs = [desk.run("made").run_id for _ in range(KEPT_RUNS + 2)]
    assert desk.kept() == sorted(runs[-KEPT_RUNS:])
    assert desk.run("used").success


def test_what_was_not_made_yet_says_what_to_do(desk: Desk) -> None:
    assert desk.refusal() == (
        "made was not materialised yet: materialise it first, or launch the job that trains the model."
    )


def test_what_is_gone_and_what_another_version_wrote_say_what_to_do(desk: Desk) -> None:
    run = desk.run("made")
    path = desk.folder / "made" / f"{run.run_id}.txt"
    path.write_text("strange")
    assert desk.refusal() == "made was written by another version: materialise it again."
    path.unlink()
    assert desk.refusal() == f"What run {run.run_id} made of made is not there any more: materialise it again."
