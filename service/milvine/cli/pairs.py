"""Options that are parsed: `NAME=VALUE`, which may be given several times, and lists."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

import click
import orjson

from milvine.client.types import Parameter

Json: TypeAlias = str | int | float | bool | Sequence[object] | None


class Pair(click.ParamType[tuple[str, str]]):
    """A name and a text, divided by the first `=`."""

    name = "NAME=VALUE"

    def convert(  # noqa: D102 - click's own
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        name, sign, text = str(value).partition("=")
        if not (name and sign):
            self.fail(f"{value!r} is not of the form {self.name}", param, ctx)
        return name, text


PAIR = Pair()


def texts(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The pairs by name; the last one of a name wins."""
    return dict(pairs)


def numbers_or_texts(pairs: Iterable[tuple[str, str]]) -> dict[str, Json]:
    """The pairs by name, each as JSON where it is that, else as text."""
    return {name: _parsed(text) for name, text in pairs}


def parameters(pairs: Iterable[tuple[str, str]]) -> dict[str, Parameter]:
    """The values of a filter's placeholders, in JSON; what is no value is a usage error."""
    return {name: _parameter(name, text) for name, text in pairs}


def whole_numbers(text: str) -> list[int]:
    """The numbers of `10,20`; anything else is a usage error."""
    try:
        return [int(part) for part in text.split(",") if part.strip()]
    except ValueError as exc:
        raise click.BadParameter(f"{text!r} is not a list of whole numbers such as 10,20") from exc


def _parsed(text: str) -> Json:
    try:
        value: Json = orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
    return value


def _parameter(name: str, text: str) -> Parameter:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        quoted = orjson.dumps(text).decode()
        raise _bad(f"{text!r} is not JSON; a text is quoted: --param '{name}={quoted}'") from None
    match value:
        case str() | bool() | int() | float():
            return value
        case [*elements] if all(isinstance(element, str) for element in elements):
            return [str(element) for element in elements]
        case [*elements] if all(type(element) in (int, float) for element in elements):
            return elements
        case _:
            raise _bad(f"{text!r} is neither a value nor a list of texts or of numbers")


def _bad(message: str) -> click.BadParameter:
    return click.BadParameter(message)
