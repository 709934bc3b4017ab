"""`milvine rank | audience`: how well named items fit someone, and whom an item fits."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import click

from milvine.cli.command import Remote, remote
from milvine.cli.hits import COUNT, FIELDS, FILTER, PAGE_TOKEN, PARAMS, RELEASE, hits_table, names
from milvine.cli.ranking import RankingArgs, ranking_options
from milvine.cli.reasons import reasons_table
from milvine.cli.subjects import SubjectArgs, subject_options
from milvine.client.ranking import Boost, NumberDecay, TimeDecay
from milvine.client.types import Parameter


@dataclass(frozen=True, slots=True)
class RankArgs(SubjectArgs):
    """What `milvine rank` was asked."""

    catalog: str
    items: tuple[str, ...]
    params: dict[str, Parameter]
    fields: str
    release: str
    explain: bool
    boost: tuple[Boost, ...]
    decay: tuple[NumberDecay | TimeDecay, ...]
    diversity: float | None
    cap: tuple[tuple[str, str], ...]


@click.command()
@click.argument("catalog")
@click.argument("items", nargs=-1, required=True, metavar="ITEM…")
@subject_options
@PARAMS
@FIELDS
@RELEASE
@click.option("--explain", is_flag=True, help="Say what of the history speaks for each item.")
@ranking_options
@remote(RankArgs)
async def rank(call: Remote, args: RankArgs) -> None:
    """Put ITEMs of a CATALOG into the order in which they fit someone."""
    ranking = RankingArgs(args.boost, args.decay, args.diversity, args.cap)
    found = await call.client.rank_items(
        args.catalog,
        args.items,
        user=args.user,
        history=args.events,
        liked=args.liked,
        disliked=args.disliked,
        return_fields=names(args.fields),
        ranking=ranking.ranking(args.params),
        explain=args.explain,
        release=args.release,
    )
    views = [hits_table(found.hits, "item", args.fields, is_count=found.is_popular)]
    if args.explain and not call.output.is_json:
        views.append(await reasons_table(call.client, args.catalog, found.hits))
    call.output.show(asdict(found), *views, *_remarks(found.missing_ids, found.is_popular))


@dataclass(frozen=True, slots=True)
class AudienceArgs:
    """What `milvine audience` was asked."""

    catalog: str
    item: str
    count: int
    filter_: str
    params: dict[str, Parameter]
    fields: str
    release: str
    page_token: str
    include_seen: bool


@click.command()
@click.argument("catalog")
@click.argument("item")
@COUNT
@FILTER
@PARAMS
@FIELDS
@RELEASE
@PAGE_TOKEN
@click.option("--include-seen", is_flag=True, help="Users who had the item, too.")
@remote(AudienceArgs)
async def audience(call: Remote, args: AudienceArgs) -> None:
    """Find the users of a CATALOG whom an ITEM fits best."""
    found = await call.client.find_audience(
        args.catalog,
        args.item,
        page_size=args.count,
        filter=args.filter_,
        filter_params=args.params,
        include_seen=args.include_seen,
        return_fields=names(args.fields),
        release=args.release,
        page_token=args.page_token,
    )
    remarks = []
    if found.is_short:
        told = f"{len(found.hits):,} of {args.count:,}"
        remarks.append(f"{told}: no more users of the release match and have not had it.")
    call.output.show(asdict(found), hits_table(found.hits, "user", args.fields), *remarks)


def _remarks(missing: tuple[str, ...], is_popular: bool) -> list[str]:  # noqa: FBT001 - of an answer
    remarks = []
    if is_popular:
        remarks.append("Nothing is known of this subject: the items are ranked by popularity.")
    if missing:
        remarks.append(f"The release does not have: {', '.join(missing)}.")
    return remarks
