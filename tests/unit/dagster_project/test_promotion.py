from dataclasses import dataclass

import dagster as dg
import pytest

from dagster_project.resources import PromotionAnnouncer
from dagster_project.sensors.promotion import SENSOR, due, promote_champion
from live_services.settings import Settings
from models_registry.ledger import PromotionLedger
from tests.models_registry_fakes import InMemoryRegistry
from tests.models_registry_frames import packed, sidecar


@dataclass(frozen=True)
class Version:
    version: str
    verdict: str | None = "passed"
    aliases: tuple[str, ...] = ()

    def gate_verdict(self, rung):
        assert rung == "champion"
        return self.verdict


@dataclass(frozen=True)
class Entry:
    to_version: str
    from_version: str | None = None
    by: str = SENSOR
    alias: str = "champion"


CHAMPION = ("champion",)


@pytest.mark.parametrize(
    ("versions", "history", "expected"),
    [
        pytest.param([], [], None, id="no version at all"),
        pytest.param([Version("1", "failed")], [], None, id="a failed gate promotes nothing"),
        pytest.param([Version("1", None)], [], None, id="a gate that was never asked promotes nothing"),
        pytest.param([Version("1")], [], "1", id="the first version that passed"),
        pytest.param([Version("9"), Version("10")], [], "10", id="versions are numbers, not text"),
        pytest.param([Version("1", aliases=CHAMPION)], [Entry("1")], None, id="the champion stays"),
        pytest.param([Version("1", aliases=CHAMPION), Version("2")], [Entry("1")], "2", id="a newer one that passed"),
        pytest.param(
            [Version("1", aliases=CHAMPION), Version("2")],
            [Entry("1"), Entry("2", "1"), Entry("1", "2", by="Asha")],
            None,
            id="what a person rolled back is not promoted again",
        ),
        pytest.param(
            [Version("1", aliases=CHAMPION), Version("2"), Version("3")],
            [Entry("1"), Entry("2", "1"), Entry("1", "2", by="Asha")],
            "3",
            id="after a rollback the next version is looked at again",
        ),
        pytest.param(
            [Version("1"), Version("2", "failed", CHAMPION)],
            [Entry("2", by="Asha")],
            None,
            id="an older version never replaces one that a person chose",
        ),
        pytest.param(
            [Version("1")], [Entry("1", alias="challenger")], "1", id="a challenger was not decided on for champion"
        ),
        pytest.param(
            [Version("1", aliases=CHAMPION), Version("2")],
            [Entry("1"), Entry("2", "1")],
            "2",
            id="its own promotion that was cut off before the alias moved is completed",
        ),
        pytest.param(
            [Version("1", aliases=CHAMPION), Version("2")],
            [Entry("1"), Entry("2", "1", by="Asha")],
            None,
            id="a person's promotion that was cut off is theirs to repeat",
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
    assert [entry.to_version for entry in book.history("momentum")] == ["1"]
