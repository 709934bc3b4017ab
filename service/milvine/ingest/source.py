"""Sources: the files that are imported, and which of their columns mean what."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from milvine.domain.errors import InvalidArgument, Violation


class Format(StrEnum):
    """The format of a file."""

    CSV = "CSV"
    TSV = "TSV"
    JSONL = "JSONL"
    PARQUET = "PARQUET"


class TimeFormat(StrEnum):
    """How times are written."""

    AUTO = "auto"
    """ISO 8601, or a number since 1970 whose magnitude tells the unit: under 1e11 it counts
    seconds, under 1e14 milliseconds, under 1e17 microseconds, else nanoseconds."""
    ISO = "iso"
    SECONDS = "s"
    MILLISECONDS = "ms"
    MICROSECONDS = "us"
    NANOSECONDS = "ns"


_FORMATS = {
    ".csv": Format.CSV,
    ".tsv": Format.TSV,
    ".jsonl": Format.JSONL,
    ".ndjson": Format.JSONL,
    ".parquet": Format.PARQUET,
}
_COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}


@dataclass(frozen=True, slots=True)
class Source:
    """A file to import, and how to read it."""

    path: Path
    format: Format | None = None
    """None: told by the name, as `ratings.csv.gz`."""
    mapping: Mapping[str, str] = field(default_factory=dict)
    """Our column -> the file's; a column that is not here is looked for under our name."""
    constants: Mapping[str, str] = field(default_factory=dict)
    """Our column -> its text in every row, as `{"event_type": "view"}`."""
    delimiter: str | None = None
    """What stands between cells; None: a comma in CSV, a tab in TSV."""
    quote: str | None = '"'
    """What surrounds cells that have delimiters or line ends; None: nothing does."""
    column_names: tuple[str, ...] = ()
    """The columns of a CSV or TSV file without a header line."""
    time_format: TimeFormat = TimeFormat.AUTO
    list_separator: str = "|"
    """What stands between the elements of a list in a cell that is no JSON array."""

    @property
    def compression(self) -> str | None:
        """The compression that the name tells, by Arrow's name."""
        return _COMPRESSIONS.get(self.path.suffix.lower())

    @property
    def known_format(self) -> Format:
        """The format, guessed from the name where it is not given.

        Raises:
            InvalidArgument: the name does not tell it.
        """
        if self.format is not None:
            return self.format
        name = self.path.with_suffix("") if self.compression else self.path
        found = _FORMATS.get(name.suffix.lower())
        if found is None:
            raise InvalidArgument.at(
                "format",
                f"can't be told from the name {self.path.name!r}; "
                f"name one of {', '.join(Format)}, or a file that ends in {', '.join(_FORMATS)}",
            )
        return found


@dataclass(frozen=True, slots=True)
class Target:
    """A column of ours that a file can fill."""

    name: str
    aliases: tuple[str, ...] = ()
    """Names to look for in the file beside ours."""
    is_required: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """The names under which a file may have it."""
        return (self.name, *self.aliases)


@dataclass(frozen=True, slots=True)
class Plan:
    """Which column of the file fills which of ours."""

    columns: Mapping[str, str]
    """Our column -> the file's, also where no row was seen that has it."""

    @property
    def wanted(self) -> frozenset[str]:
        """The file's columns to read."""
        return frozenset(self.columns.values())

    def ignored(self, found: Collection[str]) -> tuple[str, ...]:
        """Those of the found columns that fill none."""
        return tuple(name for name in found if name not in self.wanted)


def needed(source: Source, targets: Sequence[Target]) -> list[Collection[str]]:
    """What the file must have: of each collection of names at least one."""
    given = source.mapping.keys() | source.constants.keys()
    mapped = [{name} for name in source.mapping.values()]
    return [*mapped, *(t.names for t in targets if t.is_required and t.name not in given)]


def plan(source: Source, targets: Sequence[Target], found: Sequence[str]) -> Plan:
    """Which of the file's columns fill the targets; `found` are those that it has for certain.

    Raises:
        InvalidArgument: a mapping or a constant names something that is not there, or a required
            column is missing.
    """
    violations = [
        *_check_targets(source, targets),
        *_check_mapped(source.mapping, found),
        *_check_required(source, targets, found),
    ]
    columns = {
        target.name: _column_of(target, source, found)
        for target in targets
        if target.name not in source.constants
    }
    twice = [name for name, count in Counter(found).items() if count > 1]
    violations += [
        Violation("path", f"has more than one column {name!r}; rename all but one")
        for name in twice
        if name in columns.values()
    ]
    if violations:
        raise InvalidArgument(violations)
    return Plan(columns)


def _column_of(target: Target, source: Source, found: Sequence[str]) -> str:
    if target.name in source.mapping:
        return source.mapping[target.name]
    return next((name for name in target.names if name in found), target.name)


def _check_targets(source: Source, targets: Sequence[Target]) -> Iterator[Violation]:
    names = [target.name for target in targets]
    for option in ("mapping", "constants"):
        for name in getattr(source, option):
            if name not in names:
                yield Violation(
                    f"{option}.{name}",
                    f"can't be filled{_suggestion(name, names)}; can be: {', '.join(names)}",
                )
    for name in source.mapping.keys() & source.constants.keys():
        yield Violation(f"constants.{name}", "is in the mapping as well; leave out one of them")


def _check_mapped(mapping: Mapping[str, str], found: Sequence[str]) -> Iterator[Violation]:
    for ours, theirs in mapping.items():
        if theirs not in found:
            yield Violation(
                f"mapping.{ours}",
                f"the file has no column {theirs!r}{_suggestion(theirs, found)}; "
                f"it has: {', '.join(found)}",
            )


def _check_required(
    source: Source, targets: Sequence[Target], found: Sequence[str]
) -> Iterator[Violation]:
    for target in targets:
        is_given = target.name in source.constants or target.name in source.mapping
        is_filled = is_given or any(name in found for name in target.names)
        if target.is_required and not is_filled:
            yield Violation(
                f"mapping.{target.name}",
                f"the file has no column {target.name!r}{_suggestion(target.name, found)}; "
                f"map one of: {', '.join(found)}; or give a constant",
            )


def _suggestion(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
