"""`milvine recommend-all`: recommendations for every user, into a Parquet file."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import click
import pyarrow as pa
import pyarrow.parquet as pq

from milvine.cli.bars import user_bar
from milvine.cli.command import Remote, remote
from milvine.cli.output import Column, number, table
from milvine.cli.pairs import PAIR, parameters
from milvine.cli.ranking import RankingArgs, ranking_options
from milvine.client.ranking import Boost, NumberDecay, TimeDecay
from milvine.client.types import Parameter, RecommendedPage
from milvine.domain.errors import InvalidArgument
from milvine.v1 import catalog_pb2

_ROW_GROUP = 100_000
"""Rows that are held until they are written."""
_COLUMNS: tuple[tuple[str, pa.DataType], ...] = (
    ("user_id", pa.string()),
    ("rank", pa.int32()),
    ("item_id", pa.string()),
    ("score", pa.float64()),
    ("source", pa.string()),
)
_FIELD_TYPES: dict[int, pa.DataType] = {
    catalog_pb2.Field.TYPE_STRING: pa.string(),
    catalog_pb2.Field.TYPE_INT64: pa.int64(),
    catalog_pb2.Field.TYPE_DOUBLE: pa.float64(),
    catalog_pb2.Field.TYPE_BOOL: pa.bool_(),
    catalog_pb2.Field.TYPE_TIMESTAMP: pa.timestamp("us", "UTC"),
    catalog_pb2.Field.TYPE_STRING_LIST: pa.list_(pa.string()),
    catalog_pb2.Field.TYPE_INT64_LIST: pa.list_(pa.int64()),
}


@dataclass(frozen=True, slots=True)
class RecommendAllArgs:
    """What `milvine recommend-all` was asked."""

    catalog: str
    out: Path
    count: int
    filter_: str
    params: dict[str, Parameter]
    fields: str
    include_seen: bool
    boost: tuple[Boost, ...]
    decay: tuple[NumberDecay | TimeDecay, ...]
    diversity: float | None
    cap: tuple[tuple[str, str], ...]


@click.command()
@click.argument("catalog")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="The Parquet file to write; one that is there is replaced at the end.",
)
@click.option(
    *("-n", "--count", "count"),
    type=click.IntRange(1, 1_000),
    default=10,
    show_default=True,
    help="How many items for a user.",
)
@click.option("--filter", "filter_", default="", metavar="TEXT", help="What every hit must match.")
@click.option(
    "--param",
    "params",
    type=PAIR,
    multiple=True,
    metavar="NAME=JSON",
    callback=lambda _ctx, _option, pairs: parameters(pairs),
    help="The value of a {NAME} in the filter.",
)
@click.option("--fields", default="", metavar="A,B,…", help="Item fields to write; * for all.")
@click.option("--include-seen", is_flag=True, help="Items of the own history, too.")
@ranking_options
@remote(RecommendAllArgs)
async def recommend_all(call: Remote, args: RecommendAllArgs) -> None:
    """Recommend items of a CATALOG to every user with interactions, into a Parquet file.

    One release answers for all. The file is there when all of it is.
    """
    began = time.perf_counter()
    told = RankingArgs(args.boost, args.decay, args.diversity, args.cap)
    catalog = await call.client.get_catalog(args.catalog)
    names = [name.strip() for name in args.fields.split(",") if name.strip()]
    pages = call.client.recommend_all(
        args.catalog,
        page_size=args.count,
        filter=args.filter_,
        filter_params=told.others(args.params, args.filter_),
        include_seen=args.include_seen,
        return_fields=names,
        ranking=told.ranking(args.params),
    )
    release_id, users = "", 0
    with _file(args.out, _chosen(catalog, names)) as file, user_bar(call.output.err) as bar:
        task = bar.add_task(args.catalog, total=None)
        async for page in pages:
            release_id, users = page.release_id, users + len(page.users)
            file.add(page)
            bar.update(task, total=page.user_count, completed=users)
    seconds = time.perf_counter() - began
    summary = {
        "out": str(args.out),
        "users": users,
        "rows": file.rows,
        "seconds": round(seconds, 3),
        "users_per_second": round(users / seconds, 1),
        "release_id": release_id,
    }
    shown = (f"{users:,}", f"{file.rows:,}", f"{seconds:,.1f}", f"{users / seconds:,.0f}")
    columns = [number("users"), number("rows"), number("seconds"), number("users/s")]
    call.output.show(
        summary,
        table([*columns, Column("release")], [(*shown, release_id)]),
        f"Written to {args.out}",
    )


@dataclass(slots=True, eq=False)
class _File:
    """A Parquet file that is being written, one row a hit."""

    writer: pq.ParquetWriter
    fields: Sequence[str]
    rows: int = 0
    _waiting: dict[str, list[object]] = field(default_factory=dict)

    def add(self, page: RecommendedPage) -> None:
        """Add the rows of a page; they are written when they are many."""
        for user in page.users:
            source = "POPULAR" if user.is_popular else "PERSONAL"
            count = len(user.hits)
            self._extend("user_id", [user.user_id] * count)
            self._extend("rank", range(1, count + 1))
            self._extend("item_id", [hit.id for hit in user.hits])
            self._extend("score", [hit.score for hit in user.hits])
            self._extend("source", [source] * count)
            for name in self.fields:
                self._extend(_column(name), [hit.fields.get(name) for hit in user.hits])
        if len(self._waiting.get("rank", ())) >= _ROW_GROUP:
            self.flush()

    def flush(self) -> None:
        """Write the rows that wait."""
        if not self._waiting:
            return
        rows = pa.table(self._waiting, schema=self.writer.schema)
        self.writer.write_table(rows)
        self.rows += rows.num_rows
        self._waiting.clear()

    def _extend(self, column: str, values: Sequence[object]) -> None:
        self._waiting.setdefault(column, []).extend(values)


@contextmanager
def _file(path: Path, fields: Sequence[catalog_pb2.Field]) -> Iterator[_File]:
    """A file that gets its name when the block ended well, and else is not there."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.part")
    typed = [(_column(f.name), _FIELD_TYPES[f.type]) for f in fields]
    try:
        with pq.ParquetWriter(draft, pa.schema([*_COLUMNS, *typed])) as writer:
            file = _File(writer, [f.name for f in fields])
            yield file
            file.flush()
        draft.replace(path)
    except OSError as exc:
        raise InvalidArgument.at("--out", f"can't write {str(path)!r}: {exc.strerror}") from exc
    finally:
        draft.unlink(missing_ok=True)


def _chosen(catalog: catalog_pb2.Catalog, names: Sequence[str]) -> list[catalog_pb2.Field]:
    """The declarations of the fields to write; the service refuses those that it does not know."""
    if "*" in names:
        return list(catalog.item_fields)
    declared = {each.name: each for each in catalog.item_fields}
    return [declared[name] for name in dict.fromkeys(names) if name in declared]


def _column(name: str) -> str:
    """The column of a field, where another column has its name already."""
    return f"item_{name}" if name in dict(_COLUMNS) else name
