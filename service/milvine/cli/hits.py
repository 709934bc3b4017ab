"""What commands that find something share: their options, and tables of hits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import click
from rich.table import Table

from milvine.cli.output import Column, number, table
from milvine.cli.pairs import PAIR, parameters
from milvine.client.types import Hit, Value

COUNT = click.option(
    "-k", "count", type=click.IntRange(1), default=10, show_default=True, help="How many."
)
FILTER = click.option(
    "--filter", "filter_", default="", metavar="TEXT", help="What every hit must match."
)
PARAMS = click.option(
    "--param",
    "params",
    type=PAIR,
    multiple=True,
    metavar="NAME=JSON",
    callback=lambda _ctx, _option, pairs: parameters(pairs),
    help="The value of a {NAME} in the filter.",
)
FIELDS = click.option(
    "--fields", default="*", show_default=True, metavar="A,B,…", help="The fields to show."
)
RELEASE = click.option(
    "--release", default="", metavar="ID", help="The release to ask, in place of the active one."
)
PAGE_TOKEN = click.option(
    "--page-token", default="", metavar="TOKEN", help="The `next_page_token` of the page before."
)


def hits_table(hits: Sequence[Hit], side: str, fields: str, *, is_count: bool = False) -> Table:
    """The hits as a table; `is_count` says that scores are counts."""
    shown = columns(fields, (hit.fields for hit in hits))
    rows = (
        (rank, hit.id, *(hit.fields.get(name) for name in shown), _score(hit, is_count=is_count))
        for rank, hit in enumerate(hits, start=1)
    )
    heads = [number("#", "dim"), Column(side, style="cyan"), *map(Column, shown)]
    return table([*heads, number("count" if is_count else "score")], rows)


def columns(fields: str, found: Iterable[Mapping[str, Value]]) -> list[str]:
    """The fields to show: those that were asked for, or all that have a value."""
    asked = names(fields)
    if asked != ["*"]:
        return asked
    return list(dict.fromkeys(name for values in found for name in sorted(values)))


def names(text: str) -> list[str]:
    """The names of `A,B,…`."""
    return [name.strip() for name in text.split(",") if name.strip()]


def _score(hit: Hit, *, is_count: bool) -> float | str:
    return f"{hit.score:,.2f}" if is_count else hit.score
