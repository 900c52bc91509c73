"""Risk: every proposal becomes exactly one validated or one rejected signal, and every position gets its exit.

A rule is a small callable ``(proposal, context) -> Rejection | None``. It looks at the books as they are: an order that
was accepted before stands in them as under way, also within one instant. While a strategy is HALTED its exits are held
back, whatever they are for; stop and target rest all the same, as what was judged with the entry.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple, Protocol

from feature_store.market.types import MINUTE_NS, Session, Universe, ist_text
from live_services.domain.account.account_view import AccountView, PositionKey
from live_services.domain.basis import RiskVerdict, Stamp, answer
from live_services.domain.clock import NEVER_NS
from live_services.domain.events import (
    Basis,
    OrderFilled,
    Position,
    Reason,
    SignalGenerated,
    SignalRejected,
    SignalValidated,
    TradingStateChanged,
    event_id,
)
from live_services.domain.limits import AccountConfig
from live_services.domain.money import RUPEE, inr_e4, paise_text, share
from live_services.domain.snapshot import Tree
from live_services.domain.written import fields_of, read_rows, read_values, written_rows, written_values
from models_registry.specification import Broker

ALREADY_OPEN: Final = "already_open"
"""Rule that passes over a proposal on what its strategy holds: counted apart, never warned of."""


class Rejection(NamedTuple):
    """Why a rule refused a proposal."""

    rule: str
    limit: str
    observed: str


@dataclass(frozen=True, slots=True)
class RiskContext:
    """What the rules look at: the session, the limits, and the books."""

    session: Session
    universe: Universe
    config: AccountConfig
    books: AccountView

    @property
    def square_off_ns(self) -> int:
        """From here on no MIS position is opened, and those that are open are closed."""
        return self.session.close_ns - self.config.square_off_minutes_before_close * MINUTE_NS


class Rule(Protocol):
    """A risk rule; ``__name__`` is the name it goes by in events."""

    __name__: str

    def __call__(self, proposal: SignalGenerated, context: RiskContext, /) -> Rejection | None:
        """Refuse the proposal with a reason, or let it pass with None."""
        ...


def trading_state(proposal: SignalGenerated, context: RiskContext) -> Rejection | None:
    """Refuse an entry while a person's command lets the strategy, or the whole broker, only leave positions."""
    in_force = context.books.trading_states.strictest(proposal.strategy)
    if in_force is None:
        return None
    scope = in_force.strategy or proposal.broker
    observed = f"{in_force.state} since {ist_text(in_force.since_ns)} by {in_force.commanded_by}: {in_force.reason}"
    return Rejection("trading_state", f"{scope} is ACTIVE", observed)


def tradable(proposal: SignalGenerated, context: RiskContext) -> Rejection | None:
    """Refuse what cannot be bought or sold in this session."""
    index = context.universe.index_of_token.get(proposal.instrument_token)
    if index is not None and context.universe.instruments[index].tradable:
        return None
    observed = "it is not in the universe of this session" if index is None else "it is not tradable"
    return Rejection("tradable", "a tradable instrument", f"{proposal.symbol}: {observed}")


def market_hours(proposal: SignalGenerated, context: RiskContext) -> Rejection | None:
    """Refuse a decision outside the session, or after its product's last time: it could not fill, or not end."""
    session = context.session
    last_ns = context.square_off_ns if proposal.product == "MIS" else session.close_ns
    if session.open_ns <= proposal.event_time_ns < last_ns:
        return None
    limit = f"decision within {ist_text(session.open_ns)} … {ist_text(last_ns)} ({proposal.product})"
    return Rejection("market_hours", limit, ist_text(proposal.event_time_ns))


def already_open(proposal: SignalGenerated, context: RiskContext) -> Rejection | None:
    """Pass over an instrument that the strategy holds or has an order under way on: no adding, no flip."""
    key = (proposal.strategy, proposal.instrument_token)
    if not context.books.is_taken(key):
        return None
    held = context.books.positions.get(key)
    observed = f"position {held.quantity}" if held is not None else "an order under way"
    return Rejection(ALREADY_OPEN, f"one position of {proposal.strategy} at a time", observed)


def quantity_per_instrument(proposal: SignalGenerated, context: RiskContext) -> Rejection | None:
    """Refuse more shares of an instrument than the limit, of all strategies together."""
    limit = context.config.risk.max_quantity_per_instrument
    after = context.books.quantity(proposal.instrument_token) + proposal.quantity
    return Rejection("quantity_per_instrument", f"{limit} shares", f"{after} shares") if after > limit else None


def notional_per_instrument(proposal: SignalGenerated, context: RiskContext) -> Rejection | None:
    """Refuse an instrument worth more than the limit at the proposal's reference price."""
    shares = context.books.quantity(proposal.instrument_token) + proposal.quantity
    after = shares * inr_e4(proposal.reference_price)
    return _over("notional_per_instrument", after, context.config.risk.max_notional_per_instrument_inr)


