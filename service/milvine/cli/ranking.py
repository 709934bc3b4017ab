"""The options of a ranking: `--boost`, `--decay`, `--diversity` and `--cap`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TypeVar

import click

from milvine.cli.durations import DURATION
from milvine.cli.pairs import PAIR
from milvine.client.ranking import Boost, NumberDecay, Ranking, TimeDecay
from milvine.client.types import Parameter

F = TypeVar("F", bound=Callable[..., None] | click.Command)


class BoostParam(click.ParamType[Boost]):
    """A factor, then the filter of the items that it is for."""

    name = "FACTOR:FILTER"

    def convert(  # noqa: D102 - click's own
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> Boost:
        factor, _, text = str(value).partition(":")
        try:
            return Boost(float(factor), text.strip())
        except ValueError:
            self.fail(f"{value!r} has no number before a colon, as 1.5:year >= 2000", param, ctx)


class DecayParam(click.ParamType[NumberDecay | TimeDecay]):
    """A field, where its factor is 1, and where it is a half: a number or a duration from there."""

    name = "FIELD:ORIGIN:HALF"

    def convert(  # noqa: D102 - click's own
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> NumberDecay | TimeDecay:
        field, _, rest = str(value).partition(":")
        origin, sign, half = rest.rpartition(":")
        if not (field and sign):
            self.fail(f"{value!r} is not of the form {self.name}", param, ctx)
        with contextlib.suppress(ValueError):
            return NumberDecay(field, float(origin), float(half))
        half_life = DURATION.convert(half, param, ctx)
        if origin == "now":
            return TimeDecay(field, half_life)
        try:
            return TimeDecay(field, half_life, datetime.fromisoformat(origin))
        except ValueError:
            self.fail(f"{origin!r} is neither a number nor `now` nor a time", param, ctx)


@dataclass(frozen=True, slots=True)
class RankingArgs:
    """What a command was told of a ranking."""

    boost: tuple[Boost, ...]
    decay: tuple[NumberDecay | TimeDecay, ...]
    diversity: float | None
    cap: tuple[tuple[str, str], ...]

    def ranking(self, params: Mapping[str, Parameter]) -> Ranking | None:
        """The ranking; each boost takes the parameters that stand in its filter."""
        if not (self.boost or self.decay or self.cap) and self.diversity is None:
            return None
        boosts = [replace(one, filter_params=_standing(params, one.filter)) for one in self.boost]
        caps = {name: _whole(name, text) for name, text in self.cap}
        return Ranking([*boosts, *self.decay], self.diversity, caps=caps)

    def others(self, params: Mapping[str, Parameter], text: str) -> dict[str, Parameter]:
        """The parameters of the main filter: those in it, and those that stand nowhere."""
        taken = {name for one in self.boost for name in _standing(params, one.filter)}
        return {n: v for n, v in params.items() if n not in taken or n in _standing(params, text)}


def ranking_options(command: F) -> F:
    """Options that say how hits are ordered and chosen."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


_OPTIONS: Sequence[Callable[[F], F]] = (
    click.option(
        "--boost",
        type=BoostParam(),
        multiple=True,
        help="Multiply the scores of what matches: '2:year >= 2000'. May be given several times.",
    ),
    click.option(
        "--decay",
        type=DecayParam(),
        multiple=True,
        help="Halve scores with each HALF between a field and ORIGIN: price:20:5, "
        "published:now:30d. May be given several times.",
    ),
    click.option(
        "--diversity",
        type=click.FloatRange(0, 1),
        metavar="RELEVANCE",
        help="Prefer hits that differ: 1 orders by score alone, 0 by difference alone.",
    ),
    click.option(
        "--cap",
        type=PAIR,
        multiple=True,
        metavar="FIELD=MOST",
        help="At most so many hits with the same value: author=2. May be given several times.",
    ),
)


def _standing(params: Mapping[str, Parameter], text: str) -> dict[str, Parameter]:
    return {name: value for name, value in params.items() if f"{{{name}}}" in text}


def _whole(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is no whole number: --cap {name}=2") from None
