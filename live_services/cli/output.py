"""What a command gives back: JSON for a script, or a table that leaves out whole columns rather than cut words."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, TypeAlias

import typer
from rich import box
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Column, Table
from rich.text import Text

from live_services.cli.errors import out

JsonOption: TypeAlias = Annotated[bool, typer.Option("--json", help="As JSON.")]
_LEAST_TEXT: Final = 24  # fewer columns of running text are hard to read


def tell_json(value: object) -> None:
    """Print one JSON document, the same in a terminal and in a pipe."""
    out.print(json.dumps(value, indent=2, ensure_ascii=False), soft_wrap=True, markup=False, highlight=False)


@dataclass(frozen=True, slots=True)
class Field:
    """A column of a table."""

    header: str
    leave_out: int = 0
    """Where the table is too wide, columns with the highest number go first; 0 stays."""
    text: bool = False
    """Running text, which may be broken between words; all else stays on its line."""
    right: bool = False

    def column(self) -> Column:
        """Give rich's column; it begins without cells."""
        if self.text:
            return Column(self.header, overflow="fold")
        return Column(self.header, justify="right" if self.right else "left", no_wrap=True, overflow="fold")


@dataclass(slots=True)
class FittingTable:
    """A table that leaves columns out where it is too wide, and says below which."""

    fields: Sequence[Field]
    title: str = ""
    rows: list[tuple[str, ...]] = field(default_factory=list)
    sections: set[int] = field(default_factory=set)

    def add_row(self, *cells: str) -> None:
        """Add a row of markup, one cell for each field."""
        self.rows.append(cells)

    def add_section(self) -> None:
        """Draw a line below the last row."""
        self.sections.add(len(self.rows))

    def shown_on(self, width: int) -> tuple[list[Field], list[Field]]:
        """Say which fields are shown on so many columns, and which are left out, the first to go first."""
        shown, gone = list(self.fields), []
        while self._width(shown) > width:
            expendable = [one for one in shown if one.leave_out]
            if not expendable:
                break
            gone.append(max(expendable, key=lambda one: one.leave_out))
            shown.remove(gone[-1])
        return shown, gone

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Lay it out for the width that there is."""
        shown, gone = self.shown_on(options.max_width)
        table = Table(
            *(one.column() for one in shown),
            title=self.title or None,
            title_justify="left",
            box=box.SIMPLE_HEAD,
            pad_edge=False,
            show_edge=False,
            collapse_padding=True,
        )
        places = [self.fields.index(one) for one in shown]
        for number, row in enumerate(self.rows, 1):
            table.add_row(*(row[place] for place in places), end_section=number in self.sections)
        yield table
        if gone:
            named = ", ".join(one.header.replace("\n", " ") for one in gone)
            yield Text(f"left out for want of room: {named}", style="dim")

    def _width(self, shown: Sequence[Field]) -> int:
        needed = 0
        for one in shown:
            widest = max(_widths(one.header, (row[self.fields.index(one)] for row in self.rows)))
            needed += min(widest, _LEAST_TEXT) if one.text else widest
        return needed + 2 * (len(shown) - 1)


def _widths(header: str, cells: Iterable[str]) -> Iterator[int]:
    yield max(len(line) for line in header.split("\n"))
    for cell in cells:
        yield max(line.cell_len for line in Text.from_markup(cell).split("\n", allow_blank=True))


def facts_table(facts: Iterable[tuple[str, RenderableType]], title: str = "") -> Table:
    """Lay out names and values, one to a line; long values go on in the next line."""
    table = Table(
        Column(no_wrap=True),
        Column(overflow="fold"),
        title=title or None,
        title_justify="left",
        show_header=False,
        box=None,
        pad_edge=False,
    )
    for fact in facts:
        table.add_row(*fact)
    return table


Document: TypeAlias = dict[str, Any]
"""What ``--json`` prints of one thing."""
