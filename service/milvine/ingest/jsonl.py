"""JSONL: one JSON object a line, each line parsed for itself."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import chain
from operator import itemgetter
from typing import TypeAlias

import numpy as np
import orjson
import pyarrow as pa

from milvine.domain.errors import InvalidArgument
from milvine.ingest.files import Chunk, first_bytes, open_stream, readable
from milvine.ingest.report import Refusal, shorten
from milvine.ingest.source import Source

_Parsed: TypeAlias = dict[str, object] | str | None
"""An object, what is wrong with a line, or None for a blank one."""
_BOM = b"\xef\xbb\xbf"
_NO_OBJECT = "must be a JSON object"
_BLOCK_BYTES = 1 << 20
"""How much is parsed at a time: more Python objects at once only make garbage collections slow."""


class JsonlReader:
    """A JSONL file. Columns are the members of its objects; a missing one is None.

    Any line can bring a new member. So the file is read on, to its end if need be, until the needed
    ones were seen, and the names of all are complete once the chunks are.
    """

    def __init__(self, source: Source, needed: Sequence[Collection[str]]) -> None:
        if first_bytes(source).removeprefix(_BOM).lstrip().startswith(b"["):
            raise InvalidArgument.at(
                "path", "is a JSON array; write one object a line (`jq -c '.[]'` does)"
            )
        self._source = source
        self._names: dict[str, None] = {}
        with readable(source.path), open_stream(source) as stream:
            for lines in _line_blocks(stream.bytes):
                self._note(_objects(_parse_all(lines)))
                if all(any(name in self._names for name in group) for group in needed):
                    break

    @property
    def column_names(self) -> tuple[str, ...]:
        """The members of the objects that were read, in the order in which they appeared."""
        return tuple(self._names)

    def chunks(self, wanted: Collection[str]) -> Iterator[Chunk]:
        """Yield the wanted members as Python's values."""
        first_row = 1
        with readable(self._source.path), open_stream(self._source) as stream:
            for lines in _line_blocks(stream.bytes):
                parsed = _parse_all(lines)
                self._note(_objects(parsed))
                yield _chunk(lines, parsed, wanted, first_row, stream.tell())
                first_row += len(lines)

    def _note(self, objects: list[dict[str, object]]) -> None:
        self._names.update(dict.fromkeys(chain.from_iterable(objects)))


def _line_blocks(stream: pa.NativeFile) -> Iterator[list[bytes]]:
    """Yield the lines of the stream, many at a time, without a byte order mark."""
    rest = stream.read(_BLOCK_BYTES).removeprefix(_BOM)
    for block in chain((b"",), iter(lambda: stream.read(_BLOCK_BYTES), b"")):
        *lines, rest = (rest + block).split(b"\n")
        if lines:
            yield lines
    if rest:
        yield [rest]


def _objects(parsed: list[_Parsed]) -> list[dict[str, object]]:
    return [result for result in parsed if isinstance(result, dict)]


def _chunk(
    lines: list[bytes],
    parsed: list[_Parsed],
    wanted: Collection[str],
    first_row: int,
    bytes_done: int,
) -> Chunk:
    numbers = np.arange(first_row, first_row + len(lines))
    is_object = np.array([type(result) is dict for result in parsed], np.bool_)
    refusals = [
        Refusal(int(numbers[i]), "", result, shorten(lines[i]))
        for i in np.flatnonzero(~is_object).tolist()
        if isinstance(result := parsed[i], str)
    ]
    objects = _objects(parsed)
    columns = {name: _members(objects, name) for name in wanted}
    blank = len(lines) - len(objects) - len(refusals)
    return Chunk(columns, numbers[is_object], bytes_done, refusals, blank)


def _members(objects: list[dict[str, object]], name: str) -> list[object]:
    try:
        return list(map(itemgetter(name), objects))
    except KeyError:
        return [o.get(name) for o in objects]


def _parse_all(lines: list[bytes]) -> list[_Parsed]:
    """What `_parse` gives for each line; a block of good lines at once."""
    try:
        values = [orjson.loads(line) for line in lines]
    except orjson.JSONDecodeError:
        return [_parse(line) for line in lines]
    return [value if isinstance(value, dict) else _NO_OBJECT for value in values]


def _parse(line: bytes) -> _Parsed:
    """The object; a text that says what is wrong with the line; None for a blank one."""
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        return _fault(line)
    return value if isinstance(value, dict) else _NO_OBJECT


def _fault(line: bytes) -> str | None:
    if not line.strip():
        return None
    try:
        line.decode()
    except UnicodeDecodeError:
        return "must be in UTF-8"
    return "must be valid JSON"
