"""What commands print: tables for people, JSON for machines; notes and bars go to stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TextIO

import orjson
from rich import box
from rich.console import Console, RenderableType
from rich.markup import escape
from rich.table import Table

PIPED_WIDTH = 160
"""The width of tables that go to a file or a pipe, which have none of their own."""


@dataclass(frozen=True, slots=True)
class Output:
    """Where a command prints."""

    is_json: bool
    out: Console
    err: Console

    @classmethod
    def create(cls, *, is_json: bool) -> Output:
        """Printing to this process's stdout and stderr."""
        return cls(is_json, _console(sys.stdout), _console(sys.stderr))

    def show(self, document: object, *views: RenderableType) -> None:
        """Print the result of a command: the document as JSON, or else the views of it."""
        if self.is_json:
            self.out.file.write(to_json(document) + "\n")
            return
        for view in views:
            self.out.print(view)

    def line(self, document: object) -> None:
        """Print one of a stream of JSON documents."""
        self.out.file.write(to_json(document, is_line=True) + "\n")
        self.out.file.flush()

    def note(self, text: str) -> None:
        """Say something by the way."""
        self.err.print(f"[dim]{escape(text)}[/dim]", highlight=False, soft_wrap=True)

    def complain(self, text: str) -> None:
        """Say what went wrong, in one line."""
        self.err.print(f"[bold red]Error:[/] {escape(text)}", highlight=False, soft_wrap=True)

    def detail(self, lines: Iterable[str]) -> None:
        """Say what belongs to a complaint."""
        for line in lines:
            self.err.print(f"  {escape(line)}", highlight=False, soft_wrap=True)


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table; numbers stand at its right."""

    name: str
    justify: Literal["left", "right"] = "left"
    style: str = ""


def number(name: str, style: str = "") -> Column:
    """A column of numbers."""
    return Column(name, "right", style)


def table(columns: Sequence[Column], rows: Iterable[Sequence[object]], *, title: str = "") -> Table:
    """A table of values, each shown as `shown` says."""
    view = Table(box=box.SIMPLE_HEAD, title=title or None, title_justify="left")
    for column in columns:
        view.add_column(column.name, justify=column.justify, style=column.style or None)
    for row in rows:
        view.add_row(*(escape(shown(value)) for value in row))
    return view


def shown(value: object) -> str:
    """A value as people read it."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:,.4f}"
        case datetime():
            return value.astimezone().strftime("%Y-%m-%d %H:%M:%S")
        case list() | tuple():
            return ", ".join(shown(element) for element in value)
        case _:
            return str(value)


def to_json(document: object, *, is_line: bool = False) -> str:
    """The document as JSON: dataclasses as objects, times in ISO 8601."""
    option = orjson.OPT_SERIALIZE_NUMPY | (0 if is_line else orjson.OPT_INDENT_2)
    return orjson.dumps(document, default=_plain, option=option).decode()


def _plain(value: object) -> object:
    """What orjson does not know by itself."""
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    return str(value)


def _console(file: TextIO) -> Console:
    width = None if file.isatty() else PIPED_WIDTH
    return Console(file=file, width=width, highlight=False)
