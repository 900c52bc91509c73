"""Tables that leave out whole columns where they are too wide, and say which."""

from __future__ import annotations

import io

from rich.console import Console

from live_services.cli.output import Field, FittingTable

WHY = "the newest version whose champion gate passed on rows that it had never seen"


def table() -> FittingTable:
    made = FittingTable(
        (
            Field("model"),
            Field("created", leave_out=1),
            Field("schema", leave_out=2),
            Field("rows", right=True),
            Field("why", text=True),
        ),
        title="models",
    )
    made.add_row("momentum", "2026-11-26 07:24:18 IST", "24a86777bf5b", "[red]198,800[/]", WHY)
    return made


def drawn(width: int) -> str:
    out = io.StringIO()
    Console(file=out, width=width).print(table())
    return out.getvalue()


def test_with_room_everything_stands_there_and_nothing_is_said() -> None:
    shown = drawn(140)
    assert "24a86777bf5b" in shown
    assert WHY in shown
    assert "left out" not in shown


def test_the_most_expendable_columns_go_first_and_are_named() -> None:
    assert "left out for want of room: schema\n" in drawn(80)
    assert "left out for want of room: schema, created\n" in drawn(60)


def test_no_word_is_cut_and_no_line_is_wider_than_the_terminal() -> None:
    for width in (60, 80, 100, 140):
        shown = drawn(width)
        assert "momentum" in shown.split()
        assert "198,800" in shown.split()
        assert set(WHY.split()) <= set(shown.split())
        assert "…" not in shown
        assert max(len(line) for line in shown.splitlines()) <= width
