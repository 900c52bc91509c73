"""A desk on a log in memory that bad records are put among."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from live_services.domain.basis import Stamp
from live_services.domain.clock import watermark
from live_services.domain.topics import MARKET_SESSIONS, market_topic
from live_services.operations_settings import DeadLettersSettings
from live_services.runtime.chain import Chain
from live_services.runtime.local import MemoryLog, MemoryTask
from live_services.services.account import account_chain
from live_services.services.skew_monitor import SkewMonitor
from live_services.services.strategy_runner import StrategyRunner
from live_services.settings import MarketSettings, Settings
from models_registry.specification import Broker
from tests.live_world import MINUTE
from tests.memory_desk import ACCOUNT, BROKERS, STRATEGIES, FixedModels
from tests.poison import BEFORE, DAYS, END, MINUTES, SESSION, UNIVERSE, Poison, frame_of, minute_of
from tests.toy_chain import session_opened

NO_FLOOD = DeadLettersSettings(flood_letters=10**6)


@dataclass(frozen=True)
class Desk:
    """Every live task on a log in memory."""

    log: MemoryLog
    tasks: dict[str, MemoryTask]

    def work(self, kills: Sequence[str] = (), *, kept: bool = False) -> None:
        """Go on until nobody has anything to say; some are killed before they commit, and once more at the end, where
        they may have kept what they had.
        """
        for name in kills:
            self._fetch(self.tasks[name])
            self.tasks[name].step()
            self.tasks[name].kill()
        said = True
        while said:
            said = sum(map(self._turn, self.tasks.values())) > 0
        for name in kills:
            if kept:
                self.tasks[name].keep()
            self.tasks[name].kill()
            self._turn(self.tasks[name])

    def put(self, poison: Sequence[Poison]) -> None:
        """Put bad records on the log; what the runner itself says is numbered and committed with its positions."""
        runner = self.tasks["runner"]
        for one in poison:
            stamp = runner.run.numbers.next_stamp(one.topic.name, SESSION) if one.ours else None
            self.log.append(one.topic.name, 0, one.value, [*one.headers, *([stamp.header] if stamp else [])])
        runner.commit()

    def _fetch(self, task: MemoryTask) -> bool:
        return sum(task.fetch(key, 10**6) for key in task.next) > 0

    def _turn(self, task: MemoryTask) -> bool:
        fetched = self._fetch(task)
        task.step()
        owed = task.run.owes_watermark
        return bool(task.commit() or fetched or owed)


def desk(kind: str) -> Desk:
    """Begin with an empty log."""
    day, log = DAYS[kind], MemoryLog()
    loader = FixedModels([day])
    config = Settings(
        strategies=STRATEGIES,
        market=MarketSettings(feed=kind),  # type: ignore[arg-type]
        kafka={"market_partitions": 1},
    )
    market = market_topic(kind)  # type: ignore[arg-type]

    def account(broker: Broker) -> Callable[[], Chain]:
        return lambda: account_chain(broker, market, ACCOUNT, Stamp())

    def runner() -> Chain:
        return Chain("strategy_runner", (StrategyRunner(config, loader, Stamp(), brokers=BROKERS, history=loader),))

    def monitor() -> Chain:
        return Chain("skew_monitor", (SkewMonitor(config, loader, brokers=BROKERS),))

    makes = {"runner": runner, "monitor": monitor, "paper": account("paper"), "zerodha": account("zerodha")}
    log.append_event(MARKET_SESSIONS, 0, session_opened(SESSION, UNIVERSE))
    return Desk(log, {name: MemoryTask(make, log, dead_letters=NO_FLOOD) for name, make in makes.items()})


def live(kind: str, poison: Sequence[Poison] = (), *, kills: bool = False, kept: bool = False) -> Desk:
    """Let a desk live through a session into whose middle bad records are put; who is killed may have a snapshot."""
    made, topic = desk(kind), market_topic(kind)  # type: ignore[arg-type]
    log, everybody = made.log, tuple(made.tasks)
    log.append_event(topic, 0, watermark(topic, 0, SESSION, SESSION.open_ns, UNIVERSE.digest))
    for minute in range(MINUTES):
        if minute == BEFORE:
            made.put(poison)
            made.work(everybody if kills else (), kept=kept)
        begin = SESSION.open_ns + minute * MINUTE
        log.append(topic.name, 0, *frame_of(minute_of(kind, minute), minute, begin + MINUTE))
        made.work(everybody if kills and minute in (BEFORE, BEFORE + 5) else (), kept=kept)
    log.append_event(topic, 0, watermark(topic, 0, SESSION, END, UNIVERSE.digest))
    made.work(everybody if kills else (), kept=kept)
    return made
