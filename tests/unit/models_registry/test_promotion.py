import sqlite3
import threading

import pytest

from models_registry.description import LONGEST_PAGE
from models_registry.ledger import LedgerTampered, LedgerUnavailable, PromotionLedger
from models_registry.ledger_entries import standing, standing_at, standing_versions
from models_registry.promotion import (
    NothingToRollBack,
    OverrideNeedsReason,
    PromotionTakenBack,
    PromotionUnderWay,
    promote,
    rollback,
)
from models_registry.reconciliation import show_standing
from models_registry.refs import ModelRef
from models_registry.refusals import GateNotPassed, GateStale, TamperedModel, UnknownModelVersion
from models_registry.registry import RegistryUnavailable
from models_registry.run_rule import content_objection, may_run
from tests.models_registry_fakes import InMemoryRegistry
from tests.models_registry_frames import FAILED_GATE, gate, packed, sidecar

CHAMPION = ModelRef(name="momentum", alias="champion")
JUDGED_AGAINST = {1: None, 2: "1", 3: "2", 4: "2"}


class Desk:
    """A registry with versions 1 to 4 (3 failed its gate; each was judged against the one before), and a ledger."""

    def __init__(self, folder):
        self.registry = InMemoryRegistry()
        self.ledger = PromotionLedger(f"sqlite:///{folder}/ledger.sqlite")
        self.announced = []
        for version in range(1, 5):
            passed = gate().model_copy(update={"judged_against": JUDGED_AGAINST[version]})
            self.registry.register(packed(), sidecar(gate_result=FAILED_GATE if version == 3 else passed))

    def promote(self, version, alias="champion", override=None, **changes):
        arguments = {"promoted_by": "asha", "reason": "better", "now_ns": 5, "announce": self.announced.append}
        return promote(
            self.registry, self.ledger, "momentum", version, alias, override=override, **(arguments | changes)
        )

    def rollback(self, alias="champion"):
        return rollback(
            self.registry,
            self.ledger,
            "momentum",
            alias,
            promoted_by="ravi",
            reason="it loses",
            now_ns=9,
            announce=self.announced.append,
        )

    def done(self):
        return [entry for entry in self.ledger.history("momentum") if entry.phase == "done"]

    def may_run(self, version, rung="champion"):
        return may_run(self.registry.version("momentum", version), self.ledger, rung)


@pytest.fixture
def desk(tmp_path):
    return Desk(tmp_path)


def test_a_promotion_is_recorded_moved_and_announced(desk):
    record = desk.promote("1")
    assert desk.registry.resolve(CHAMPION) == "1"
    assert desk.announced == [record]
    assert (record.previous_version, record.action, record.override, record.ledger_number) == (
        None,
        "promote",
        False,
        2,
    )
    intent, entry = desk.ledger.history("momentum")
    assert (intent.phase, intent.refers_to, entry.phase, entry.refers_to) == ("intent", 0, "done", 1)
    assert (entry.by, entry.reason, entry.at_ns) == ("asha", "better", 5)
    assert entry.evidence["gate"]["passed"] is True
    assert entry.evidence["market"].startswith("SYNTHETIC")
    assert entry.evidence["artifact_sha256"] == packed().sha256
    assert desk.may_run("1") is None
    assert desk.promote("2").previous_version == "1"


def test_the_order_is_intent_alias_done_page_announcement(desk):
    seen = []
    set_alias, set_description = desk.registry.set_alias, desk.registry.set_description

    def watch(step, do=lambda *arguments: None):
        def watched(*arguments):
            seen.append((step, [entry.phase for entry in desk.ledger.history("momentum")]))
            do(*arguments)

        return watched

    desk.registry.set_alias = watch("alias", set_alias)
    desk.registry.set_description = watch("page", set_description)
    desk.promote("1", announce=watch("announced"))
    both = ["intent", "done"]
    assert seen == [("alias", ["intent"]), ("page", both), ("announced", both)]


def test_a_failed_gate_refuses_and_lists_what_failed(desk):
    with pytest.raises(GateNotPassed, match=r"ranks_above_chance: 0\.49, required > 0\.5") as caught:
        desk.promote("3")
    assert [check.name for check in caught.value.failed] == ["ranks_above_chance"]
    assert desk.ledger.history("momentum") == ()
    assert desk.registry.resolve(CHAMPION) is None
    assert desk.announced == []


