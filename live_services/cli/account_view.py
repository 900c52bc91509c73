"""One account as ``status`` shows it: money, open positions, strategies, and what risk said in the session."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.console import Group, RenderableType
from rich.text import Text

from feature_store.market.types import MINUTE_NS, date_of_day, ist_day, ist_ns, ist_text
from live_services.cli.log_view import LogBackwards, newest, since
from live_services.cli.output import Field, FittingTable
from live_services.cli.trades import clock_text, rupees_text
from live_services.domain.account.risk import ALREADY_OPEN
from live_services.domain.events import (
    PnlSnapshot,
    PositionMark,
    SessionOpened,
    SignalRejected,
    SignalValidated,
    StrategyTotals,
)
from live_services.domain.limits import AccountConfig
from live_services.domain.money import RUPEE, paise_text
from live_services.domain.topics import MARKET_SESSIONS, broker_topics
from live_services.settings import Settings
from models_registry.specification import Broker, StrategySpec


@dataclass(slots=True)
class Verdicts:
    """What risk said in a session."""

    accepted: int = 0
    already_open: int = 0
    """Proposals on what their strategy held: no complaint."""
    rejected: Counter[str] = field(default_factory=Counter)
    """By rule."""
    exits: Counter[str] = field(default_factory=Counter)
    """Raised at the market, by reason."""
    brackets: int = 0
    """Pairs of stop and target set to rest."""
    accepted_of: Counter[str] = field(default_factory=Counter)
    """Entries by strategy."""
    rejected_of: dict[str, Counter[str]] = field(default_factory=dict)
    """By strategy and rule."""

    def __str__(self) -> str:
        return (
            f"{self.accepted:,} entries accepted, {self.already_open:,} passed over as already open, "
            f"{_counted('rejected', self.rejected)}; {_counted('exits raised', self.exits)}, "
            f"{self.brackets:,} stops and targets set"
        )


@dataclass(frozen=True, slots=True)
class AccountView:
    """What there is to show of one account."""

    snapshot: PnlSnapshot
    verdicts: Verdicts | None
    """None: the log could not be read."""
    close_ns: int | None
    """The session's, if the feed's word of it was found."""


def _counted(what: str, counter: Counter[str]) -> str:
    each = ", ".join(f"{name} {count:,}" for name, count in counter.most_common())
    return f"{counter.total():,} {what}" + (f" ({each})" if each else "")


async def read_account(log: LogBackwards, broker: Broker, snapshot: PnlSnapshot | None) -> AccountView | None:
    """Read what the log says of an account's newest session; None if it never said anything.

    Parameters
    ----------
    snapshot
        The newest one, if Redis has it; else the log's is taken.
    """
    snapshot = snapshot or await newest(log, broker_topics(broker).pnl_snapshots, PnlSnapshot)
    if snapshot is None:
        return None
    since_ns = ist_ns(dt.date.fromisoformat(snapshot.session_date), dt.time())
    verdicts = await read_verdicts(log, broker, since_ns)
    told = await newest(log, MARKET_SESSIONS, SessionOpened, containing=f'"session_date":"{snapshot.session_date}"')
    return AccountView(snapshot, verdicts, told.session_close_ns if told is not None else None)


async def read_verdicts(log: LogBackwards, broker: Broker, since_ns: int) -> Verdicts:
    """Count risk's verdicts from an event time on."""
    topics, said = broker_topics(broker), Verdicts()
    async for accepted in since(log, topics.signals_validated, SignalValidated, since_ns):
        if accepted.intent == "open":
            said.accepted += 1
            said.accepted_of[accepted.strategy] += 1
        elif accepted.reason == "bracket":
            said.brackets += 1
        else:
            said.exits[accepted.reason] += 1
    async for refused in since(log, topics.signals_rejected, SignalRejected, since_ns):
        if refused.rule == ALREADY_OPEN:
            said.already_open += 1
        else:
            said.rejected[refused.rule] += 1
            said.rejected_of.setdefault(refused.strategy, Counter())[refused.rule] += 1
    return said


def render(view: AccountView, settings: Settings) -> RenderableType:
    """Lay an account out."""
    snapshot = view.snapshot
    config: AccountConfig = getattr(settings.trading, snapshot.broker)
    held = [position for position in snapshot.positions if position.quantity]
    parts: list[RenderableType] = [
        Text(f"{snapshot.broker} account, session {snapshot.session_date}, {ist_text(snapshot.event_time_ns)}", "bold"),
        _money(snapshot),
    ]
    if view.verdicts is not None:
        parts.append(Text(f"risk: {view.verdicts}"))
    parts += _carried(view, held)
    if view.verdicts is not None and view.verdicts.rejected_of:
        parts.append(_rejections(view.verdicts))
    if held:
        parts.append(_positions(held, view, config, settings.strategies))
    if snapshot.strategies:
        parts.append(_strategies(snapshot.strategies, held))
    if not snapshot.charges_exact:
        parts.append(Text("note: no schedule of charges is verified for this session's day", style="yellow"))
    return Group(*parts)


