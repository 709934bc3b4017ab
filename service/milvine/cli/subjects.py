"""The options that say whom items are for."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import click

from milvine.cli.hits import names
from milvine.client.types import HistoryEvent

F = TypeVar("F", bound=Callable[..., None] | click.Command)


@dataclass(frozen=True, slots=True)
class SubjectArgs:
    """Whom a command was told: a user, a history, or a taste by examples."""

    user: str | None
    history: str | None
    event_type: str
    like: tuple[str, ...]
    dislike: tuple[str, ...]

    def __post_init__(self) -> None:
        given = (self.user is not None, self.history is not None, bool(self.like or self.dislike))
        if sum(given) != 1:
            raise click.UsageError(
                "name a --user, a --history, or items to --like and --dislike, and only one of them"
            )

    @property
    def events(self) -> list[HistoryEvent] | None:
        """The events of the history."""
        return None if self.history is None else events(self.history, self.event_type)

    @property
    def liked(self) -> dict[str, float]:
        """The items that fit, with the weight of each."""
        return _weights(self.like)

    @property
    def disliked(self) -> dict[str, float]:
        """The items that don't, with the weight of each."""
        return _weights(self.dislike)


def subject_options(command: F) -> F:
    """Options that say whom items are for."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


_OPTIONS: Sequence[Callable[[F], F]] = (
    click.option("--user", metavar="ID", help="That user."),
    click.option(
        "--history",
        metavar="ITEM[=VALUE],…",
        help="Whoever did that, oldest first; with values such as ratings.",
    ),
    click.option(
        "--event-type",
        default="",
        metavar="NAME",
        help="What the --history did; needed where the catalog declares several event types.",
    ),
    click.option(
        "--like",
        multiple=True,
        metavar="ITEM[=WEIGHT]",
        help="Whoever likes that item; may be given several times.",
    ),
    click.option(
        "--dislike",
        multiple=True,
        metavar="ITEM[=WEIGHT]",
        help="And doesn't like that one; may be given several times.",
    ),
)


def events(text: str, event_type: str = "") -> list[HistoryEvent]:
    """The events of `ITEM[=VALUE],…`; what stands behind the last `=` is a value if a number."""
    found = (_valued(part) for part in names(text))
    return [HistoryEvent(item, event_type, value) for item, value in found]


def _weights(texts: Sequence[str]) -> dict[str, float]:
    found = (_valued(text) for text in texts)
    return {item: 1.0 if weight is None else weight for item, weight in found}


def _valued(text: str) -> tuple[str, float | None]:
    item_id, sign, number_text = text.rpartition("=")
    if sign and item_id:
        with contextlib.suppress(ValueError):
            return item_id, float(number_text)
    return text, None