def test_a_person_may_overrule_by_name_and_with_a_reason(desk):
    record = desk.promote("3", override="shadow looked fine for a week")
    assert (record.override, record.action) == (True, "override")
    (entry,) = desk.done()
    assert entry.reason == "better [override: shadow looked fine for a week]"
    assert entry.evidence["gate"]["passed"] is False
    assert desk.may_run("3") is None


def test_a_reason_that_is_the_override_too_is_kept_once(desk):
    assert desk.promote("3", reason="a trial", override="a trial").reason == "a trial"


def test_who_waited_for_the_lock_comes_after_who_had_it_by_the_times_too(desk):
    desk.promote("1", now_ns=20)
    assert desk.promote("2", now_ns=10).at_ns == 20  # decided before, carried out after
    history = desk.ledger.history("momentum")
    assert standing_at(history, "champion", 15) is None
    assert standing_at(history, "champion", 20).to_version == "2"


def test_a_page_that_the_registrys_database_cannot_hold_is_shortened_once(desk):
    page = f"momentum on NSE.\n\n### Folds\n\n{'f' * 3000}\n\n### What made it\n\n{'m' * 1900}"
    write, written = desk.registry.set_description, []

    def on_postgresql(name, version, description):
        if len(description) > LONGEST_PAGE:
            raise RegistryUnavailable("value too long for type character varying(5000)")
        written.append(description)
        write(name, version, description)

    write("momentum", "1", page)
    desk.registry.set_description = on_postgresql
    desk.promote("1")
    for _ in range(2):
        show_standing(desk.registry, desk.ledger.history("momentum"), desk.registry.versions("momentum"))
    (shown,) = written
    assert "**Is champion**" in shown
    assert "Left out here, for want of room: Folds" in shown


@pytest.mark.parametrize("blank", [{"override": " "}, {"promoted_by": ""}, {"reason": " "}])
def test_nothing_is_promoted_without_who_and_why(desk, blank):
    with pytest.raises(OverrideNeedsReason):
        desk.promote("3", **({"override": "why not"} | blank))
    assert desk.ledger.history("momentum") == ()


def test_an_override_that_was_not_needed_is_not_one(desk):
    assert not desk.promote("1", override="to be sure").override


def test_what_the_live_gate_refuses_goes_live_by_a_persons_override(desk):
    with pytest.raises(
        GateNotPassed, match=r"did not pass the live gate: beats_the_tries: .*; record_is_long_enough: 9 sessions, "
    ):
        desk.promote("1", "live")
    assert desk.promote("1", "live", override="agreed with risk").override
    assert desk.ledger.history("momentum")[-1].evidence["gate"]["rung"] == "live"
    assert desk.may_run("1", "live") is None


def test_what_passes_the_live_gate_goes_live_by_a_persons_word_alone(desk):
    passed = gate().model_copy(update={"rung": "live"})
    desk.registry.register(packed(), sidecar().model_copy(update={"live_gate": passed}))
    assert not desk.promote("5", "live").override
    assert desk.may_run("5", "live") is None


def test_a_champion_gate_does_not_open_the_live_rung(desk):
    desk.promote("1")
    assert "moved past the ledger" in desk.may_run("1", "live")


def test_a_challenger_needs_no_gate(desk):
    assert not desk.promote("3", "challenger").override
    assert desk.may_run("3", "challenger") is None


def test_an_unknown_version_is_refused(desk):
    with pytest.raises(UnknownModelVersion):
        desk.promote("9")


@pytest.mark.parametrize("file", ["flat.npz", "sidecar.json"])
def test_a_version_whose_files_were_changed_is_refused(desk, file):
    desk.registry.files["momentum", "1"][file] += b" "
    with pytest.raises(TamperedModel):
        desk.promote("1")
    assert desk.ledger.history("momentum") == ()


def test_a_verdict_written_into_the_tag_by_hand_does_not_open_the_gate(desk):
    desk.registry.infos["momentum", "3"].tags["gate.champion"] = "passed"
    with pytest.raises(GateNotPassed):
        desk.promote("3")