def _money(snapshot: PnlSnapshot) -> Text:
    return Text(
        f"cash {paise_text(snapshot.cash_inr_e4)}, equity {rupees_text(snapshot.equity_inr)}, net today "
        f"{rupees_text(snapshot.net_today_inr)}\n"
        f"realised today {paise_text(snapshot.realized_today_inr_e4)}, charges today "
        f"{paise_text(snapshot.charges_today_inr_e4)}, unrealised {rupees_text(snapshot.unrealized_inr)}, "
        f"{snapshot.fills:,} fills, {snapshot.orders_under_way:,} orders under way"
    )


def _carried(view: AccountView, held: Sequence[PositionMark]) -> list[Text]:
    date = dt.date.fromisoformat(view.snapshot.session_date)
    carried = [position for position in held if _is_carried(position, date)]
    return [Text(f"carried from an earlier session: {_named(carried)}", style="bold yellow")] if carried else []


def open_after_close(view: AccountView) -> str:
    """Name what an account holds although its session is over; empty if it holds nothing then."""
    held = [position for position in view.snapshot.positions if position.quantity]
    if not held or view.close_ns is None or view.snapshot.event_time_ns <= view.close_ns:
        return ""
    return f"{view.snapshot.broker}: open after the session's close: {_named(held)}"


def _named(positions: Sequence[PositionMark]) -> str:
    return ", ".join(f"{p.quantity:+,} {p.symbol} ({p.strategy})" for p in positions)


def _is_carried(position: PositionMark, session_date: dt.date) -> bool:
    return date_of_day(ist_day(position.opened_ns)) < session_date


def _positions(
    held: Sequence[PositionMark], view: AccountView, config: AccountConfig, strategies: Sequence[StrategySpec]
) -> FittingTable:
    day, product = dt.date.fromisoformat(view.snapshot.session_date), {s.name: s.product for s in strategies}
    table = FittingTable(
        (
            Field("position"),
            Field("strategy"),
            Field("average", leave_out=2, right=True),
            Field("mark", leave_out=3, right=True),
            Field("unrealised", right=True),
            Field("since", leave_out=1, right=True),
            Field("ends", right=True),
        ),
        title="open positions (IST)",
    )
    for position in held:
        ends_ns = position.expiry_ns
        if view.close_ns is not None and product.get(position.strategy, "MIS") == "MIS":
            ends_ns = min(ends_ns, view.close_ns - config.square_off_minutes_before_close * MINUTE_NS)
        side = "long" if position.quantity > 0 else "short"
        table.add_row(
            f"{position.symbol} {side} {abs(position.quantity):,}",
            f"{position.strategy} v{position.model_version}",
            f"{position.average_price:,.2f}",
            f"{position.mark_price:,.2f}",
            rupees_text(position.unrealized_inr),
            clock_text(position.opened_ns, day),
            clock_text(ends_ns, day),
        )
    return table


def _rejections(verdicts: Verdicts) -> FittingTable:
    table = FittingTable(
        (Field("strategy"), Field("accepted", right=True), Field("rejected", right=True), Field("by rule", text=True)),
        title="risk in the session, by strategy",
    )
    for strategy in sorted({*verdicts.accepted_of, *verdicts.rejected_of}):
        rules = verdicts.rejected_of.get(strategy, Counter[str]())
        by_rule = ", ".join(f"{rule} {count:,}" for rule, count in rules.most_common())
        table.add_row(strategy, f"{verdicts.accepted_of[strategy]:,}", f"{rules.total():,}", by_rule)
    return table


def _version(total: StrategyTotals) -> str:
    version = f"v{total.model_version}"
    return version if total.model_name == total.strategy else f"{total.model_name} {version}"


def _strategies(totals: Sequence[StrategyTotals], held: Sequence[PositionMark]) -> FittingTable:
    table = FittingTable(
        (
            Field("strategy"),
            Field("version"),
            Field("trades", right=True),
            Field("open", leave_out=1, right=True),
            Field("realised", leave_out=3, right=True),
            Field("charges", leave_out=4, right=True),
            Field("unrealised", leave_out=2, right=True),
            Field("net", right=True),
        ),
        title="since the account began",
    )
    for total in totals:
        mine = [p for p in held if (p.strategy, p.model_version) == (total.strategy, total.model_version)]
        unrealized = sum(position.unrealized_inr for position in mine)
        table.add_row(
            total.strategy,
            _version(total),
            f"{total.trades:,}",
            f"{len(mine):,}",
            paise_text(total.realized_inr_e4),
            paise_text(total.charges_inr_e4),
            rupees_text(unrealized),
            rupees_text((total.realized_inr_e4 - total.charges_inr_e4) / RUPEE + unrealized),
        )
    return table
