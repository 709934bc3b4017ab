"""CSV and TSV: Arrow's parser, with the place in the file of every row."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv as pa_csv

from milvine.domain.errors import InvalidArgument
from milvine.ingest.files import BLOCK_BYTES, Chunk, first_bytes, open_stream, readable
from milvine.ingest.report import Refusal, shorten
from milvine.ingest.source import Format, Source
from milvine.ingest.utf8 import Utf8Stream, show_marks

_DELIMITERS = {Format.CSV: ",", Format.TSV: "\t"}


class DelimitedReader:
    """A CSV or TSV file. Cells come as texts, so that no cell can fail the file."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._delimiter = source.delimiter or _DELIMITERS[source.known_format]
        for option, value in (("delimiter", self._delimiter), ("quote", source.quote)):
            if value is not None and not (len(value) == 1 and value.isascii()):
                raise InvalidArgument.at(option, f"must be one ASCII character, is {value!r}")
        first_bytes(source)
        self.column_names = source.column_names or self._read_header()

    def chunks(self, wanted: Collection[str]) -> Iterator[Chunk]:
        """Yield the wanted columns as texts; an empty cell is null."""
        wanted = [name for name in self.column_names if name in wanted]
        numbering = _Numbering(1 if self._source.column_names else 2)
        with readable(self._source.path), open_stream(self._source) as stream:
            text = Utf8Stream(stream.bytes)
            convert = pa_csv.ConvertOptions(
                include_columns=wanted,
                column_types=dict.fromkeys(wanted, pa.string()),
                null_values=[""],
                strings_can_be_null=True,
                check_utf8=False,
            )
            for batch in self._parse(text, convert, numbering.skip):
                rows, refusals = numbering.advance(batch.num_rows)
                yield _chunk(batch, rows, refusals, stream.tell(), has_marks=text.has_marks)
            # Broken rows at the end of the file come after the last batch.
            empty = pa.nulls(0, pa.string())
            yield Chunk(
                dict.fromkeys(wanted, empty), _NO_ROWS, stream.tell(), numbering.remaining()
            )

    def _parse(
        self,
        text: Utf8Stream,
        convert: pa_csv.ConvertOptions,
        on_broken: Callable[[pa_csv.InvalidRow], str],
    ) -> Iterator[pa.RecordBatch]:
        try:
            yield from self._open(text, convert, on_broken)
        except pa.ArrowInvalid as exc:
            raise InvalidArgument.at(
                "path",
                f"{str(self._source.path)!r} can't be read to its end: the closing quote of a "
                f"cell is missing, or a row is longer than {BLOCK_BYTES >> 20} MiB; "
                "the rows before it are imported",
            ) from exc

    def _open(
        self,
        text: Utf8Stream,
        convert: pa_csv.ConvertOptions,
        on_broken: Callable[[pa_csv.InvalidRow], str],
    ) -> pa_csv.CSVStreamingReader:
        return pa_csv.open_csv(
            pa.PythonFile(text, mode="r"),
            # Only one thread numbers the rows.
            read_options=pa_csv.ReadOptions(
                use_threads=False,
                block_size=BLOCK_BYTES,
                column_names=self._source.column_names or None,
            ),
            parse_options=pa_csv.ParseOptions(
                delimiter=self._delimiter,
                quote_char=self._source.quote or False,
                newlines_in_values=self._source.quote is not None,
                ignore_empty_lines=False,  # they count in the numbers of rows
                invalid_row_handler=on_broken,
            ),
            convert_options=convert,
        )

    def _read_header(self) -> Sequence[str]:
        with readable(self._source.path), open_stream(self._source) as stream:
            text = Utf8Stream(stream.bytes)
            reader = self._open(text, pa_csv.ConvertOptions(), lambda _: "skip")
            return cast("list[str]", reader.schema.names)


_NO_ROWS = np.empty(0, np.int64)


class _Numbering:
    """The numbers of good rows, which the parser does not tell, from those of broken ones."""

    def __init__(self, first: int) -> None:
        self._next = first
        self._broken: list[pa_csv.InvalidRow] = []

    def skip(self, row: pa_csv.InvalidRow) -> str:
        """Keep a broken row; the parser reads ahead, so it may lie behind later batches."""
        self._broken.append(row)
        return "skip"

    def advance(self, count: int) -> tuple[npt.NDArray[np.int64], list[Refusal]]:
        """The numbers of the next `count` good rows, and the broken rows among them."""
        broken = np.array([row.number for row in self._broken], np.int64)
        # How many good rows of this batch stand before each broken one.
        before = broken - self._next - np.arange(len(broken))
        places = np.arange(count)
        rows = self._next + places + np.searchsorted(before, places, side="right")
        passed = int(np.searchsorted(before, count, side="left"))
        refusals = [_refusal(row) for row in self._broken[:passed]]
        del self._broken[:passed]
        self._next += count + passed
        return rows, refusals

    def remaining(self) -> list[Refusal]:
        """The broken rows after the last good one."""
        return [_refusal(row) for row in self._broken]


def _refusal(row: pa_csv.InvalidRow) -> Refusal:
    reason = f"must have {row.expected_columns} columns, has {row.actual_columns}"
    return Refusal(row.number, "", reason, show_marks(shorten(row.text)))


def _chunk(
    batch: pa.RecordBatch,
    rows: npt.NDArray[np.int64],
    refusals: list[Refusal],
    bytes_done: int,
    *,
    has_marks: bool,
) -> Chunk:
    is_blank = np.full(batch.num_rows, fill_value=True)
    for column in batch.columns:
        if not is_blank.any():
            break
        is_blank &= column.is_null().to_numpy(zero_copy_only=False)
    blank = int(is_blank.sum())
    if blank:
        batch = batch.filter(pa.array(~is_blank))
        rows = rows[~is_blank]
    columns = dict(zip(batch.schema.names, batch.columns, strict=True))
    return Chunk(columns, rows, bytes_done, refusals, blank, has_marks)
