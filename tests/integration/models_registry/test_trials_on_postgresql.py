import threading

import pytest
import sqlalchemy as sa

from models_registry.append_only import LedgerTampered, LedgerUnavailable
from models_registry.ledger import PromotionLedger
from models_registry.trials import Trial, TrialTable

pytestmark = pytest.mark.integration


def trial(threshold, **changes):
    values = {
        "model_name": "momentum",
        "config": {"threshold": threshold},
        "data_digest": "d" * 64,
        "daily_pnl_inr": {"2026-01-05": 0.1 + 0.2},
        "made_by": "asha",
        "recorded_at_ns": 1_767_600_000_000_000_000,
        "run_id": "",
    }
    return Trial(**(values | changes))


def test_writers_at_once_make_one_chain_that_takes_no_change(postgresql):
    url = postgresql()
    failures = []

    def write(who):
        try:
            own = TrialTable(url)
            for number in range(5):
                own.record(trial(number / 10, made_by=who))
        except Exception as error:  # noqa: BLE001 - whatever a thread raises fails the test
            failures.append(error)

    threads = [threading.Thread(target=write, args=(f"thread {n}",)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    table = TrialTable(url)
    assert [one.recorded for one in table.of("momentum")] == [3] * 5
    assert table.of("momentum")[0].daily_pnl_inr == {"2026-01-05": 0.1 + 0.2}
    assert (table.verify(), PromotionLedger(url).verify()) == (15, 0)

    engine = sa.create_engine(sa.make_url(url).set(drivername="postgresql+psycopg"), poolclass=sa.NullPool)
    for statement in ("UPDATE trials SET body = '{}'", "DELETE FROM trials", "TRUNCATE trials"):
        with pytest.raises(sa.exc.DatabaseError, match="append-only"), engine.begin() as connection:
            connection.exec_driver_sql(statement)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE ROLE onlooker LOGIN")
        connection.exec_driver_sql("GRANT SELECT ON trials TO onlooker")
    onlooker = TrialTable(url.replace("postgres@", "onlooker@"))
    assert len(onlooker.of("momentum")) == 5
    with pytest.raises(LedgerUnavailable, match=r"permission denied.*may this process write there"):
        onlooker.record(trial(0.9))
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE trials DISABLE TRIGGER ALL")
        connection.exec_driver_sql("UPDATE trials SET body = '{}' WHERE number = 3")
    with pytest.raises(LedgerTampered, match="entry 3 of the table of trials"):
        table.of("momentum")