def gross_notional(proposal: SignalGenerated, context: RiskContext) -> Rejection | None:
    """Refuse when everything held and under way together would be worth more than the limit."""
    after = context.books.gross_notional_inr_e4() + proposal.quantity * inr_e4(proposal.reference_price)
    return _over("gross_notional", after, context.config.risk.max_gross_notional_inr)


def open_positions(_proposal: SignalGenerated, context: RiskContext) -> Rejection | None:
    """Refuse one more open position than the limit."""
    after, limit = context.books.open_positions + 1, context.config.risk.max_open_positions
    return Rejection("open_positions", f"{limit} positions", f"{after} positions") if after > limit else None


OPEN_RULES: Final[tuple[Rule, ...]] = (
    already_open,
    trading_state,
    tradable,
    market_hours,
    quantity_per_instrument,
    notional_per_instrument,
    gross_notional,
    open_positions,
)
CLOSE_RULES: Final = ("trading_state", "market_hours", "nothing_to_reduce")
"""What an exit is asked: whether its strategy is HALTED, whether it could fill now, and whether there is a position.
Never its size."""

_RULE_NAMES: Final = tuple(rule.__name__ for rule in OPEN_RULES)


def _over(rule: str, observed_inr_e4: int, limit_inr: float) -> Rejection | None:
    if observed_inr_e4 <= limit_inr * RUPEE:
        return None
    return Rejection(rule, paise_text(round(limit_inr * RUPEE)), paise_text(observed_inr_e4))


def judge(proposal: SignalGenerated, context: RiskContext) -> RiskVerdict:
    """Judge one proposal by the books as they are; the verdict has the proposal's event time."""
    for rule in OPEN_RULES:
        rejection = rule(proposal, context)
        if rejection is not None:
            fields = _verdict(proposal, "rejected")
            fields["rule"], fields["limit"], fields["observed"] = rejection
            return SignalRejected.trusted(fields)
    fields = _verdict(proposal, "validated")
    fields["reason"] = "entry"
    fields["reference_price"] = proposal.reference_price
    fields["exit"] = proposal.exit
    fields["stop_price_inr_e4"] = fields["target_price_inr_e4"] = None
    fields["rules"] = _RULE_NAMES
    return SignalValidated.trusted(fields)


def _verdict(proposal: SignalGenerated, verdict: str) -> dict[str, Any]:
    own_id = event_id(verdict, proposal.event_id)
    fields = answer(
        proposal,
        f"signal.{verdict}",
        own_id,
        event_time_ns=proposal.event_time_ns,
        basis=proposal.basis,
        quantity=proposal.quantity,
    )
    fields["signal_id"] = proposal.event_id
    return fields


_Exit = tuple[int, PositionKey, str, Reason]
"""When it is due, the position, its opening order, and what it is for: an exit or a bracket."""


