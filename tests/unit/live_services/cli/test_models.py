import json
import re
import shlex

import pytest
from rich.console import Console
from typer.testing import CliRunner

from live_services.cli import models as cli_models
from live_services.cli.main import app
from live_services.cli.strategy_states import StrategyState
from live_services.domain.events import ModelRefused, StrategyModelAssigned, self_caused
from live_services.settings import load_settings
from models_registry.ledger import PromotionLedger
from models_registry.reconciliation import reconcile
from models_registry.refusals import SIDECAR_FILE
from tests.models_registry_fakes import InMemoryRegistry
from tests.models_registry_frames import FAILED_GATE, gate, packed, sidecar


class _Registry(InMemoryRegistry):
    def url_of(self, name: str, version: str) -> str:
        return f"http://mlflow/{name}/{version}"


@pytest.fixture
def registry(tmp_path, monkeypatch):
    monkeypatch.setenv("ALPHA_PANDA_HOME", str(tmp_path))
    monkeypatch.setattr(cli_models, "out", Console(width=250, highlight=False))
    kept = _Registry()
    monkeypatch.setattr(cli_models, "build_registry", lambda settings: kept)
    return kept


def test_show_says_what_made_the_bars_and_warns_when_it_trades_on_others(registry):
    registry.register(packed(), sidecar(gate_result=gate(bar_source="vendor")))
    text = CliRunner().invoke(app, ["models", "show", "momentum", "1"]).output
    assert "time:60s, bars built from ticks" in text
    assert "WARNING: trained on a vendor's bars, trades on bars built from ticks" in text
    assert "FAILED" not in text


@pytest.fixture
def desk(registry, monkeypatch):
    """Versions 1 (passed), 2 (passed, judged against 1) and 3 (failed its gate), and nobody promoted."""
    against_first = gate().model_copy(update={"judged_against": "1"})
    for judged in (gate(), against_first, FAILED_GATE):
        registry.register(packed(), sidecar(gate_result=judged))
    monkeypatch.setattr(cli_models, "announcer", lambda settings, tell: lambda record: None)
    return registry


def run(*words, code=0):
    ran = CliRunner().invoke(app, ["models", *words])
    assert ran.exit_code == code, ran.output
    return ran.output if code == 0 else ran.stderr or ran.output


def ledger():
    return PromotionLedger(load_settings().ledger_url)


def advised(text):
    """The commands in a text, as words behind `models`."""
    return [shlex.split(command.partition(" models ")[2]) for command in re.findall(r"`([^`]+)`", text)]


@pytest.mark.parametrize("version", ["2", "3"])
@pytest.mark.parametrize("promoted", ["1", None])
def test_every_advice_on_an_alias_that_was_moved_by_hand_leads_out_of_it(desk, version, promoted):
    if promoted:
        run("promote", "momentum", promoted)
    desk.set_alias("momentum", "champion", version)
    said = run("verify", code=1)
    ways = [words for words in advised(" ".join(said.split())) if words]
    assert len(ways) == (2 if promoted else 1)
    for words in ways:
        desk.set_alias("momentum", "champion", version)
        ran = CliRunner().invoke(app, ["models", *words])
        if ran.exit_code:  # the gate says no, and how it is overruled
            (overruling,) = advised(" ".join(ran.stderr.split()))
            run(*overruling)
        assert reconcile(desk, ledger(), "momentum", by="tests", now_ns=1)["champion"].objection is None
        assert "the same" in run("verify")


def test_an_alias_that_was_taken_away_can_be_put_back_as_advised(desk):
    run("promote", "momentum", "1")
    desk.delete_alias("momentum", "champion")
    (words,) = [words for words in advised(" ".join(run("verify", code=1).split())) if words]
    assert "names it again; your reason is kept as entry" in " ".join(run(*words).split())
    run("verify")


def test_a_promotion_that_changes_nothing_says_so_and_its_reason_is_in_the_history(desk):
    run("promote", "momentum", "1", "--reason", "first")
    said = run("promote", "momentum", "1", "--reason", "second thoughts")
    assert "momentum@champion is version 1 already" in said
    assert "nothing changed; your reason is kept as entry 3" in said
    shown = run("history", "momentum")
    assert "second thoughts" in shown
    assert "promote, no change" in shown
    assert [entry["phase"] for entry in json.loads(run("history", "momentum", "--json"))] == ["intent", "done", "noted"]


def test_an_override_keeps_the_persons_own_reason_too(desk):
    run("promote", "momentum", "3", "--reason", "reviewed", "--override", "small test")
    run("promote", "momentum", "3", "--override", "a second look")
    *_, moved, noted = json.loads(run("history", "momentum", "--json"))
    assert (moved["reason"], noted["reason"]) == ("reviewed [override: small test]", "a second look")


def test_a_history_says_when_by_whom_and_why_in_80_columns(desk, monkeypatch):
    monkeypatch.setattr(cli_models.time, "time_ns", lambda: 1_768_970_000 * 10**9)
    monkeypatch.setattr(cli_models.getpass, "getuser", lambda: "asha")
    run("promote", "momentum", "1", "--reason", "first of all")
    desk.set_alias("momentum", "champion", "2")
    reconcile(desk, ledger(), "momentum", by="strategy runner", now_ns=1_768_970_000 * 10**9)
    monkeypatch.setattr(cli_models, "out", Console(width=80, highlight=False))
    shown = run("history", "momentum", "--all")
    assert "2026-01-21 10:03:20" in shown
    assert "moved by hand" in shown
    assert "asha: first of all" in shown


