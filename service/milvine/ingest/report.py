"""What became of an import: counts, reasons, and every row that was refused."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import astuple, dataclass, field, fields
from pathlib import Path
from typing import Protocol, TextIO

from milvine.domain.errors import InvalidArgument

SAMPLE_SIZE = 20
MAX_TEXT = 200


@dataclass(frozen=True, slots=True)
class Refusal:
    """A fault of a row of a file."""

    row: int
    """The row of the file, from 1. In CSV the header counts, so that it is the line, unless
    values before it span several lines; in JSONL it is the line."""
    column: str
    """The column of ours; empty where the row as a whole is at fault."""
    reason: str
    text: str
    """What stands there, at most 200 characters of it."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an import is."""

    bytes_done: int
    """Of the file as it lies on the disk; a little ahead of what is written."""
    bytes_total: int
    read: int
    written: int
    duplicates: int
    rejected: int


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What became of the rows of a file: `read = written + duplicates + rejected`."""

    read: int
    written: int
    duplicates: int
    """Interactions that were there already; rows of items or users whose id a later row has."""
    rejected: int
    """Rows that were refused. A row with faults in two columns counts once here, and twice in
    `reasons`."""
    blank: int
    """Lines of JSONL and CSV without any value, which are passed over and not counted as read."""
    reasons: Mapping[tuple[str, str], int]
    """(column, reason) -> rows, most frequent first."""
    samples: tuple[Refusal, ...]
    """The first refusals."""
    ignored_columns: tuple[str, ...]
    """The file's columns that fill none of ours."""


@dataclass(slots=True)
class Tally:
    """The counts of an import under way."""

    rejects: RefusalWriter
    read: int = 0
    written: int = 0
    duplicates: int = 0
    rejected: int = 0
    blank: int = 0
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)
    samples: list[Refusal] = field(default_factory=list)

    def refuse(self, refusals: Iterable[Refusal]) -> None:
        """Count the faults of rows; all faults of a row come in one call."""
        found = list(refusals)
        self.rejected += len({refusal.row for refusal in found})
        self.reasons.update((refusal.column, refusal.reason) for refusal in found)
        self.samples += found[: SAMPLE_SIZE - len(self.samples)]
        self.rejects.write(found)

    def progress(self, bytes_done: int, bytes_total: int) -> Progress:
        """How far the import is."""
        return Progress(
            bytes_done, bytes_total, self.read, self.written, self.duplicates, self.rejected
        )

    def report(self, ignored_columns: tuple[str, ...]) -> ImportReport:
        """What became of the rows."""
        return ImportReport(
            read=self.read,
            written=self.written,
            duplicates=self.duplicates,
            rejected=self.rejected,
            blank=self.blank,
            reasons=dict(self.reasons.most_common()),
            samples=tuple(self.samples),
            ignored_columns=ignored_columns,
        )


class RefusalWriter(Protocol):
    """Where all refusals go."""

    def write(self, refusals: Iterable[Refusal]) -> None:
        """Keep the refusals."""
        ...


@contextmanager
def tally(rejects_path: Path | None) -> Iterator[Tally]:
    """A tally at zero, which writes all refusals to the file: CSV by its name, else JSONL."""
    if rejects_path is None:
        yield Tally(_Nowhere())
        return
    with _create(rejects_path) as file:
        is_csv = rejects_path.suffix.lower() == ".csv"
        yield Tally(_CsvWriter(file) if is_csv else _JsonlWriter(file))


def _create(path: Path) -> TextIO:
    try:
        return path.open("w", encoding="utf-8", newline="")
    except OSError as exc:
        raise InvalidArgument.at("rejects_path", f"{str(path)!r} can't be written") from exc


class _Nowhere:
    def write(self, refusals: Iterable[Refusal]) -> None:
        pass


class _JsonlWriter:
    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, refusals: Iterable[Refusal]) -> None:
        names = [f.name for f in fields(Refusal)]
        self._file.writelines(
            json.dumps(dict(zip(names, astuple(r), strict=True)), ensure_ascii=False) + "\n"
            for r in refusals
        )


class _CsvWriter:
    def __init__(self, file: TextIO) -> None:
        self._writer = csv.writer(file)
        self._writer.writerow(f.name for f in fields(Refusal))

    def write(self, refusals: Iterable[Refusal]) -> None:
        self._writer.writerows(astuple(r) for r in refusals)


def shorten(value: object) -> str:
    """The text of a cell, at most MAX_TEXT characters."""
    if value is None:
        return ""
    text = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"
