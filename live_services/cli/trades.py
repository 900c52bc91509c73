"""``alpha-panda trades``: what an account's fills came to, round trip by round trip."""

from __future__ import annotations

import datetime as dt
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.text import Text

from feature_store.market.types import IST, SECOND_NS, date_of_day, ist_day, ist_text
from live_services.cli.errors import did_you_mean
from live_services.cli.log_view import LogBackwards, account_history, events_backwards
from live_services.cli.output import Field, FittingTable
from live_services.domain.account.trades import Trade, round_trips
from live_services.domain.events import OrderFilled, StrategiesSummarized
from live_services.domain.money import inr_e4, paise_text
from live_services.domain.topics import STRATEGIES_SUMMARY, broker_topics
from live_services.failures import CommandFailed
from models_registry.specification import RUNG_OF_BROKER, Broker, StrategySpec

StrategyVersion = tuple[str, str]
"""A strategy's name and the version of its model that proposed."""
_REASONS: Final = ("target", "stop", "time", "square_off", "carried", "flatten")


@dataclass(frozen=True, slots=True)
class TradeList:
    """Trades of one account, as a person asked for them."""

    broker: Broker
    trades: tuple[Trade, ...]
    """In order of their end, those that are open last."""
    marked_ns: int
    """When open trades were valued; 0 if nobody did."""
    not_verified: tuple[tuple[dt.date, str], ...] = ()
    """Days of fills for which no schedule of charges is verified, each with the schedule that was used."""
    about: str = ""
    """What was asked for, in words; empty for everything."""
    disagreement: str = ""
    """How the fills on the log differ from the account's books; empty if they do not."""
    overruled: Mapping[StrategyVersion, str] = field(default_factory=dict)
    """Versions among them that ran by a person's override, each with what its gate had refused."""

    @property
    def ended(self) -> tuple[Trade, ...]:
        """Those that are over."""
        return tuple(trade for trade in self.trades if not trade.left_open)


async def read_trades(
    log: LogBackwards,
    broker: Broker,
    strategies: Sequence[StrategySpec],
    *,
    strategy: str | None = None,
    date: dt.date | None = None,
) -> TradeList:
    """Make the trades of an account from its log, over all sessions that are on it.

    Parameters
    ----------
    strategies
        Of the settings; one that was taken out since is known by its trades.
    strategy, date
        Only those of a strategy; only those that began or ended on a day.

    Raises
    ------
    CommandFailed
        If neither the settings nor the log know the strategy.
    """
    history = await account_history(log, broker)
    events, snapshot = history.events, history.snapshot
    trades = round_trips([*events, snapshot] if snapshot is not None else events)
    if strategy is not None:
        known = {spec.name for spec in strategies} | {trade.strategy for trade in trades}
        if strategy not in known:
            near = did_you_mean(strategy, sorted(known))
            raise CommandFailed(f"there is no strategy {strategy!r}{f'; {near}' if near else ''}")
    chosen = tuple(
        trade
        for trade in trades
        if strategy in (None, trade.strategy) and (date is None or date in (_began(trade), _ended(trade)))
    )
    whose = {trade.signal_id for trade in chosen}
    fills = (event for event in events if isinstance(event, OrderFilled) and event.signal_id in whose)
    not_verified = {(_date(f.event_time_ns), f.charges_schedule) for f in fills if not f.charges_exact}
    words = [f"of {strategy}"] if strategy is not None else []
    words += [f"on {date}"] if date is not None else []
    return TradeList(
        broker,
        chosen,
        snapshot.event_time_ns if snapshot is not None else 0,
        tuple(sorted(not_verified)),
        " ".join(words),
        history.disagreement,
        await _overruled(log, broker, chosen),
    )


