import sqlite3
import threading

import pytest
import structlog
from pydantic import ValidationError
from typer.testing import CliRunner

from live_services.cli import models as cli_models
from models_registry.ledger import LedgerMoved, LedgerTampered, LedgerUnavailable, PromotionLedger
from models_registry.ledger_entries import LedgerEntry, standing


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
        "phase": "noted",
        "refers_to": 0,
    }
    return LedgerEntry(**(values | changes))


def promoted(ledger, version, **changes):
    """Both steps of a promotion."""
    stands = standing(ledger.history("momentum"), changes.get("alias", "champion"))
    intent = ledger.append(entry(version, phase="intent", refers_to=stands.number if stands else 0, **changes))
    return ledger.settle(intent, "done", by="asha", at_ns=intent.at_ns, act=lambda: None)


def change(path, statement):
    connection = sqlite3.connect(path)
    try:
        connection.executescript(statement)
    finally:
        connection.close()


OLD_TABLE = """
CREATE TABLE promotion_ledger (
    number INTEGER NOT NULL PRIMARY KEY, at_ns BIGINT NOT NULL, model_name TEXT NOT NULL, alias TEXT NOT NULL,
    from_version TEXT, to_version TEXT NOT NULL, action TEXT NOT NULL, "by" TEXT NOT NULL, reason TEXT NOT NULL,
    evidence TEXT NOT NULL, override BOOLEAN NOT NULL, previous_sha256 TEXT NOT NULL UNIQUE, sha256 TEXT NOT NULL UNIQUE
);
CREATE INDEX ix_promotion_ledger_model_name ON promotion_ledger (model_name);
CREATE TRIGGER promotion_ledger_no_update BEFORE UPDATE ON promotion_ledger
BEGIN SELECT RAISE(ABORT, 'the promotion ledger is append-only'); END;
CREATE TRIGGER promotion_ledger_no_delete BEFORE DELETE ON promotion_ledger
BEGIN SELECT RAISE(ABORT, 'the promotion ledger is append-only'); END;
"""
OLD_ENTRIES = tuple(
    f"INSERT INTO promotion_ledger VALUES({number},1767600000000000000,'momentum','champion',{before},'{number}',"
    f"'promote','asha','better','{{\"gate\": {{\"passed\": true}}}}',0,'{previous}','{digest}');"
    for number, before, previous, digest in (
        (1, "NULL", "0" * 64, "16a0bf17acc037fdbe32449f6150ad65fdd399fbaa0bde11b33ea555410f1969"),
        (
            2,
            "'1'",
            "16a0bf17acc037fdbe32449f6150ad65fdd399fbaa0bde11b33ea555410f1969",
            "3aa686d99f860b15a91e4f0fb27b1cf0c1591df4dae0df10fa3490bedb9a0547",
        ),
    )
)
"""A ledger as it was written when an entry was all of a promotion."""

DROP_GUARDS = "DROP TRIGGER promotion_ledger_no_update; DROP TRIGGER promotion_ledger_no_delete;"


def test_entries_come_back_as_they_were_appended(ledger):
    assert [ledger.append(e).number for e in (entry("1"), entry("2", from_version="1"))] == [1, 2]
    first, second = ledger.history("momentum")
    assert first.model_copy(update={"number": 0, "sha256": ""}) == entry("1")
    assert (second.number, second.from_version, second.to_version) == (2, "1", "2")
    assert ledger.verify() == 2
    assert ledger.history("another") == ()


def test_what_stands_is_the_aliases_own_and_an_intent_does_not_stand(ledger):
    promoted(ledger, "1")
    promoted(ledger, "2", alias="challenger")
    ledger.append(entry("3", phase="intent", refers_to=2))
    assert standing(ledger.history("momentum"), "champion").to_version == "1"
    assert standing(ledger.history("momentum"), "live") is None


