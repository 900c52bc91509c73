"""Promoters that die between any two steps, and promoters that race, on both databases of the ledger."""

import itertools
import signal
import subprocess
import sys
import threading

import pytest
import sqlalchemy as sa

from models_registry.ledger import LedgerError, LedgerMoved, LedgerTampered, LedgerUnavailable, PromotionLedger
from models_registry.ledger_entries import done, open_intent, standing
from models_registry.promotion import PromotionError, promote, rollback
from models_registry.reconciliation import reconcile
from models_registry.refs import ModelRef
from models_registry.refusals import GateStale
from models_registry.run_rule import may_run
from tests.models_registry_fakes import InMemoryRegistry
from tests.models_registry_frames import gate, packed, sidecar

pytestmark = pytest.mark.integration

CHAMPION = ModelRef(name="momentum", alias="champion")
JUDGED_AGAINST = {1: None, 2: "1", 3: "1"}


class Killed(BaseException):
    """The process ended here."""


class Steps:
    """Calls what a test wants to happen, each time before or after a step of a promotion."""

    def __init__(self):
        self.at = {}

    def reached(self, step):
        happens = self.at.pop(step, None)
        if happens is not None:
            happens()


class WatchedLedger(PromotionLedger):
    def __init__(self, url, steps):
        super().__init__(url)
        self._steps = steps

    def append(self, entry, act=None):
        self._steps.reached("before the intent")
        appended = super().append(entry, act)
        self._steps.reached("after the intent")
        return appended

    def settle(self, intent, phase, **arguments):
        settled = super().settle(intent, phase, **arguments)
        self._steps.reached("after it is done")
        return settled


class WatchedRegistry(InMemoryRegistry):
    def __init__(self, steps):
        super().__init__()
        self._steps = steps

    def set_alias(self, name, alias, version):
        self._steps.reached("before the alias moves")
        super().set_alias(name, alias, version)
        self._steps.reached("after the alias moved")

    def set_description(self, name, version, description):
        self._steps.reached("before the page is written")
        super().set_description(name, version, description)


STEPS = (
    "before the intent",
    "after the intent",
    "before the alias moves",
    "after the alias moved",
    "after it is done",
    "before the page is written",
    "before it is announced",
)


class Desk:
    """Versions 1 to 3 in a registry (2 and 3 were judged against 1); everybody opens the ledger anew."""

    def __init__(self, url):
        self.url, self.steps = url, Steps()
        self.database = url.partition(":")[0]
        self.registry = WatchedRegistry(self.steps)
        for version in range(1, 4):
            passed = gate().model_copy(update={"judged_against": JUDGED_AGAINST[version]})
            self.registry.register(packed(), sidecar(gate_result=passed))
        self.ledger = PromotionLedger(url)

    def announce(self, record):
        self.steps.reached("before it is announced")

    def promote(self, version, by="asha", ledger=None, override=None):
        return promote(
            self.registry,
            ledger or WatchedLedger(self.url, self.steps),
            "momentum",
            version,
            "champion",
            promoted_by=by,
            reason=f"{by} wants it",
            override=override,
            now_ns=5,
            announce=self.announce,
        )

    def rollback(self):
        arguments = {"promoted_by": "asha", "reason": "worse", "now_ns": 6, "announce": self.announce}
        return rollback(self.registry, WatchedLedger(self.url, self.steps), "momentum", "champion", **arguments)

    def kill(self, step):
        def end():
            raise Killed

        self.steps.at[step] = end

    def somebody_looks(self, by="the runner"):
        return reconcile(self.registry, PromotionLedger(self.url), "momentum", by=by, now_ns=7)["champion"]

    def stands(self):
        entry = standing(self.ledger.history("momentum"), "champion")
        return entry.to_version if entry else None

    def assert_whole(self):
        """The ledger verifies, nothing is under way, the alias shows what stands, and what stands may run."""
        history = self.ledger.history("momentum")
        assert open_intent(history, "champion") is None
        assert self.registry.resolve(CHAMPION) == self.stands()
        assert not [entry for entry in history if entry.phase == "observed"]
        if self.stands() is not None:
            assert may_run(self.registry.version("momentum", self.stands()), self.ledger, "champion") is None


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    if request.param == "postgresql":
        return request.getfixturevalue("postgresql")()
    return f"sqlite:///{tmp_path}/ledger.sqlite"


