"""A sample is a version like any other, says that it is one, and trades only if a person overrules its gate."""

from __future__ import annotations

import numpy as np
import pytest

from live_services.services.model_loading import prove
from models_registry.agreement import disagreement
from models_registry.ledger import PromotionLedger
from models_registry.promotion import promote
from models_registry.refusals import GateNotPassed
from models_registry.registry import tags_of
from models_registry.run_rule import may_run
from models_registry.sample import SAMPLE_DESCRIPTION, SAMPLE_MARKET, sample_version
from models_registry.sidecar import sidecar_bytes
from models_registry.specification import StrategySpec
from tests.models_registry_fakes import InMemoryRegistry

SPEC = StrategySpec(name="momentum", bar_minutes=5)


def test_a_sample_is_what_its_strategy_trades_and_buys_above_zero_and_sells_below() -> None:
    packed, sidecar = sample_version(SPEC, created_by="a test", created_at_ns=1)
    assert disagreement(sidecar, "1", SPEC) is None
    loaded = prove(sidecar, packed.files, "1", 5)
    rows = np.zeros((3, len(sidecar.feature_schema)))
    rows[:, 0] = (1e-4, 0.0, -1e-4)
    score = loaded.model.score(rows)
    assert score[0] >= loaded.buy_threshold > score[1] > loaded.sell_threshold >= score[2]


def test_two_samples_of_one_strategy_are_one_model() -> None:
    one, two = (sample_version(SPEC, created_by="a test", created_at_ns=at_ns)[1] for at_ns in (1, 2))
    assert one.identity == two.identity


@pytest.mark.parametrize("rung", ["champion", "live"])
def test_no_gate_admits_a_sample_and_an_override_by_name_and_reason_does(rung, tmp_path) -> None:
    registry, ledger = InMemoryRegistry(), PromotionLedger(f"sqlite:///{tmp_path}/ledger.sqlite")
    packed, sidecar = sample_version(SPEC, created_by="a test", created_at_ns=1)
    assert tags_of(sidecar, sidecar_bytes(sidecar))[f"gate.{rung}"] == "failed"
    version = registry.register(packed, sidecar, SAMPLE_DESCRIPTION)
    asked = {"promoted_by": "asha", "reason": "smoke test", "now_ns": 1, "announce": lambda _record: None}
    with pytest.raises(GateNotPassed, match="a sample for smoke tests, fitted to random numbers"):
        promote(registry, ledger, "momentum", version, rung, **asked, override=None)
    promote(registry, ledger, "momentum", version, rung, **asked, override="smoke test")
    assert may_run(registry.version("momentum", version), ledger, rung) is None


def test_it_says_what_it_is() -> None:
    assert SAMPLE_MARKET.startswith("SYNTHETIC")
    assert "A SAMPLE for smoke tests" in SAMPLE_DESCRIPTION