async def _overruled(log: LogBackwards, broker: Broker, trades: Sequence[Trade]) -> dict[StrategyVersion, str]:
    """Read from the runner's summaries which versions of these trades ran against their gate."""
    found: dict[StrategyVersion, str] = {}
    if versions := {(trade.strategy, trade.model_version) for trade in trades}:
        async for event, _ in events_backwards(log, STRATEGIES_SUMMARY, StrategiesSummarized):
            for one in event.strategies:
                key = (one.strategy, one.version)
                if one.note and one.rung == RUNG_OF_BROKER[broker] and key in versions:
                    found.setdefault(key, one.note)
    return dict(sorted(found.items()))


def _date(time_ns: int) -> dt.date:
    return date_of_day(ist_day(time_ns))


def _began(trade: Trade) -> dt.date:
    return _date(trade.entry_time_ns)


def _ended(trade: Trade) -> dt.date | None:
    return None if trade.left_open else _date(trade.exit_time_ns)


def held_text(nanoseconds: int) -> str:
    """Say how long something was held, in two units at most: ``9 min 58 s``, ``18 h 5 min``, ``3 d 2 h``."""
    minutes, seconds = divmod(nanoseconds // SECOND_NS, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [
        f"{count} {unit}" for count, unit in ((days, "d"), (hours, "h"), (minutes, "min"), (seconds, "s")) if count
    ]
    return " ".join(parts[:2]) or "0 s"


def trade_record(trade: Trade, overruled: Mapping[StrategyVersion, str]) -> dict[str, Any]:
    """Give a trade as one JSON object; amounts ``_inr_e4`` are exact, integers of 1/10,000 rupee.

    ``overruled`` says which versions ran by a person's override; it is empty of one whose gate had passed.
    """
    is_open = bool(trade.left_open)
    return {
        "strategy": trade.strategy,
        "model_name": trade.model_name,
        "model_version": trade.model_version,
        "overruled": overruled.get((trade.strategy, trade.model_version), ""),
        "symbol": trade.symbol,
        "instrument_token": trade.instrument_token,
        "product": trade.product,
        "side": trade.side,
        "quantity": trade.quantity,
        "open_quantity": trade.left_open,
        "entry_time": ist_text(trade.entry_time_ns),
        "entry_time_ns": trade.entry_time_ns,
        "entry_price_inr": trade.entry_price,
        "exit_time": None if is_open else ist_text(trade.exit_time_ns),
        "exit_time_ns": None if is_open else trade.exit_time_ns,
        "exit_price_inr": None if is_open else trade.exit_price,
        "exit_reason": trade.exit_reason,
        "marked_at": ist_text(trade.exit_time_ns) if is_open else None,
        "mark_price_inr": trade.exit_price if is_open else None,
        "holding_seconds": (trade.exit_time_ns - trade.entry_time_ns) // SECOND_NS,
        "charges_inr_e4": trade.charges_inr_e4,
        "gross_pnl_inr_e4": trade.gross_pnl_inr_e4,
        "net_pnl_inr_e4": trade.net_pnl_inr_e4,
        "gross_bps": round(trade.gross_bps, 2),
        "net_bps": round(trade.net_bps, 2),
        "opening_order_id": trade.opening_order_id,
        "signal_id": trade.signal_id,
    }


def render(found: TradeList) -> RenderableType:
    """Lay trades out: a table for each day, then totals and notes."""
    if not found.trades:
        topic = broker_topics(found.broker).orders_filled.name
        if found.about:
            return Text(f"{topic} holds no trade {found.about}")
        return Text(f"the {found.broker} account has traded nothing yet: {topic} holds no fill")
    parts: list[RenderableType] = []
    for day, trades in itertools.groupby(found.trades, _ended):
        title = f"ended on {day}" if day is not None else f"open at {ist_text(found.marked_ns)}"
        parts.append(_table(title, trades, day))
    parts += [_totals(found.trades), Text(f"ended by {exits_text(found.ended) or 'nothing yet'}")]
    parts += [Text(f"{name} v{version}: {why}", style="bold red") for (name, version), why in found.overruled.items()]
    if len(found.ended) < len(found.trades):
        parts.append(Text("open trades are valued at their marks, with what closing them there would be charged"))
    parts += [
        Text(f"note: no schedule of charges is verified for {day}; that of {schedule} was used", style="yellow")
        for day, schedule in found.not_verified
    ]
    if found.disagreement:
        parts.append(Text(found.disagreement, style="bold red"))
    return Group(*parts)