@pytest.fixture
def desk(url):
    return Desk(url)


def test_a_promoter_that_dies_at_any_step_never_leaves_the_desk_without_what_stands(desk, capsys):
    for number, step in enumerate(STEPS):
        version = "23"[number % 2]
        before = desk.stands()
        desk.kill(step)
        with pytest.raises(Killed):
            desk.promote(version, override="compared by hand")
        assert desk.stands() in {before, version}, step  # never a third
        looked = desk.somebody_looks()
        expected = before if step == "before the intent" else version
        assert (looked.version, looked.named, looked.objection) == (expected, expected, None), step
        desk.assert_whole()
        if step in STEPS[1:4]:
            settled = standing(desk.ledger.history("momentum"), "champion")
            assert (settled.by, settled.settled_by) == ("asha", "the runner")
    with capsys.disabled():
        sys.stdout.write(
            f"\na promoter killed at each of {len(STEPS)} steps on {desk.database}: all settled after it\n"
        )


@pytest.mark.parametrize("step", STEPS)
def test_a_rollback_that_dies_is_carried_out_by_the_next_command(desk, step):
    desk.promote("1")
    desk.promote("2")
    desk.kill(step)
    with pytest.raises(Killed):
        desk.rollback()
    assert desk.promote("3", by="ravi", override="trial").previous_version == (
        "2" if step == "before the intent" else "1"
    )
    desk.assert_whole()


@pytest.mark.parametrize("before", [None, "1"])
@pytest.mark.parametrize("step", STEPS[1:4])
def test_what_is_under_way_to_a_version_that_was_changed_is_taken_back_with_the_reason(desk, step, before):
    if before is not None:
        desk.promote(before)
    desk.kill(step)
    with pytest.raises(Killed):
        desk.promote("2")
    desk.registry.files["momentum", "2"]["flat.npz"] += b" "
    assert desk.somebody_looks().version == before
    desk.assert_whole()
    undone = desk.ledger.history("momentum")[-1]
    assert (undone.phase, undone.by, undone.settled_by) == ("undone", "asha", "the runner")
    assert "flat.npz has SHA-256" in undone.reason


KILLED_UNDER_THE_LOCK = """
import os, signal, sys
from models_registry.ledger import PromotionLedger
from models_registry.ledger_entries import LedgerEntry

ledger = PromotionLedger(sys.argv[1])
intent = ledger.append(LedgerEntry.model_validate_json(sys.argv[2]))
ledger.settle(intent, "done", by=intent.by, at_ns=6, act=lambda: os.kill(os.getpid(), signal.SIGKILL))
"""


@pytest.mark.parametrize("alias_moved", [False, True])
def test_a_process_that_is_killed_while_it_holds_the_lock_leaves_an_intent_and_no_lock(desk, alias_moved):
    desk.promote("1")
    desk.promote("2")
    first, *_, last = desk.ledger.history("momentum")
    intent = last.model_copy(
        update={"phase": "intent", "refers_to": last.number, "settled_by": None, "by": "the killed one"}
        | {"from_version": "2", "to_version": "1", "evidence": first.evidence, "action": "rollback"}
    )
    command = [sys.executable, "-c", KILLED_UNDER_THE_LOCK, desk.url, intent.model_dump_json()]
    assert subprocess.run(command, timeout=100, check=False).returncode == -signal.SIGKILL
    assert desk.stands() == "2"
    if alias_moved:
        desk.registry.set_alias("momentum", "champion", "1")
    assert desk.somebody_looks().version == "1"
    desk.assert_whole()
    settled = standing(desk.ledger.history("momentum"), "champion")
    assert (settled.by, settled.settled_by) == ("the killed one", "the runner")