def test_an_intent_that_was_judged_against_what_stands_no_more_is_refused(ledger):
    promoted(ledger, "1")
    promoted(ledger, "2")
    with pytest.raises(LedgerMoved, match=r"when entry 2 stood, but v2 \(entry 4, by asha\) stands now"):
        ledger.append(entry("3", phase="intent", refers_to=2))
    with pytest.raises(LedgerMoved, match="when an empty rung stood"):
        ledger.append(entry("3", phase="observed", refers_to=0))
    ledger.append(entry("3", phase="intent", refers_to=4))
    with pytest.raises(LedgerMoved, match=r"is being moved to v3 by asha \(entry 5"):
        ledger.append(entry("4", phase="intent", refers_to=4))


def test_an_intent_is_settled_once_and_whoever_comes_later_is_told_how(ledger):
    moved = []
    intent = ledger.append(entry("1", phase="intent"))
    done = ledger.settle(intent, "done", by="the sensor", at_ns=intent.at_ns + 5, act=lambda: moved.append("1"))
    again = ledger.settle(intent, "undone", by="ravi", at_ns=9, act=lambda: moved.append("2"), reason="gone")
    assert (again, moved) == (done, ["1"])
    assert (done.phase, done.refers_to, done.by, done.settled_by) == ("done", 1, "asha", "the sensor")
    assert ledger.history("momentum")[1] == done
    with pytest.raises(ValueError, match="call settle"):
        ledger.append(done)


def test_what_cannot_be_done_together_with_its_entry_leaves_no_entry(ledger):
    def lost():
        raise ConnectionError("registry went away")

    intent = ledger.append(entry("1", phase="intent"))
    with pytest.raises(ConnectionError):
        ledger.settle(intent, "done", by="asha", at_ns=1, act=lost)
    assert [e.phase for e in ledger.history("momentum")] == ["intent"]


def test_an_alias_that_was_moved_by_hand_is_noted_once(ledger):
    promoted(ledger, "1")
    first = ledger.append(entry("2", phase="observed", refers_to=2))
    assert ledger.append(entry("2", phase="observed", refers_to=2, by="ravi")) == first
    ledger.append(entry("3", phase="observed", refers_to=2))
    assert ledger.append(entry("2", phase="observed", refers_to=2)).number == 5


@pytest.mark.parametrize("entries", [0, 2])
def test_a_ledger_of_before_there_were_intents_is_read_verified_and_continued(ledger, path, entries):
    change(path, OLD_TABLE + "".join(OLD_ENTRIES[:entries]))
    assert ledger.verify() == entries
    stands = standing(ledger.history("momentum"), "champion")
    assert (stands and stands.to_version) == ("2" if entries else None)
    promoted(ledger, "3")
    assert standing(PromotionLedger(f"sqlite:///{path}").history("momentum"), "champion").to_version == "3"
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        change(path, "DELETE FROM promotion_ledger")


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
    "changed",
    [
        "to_version = '9'",
        "override = 1",
        "model_name = 'other'",
        "evidence = 'no json'",
        "action = 'x'",
        "phase = 'done'",
    ],
)
def test_what_is_read_of_a_tampered_ledger_is_an_error_that_names_the_entry(ledger, path, changed):
    for version in "123":
        ledger.append(entry(version))
    change(path, f"{DROP_GUARDS} UPDATE promotion_ledger SET {changed} WHERE number = 2")
    for read in (
        lambda: ledger.history("momentum"),
        lambda: ledger.append(entry("4")),
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


def test_every_entry_is_a_line_on_audit_once_it_is_in_the_ledger(ledger):
    with structlog.testing.capture_logs() as lines:
        done = promoted(ledger, "1", override=True, action="override")
        with pytest.raises(LedgerMoved):
            ledger.append(entry("2", phase="intent"))
    assert [(line["phase"], line["to_version"], line["by"], line["override"]) for line in lines] == [
        ("intent", "1", "asha", True),
        ("done", "1", "asha", True),
    ]
    assert lines[-1]["ledger_sha256"] == done.sha256