def exits_text(ended: Sequence[Trade]) -> str:
    """Count trades by what ended them, as ``target 3, time 12``; empty without any."""
    counts = Counter(trade.exit_reason for trade in ended)
    return ", ".join(f"{reason} {counts[reason]}" for reason in _REASONS if counts[reason])


def _table(title: str, trades: Iterator[Trade], day: dt.date | None) -> FittingTable:
    table = FittingTable(
        (
            Field("trade"),
            Field("orders", leave_out=2),
            Field("IST"),
            Field("ended by\nheld", leave_out=1),
            Field("charges", leave_out=4, right=True),
            Field("gross", leave_out=3, right=True),
            Field("net", right=True),
        ),
        title=title,
    )
    for trade in trades:
        back = "SELL" if trade.side == "BUY" else "BUY"
        end = f"mark {trade.exit_price:,.2f}" if trade.left_open else f"{back} at {trade.exit_price:,.2f}"
        table.add_row(
            f"{trade.symbol}\n{trade.strategy} v{trade.model_version}",
            f"{trade.side} {trade.quantity:,} at {trade.entry_price:,.2f}\n{end}",
            f"{clock_text(trade.entry_time_ns, day)}\n{clock_text(trade.exit_time_ns, day)}",
            f"{_end(trade)}\n{held_text(trade.exit_time_ns - trade.entry_time_ns)}",
            paise_text(trade.charges_inr_e4),
            f"{paise_text(trade.gross_pnl_inr_e4)}\n{trade.gross_bps:+.1f} bps",
            f"{paise_text(trade.net_pnl_inr_e4)}\n{trade.net_bps:+.1f} bps",
        )
    return table


def _end(trade: Trade) -> str:
    if not trade.left_open:
        return str(trade.exit_reason)
    return "open" if trade.left_open == trade.quantity else f"open {trade.left_open:,}"


def clock_text(time_ns: int, day: dt.date | None) -> str:
    """Give the time of day in IST, with month and day in front where it is not of that day."""
    moment = dt.datetime.fromtimestamp(time_ns // SECOND_NS, IST)
    return f"{moment:%H:%M:%S}" if moment.date() == day else f"{moment:%m-%d %H:%M:%S}"


def _totals(trades: Sequence[Trade]) -> FittingTable:
    table = FittingTable(
        (
            Field("strategy"),
            Field("version"),
            Field("ended", right=True),
            Field("open", leave_out=2, right=True),
            Field("won", leave_out=1, right=True),
            Field("charges", leave_out=3, right=True),
            Field("gross", leave_out=4, right=True),
            Field("net", right=True),
        ),
        title="totals",
    )
    key_of = {trade: (trade.strategy, trade.model_version) for trade in trades}
    keys = sorted(set(key_of.values()))
    for key in keys:
        table.add_row(*key, *_sums([trade for trade in trades if key_of[trade] == key]))
    if len(keys) > 1:
        table.add_section()
        table.add_row("all", "", *_sums(trades))
    return table


def _sums(trades: Sequence[Trade]) -> list[str]:
    ended = [trade for trade in trades if not trade.left_open]
    won = sum(trade.net_pnl_inr_e4 > 0 for trade in ended)
    return [
        f"{len(ended):,}",
        f"{len(trades) - len(ended):,}",
        f"{won / len(ended):.0%}" if ended else "",
        paise_text(sum(trade.charges_inr_e4 for trade in trades)),
        paise_text(sum(trade.gross_pnl_inr_e4 for trade in trades)),
        paise_text(sum(trade.net_pnl_inr_e4 for trade in trades)),
    ]


def rupees_text(amount_inr: float) -> str:
    """Write a float of rupees half-up to paise."""
    return paise_text(inr_e4(amount_inr))
