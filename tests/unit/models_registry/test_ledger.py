import sqlite3
import threading

import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from live_services.cli import models as cli_models
from models_registry.ledger import LedgerEntry, LedgerTampered, LedgerUnavailable, PromotionLedger


@pytest.fixture
def path(tmp_path):
    return tmp_path / "deep" / "ledger.sqlite"


@pytest.fixture
def ledger(path):
    return PromotionLedger(f"sqlite:///{path}")


def entry(version="1", **changes):
    values = {
        "at_ns": 1_767_600_000_000_000_000,
        "model_name": "momentum",
        "alias": "champion",
        "from_version": None,
        "to_version": version,
        "action": "promote",
        "by": "asha",
        "reason": "better",
        "evidence": {"gate": {"passed": True, "score": 0.1 + 0.2}},
    }
    return LedgerEntry(**(values | changes))


def change(path, statement):
    connection = sqlite3.connect(path)
    try:
        connection.executescript(statement)
    finally:
        connection.close()


DROP_GUARDS = "DROP TRIGGER promotion_ledger_no_update; DROP TRIGGER promotion_ledger_no_delete;"


def test_entries_come_back_as_they_were_appended(ledger):
    assert [ledger.append(entry("1")), ledger.append(entry("2", from_version="1"))] == [1, 2]
    first, second = ledger.history("momentum")
    assert first.model_copy(update={"number": 0, "sha256": ""}) == entry("1")
    assert (second.number, second.from_version, second.to_version) == (2, "1", "2")
    assert ledger.verify() == 2
    assert ledger.history("another") == ()


def test_the_latest_entry_is_the_aliases_own(ledger):
    ledger.append(entry("1"))
    ledger.append(entry("2", alias="challenger"))
    assert ledger.latest("momentum", "champion").to_version == "1"
    assert ledger.latest("momentum", "live") is None


def test_an_override_holds_for_its_version_and_rung_only(ledger):
    ledger.append(entry("1", override=True, action="override"))
    assert ledger.override_for("momentum", "1", "champion").reason == "better"
    assert ledger.override_for("momentum", "1", "live") is None
    assert ledger.override_for("momentum", "2", "champion") is None
    assert ledger.override_for("other", "1", "champion") is None


@pytest.mark.parametrize("statement", ["UPDATE promotion_ledger SET reason = 'x'", "DELETE FROM promotion_ledger"])
def test_the_database_itself_refuses_changes(ledger, path, statement):
    ledger.append(entry())
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        change(path, statement)
    assert ledger.verify() == 1


@pytest.mark.parametrize("column", ["reason", "by", "to_version", "evidence", "at_ns", "previous_sha256", "sha256"])
def test_a_change_behind_the_guards_shows(ledger, path, column):
    for version in "123":
        ledger.append(entry(version))
    value = "'{\"gate\": {}}'" if column == "evidence" else "7"
    change(path, f"{DROP_GUARDS} UPDATE promotion_ledger SET {column} = {value} WHERE number = 2")
    with pytest.raises(LedgerTampered, match=r"entry [23]"):
        ledger.verify()


@pytest.mark.parametrize(
    "changed", ["to_version = '9'", "override = 1", "model_name = 'other'", "evidence = 'no json'", "action = 'x'"]
)
def test_what_is_read_of_a_tampered_ledger_is_an_error_that_names_the_entry(ledger, path, changed):
    for version in "123":
        ledger.append(entry(version))
    change(path, f"{DROP_GUARDS} UPDATE promotion_ledger SET {changed} WHERE number = 2")
    for read in (
        lambda: ledger.history("momentum"),
        lambda: ledger.latest("momentum", "champion"),
        lambda: ledger.override_for("momentum", "2", "champion"),
        lambda: ledger.history("another"),
    ):
        with pytest.raises(LedgerTampered, match="entry 2 of the promotion ledger"):
            read()


def test_the_command_line_says_in_one_sentence_that_the_ledger_was_tampered_with(ledger, path, monkeypatch):
    ledger.append(entry())
    change(path, f"{DROP_GUARDS} UPDATE promotion_ledger SET reason = 'x' WHERE number = 1")
    monkeypatch.setattr(cli_models, "build_ledger", lambda settings: ledger)
    ran = CliRunner().invoke(cli_models.app, ["history", "momentum"])
    assert ran.exit_code == 1
    assert ran.stdout == ""
    assert ran.stderr.startswith("error: entry 1 of the promotion ledger at ")
    assert len(ran.stderr.splitlines()) == 1


@pytest.mark.parametrize("number", [1, 2])
def test_a_removed_entry_shows(ledger, path, number):
    for version in "123":
        ledger.append(entry(version))
    change(path, f"{DROP_GUARDS} DELETE FROM promotion_ledger WHERE number = {number}")
    with pytest.raises(LedgerTampered, match="entry"):
        ledger.verify()


def test_two_appenders_at_once_make_one_chain(path):
    failures = []

    def append(who):
        try:
            own = PromotionLedger(f"sqlite:///{path}")
            for version in range(10):
                own.append(entry(str(version), by=who))
        except Exception as error:  # noqa: BLE001 - whatever a thread raises fails the test
            failures.append(error)

    threads = [threading.Thread(target=append, args=(f"thread {n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    ledger = PromotionLedger(f"sqlite:///{path}")
    assert ledger.verify() == 40
    assert [e.number for e in ledger.history("momentum")] == list(range(1, 41))


@pytest.mark.parametrize("blank", ["by", "reason"])
def test_an_entry_needs_who_and_why(blank):
    with pytest.raises(ValidationError, match="who and why"):
        entry(**{blank: "  "})


def test_a_ledger_that_cannot_be_opened_says_where_and_what_to_do(tmp_path):
    with pytest.raises(LedgerUnavailable, match=r"ledger\.url"):
        PromotionLedger(f"sqlite:///{tmp_path}").history("momentum")
    with pytest.raises(LedgerUnavailable, match="sqlite and postgresql"):
        PromotionLedger("mysql://desk/ledger")
    with pytest.raises(LedgerUnavailable, match="SQLAlchemy URL"):
        PromotionLedger("ledger")