@dataclass(slots=True)
class RiskState:
    """What risk has to do in a session: proposals of this instant, and the exits of what is open."""

    context: RiskContext
    broker: Broker
    stamp: Stamp
    _proposals: list[tuple[int, int, str, int, str]] = field(default_factory=list)
    """Heap, in the order in which they are judged: time, priority, strategy, instrument, id."""
    _proposed: dict[str, SignalGenerated] = field(default_factory=dict)
    """What waits to be judged, by id."""
    _known: set[str] = field(default_factory=set)
    """Ids of all that was proposed in the session: of each comes one verdict."""
    _exits: list[_Exit] = field(default_factory=list)
    """Heap."""
    _held_back: list[_Exit] = field(default_factory=list)
    """Exits that were due while their strategy was HALTED, in that order."""
    _flattened_ns: dict[PositionKey, int] = field(default_factory=dict)
    """When each position was last to be flattened: while the trading stage is off, no order tells that it was."""
    _epoch: int = 0

    def propose(self, proposal: SignalGenerated) -> None:
        """Take a proposal; it is judged once everything of its instant is here.

        Raises
        ------
        ValueError
            If there was one of this id in the session: a proposal has one verdict.
        """
        if proposal.event_id in self._known:
            raise ValueError(f"proposal {proposal.event_id} was made twice; the first one stands")
        self._known.add(proposal.event_id)
        self._proposed[proposal.event_id] = proposal
        order = (
            proposal.event_time_ns,
            proposal.priority,
            proposal.strategy,
            proposal.instrument_token,
            proposal.event_id,
        )
        heapq.heappush(self._proposals, order)

    def opened(self, fill: OrderFilled) -> Iterator[SignalValidated]:
        """Take an opening fill: its exit is due from now on; its stop and target rest from its price on.

        Raises
        ------
        ValueError
            If the books did not take it.
        """
        position = self.context.books.positions.get((fill.strategy, fill.instrument_token))
        if position is None:
            raise ValueError(
                f"fill {fill.event_id} opens {fill.symbol} of {fill.strategy}, which the books do not hold"
            )
        if position.opening_fill_id != fill.event_id:
            return  # a further fill of the same order: the exit and the bracket are for the whole of it
        ordered = fill.quantity + fill.remaining_quantity
        bracket = tuple(self._bracket(position, fill.event_time_ns, ordered, fill.basis))
        self._schedule(position, fill.event_time_ns)
        yield from bracket

    @property
    def held_back(self) -> tuple[tuple[PositionKey, Reason], ...]:
        """Exits that are due, and wait until their strategy is HALTED no more."""
        return tuple([(key, reason) for _, key, _, reason in self._held_back]) if self._held_back else ()

    def trading_state_changed(self, event: TradingStateChanged) -> Iterator[SignalValidated]:
        """Close what is to be flattened, whatever else is in force, then what was held back and may go on now.

        At once, not at the next watermark: the market may stall.
        """
        at_ns, change = event.event_time_ns, event.in_force
        if change.flatten:
            held = sorted(self.context.books.positions.items())
            for key, position in held:
                if change.strategy in (None, position.strategy) and self._flattened_ns.get(key) != at_ns:
                    self._flattened_ns[key] = at_ns
                    yield from self._exit(at_ns, key, position.opening_order_id, "flatten", at_ns)
        held_back, self._held_back = self._held_back, []
        for one in held_back:
            yield from self._exit_unless_halted(one, at_ns)

    def due_ns(self) -> int:
        """Give the next instant at which something is to be judged or closed."""
        if self._epoch != self.context.books.epoch:
            self._enter_carried()
        due_ns = self._exits[0][0] if self._exits else NEVER_NS
        return min(due_ns, self._proposals[0][0]) if self._proposals else due_ns

    def fire(self, at_ns: int) -> Iterator[RiskVerdict]:
        """First the exits, then the proposals by stated priority, one at a time."""
        while self._exits and self._exits[0][0] <= at_ns:
            yield from self._exit_unless_halted(heapq.heappop(self._exits), at_ns)
        while self._proposals and self._proposals[0][0] <= at_ns:
            yield judge(self._proposed.pop(heapq.heappop(self._proposals)[-1]), self.context)

    # --- exits ----------------------------------------------------------------------------------------------------

    def ordered_again(self, now_ns: int) -> None:
        """Begin anew with what is open: nobody ordered the exits that came while the trading stage was off."""
        self._exits.clear()
        self._held_back.clear()
        for position in self.context.books.positions.values():
            if position.instrument_token not in self.context.universe.index_of_token:
                continue
            self._schedule(position, now_ns)
            if position.exit.is_bracketed and not self.context.books.is_protected(position.key):
                self._push(now_ns, position, "bracket")

    def _enter_carried(self) -> None:
        """Take what the session began with: what should have ended is closed at the open, the rest is protected."""
        self._epoch, session = self.context.books.epoch, self.context.session
        self._exits.clear()
        self._held_back.clear()
        for position in self.context.books.positions.values():
            if position.instrument_token not in self.context.universe.index_of_token:
                continue  # nobody can close it today; the portfolio manager alarms
            self._schedule(position, session.open_ns)
            if position.exit.is_bracketed:
                self._push(session.open_ns, position, "bracket")

    def _schedule(self, position: Position, now_ns: int) -> None:
        """Let it be closed at its end; one that filled after that (a thin instrument) at once."""
        ends_ns, reason = self._ends(position)
        due_ns = max(ends_ns, now_ns)
        if due_ns < self.context.session.close_ns:
            self._push(due_ns, position, reason)

    def _push(self, due_ns: int, position: Position, reason: Reason) -> None:
        heapq.heappush(self._exits, (due_ns, position.key, position.opening_order_id, reason))

    def _ends(self, position: Position) -> tuple[int, Reason]:
        """Say when a position is closed at the market, and why."""
        session, expiry_ns = self.context.session, position.exit.expiry_ns
        carried = position.opened_ns < session.open_ns
        if carried and (position.product == "MIS" or expiry_ns <= session.open_ns):
            return session.open_ns, "carried"
        flat_from_ns = self.context.books.trading_states.flat_from_ns(position.strategy)
        if flat_from_ns is not None:
            return flat_from_ns, "flatten"
        if position.product == "MIS" and self.context.square_off_ns < expiry_ns:
            return self.context.square_off_ns, "square_off"
        return expiry_ns, "time"

    def _exit_unless_halted(self, one: _Exit, at_ns: int) -> Iterator[SignalValidated]:
        _, (strategy, _), _, reason = one
        if reason != "bracket" and self.context.books.trading_states.is_halted(strategy):
            self._held_back.append(one)
            return
        yield from self._exit(*one, at_ns)

    def _exit(
        self, due_ns: int, key: PositionKey, opening_order_id: str, reason: Reason, at_ns: int
    ) -> Iterator[SignalValidated]:
        position, session = self.context.books.positions.get(key), self.context.session
        if position is None or position.opening_order_id != opening_order_id or self.context.books.is_closing(key):
            return
        if not session.open_ns <= at_ns < session.close_ns or key[1] not in self.context.universe.index_of_token:
            return
        if reason == "bracket":
            # One that ends at once needs none, unless a halt holds its end back.
            if self._ends(position)[0] > due_ns or self.context.books.trading_states.is_halted(position.strategy):
                yield from self._bracket(position, at_ns, abs(position.quantity), self.stamp.basis())
            return
        yield self._validated(position, at_ns, abs(position.quantity), reason, self.stamp.basis())

    def _bracket(self, position: Position, at_ns: int, quantity: int, basis: Basis) -> Iterator[SignalValidated]:
        """Let stop and target of a position rest as one pair, at distances from its average price."""
        terms, direction = position.exit, 1 if position.quantity > 0 else -1
        if not terms.is_bracketed:
            return
        price = share(abs(position.cost_inr_e4), 1, abs(position.quantity))
        stop, target = terms.stop_distance_inr_e4, terms.target_distance_inr_e4
        yield self._validated(
            position,
            at_ns,
            quantity,
            "bracket",
            basis,
            stop_price_inr_e4=None if stop is None else price - direction * stop,
            target_price_inr_e4=None if target is None else price + direction * target,
        )

    def _validated(
        self,
        position: Position,
        at_ns: int,
        quantity: int,
        reason: Reason,
        basis: Basis,
        *,
        stop_price_inr_e4: int | None = None,
        target_price_inr_e4: int | None = None,
    ) -> SignalValidated:
        of = vars(position)
        return SignalValidated.trusted(
            {
                "event_type": "signal.validated",
                "broker": self.broker,
                "event_id": event_id("exit", of["opening_fill_id"], at_ns, reason),
                "correlation_id": of["signal_id"],
                "causation_id": of["opening_fill_id"],
                "event_time_ns": at_ns,
                "schema_version": 2,
                "model_name": of["model_name"],
                "model_version": of["model_version"],
                "feature_schema_hash": of["feature_schema_hash"],
                "basis": basis,
                "strategy": of["strategy"],
                "rung": of["rung"],
                "instrument_token": of["instrument_token"],
                "symbol": of["symbol"],
                "product": of["product"],
                "side": "SELL" if of["quantity"] > 0 else "BUY",
                "intent": "close",
                "quantity": quantity,
                "signal_id": of["signal_id"],
                "reason": reason,
                "reference_price": abs(of["cost_inr_e4"] / of["quantity"]) / RUPEE,
                "exit": None,
                "stop_price_inr_e4": stop_price_inr_e4,
                "target_price_inr_e4": target_price_inr_e4,
                "rules": CLOSE_RULES,
            }
        )

    # --- snapshots ------------------------------------------------------------------------------------------------

    def snapshot(self) -> Tree:
        """Write down what is to be judged, what is to be closed, and the limits of the session."""
        return {
            "config": self.context.config.model_dump(mode="json"),
            "proposals": written_rows(self._proposals),
            "proposed": written_values(SignalGenerated, self._proposed.values()),
            "known": written_rows(self._known),
            "exits": written_rows(self._exits),
            "held_back": written_rows(self._held_back),
            "flattened_ns": written_rows(self._flattened_ns.items()),
            "epoch": self._epoch,
        }

    def restore(self, kept: Tree) -> None:
        """Go on where a snapshot was taken; the books were restored before."""
        there = fields_of(kept)
        self.context = replace(self.context, config=AccountConfig.model_validate(there["config"]))
        self._proposals = [(at, priority, *who) for at, priority, *who in read_rows(there["proposals"])]
        self._proposed = {one.event_id: one for one in read_values(SignalGenerated, there["proposed"])}
        self._known = set(read_rows(there["known"]))
        self._exits, self._held_back = ([_exit_of(*one) for one in read_rows(there[n])] for n in ("exits", "held_back"))
        self._flattened_ns = {(strategy, token): ns for (strategy, token), ns in read_rows(there["flattened_ns"])}
        self._epoch = there["epoch"]


def _exit_of(due_ns: int, key: list[Any], opening_order_id: str, reason: Reason) -> _Exit:
    return due_ns, (key[0], key[1]), opening_order_id, reason
