"""Checks of the settings among themselves; they ask nobody, and only the names of strategies load a library."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from live_services.composition import processes, running_brokers
from live_services.domain.limits import AccountConfig
from live_services.domain.strategy.checks import WrongStrategy, require_known_names
from live_services.domain.topics import BROKERS, all_topics, broker_topics, consumer_group, transactional_id
from live_services.preflight.findings import Finding, ok
from live_services.settings import Settings, config_file
from live_services.settings_report import misspelt_environment
from models_registry.specification import Broker, StrategySpec


def settings_finding(_settings: Settings) -> Iterator[Finding]:
    """Say which file the settings are from, and which variables look like settings and are none."""
    if misspelt := misspelt_environment():
        yield Finding("settings", "warning", "; ".join(misspelt), "Correct or unset them", "advice")
        return
    file = config_file()
    yield ok("settings", f"of {file}" if file.exists() else "no file: the environment and defaults")


def strategies_finding(settings: Settings) -> Iterator[Finding]:
    """Say whether what strategies name is there: features and hyperparameters."""
    try:
        require_known_names(settings.strategies)
    except WrongStrategy as wrong:
        way_out = "Correct the names under [[strategies]]"
        yield Finding("strategies", "failed", str(wrong).replace("\n", "; "), way_out, "always")
        return
    names = ", ".join(strategy.name for strategy in settings.strategies)
    yield ok("strategies", f"{len(settings.strategies)}: {names}")


# --- routing --------------------------------------------------------------------------------------------------------


def routing_finding(settings: Settings) -> Iterator[Finding]:
    """Say whether each running account has strategies and each strategy an account, and whether worlds are apart."""
    running = running_brokers(settings)
    found = tuple(_misrouted(settings, running))
    yield from found or [ok("routing", f"{', '.join(running)}: own topics, groups and transactional ids")]


def _misrouted(settings: Settings, running: Sequence[Broker]) -> Iterator[Finding]:
    if not running:
        yield Finding(
            "routing",
            "failed",
            "no account runs, so nothing will be traded",
            "Name a broker in ACTIVE_BROKERS and enable it (TRADING__<BROKER>__ENABLED)",
        )
    for strategy in settings.strategies:
        if running and not set(strategy.brokers) & set(running):
            yield Finding(
                "routing",
                "failed",
                f"strategy {strategy.name} trades on {', '.join(strategy.brokers)}, and none of these runs",
                f"Name {' or '.join(running)} in its brokers, or let one of its own run (ACTIVE_BROKERS)",
                strategy=strategy.name,
            )
    for broker in running:
        if not any(broker in strategy.brokers for strategy in settings.strategies):
            yield Finding(
                "routing",
                "warning",
                f"the account of {broker} runs, and no strategy trades on it",
                f"Name {broker} in the brokers of a strategy, or take it out of ACTIVE_BROKERS",
                "advice",
            )
    shared = shared_names(settings)
    if shared:
        yield Finding("routing", "failed", f"two worlds share {', '.join(shared)}", policy="always")


def shared_names(settings: Settings) -> tuple[str, ...]:
    """Name the topics, groups and transactional ids that two have, and a broker's topics without its name in front."""
    names = (*(topic.name for topic in all_topics()), *transactional_ids(settings), *groups(settings))
    strayed = (t.name for broker in BROKERS for t in broker_topics(broker) if not t.name.startswith(f"{broker}."))
    return (*(name for name, count in Counter(names).items() if count > 1), *strayed)


def transactional_ids(settings: Settings) -> tuple[str, ...]:
    """Give the id of every task of this desk: one for each process, and for each partition of a shared one."""
    ids = []
    for entry, scope in processes(settings):
        count = settings.kafka.market_partitions if scope == "shared" and entry.is_chain else 1
        ids += [transactional_id(entry.name, scope, partition) for partition in range(count)]
    return tuple(ids)


def groups(settings: Settings) -> tuple[str, ...]:
    """Give the consumer groups of this desk."""
    return tuple(consumer_group(entry.name, scope) for entry, scope in processes(settings) if entry.is_chain)


# --- risk -----------------------------------------------------------------------------------------------------------


def risk_limits_finding(settings: Settings) -> Iterator[Finding]:
    """Say which limits of an account contradict each other, or leave a strategy nothing to trade."""
    found = [
        finding
        for broker in running_brokers(settings)
        for finding in contradictions(
            broker,
            getattr(settings.trading, broker),
            [strategy for strategy in settings.strategies if broker in strategy.brokers],
        )
    ]
    yield from found or [ok("risk_limits", "they go together")]


def contradictions(broker: str, account: AccountConfig, strategies: Iterable[StrategySpec]) -> Iterator[Finding]:
    """Judge one account's limits; amounts are in rupees."""
    key, risk = f"trading.{broker}.risk", account.risk
    largest = min(risk.max_notional_per_instrument_inr, risk.max_gross_notional_inr)
    for strategy in strategies:
        if strategy.notional_per_trade_inr > largest:
            yield Finding(
                "risk_limits",
                "failed",
                f"strategy {strategy.name} opens trades of {strategy.notional_per_trade_inr:,.0f} rupees, and the "
                f"account of {broker} allows {largest:,.0f}: each would be rejected",
                f"Lower its notional_per_trade_inr, or raise {key}.max_notional_per_instrument_inr and "
                f"{key}.max_gross_notional_inr",
            )
    if risk.max_notional_per_instrument_inr > risk.max_gross_notional_inr:
        yield Finding(
            "risk_limits",
            "warning",
            f"{broker}: one instrument may have {risk.max_notional_per_instrument_inr:,.0f} rupees, all together only "
            f"{risk.max_gross_notional_inr:,.0f}: the first limit never says anything",
            f"Lower {key}.max_notional_per_instrument_inr",
            "advice",
        )
    if risk.max_gross_notional_inr > account.starting_cash_inr:
        yield Finding(
            "risk_limits",
            "warning",
            f"{broker}: positions may come to {risk.max_gross_notional_inr:,.0f} rupees, and the account begins with "
            f"{account.starting_cash_inr:,.0f}: it would trade on borrowed money",
            f"Lower {key}.max_gross_notional_inr, or raise trading.{broker}.starting_cash_inr",
            "advice",
        )


# --- ports ----------------------------------------------------------------------------------------------------------


def ports_finding(settings: Settings) -> Iterator[Finding]:
    """Say whether every process has a port for its metrics."""
    port, count = settings.runtime.metrics_port, len(processes(settings))
    if port and count > 1:
        origin = "RUNTIME__METRICS_PORT" if "RUNTIME__METRICS_PORT" in os.environ else "runtime.metrics_port"
        yield Finding(
            "ports",
            "failed",
            f"{origin} is {port}, and {count} processes would listen there: all but one could not start",
            "Leave it 0: each takes a free port then, and `status` shows it",
            "always",
        )
        return
    yield ok("ports", f"metrics on {port}" if port else "metrics on free ports of loopback")
