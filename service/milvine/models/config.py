"""Settings of families: frozen dataclasses whose fields carry their ranges."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import Field, dataclass, field, fields
from typing import Any, ClassVar, Protocol, TypeAlias, TypeVar

from milvine.domain.errors import InvalidArgument, Violation
from milvine.domain.model import Setting


class _Dataclass(Protocol):
    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


C = TypeVar("C", bound=_Dataclass)

_LONGEST = 4_096


@dataclass(frozen=True, slots=True)
class _Range:
    low: float
    high: float
    is_whole: bool
    excludes_low: bool = False

    def __str__(self) -> str:
        kind = "whole number" if self.is_whole else "number"
        if self.high < math.inf:
            return f"a {kind} from {self.low:,} to {self.high:,}"
        return f"a finite {kind} {'over' if self.excludes_low else 'of at least'} {self.low:,}"

    def holds(self, value: Setting) -> bool:
        if isinstance(value, (bool, str)) or not math.isfinite(value):
            return False
        if self.is_whole and value != int(value):
            return False
        return self.low <= value <= self.high and not (self.excludes_low and value == self.low)

    def typed(self, value: Setting) -> Setting:
        return int(value) if self.is_whole else float(value)


@dataclass(frozen=True, slots=True)
class _Names:
    def __str__(self) -> str:
        return f"names with commas between them, at most {_LONGEST:,} characters"

    def holds(self, value: Setting) -> bool:
        return isinstance(value, str) and len(value) <= _LONGEST

    def typed(self, value: Setting) -> Setting:
        return value


@dataclass(frozen=True, slots=True)
class _Flag:
    def __str__(self) -> str:
        return "true or false"

    def holds(self, value: Setting) -> bool:
        return isinstance(value, bool)

    def typed(self, value: Setting) -> Setting:
        return value


_Kind: TypeAlias = _Range | _Names | _Flag


def whole(default: int, low: int, high: int) -> int:
    """A field for a whole number."""
    return field(default=default, metadata={"range": _Range(low, high, is_whole=True)})


def real(
    default: float, low: float, high: float = math.inf, *, excludes_low: bool = False
) -> float:
    """A field for a finite number."""
    bounds = _Range(low, high, is_whole=False, excludes_low=excludes_low)
    return field(default=default, metadata={"range": bounds})


def names(default: str) -> str:
    """A field for names with commas between them."""
    return field(default=default, metadata={"range": _Names()})


def flag(*, default: bool) -> bool:
    """A field for whether something is done."""
    return field(default=default, metadata={"range": _Flag()})


def seed() -> int:
    """A field for the seed of everything random."""
    return whole(0, -(2**63), 2**63 - 1)


def read(config: type[C], family: str, settings: Mapping[str, Setting]) -> C:
    """The config of those settings; raises InvalidArgument naming each setting out of its range."""
    ranges: dict[str, _Kind] = {f.name: f.metadata["range"] for f in fields(config)}
    if violations := list(_faults(ranges, f"config.{family}", settings)):
        raise InvalidArgument(violations)
    return config(**{name: ranges[name].typed(value) for name, value in settings.items()})


def must_divide(family: str, name: str, divisor: int, embedding_size: int) -> None:
    """Raises InvalidArgument where a setting does not divide the dimensions."""
    if embedding_size % divisor:
        rule = f"must divide embedding_size, which is {embedding_size}, is {divisor}"
        raise InvalidArgument.at(f"config.{family}.{name}", rule)


def _faults(
    ranges: Mapping[str, _Kind], path: str, settings: Mapping[str, Setting]
) -> Iterable[Violation]:
    for name, value in settings.items():
        if name not in ranges:
            known = ", ".join(ranges)
            yield Violation(f"{path}.{name}", f"is not a setting; settings are: {known}")
        elif not ranges[name].holds(value):
            yield Violation(f"{path}.{name}", f"must be {ranges[name]}, is {value}")
