"""What a strategy runner's looks at the ledger settle and see."""

import pytest

from live_services.services.model_loading import build_loader
from live_services.settings import Settings
from models_registry.ledger import PromotionLedger
from models_registry.ledger_entries import standing
from models_registry.promotion import PromotionUnderWay, promote
from models_registry.refs import ModelRef
from models_registry.registry import RegistryUnavailable
from models_registry.specification import StrategySpec
from tests.models_registry_fakes import InMemoryRegistry
from tests.models_registry_frames import packed, sidecar

CHAMPION = ("momentum", "champion")


def lost(*arguments):
    raise RegistryUnavailable("it did not answer.")


@pytest.fixture
def registry():
    made = InMemoryRegistry()
    for _ in "12":
        made.register(packed(), sidecar())
    return made


@pytest.fixture
def ledger(tmp_path):
    return PromotionLedger(f"sqlite:///{tmp_path}/ledger.sqlite")


def promoted(registry, ledger, version):
    words = {"promoted_by": "asha", "reason": "a test", "override": "a test", "now_ns": 1}
    promote(registry, ledger, "momentum", version, "champion", announce=lambda record: None, **words)


async def test_a_poll_carries_out_a_promotion_that_was_cut_off_and_follows_it(registry, ledger, tmp_path):
    settings = Settings(strategies=(StrategySpec(name="momentum"),), alpha_panda_home=tmp_path)
    loader = build_loader(settings, registry, ledger)
    await loader.refresh()
    assert "stands for no version" in loader.candidates[CHAMPION].reason
    move, registry.set_alias = registry.set_alias, lost
    with pytest.raises(PromotionUnderWay):
        promoted(registry, ledger, "1")
    registry.set_alias = move
    await loader.refresh()
    stands = standing(ledger.history("momentum"), "champion")
    assert (stands.to_version, stands.by, stands.settled_by) == ("1", "asha", "strategy runner")
    assert registry.resolve(ModelRef(name="momentum", alias="champion")) == "1"
    assert loader.refusals[CHAMPION].version == "1"  # it was trained on other features than this strategy's

    registry.set_alias("momentum", "champion", "2")
    for _ in range(2):
        await loader.refresh()
    assert loader.strayed[CHAMPION].version == "2"
    assert "models promote momentum 1 --alias champion` puts v1 back" in loader.strayed[CHAMPION].reason
    assert [entry.phase for entry in ledger.history("momentum")] == ["intent", "done", "observed"]
