import datetime as dt
import sqlite3
import threading

import pytest
from pydantic import ValidationError

from models_registry.append_only import LedgerTampered, LedgerUnavailable
from models_registry.ledger import PromotionLedger
from models_registry.trials import HoldoutLook, Trial, TrialTable, config_digest

DROP_GUARDS = "DROP TRIGGER trials_no_update; DROP TRIGGER trials_no_delete;"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "deep" / "ledger.sqlite"


@pytest.fixture
def table(path):
    return TrialTable(f"sqlite:///{path}")


def trial(threshold=0.55, /, **changes):
    values = {
        "model_name": "momentum",
        "config": {"threshold": threshold, "rule": {"name": "donchian_break"}},
        "data_digest": "d" * 64,
        "daily_pnl_inr": {"2026-01-06": 0.1 + 0.2, "2026-01-05": -120.5},
        "made_by": "alpha-panda train",
        "recorded_at_ns": 1_767_600_000_000_000_000,
        "run_id": "r1",
    }
    return Trial(**(values | changes))


def look(**changes):
    values = {
        "model_name": "momentum",
        "first_session": dt.date(2026, 2, 2),
        "last_session": dt.date(2026, 2, 6),
        "what": "backtest",
        "by": "asha",
        "at_ns": 5,
        "config_digest": "c" * 64,
    }
    return HoldoutLook(**(values | changes))


def change(path, statement):
    connection = sqlite3.connect(path)
    try:
        connection.executescript(statement)
    finally:
        connection.close()


def test_trials_come_back_as_they_were_recorded(table, path):
    assert [table.record(trial(t)).number for t in (0.55, 0.6)] == [1, 2]
    table.record(trial(model_name="breakout"))
    first, second = TrialTable(f"sqlite:///{path}").of("momentum")
    assert first == trial(0.55, number=1)
    assert table.of("breakout") == (trial(model_name="breakout", number=3),)
    assert first.daily_pnl_inr == {"2026-01-05": -120.5, "2026-01-06": 0.1 + 0.2}
    assert second.config_digest == config_digest({"rule": {"name": "donchian_break"}, "threshold": 0.6})
    assert table.names() == ("breakout", "momentum")
    assert table.of("another") == ()
    assert table.verify() == 3


def test_the_same_configuration_on_the_same_data_is_one_trial_that_was_tried_twice(table):
    table.record(trial(0.6))
    for times in (1, 2, 3):
        again = table.record(trial(run_id=f"r{times}"))
        assert (again.number, again.recorded, again.run_id) == (2, times, "r1")
    assert [(one.config["threshold"], one.recorded) for one in table.of("momentum")] == [(0.6, 1), (0.55, 3)]
    assert table.verify() == 4
    other_data = table.record(trial(data_digest="e" * 64))
    other_model = table.record(trial(model_name="breakout"))
    assert (other_data.recorded, other_model.recorded) == (1, 1)
    assert len(table.of("momentum")) == 3


def test_every_look_at_the_holdout_counts(table):
    table.record(trial())
    assert [table.look(look(by=who)).number for who in ("asha", "asha", "ravi")] == [2, 3, 4]
    table.look(look(model_name="breakout", what="replay"))
    assert [one.by for one in table.looks("momentum")] == ["asha", "asha", "ravi"]
    assert table.looks("momentum")[0] == look(number=2)
    assert len(table.of("momentum")) == 1
    assert look().meets(dt.date(2026, 2, 6), dt.date(2026, 3, 1))
    assert not look().meets(dt.date(2026, 2, 7), dt.date(2026, 3, 1))


def test_it_stands_beside_the_ledger_in_one_database(table, path):
    ledger = PromotionLedger(f"sqlite:///{path}")
    table.record(trial())
    assert (ledger.verify(), table.verify()) == (0, 1)


@pytest.mark.parametrize("statement", ["UPDATE trials SET body = '{}'", "DELETE FROM trials"])
def test_the_database_itself_refuses_changes(table, path, statement):
    table.record(trial())
    with pytest.raises(sqlite3.IntegrityError, match="the table of trials is append-only"):
        change(path, statement)
    assert table.verify() == 1


@pytest.mark.parametrize(
    "changed",
    [
        "UPDATE trials SET body = '{}' WHERE number = 2",
        "UPDATE trials SET body = 7 WHERE number = 2",
        "UPDATE trials SET kind = 'look' WHERE number = 2",
        "UPDATE trials SET model_name = 'other' WHERE number = 2",
        "UPDATE trials SET sha256 = 'x' WHERE number = 2",
        "DELETE FROM trials WHERE number = 1",
        "DELETE FROM trials WHERE number = 2",
    ],
)
def test_a_change_behind_the_guards_is_an_error_that_names_the_entry(table, path, changed):
    for threshold in (0.5, 0.6, 0.7):
        table.record(trial(threshold))
    change(path, f"{DROP_GUARDS} {changed}")
    for act in (
        table.verify,
        lambda: table.of("momentum"),
        lambda: table.of("another"),
        lambda: table.looks("momentum"),
        lambda: table.record(trial(0.8)),
        lambda: table.look(look()),
    ):
        with pytest.raises(LedgerTampered, match=r"entry [23] of the table of trials at sqlite:///"):
            act()


def test_two_writers_at_once_make_one_chain_and_double_nothing(path):
    failures = []

    def write(who):
        try:
            own = TrialTable(f"sqlite:///{path}")
            for number in range(8):
                own.record(trial(number / 10, made_by=who))
                own.look(look(by=who))
        except Exception as error:  # noqa: BLE001 - whatever a thread raises fails the test
            failures.append(error)

    threads = [threading.Thread(target=write, args=(f"thread {n}",)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    table = TrialTable(f"sqlite:///{path}")
    assert table.verify() == 48
    assert [one.recorded for one in table.of("momentum")] == [3] * 8
    assert len(table.looks("momentum")) == 24


def test_a_database_that_cannot_be_read_is_the_ledgers_kind_of_error(tmp_path):
    with pytest.raises(LedgerUnavailable, match=r"the table of trials at sqlite.*ledger\.url"):
        TrialTable(f"sqlite:///{tmp_path}").of("momentum")
    broken = tmp_path / "broken.sqlite"
    broken.write_bytes(b"no database" * 100)
    with pytest.raises(LedgerUnavailable, match=r"the table of trials at sqlite.*not a database"):
        TrialTable(f"sqlite:///{broken}").record(trial())
    with pytest.raises(LedgerUnavailable, match="sqlite and postgresql"):
        TrialTable("mysql://desk/ledger")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"daily_pnl_inr": {"2026-01-05": float("nan")}}, "2026-01-05 is nan; a session without trades has 0"),
        ({"daily_pnl_inr": {"5 Jan": 1.0}}, "5 Jan"),
        ({"config": {"threshold": float("nan")}}, "JSON compliant"),
        ({"config_digest": "0" * 64}, "config_digest is not that of config"),
        ({"model_name": ""}, "model_name"),
        ({"thresholds": 0.5}, "thresholds"),
    ],
)
def test_a_trial_that_says_nothing_usable_is_refused(changes, says):
    with pytest.raises(ValidationError, match=says):
        trial(**changes)


def test_a_look_that_ends_before_it_begins_is_refused():
    with pytest.raises(ValidationError, match="ends before it begins"):
        look(last_session=dt.date(2026, 2, 1))