@pytest.mark.parametrize("step", ["before the intent", "after the intent"])
def test_of_two_that_were_judged_against_the_same_champion_only_one_replaces_it(desk, step):
    desk.promote("1")
    others = []

    def another():
        others.append(desk.promote("3", by="ravi") if step == "before the intent" else desk.somebody_looks())

    desk.steps.at[step] = another
    if step == "before the intent":
        with pytest.raises(GateStale, match="v2 was judged against champion v1, but the champion is v3 now"):
            desk.promote("2")
        assert desk.stands() == "3"
    else:
        assert desk.promote("2").model_version == "2"  # carried out by the other, which is as good
        with pytest.raises(GateStale):
            desk.promote("3", by="ravi")
        assert desk.stands() == "2"
    assert len(others) == 1
    desk.assert_whole()


def test_a_rollback_does_not_take_back_what_it_never_saw(desk):
    desk.promote("1")
    desk.promote("2")
    desk.steps.at["before the intent"] = lambda: desk.promote("3", by="ravi", override="trial")
    with pytest.raises(LedgerMoved, match=r"v3 .*by ravi.* stands now"):
        desk.rollback()
    assert desk.stands() == "3"
    desk.assert_whole()


def test_promoters_and_lookers_at_once_leave_the_alias_where_the_ledger_ends(desk, capsys):
    failures, start = [], threading.Barrier(4)

    def run(do, *arguments, **named):
        try:
            start.wait(20)
            for _ in range(3):
                do(*arguments, **named)
        except PromotionError as busy:
            assert "again and again" in str(busy)
        except Exception as error:  # noqa: BLE001 - whatever a thread raises fails the test
            failures.append(error)

    def promoter(version):
        return lambda: desk.promote(
            version, by=f"promoter {version}", ledger=PromotionLedger(desk.url), override="whoever is first"
        )

    threads = [threading.Thread(target=run, args=(promoter(version),)) for version in "123"]
    threads.append(threading.Thread(target=run, args=(desk.somebody_looks,)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    desk.assert_whole()
    promotions = done(desk.ledger.history("momentum"), "champion")
    for before, entry in itertools.pairwise(promotions):
        assert entry.from_version == before.to_version  # each was judged against the one that it replaced
    with capsys.disabled():
        sys.stdout.write(f"\n3 promoters at once on {desk.database}: {len(promotions)} promotions, one chain\n")


def test_the_database_itself_refuses_changes_and_what_is_changed_behind_it_shows(desk):
    desk.promote("1")
    url = sa.make_url(desk.url)
    engine = sa.create_engine(url if url.drivername == "sqlite" else url.set(drivername="postgresql+psycopg"))
    statements = ["UPDATE promotion_ledger SET reason = 'x'", "DELETE FROM promotion_ledger"]
    statements += [] if url.drivername == "sqlite" else ["TRUNCATE promotion_ledger"]
    for statement in statements:
        with pytest.raises(sa.exc.DatabaseError, match="append-only"), engine.begin() as connection:
            connection.exec_driver_sql(statement)
    with engine.begin() as connection:
        drop = (
            "DROP TRIGGER promotion_ledger_no_update"
            if url.drivername == "sqlite"
            else ("ALTER TABLE promotion_ledger DISABLE TRIGGER ALL")
        )
        connection.exec_driver_sql(drop)
        connection.exec_driver_sql("UPDATE promotion_ledger SET phase = 'undone' WHERE number = 2")
    engine.dispose()
    with pytest.raises(LedgerTampered, match="entry 2"):
        desk.ledger.verify()
    with pytest.raises(LedgerError):
        desk.promote("2")


def test_who_may_only_read_the_ledger_is_told_so_and_reads_it(postgresql):
    desk = Desk(postgresql())
    desk.promote("1")
    engine = sa.create_engine(sa.make_url(desk.url).set(drivername="postgresql+psycopg"))
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE ROLE reader LOGIN")
        connection.exec_driver_sql("GRANT SELECT ON promotion_ledger TO reader")
    engine.dispose()
    reader = PromotionLedger(desk.url.replace("postgres@", "reader@"))
    assert standing(reader.history("momentum"), "champion").to_version == "1"
    with pytest.raises(LedgerUnavailable, match=r"permission denied.*may this process write there"):
        desk.promote("2", ledger=reader)
