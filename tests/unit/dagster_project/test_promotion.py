from dataclasses import dataclass

import dagster as dg
import pytest

from dagster_project.resources import PromotionAnnouncer
from dagster_project.sensors.promotion import SENSOR, due, promote_champion
from live_services.settings import Settings
from models_registry.ledger import PromotionLedger
from models_registry.promotion import PromotionUnderWay, promote
from models_registry.registry import RegistryUnavailable
from tests.models_registry_fakes import InMemoryRegistry
from tests.models_registry_frames import FAILED_GATE, packed, sidecar


@dataclass(frozen=True)
class Version:
    version: str
    verdict: str | None = "passed"

    def gate_verdict(self, rung):
        assert rung == "champion"
        return self.verdict


@dataclass(frozen=True)
class Entry:
    to_version: str
    from_version: str | None = None
    by: str = SENSOR
    alias: str = "champion"
    phase: str = "done"


@pytest.mark.parametrize(
    ("versions", "history", "expected"),
    [
        pytest.param([], [], None, id="no version at all"),
        pytest.param([Version("1", "failed")], [], None, id="a failed gate promotes nothing"),
        pytest.param([Version("1", None)], [], None, id="a gate that was never asked promotes nothing"),
        pytest.param([Version("1")], [], "1", id="the first version that passed"),
        pytest.param([Version("9"), Version("10")], [], "10", id="versions are numbers, not text"),
        pytest.param([Version("1")], [Entry("1")], None, id="the champion stays"),
        pytest.param([Version("1"), Version("2")], [Entry("1")], "2", id="a newer one that passed"),
        pytest.param(
            [Version("1"), Version("2")],
            [Entry("1"), Entry("2", "1"), Entry("1", "2", by="Asha")],
            None,
            id="what a person rolled back is not promoted again",
        ),
        pytest.param(
            [Version("1"), Version("2"), Version("3")],
            [Entry("1"), Entry("2", "1"), Entry("1", "2", by="Asha")],
            "3",
            id="after a rollback the next version is looked at again",
        ),
        pytest.param(
            [Version("1"), Version("2", "failed")],
            [Entry("2", by="Asha")],
            None,
            id="an older version never replaces one that a person chose",
        ),
        pytest.param(
            [Version("1")], [Entry("1", alias="challenger")], "1", id="a challenger was not decided on for champion"
        ),
        pytest.param(
            [Version("1"), Version("2")],
            [Entry("1"), Entry("2", "1", by="Asha", phase="intent")],
            None,
            id="what is under way is settled, not decided again",
        ),
        pytest.param(
            [Version("1"), Version("2")],
            [Entry("1"), Entry("2", "1", phase="intent"), Entry("2", "1", phase="undone")],
            None,
            id="what was taken back is not tried again and again",
        ),
        pytest.param(
            [Version("1"), Version("2")],
            [Entry("1"), Entry("2", "1", phase="observed")],
            "2",
            id="an alias that was moved by hand decides nothing",
        ),
    ],
)
def test_the_version_that_is_due(versions, history, expected):
    assert due(versions, history) == expected


class Mlflow:
    tracking_uri = "http://127.0.0.1:5000"

    def __init__(self, registry):
        self._registry = registry

    def registry(self):
        return self._registry


class Ledger:
    def __init__(self, book):
        self._book = book

    def ledger(self):
        return self._book


class Announcer(PromotionAnnouncer):
    def __init__(self):
        super().__init__(Settings().kafka)

    def announce(self, record):
        return None


def test_a_version_whose_verdict_is_stale_is_skipped_in_words_at_every_look(tmp_path):
    registry, book = InMemoryRegistry(), PromotionLedger(f"sqlite:///{tmp_path}/ledger.sqlite")
    resources = {
        "settings": Settings(),
        "mlflow": Mlflow(registry),
        "ledger": Ledger(book),
        "announcer": Announcer(),
    }

    def look(cursor):
        return promote_champion(dg.build_sensor_context(cursor=cursor, resources=resources))

    registry.register(packed(), sidecar())
    first = look(None)
    assert [event.metadata["version"].value for event in first.asset_events] == ["1"]
    registry.register(packed(), sidecar())  # judged while there was no champion
    for _ in range(2):
        skipped = look(first.cursor)
        assert isinstance(skipped, dg.SkipReason)
        assert "momentum version 2 waits" in skipped.skip_message
        assert "the champion is v1 now" in skipped.skip_message
    assert [(entry.phase, entry.to_version) for entry in book.history("momentum")] == [("intent", "1"), ("done", "1")]


def test_the_sensor_carries_out_what_a_person_was_cut_off_in_and_says_which_alias_was_moved_by_hand(tmp_path):
    registry, book = InMemoryRegistry(), PromotionLedger(f"sqlite:///{tmp_path}/ledger.sqlite")
    registry.url_of = lambda name, version: f"http://127.0.0.1:5000/{name}/{version}"
    resources = {"settings": Settings(), "mlflow": Mlflow(registry), "ledger": Ledger(book), "announcer": Announcer()}
    context = dg.build_sensor_context(resources=resources)
    registry.register(packed(), sidecar(gate_result=FAILED_GATE))
    move, registry.set_alias = registry.set_alias, lost
    with pytest.raises(PromotionUnderWay):
        promote(
            registry,
            book,
            "momentum",
            "1",
            "champion",
            promoted_by="Asha",
            reason="a trial",
            override="on paper only",
            now_ns=1,
            announce=lambda record: None,
        )
    registry.set_alias = move
    (event,) = promote_champion(context).asset_events
    assert (event.metadata["by"].value, event.metadata["gate_overruled"].value) == ("Asha", True)
    assert event.description == "override: version none → 1 by Asha, AGAINST ITS GATE"
    assert registry.held["momentum", "champion"] == "1"
    assert "**Is champion** **against its gate**" in registry.version("momentum", "1").description

    registry.register(packed(), sidecar(gate_result=FAILED_GATE))
    registry.set_alias("momentum", "champion", "2")
    for _ in range(2):
        skipped = promote_champion(dg.build_sensor_context(cursor='{"momentum": 2}', resources=resources))
        assert "momentum@champion names v2, but the promotion ledger says v1" in skipped.skip_message
    assert [entry.phase for entry in book.history("momentum")] == ["intent", "done", "observed"]


def lost(*arguments):
    raise RegistryUnavailable("it did not answer.")
