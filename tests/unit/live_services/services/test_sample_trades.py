"""From a sample to orders in seconds: a promoted sample is loaded, proposes, and the account trades it, in memory."""

from __future__ import annotations

from collections.abc import Mapping

from live_services.domain.basis import Stamp
from live_services.domain.clock import session_end_ns, watermark
from live_services.domain.events import OrderFilled, SignalGenerated, StrategiesSummarized
from live_services.domain.frames import encode_tick_frame
from live_services.domain.topics import MARKET_SESSIONS, MARKET_TICKS, STRATEGIES_SUMMARY, broker_topics
from live_services.runtime.chain import Chain
from live_services.runtime.local import MemoryLog, MemoryTask, run_to_the_end
from live_services.services.account import account_chain
from live_services.services.model_loading import ModelLoader
from live_services.services.strategy_runner import StrategyRunner
from live_services.settings import Settings
from models_registry.ledger import PromotionLedger
from models_registry.promotion import promote
from models_registry.reconciliation import Standing
from models_registry.refs import Alias
from models_registry.run_rule import may_run
from models_registry.sample import SAMPLE_DESCRIPTION, sample_version
from models_registry.specification import StrategySpec
from tests.account_world import limits
from tests.live_world import MINUTE, OPEN, SESSION, UNIVERSE, random_walk
from tests.models_registry_fakes import InMemoryRegistry
from tests.toy_chain import frames_of, session_opened

SPEC = StrategySpec(name="momentum", features=("last_return",), holding_bars=2)
PAPER = broker_topics("paper")


def short_day() -> MemoryLog:
    log = MemoryLog()
    log.append_event(MARKET_SESSIONS, 0, session_opened(SESSION, UNIVERSE))
    log.append_event(MARKET_TICKS, 0, watermark(MARKET_TICKS, 0, SESSION, OPEN, UNIVERSE.digest))
    market = random_walk(3, minutes=30, per_minute=6, seed=2)
    for number, (part, cut) in enumerate(frames_of(market, MINUTE, SESSION)):
        log.append(MARKET_TICKS.name, 0, *encode_tick_frame(part, UNIVERSE, number, cut, SESSION))
    end_ns = session_end_ns(SESSION)
    log.append_event(MARKET_TICKS, 0, watermark(MARKET_TICKS, 0, SESSION, end_ns, UNIVERSE.digest))
    return log


def loader_of(registry: InMemoryRegistry, ledger: PromotionLedger) -> ModelLoader:
    def standings(name: str) -> Mapping[Alias, Standing]:
        return {alias: Standing(version, version, None) for alias, version in registry.aliases(name).items()}

    def objection(name: str, version: str, rung: Alias) -> str | None:
        return may_run(registry.version(name, version), ledger, rung)

    return ModelLoader(registry, standings, objection, (SPEC,), bar_minutes=1, poll_seconds=60)


async def test_a_promoted_sample_is_loaded_summed_up_and_traded(tmp_path) -> None:
    registry, ledger = InMemoryRegistry(), PromotionLedger(f"sqlite:///{tmp_path}/ledger.sqlite")
    version = registry.register(*sample_version(SPEC, created_by="a test", created_at_ns=1), SAMPLE_DESCRIPTION)
    promote(
        registry, ledger, "momentum", version, "champion",
        promoted_by="asha", reason="a smoke test", override="smoke test", now_ns=1, announce=lambda _record: None,
    )  # fmt: skip
    loader, log = loader_of(registry, ledger), short_day()
    await loader.refresh()
    config = Settings(strategies=(SPEC,))
    tasks = [
        MemoryTask(lambda: Chain("strategy_runner", (StrategyRunner(config, loader, Stamp()),)), log),
        MemoryTask(lambda: account_chain("paper", MARKET_TICKS, limits(), Stamp()), log),
    ]
    run_to_the_end(tasks)
    (summary,) = (e for e in log.events(STRATEGIES_SUMMARY) if isinstance(e, StrategiesSummarized))
    assert [(one.broker, one.ready, one.configured) for one in summary.brokers] == [("paper", 1, 1)]
    proposals = [e for e in log.events(PAPER.signals_raw) if isinstance(e, SignalGenerated)]
    assert {e.model_version for e in proposals} == {version}
    assert {e.side for e in proposals} == {"BUY", "SELL"}
    fills = [e for e in log.events(PAPER.orders_filled) if isinstance(e, OrderFilled)]
    assert {e.reason for e in fills} >= {"entry", "time"}
    assert not [name for name in log.topics if name.endswith(".dlq")]