@pytest.mark.parametrize("words", [("history", "nosuch"), ("at", "nosuch", "--time", "2026-01-21 11:30")])
def test_the_history_of_a_model_that_nobody_promoted_is_an_error_in_one_sentence(desk, words):
    run("promote", "momentum", "1")
    said = run(*words, code=1)
    assert said == "error: the ledger has no promotion of 'nosuch'; there is momentum\n"


def test_the_version_that_stood_at_a_time_is_the_ledgers(desk, monkeypatch):
    hour = 3600 * 10**9
    for number, version in enumerate("12"):
        monkeypatch.setattr(cli_models.time, "time_ns", lambda at=number: 1_768_970_000 * 10**9 + at * hour)
        run("promote", "momentum", version)
    assert "momentum@champion was version 1 at 2026-01-21 11:00:00 IST: promote by" in run(
        "at", "momentum", "--time", "2026-01-21 11:00"
    )
    later = json.loads(run("at", "momentum", "--time", "2026-01-21T06:30Z", "--json"))
    assert (later["to_version"], later["phase"]) == ("2", "done")
    assert "no version of momentum was champion at 2026-01-21 09:00:00 IST" in run(
        "at", "momentum", "--time", "2026-01-21 09:00", code=1
    )
    assert "no version of momentum was live" in run(
        "at", "momentum", "--time", "2026-01-21 12:00", "--alias", "live", code=1
    )
    assert "write 2026-01-21T11:30" in run("at", "momentum", "--time", "noon", code=1)


def test_a_time_that_was_copied_from_the_history_is_one_at_which_the_promotion_stood(desk, monkeypatch):
    monkeypatch.setattr(cli_models.time, "time_ns", lambda: 1_768_970_000 * 10**9 + 400_000_000)
    run("promote", "momentum", "1")
    assert "2026-01-21 10:03:20" in run("history", "momentum")
    for copied in ("2026-01-21 10:03:20", "2026-01-21 10:03:20 IST"):
        assert "was version 1 at 2026-01-21 10:03:20 IST" in run("at", "momentum", "--time", copied)
    run("at", "momentum", "--time", "2026-01-21 10:03:20.3", code=1)


def assigned(version, digest=None, strategy="momentum"):
    return StrategyModelAssigned(
        **self_caused("assigned", strategy, str(version)),
        event_time_ns=2,
        strategy=strategy,
        rung="champion",
        model_name="momentum",
        model_version=version,
        feature_schema_hash=None,
        sidecar_sha256=digest,
        reason="a test",
    )


def refused(version):
    return ModelRefused(
        **self_caused("refused", version),
        event_time_ns=3,
        strategy="momentum",
        rung="champion",
        model_name="momentum",
        model_version=version,
        reason="it knows what is to come",
        running_version="1",
        task="a task",
    )


def test_what_strategies_run_is_compared_with_the_ledger(desk, monkeypatch):
    run("promote", "momentum", "1")
    digest = desk.version("momentum", "1").tags["sidecar_sha256"]

    def running(*events, refusal=None):
        states = (StrategyState("momentum", "champion", events, refusal),)
        monkeypatch.setattr(cli_models, "_strategy_states", lambda settings: (states, ""))

    running(assigned("1", digest), assigned("1", digest))
    assert "the same" in run("verify")
    run("promote", "momentum", "2")
    running(assigned("2"), assigned("1"), refusal=refused("2"))
    said = run("verify", code=1)
    assert "momentum runs v1, the ledger says v2; it refused v2: it knows what is to come" in said
    running(assigned(None))
    assert "momentum runs nothing (a test), the ledger says v2" in run("verify", code=1)
    running(assigned("2", "0" * 64))
    assert "runs another v2 than was promoted" in run("verify", code=1)
    (rung,) = json.loads(CliRunner().invoke(app, ["models", "verify", "--json"]).stdout)["rungs"]
    assert (rung["ledger"], rung["mlflow"], rung["runs"]) == ("2", "2", {"momentum": ["2"]})


def test_the_models_of_others_on_the_same_mlflow_are_not_compared(desk):
    run("promote", "momentum", "1")
    desk.register(packed(), sidecar().model_copy(update={"model_name": "theirs"}))
    desk.set_alias("theirs", "champion", "1")
    assert "theirs" not in run("verify")


def test_files_that_were_changed_are_found_in_the_registry_and_among_those_kept_here(desk, tmp_path):
    run("promote", "momentum", "1")
    kept = cli_models.ModelFiles(tmp_path / "models")
    files = desk.files["momentum", "1"]
    kept.keep("momentum", "1", files[SIDECAR_FILE], {k: v for k, v in files.items() if k != SIDECAR_FILE})
    assert "2 entries of the ledger follow" in run("verify")
    (kept.folder("momentum", "1") / SIDECAR_FILE).write_bytes(b"{}")
    assert "the files of momentum v1 that are kept here are not what the ledger recorded" in run("verify", code=1)
    files["flat.npz"] += b" "
    assert "v1 may not run: flat.npz has SHA-256" in run("verify", code=1)


def test_what_is_shown_without_a_version_is_the_ledgers_champion_else_the_newest(desk):
    desk.set_alias("momentum", "champion", "2")  # by hand
    assert json.loads(run("show", "momentum", "--json"))["version"] == "3"
    run("promote", "momentum", "1")
    desk.set_alias("momentum", "champion", "2")
    assert json.loads(run("show", "momentum", "--json"))["version"] == "1"


def test_versions_are_listed_and_shown_as_json(desk):
    run("promote", "momentum", "1")
    listed = json.loads(run("list", "--json"))
    assert [(v["version"], v["aliases"], v["gates"]["champion"]) for v in listed] == [
        ("3", [], "failed"),
        ("2", [], "passed"),
        ("1", ["champion"], "passed"),
    ]
    assert json.loads(run("show", "momentum", "--json"))["sidecar"]["model_name"] == "momentum"
