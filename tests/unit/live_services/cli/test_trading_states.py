"""Who may trade, as a person reads it and as a person commands it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from feature_store.market.types import Session
from live_services.cli.main import app
from live_services.cli.trading_states import (
    TradingStatesView,
    halted_by_letters,
    not_in_force,
    read_trading_states,
    trading_states_record,
    trading_states_table,
)
from live_services.domain.events import (
    DEAD_LETTERS,
    AccountOpened,
    Event,
    RecordHandedIn,
    TradingStateChanged,
    TradingStateCommanded,
    TradingSwitched,
    self_caused,
)
from tests.account_log import log_of
from tests.account_world import Account
from tests.live_world import SESSION


def commanded(*reasons: str) -> list[Event]:
    return [
        TradingStateCommanded(
            **self_caused("command", reason),
            broker="paper",
            event_time_ns=1,
            commanded_at_ns=1,
            state="HALTED",
            reason=reason,
            commanded_by="asha",
        )
        for reason in reasons
    ]


async def read(*events: Event) -> TradingStatesView:
    (view,) = await read_trading_states(log_of(events), ["paper"])
    return view


def told(account: Account) -> list[Event]:
    return [*account.of(AccountOpened, TradingStateChanged)]


def shown(view: TradingStatesView) -> str:
    console = Console(width=120)
    with console.capture() as capture:
        console.print(trading_states_table([view]))
    return capture.get()


async def test_without_a_command_everything_is_active() -> None:
    view = await read(*told(Account()))
    assert (view.in_force, view.unanswered) == ((), ())
    assert "ACTIVE" in shown(view)


async def test_what_is_in_force_is_what_the_session_began_with_and_what_was_commanded_since() -> None:
    first = Account().command("HALTED", 10).command("REDUCING", 20, strategy="momentum").close()
    second = Account(session=Session.regular(SESSION.date.replace(day=6)), before=first)
    carried = await read(*told(first), *told(second), *commanded("a", "b"))
    assert [(one.strategy, one.state) for one in carried.in_force] == [(None, "HALTED"), ("momentum", "REDUCING")]
    assert carried.unanswered == ()
    lifted = await read(*told(second.command("ACTIVE", 86_500)))
    assert [(one.strategy, one.state) for one in lifted.in_force] == [("momentum", "REDUCING")]
    assert "momentum" in shown(lifted)
    assert "asha: the desk said so" in shown(carried)


async def test_a_command_that_no_account_has_answered_is_shown_as_waiting() -> None:
    view = await read(*told(Account().command("HALTED", 10)), *commanded("answered", "waits"))
    assert [one.reason for one in view.unanswered] == ["waits"]
    assert "HALTED waits" in shown(view)
    (alarm,) = not_in_force([view])
    assert alarm.startswith("HALTED of all at paper, commanded by asha (waits), is NOT in force")
    (record,) = trading_states_record([view])
    assert [one["reason"] for one in record["unanswered"]] == ["waits"]
    assert [one["state"] for one in record["in_force"]] == ["HALTED"]


async def test_a_halt_that_nobody_commanded_is_an_ailment_and_a_persons_is_none() -> None:
    halted = await read(*told(Account().command("HALTED", 10)))
    assert halted_by_letters([halted]) == []
    (by_person,) = halted.in_force
    by_flood = by_person.model_copy(update={"commanded_by": DEAD_LETTERS, "reason": "100 records"})
    (alarm,) = halted_by_letters([replace(halted, in_force=(by_flood,))])
    assert alarm.startswith("paper is HALTED, by no person: 100 records; `")


async def test_a_mended_command_that_waits_is_shown_like_any_other() -> None:
    (record,) = commanded("mended")
    fields = (
        record.model_dump() | self_caused("handed in") | {"event_type": "record.handed_in", "letter_id": "a letter"}
    )
    known = {name: value for name, value in fields.items() if name in RecordHandedIn.model_fields}
    handed_in = RecordHandedIn.model_validate(known | {"record": record})
    view = await read(*told(Account()), handed_in)
    assert [one.reason for one in view.unanswered] == ["mended"]


async def test_that_no_order_is_given_whatever_is_in_force_is_said() -> None:
    account = Account(trading_off="TRADING__PAPER__ENABLED is false").command("REDUCING", 10, flatten=True)
    off = await read(*account.of(AccountOpened, TradingStateChanged, TradingSwitched))
    assert off.off is not None
    assert "no orders" in shown(off)
    assert "TRADING__PAPER__ENABLED is false" in shown(off)
    assert trading_states_record([off])[0]["trading_off"] == "TRADING__PAPER__ENABLED is false"
    on = await read(*account.switch(True, 20).of(AccountOpened, TradingStateChanged, TradingSwitched))
    assert on.off is None
    assert "no orders" not in shown(on)


@pytest.mark.parametrize("verb", ["halt", "reduce", "flatten", "resume"])
@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        ((), 2, "--reason"),
        (("--reason", " "), 1, "--reason is empty"),
        (("--reason", "r", "--broker", "nse"), 1, "there is no broker 'nse'; choose one of paper, zerodha"),
        (("--reason", "r"), 1, "no Kafka is known"),
    ],
)
def test_a_command_that_cannot_be_given_is_one_sentence_and_a_failure(
    verb: str, options: tuple[str, ...], code: int, says: str, tmp_path: Path
) -> None:
    result = CliRunner().invoke(app, ["--home", str(tmp_path), verb, *options])
    assert result.exit_code == code
    assert says in result.stderr