def test_a_verdict_against_another_champion_than_there_is_now_is_stale(desk):
    desk.promote("2")  # no champion yet: nothing to be compared with
    with pytest.raises(GateStale, match="v1 was judged against no champion, but the champion is v2 now"):
        desk.promote("1")
    desk.promote("4")
    with pytest.raises(GateStale, match="v2 was judged against champion v1, but the champion is v4 now"):
        desk.promote("2")
    assert [entry.to_version for entry in desk.done()] == ["2", "4"]
    assert not desk.promote("2", "challenger").override
    assert desk.rollback().model_version == "2"


def test_a_stale_verdict_may_be_overruled_and_what_stands_is_not_asked_again(desk):
    desk.promote("2")
    record = desk.promote("1", override="compared by hand")
    assert (record.override, record.action) == (True, "override")
    assert desk.promote("1").note_number == 5
    assert desk.may_run("1") is None
    assert len(desk.done()) == 2


def test_a_promotion_that_changes_nothing_says_so_and_keeps_its_reason(desk):
    first = desk.promote("1")
    again = desk.promote("1", promoted_by="ravi", reason="I looked too", now_ns=7)
    assert (again.ledger_number, again.note_number, again.promoted_by) == (first.ledger_number, 3, "asha")
    assert str(again) == (
        "momentum@champion is version 1 already, by asha since 1970-01-01 05:30:00 IST (ledger entry 2): nothing "
        "changed; your reason is kept as entry 3"
    )
    note = desk.ledger.history("momentum")[-1]
    assert (note.phase, note.refers_to, note.by, note.reason) == ("noted", 2, "ravi", "I looked too")
    assert len(desk.done()) == 1
    assert len(desk.announced) == 2
    desk.promote("2")
    assert desk.rollback().model_version == "1"


def test_an_override_of_what_stands_by_a_gate_that_was_withdrawn_is_a_promotion(desk):
    desk.promote("1")
    desk.registry.infos["momentum", "1"].tags["gate.champion"] = "failed"
    assert desk.may_run("1") is not None
    assert desk.promote("1", override="the gate was withdrawn by mistake").note_number is None
    assert desk.may_run("1") is None


@pytest.mark.parametrize("away", ["set_alias", "settle"])
def test_a_promotion_whose_registry_or_ledger_goes_away_says_that_it_will_be_carried_out(desk, away, monkeypatch):
    def lost(*arguments, **named):
        raise (LedgerUnavailable if away == "settle" else RegistryUnavailable)("it did not answer.")

    desk.promote("1")
    with monkeypatch.context() as patched:
        patched.setattr(desk.ledger if away == "settle" else desk.registry, away, lost)
        with pytest.raises(
            PromotionUnderWay, match=r"is to become v2 \(entry 3 of the ledger\), but it did not answer"
        ):
            desk.promote("2")
    assert (desk.may_run("1"), desk.registry.resolve(CHAMPION)) == (None, "1")
    desk.promote("2")
    assert desk.registry.resolve(CHAMPION) == "2"
    assert desk.may_run("2") is None
    assert [entry.settled_by for entry in desk.done()] == ["asha", "asha"]


def test_a_version_that_goes_while_it_is_promoted_is_taken_back_with_the_reason(desk, monkeypatch):
    desk.promote("1")
    set_alias = desk.registry.set_alias

    def gone(name, alias, version):
        if version == "2":
            raise UnknownModelVersion("momentum has no version 2")
        set_alias(name, alias, version)

    monkeypatch.setattr(desk.registry, "set_alias", gone)
    with pytest.raises(PromotionTakenBack, match=r"stays as it was \(entry 4 of the ledger\).*no version 2"):
        desk.promote("2")
    assert (desk.may_run("1"), desk.registry.resolve(CHAMPION)) == (None, "1")
    desk.promote("4", override="compared by hand")


def test_an_alias_moved_past_the_ledger_is_refused(desk):
    desk.promote("1")
    desk.registry.set_alias("momentum", "champion", "2")
    assert "moved past the ledger" in desk.may_run("2")


def test_promoting_what_stands_brings_back_an_alias_that_was_moved_by_hand(desk):
    desk.promote("3", override="trial")
    desk.registry.set_alias("momentum", "champion", "2")
    record = desk.promote("3")  # it stands against its gate: that was decided
    assert record.alias_put_back
    assert "names it again" in str(record)
    assert desk.registry.resolve(CHAMPION) == "3"
    assert [entry.phase for entry in desk.ledger.history("momentum")] == ["intent", "done", "noted"]


