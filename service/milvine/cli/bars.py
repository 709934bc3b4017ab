"""Progress bars on stderr: of files that are read, and of work that goes on in a server."""

from __future__ import annotations

from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text


class _Rate(ProgressColumn):
    """How many rows were read, and how many a second."""

    def render(self, task: Task) -> Text:
        return _rate(int(task.fields.get("rows", 0)), "rows", task)


class _Users(ProgressColumn):
    """How many users were answered for, and how many a second."""

    def render(self, task: Task) -> Text:
        return _rate(int(task.completed), "users", task)


def _rate(count: int, what: str, task: Task) -> Text:
    per_second = count / task.elapsed if task.elapsed else 0.0
    return Text(f"{count:,} {what}, {per_second:,.0f}/s", style="cyan")


def file_bar(console: Console) -> Progress:
    """A bar for a file, whose tasks carry `rows`."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        _Rate(),
        TimeRemainingColumn(elapsed_when_finished=True),
        console=console,
    )


def user_bar(console: Console) -> Progress:
    """A bar for users, one a step."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        _Users(),
        TimeRemainingColumn(elapsed_when_finished=True),
        console=console,
    )


class WorkBar:
    """A bar for an operation: its step, its share, and a remark such as the loss."""

    def __init__(self, console: Console, title: str) -> None:
        self._bar = Progress(
            SpinnerColumn(finished_text="[green]✓[/]"),
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("[cyan]{task.fields[remark]}[/]"),
            console=console,
        )
        self._title = title
        self._task = self._bar.add_task(title, total=1.0, remark="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def show(self, step: str, share: float, remark: str = "") -> None:
        """Show how far the work is."""
        step = step.replace("_", " ").lower() or "waiting for a worker"
        self._bar.update(
            self._task,
            completed=share,
            description=f"{self._title}: {escape(step)}",
            remark=escape(remark),
        )

    def finish(self) -> None:
        """Show that the work is done."""
        self._bar.update(self._task, completed=1.0, description=f"{self._title}: done")
