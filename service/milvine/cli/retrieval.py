"""`milvine recommend | similar | popular | history`: what is found, and what is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta

import click

from milvine.cli.command import Remote, remote
from milvine.cli.durations import DURATION
from milvine.cli.hits import (
    COUNT,
    FIELDS,
    FILTER,
    PAGE_TOKEN,
    PARAMS,
    RELEASE,
    columns,
    hits_table,
    names,
)
from milvine.cli.output import Column, number, table
from milvine.cli.ranking import RankingArgs, ranking_options
from milvine.cli.reasons import reasons_table
from milvine.cli.subjects import SubjectArgs, subject_options
from milvine.client.ranking import Boost, NumberDecay, TimeDecay
from milvine.client.types import (
    Interaction,
    Neighbours,
    Parameter,
    Recommendation,
    Value,
)


@dataclass(frozen=True, slots=True)
class RecommendArgs(SubjectArgs):
    """What `milvine recommend` was asked."""

    catalog: str
    count: int
    filter_: str
    params: dict[str, Parameter]
    fields: str
    release: str
    page_token: str
    include_seen: bool
    exclude: tuple[str, ...]
    boost: tuple[Boost, ...]
    decay: tuple[NumberDecay | TimeDecay, ...]
    diversity: float | None
    cap: tuple[tuple[str, str], ...]
    explain: bool


@click.command()
@click.argument("catalog")
@subject_options
@COUNT
@FILTER
@PARAMS
@FIELDS
@RELEASE
@PAGE_TOKEN
@click.option("--include-seen", is_flag=True, help="Items of the own history, too.")
@click.option("--exclude", multiple=True, metavar="ITEM", help="Not that item.")
@ranking_options
@click.option("--explain", is_flag=True, help="Say what of the history speaks for each hit.")
@remote(RecommendArgs)
async def recommend(call: Remote, args: RecommendArgs) -> None:
    """Recommend items of a CATALOG to a user, for a history, or by what someone likes."""
    told = RankingArgs(args.boost, args.decay, args.diversity, args.cap)
    found = await call.client.recommend(
        args.catalog,
        user=args.user,
        history=args.events,
        liked=args.liked,
        disliked=args.disliked,
        page_size=args.count,
        page_token=args.page_token,
        filter=args.filter_,
        filter_params=told.others(args.params, args.filter_),
        exclude=args.exclude,
        include_seen=args.include_seen,
        return_fields=names(args.fields),
        release=args.release,
        ranking=told.ranking(args.params),
        explain=args.explain,
    )
    views = [hits_table(found.hits, "item", args.fields, is_count=found.is_popular)]
    if args.explain and not call.output.is_json:
        views.append(await reasons_table(call.client, args.catalog, found.hits))
    call.output.show(asdict(found), *views, *_remarks(found, args.count))


@dataclass(frozen=True, slots=True)
class SimilarArgs:
    """What `milvine similar` was asked."""

    catalog: str
    item: str | None
    user: str | None
    count: int
    filter_: str
    params: dict[str, Parameter]
    fields: str
    release: str
    page_token: str

    def __post_init__(self) -> None:
        if (self.user is None) == (self.item is None):
            raise click.UsageError("name an --item or a --user, and only one of them")


@click.command()
@click.argument("catalog")
@click.option("--item", metavar="ID", help="Items like that one.")
@click.option("--user", metavar="ID", help="Users like that one.")
@COUNT
@FILTER
@PARAMS
@FIELDS
@RELEASE
@PAGE_TOKEN
@remote(SimilarArgs)
async def similar(call: Remote, args: SimilarArgs) -> None:
    """Find items of a CATALOG like an item, or users like a user, by cosine."""
    found = await _neighbours(call, args)
    side = "item" if args.item is not None else "user"
    remarks = []
    if found.is_short:
        told = f"{len(found.hits):,} of {args.count:,}"
        remarks.append(f"{told}: no more {side}s of the release match the filter.")
    call.output.show(asdict(found), hits_table(found.hits, side, args.fields), *remarks)


@dataclass(frozen=True, slots=True)
class PopularArgs:
    """What `milvine popular` was asked."""

    catalog: str
    half_life: timedelta | None
    event_type: tuple[str, ...]
    count: int
    filter_: str
    params: dict[str, Parameter]
    fields: str
    release: str
    page_token: str
    exclude: tuple[str, ...]


@click.command()
@click.argument("catalog")
@click.option(
    "--half-life",
    type=DURATION,
    help="What trends: count half after so long, such as 12h or 7d. Else what was ever popular.",
)
@click.option(
    "--event-type",
    multiple=True,
    metavar="NAME",
    help="Count that event type; may be given several times. Else all with a weight over 0.",
)
@COUNT
@FILTER
@PARAMS
@FIELDS
@RELEASE
@PAGE_TOKEN
@click.option("--exclude", multiple=True, metavar="ITEM", help="Not that item.")
@remote(PopularArgs)
async def popular(call: Remote, args: PopularArgs) -> None:
    """Find the items of a CATALOG that users had to do with most, lately or ever."""
    found = await call.client.popular_items(
        args.catalog,
        half_life=args.half_life,
        event_types=args.event_type,
        page_size=args.count,
        page_token=args.page_token,
        filter=args.filter_,
        filter_params=args.params,
        exclude=args.exclude,
        return_fields=names(args.fields),
        release=args.release,
    )
    remarks = []
    if found.is_short:
        told = f"{len(found.hits):,} of {args.count:,}"
        remarks.append(f"{told}: no more items of the release match and have a count.")
    call.output.show(
        asdict(found), hits_table(found.hits, "item", args.fields, is_count=True), *remarks
    )


@dataclass(frozen=True, slots=True)
class HistoryArgs:
    """What `milvine history` was asked."""

    catalog: str
    user: str
    count: int
    order: str
    fields: str


@click.command()
@click.argument("catalog")
@click.argument("user")
@COUNT
@click.option(
    "--order",
    type=click.Choice(["latest", "value"]),
    default="latest",
    show_default=True,
    help="The latest first, or the highest value.",
)
@FIELDS
@remote(HistoryArgs)
async def history(call: Remote, args: HistoryArgs) -> None:
    """Show what a USER of a CATALOG did, and with which items."""
    events = [event async for event in call.client.interactions(args.catalog, args.user)]
    if args.order == "value":
        events.sort(key=lambda event: -(event.value or 0.0))
    shown = events[: args.count]
    ids = sorted({event.item_id for event in shown})
    items = await call.client.get_items(args.catalog, ids[:1_000]) if ids else []
    known = {item.id: item.fields for item in items}
    shown_fields = columns(args.fields, known.values())
    rows = (
        (
            event.item_id,
            *(known.get(event.item_id, {}).get(name) for name in shown_fields),
            event.event_type,
            None if event.value is None else f"{event.value:g}",
            event.event_time,
        )
        for event in shown
    )
    heads = [
        *(Column("item", style="cyan"), *map(Column, shown_fields)),
        *(Column("event"), number("value"), Column("when")),
    ]
    call.output.show(
        {"interactions": [_document(e, known, shown_fields) for e in shown], "count": len(events)},
        table(heads, rows),
        f"{len(shown):,} of {len(events):,} interactions.",
    )


async def _neighbours(call: Remote, args: SimilarArgs) -> Neighbours:
    find = call.client.similar_users if args.item is None else call.client.similar_items
    return await find(
        args.catalog,
        args.item or args.user or "",
        page_size=args.count,
        page_token=args.page_token,
        filter=args.filter_,
        filter_params=args.params,
        return_fields=names(args.fields),
        release=args.release,
    )


def _remarks(found: Recommendation, wanted: int) -> list[str]:
    remarks = []
    if found.is_popular:
        remarks.append("Nothing is known of this subject: these are the most popular items.")
    if found.is_short:
        remarks.append(
            f"{len(found.hits):,} of {wanted:,}: no more items of the release match the filter "
            "and are neither seen nor excluded."
        )
    return remarks


def _document(
    event: Interaction, known: Mapping[str, Mapping[str, Value]], shown: Sequence[str]
) -> dict[str, object]:
    fields = known.get(event.item_id, {})
    return {**asdict(event), "fields": {name: fields[name] for name in shown if name in fields}}