def test_a_sidecar_swapped_after_the_promotion_is_refused(desk):
    desk.promote("1")
    desk.registry.infos["momentum", "1"].tags["sidecar_sha256"] = "0" * 64
    assert "not what was promoted" in desk.may_run("1")


def test_a_tampered_ledger_is_a_reason_not_to_run_and_no_crash(desk, tmp_path):
    desk.promote("1")
    connection = sqlite3.connect(tmp_path / "ledger.sqlite")
    connection.executescript(
        "DROP TRIGGER promotion_ledger_no_update; UPDATE promotion_ledger SET to_version = '2' WHERE number = 1"
    )
    connection.close()
    desk.registry.set_alias("momentum", "champion", "2")
    assert "entry 1 of the promotion ledger" in desk.may_run("2")
    with pytest.raises(LedgerTampered):
        desk.promote("2")


def test_content_that_the_ledger_never_saw_is_objected_to_whatever_the_alias_says(desk):
    desk.promote("1")
    desk.promote("2")
    info = desk.registry.version("momentum", "1")
    assert content_objection(info, desk.ledger) is None
    assert content_objection(desk.registry.version("momentum", "4"), desk.ledger) is None
    info.tags["sidecar_sha256"] = "0" * 64
    assert "entry 2 of the ledger" in content_objection(info, desk.ledger)


def test_a_gate_that_is_withdrawn_after_the_promotion_is_refused(desk):
    desk.promote("1")
    desk.registry.infos["momentum", "1"].tags["gate.champion"] = "failed"
    assert "gate of momentum v1 failed" in desk.may_run("1")
    del desk.registry.infos["momentum", "1"].tags["gate.champion"]
    assert "was never asked" in desk.may_run("1")


def test_rolling_back_twice_goes_back_two_versions(desk):
    for version in "124":
        desk.promote(version)
    assert desk.rollback().model_version == "2"
    record = desk.rollback()
    assert (record.model_version, record.previous_version, record.action) == ("1", "2", "rollback")
    assert desk.registry.resolve(CHAMPION) == "1"
    assert desk.may_run("1") is None
    with pytest.raises(NothingToRollBack):
        desk.rollback()
    desk.promote("4", override="compared by hand")
    assert desk.rollback().model_version == "1"
    assert desk.ledger.verify() == 14


def test_a_rollback_may_return_to_a_version_that_was_overruled(desk):
    desk.promote("3", override="trial")
    desk.promote("1", override="the one before")
    assert desk.rollback().override
    assert desk.may_run("3") is None


def test_a_rollback_of_an_alias_moved_by_hand_returns_to_the_ledgers_version(desk):
    desk.promote("1")
    desk.registry.set_alias("momentum", "champion", "2")
    desk.registry.infos["momentum", "1"].tags["gate.champion"] = "failed"  # what stands was decided: nobody is asked
    assert desk.rollback().alias_put_back
    assert desk.registry.resolve(CHAMPION) == "1"


def test_a_rollback_to_a_version_that_was_tampered_with_is_refused(desk):
    desk.promote("1")
    desk.promote("2")
    desk.registry.files["momentum", "1"]["flat.npz"] += b" "
    with pytest.raises(TamperedModel):
        desk.rollback()
    assert desk.registry.resolve(CHAMPION) == "2"


def test_nothing_was_ever_promoted_so_nothing_rolls_back(desk):
    with pytest.raises(NothingToRollBack):
        desk.rollback()
    assert standing_versions((), "champion") == []


def test_promoters_at_once_leave_the_alias_where_the_ledger_ends(desk):
    failures = []
    start = threading.Barrier(3)

    def run(version):
        try:
            start.wait(10)
            for _ in range(4):
                desk.promote(version, override="whoever is first")
        except Exception as error:  # noqa: BLE001 - whatever a thread raises fails the test
            failures.append(error)

    threads = [threading.Thread(target=run, args=(version,)) for version in "124"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    desk.ledger.verify()
    assert desk.registry.resolve(CHAMPION) == standing(desk.ledger.history("momentum"), "champion").to_version
