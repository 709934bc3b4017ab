"""`milvine search`: items by what they say."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import click

from milvine.cli.command import Remote, remote
from milvine.cli.hits import COUNT, FIELDS, FILTER, PARAMS, RELEASE, hits_table, names
from milvine.cli.subjects import events
from milvine.client.types import FoundItems, Parameter


@dataclass(frozen=True, slots=True)
class SearchArgs:
    """What `milvine search` was asked."""

    catalog: str
    query: str
    user: str | None
    history: str | None
    event_type: str
    weights: tuple[float, float] | None
    exclude_seen: bool
    count: int
    filter_: str
    params: dict[str, Parameter]
    fields: str
    release: str

    def __post_init__(self) -> None:
        if self.user is not None and self.history is not None:
            raise click.UsageError("name a --user or a --history, and only one of them")


@click.command()
@click.argument("catalog")
@click.argument("query")
@click.option("--user", metavar="ID", help="In an order for that user.")
@click.option("--history", metavar="ITEM[=VALUE],…", help="For whoever did that, oldest first.")
@click.option("--event-type", default="", metavar="NAME", help="What the --history did.")
@click.option(
    "--weights",
    type=(float, float),
    metavar="TEXT FIT",
    help="How much the text and the fit count, in place of their ranks.",
)
@click.option("--exclude-seen", is_flag=True, help="No items of the own history.")
@COUNT
@FILTER
@PARAMS
@FIELDS
@RELEASE
@remote(SearchArgs)
async def search(call: Remote, args: SearchArgs) -> None:
    """Find items of a CATALOG by a QUERY: what their texts say, for anyone or for someone."""
    history = None if args.history is None else events(args.history, args.event_type)
    found = await call.client.search_items(
        args.catalog,
        args.query,
        user=args.user,
        history=history,
        weights=args.weights,
        page_size=args.count,
        filter=args.filter_,
        filter_params=args.params,
        exclude_seen=args.exclude_seen,
        return_fields=names(args.fields),
        release=args.release,
    )
    call.output.show(
        asdict(found), hits_table(found.hits, "item", args.fields), *_remarks(found, args.count)
    )


def _remarks(found: FoundItems, wanted: int) -> list[str]:
    remarks = []
    if found.is_popular:
        remarks.append("Nothing is known of this subject: popularity stands in for the fit.")
    if found.is_short:
        remarks.append(
            f"{len(found.hits):,} of {wanted:,}: no more items that say something match the filter."
        )
    return remarks
