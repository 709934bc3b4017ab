"""`milvine recommend | similar | popular | history`: what is found, and what is known."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta

import click
from rich.table import Table

from milvine.cli.command import Remote, remote
from milvine.cli.durations import DURATION
from milvine.cli.output import Column, number, table
from milvine.cli.pairs import PAIR, parameters
from milvine.cli.ranking import RankingArgs, ranking_options
from milvine.client.ranking import Boost, NumberDecay, TimeDecay
from milvine.client.types import (
    HistoryEvent,
    Hit,
    Interaction,
    Neighbours,
    Parameter,
    Recommendation,
    Value,
)

_COUNT = click.option(
    "-k", "count", type=click.IntRange(1), default=10, show_default=True, help="How many."
)
_FILTER = click.option(
    "--filter", "filter_", default="", metavar="TEXT", help="What every hit must match."
)
_PARAMS = click.option(
    "--param",
    "params",
    type=PAIR,
    multiple=True,
    metavar="NAME=JSON",
    callback=lambda _ctx, _option, pairs: parameters(pairs),
    help="The value of a {NAME} in the filter.",
)
_FIELDS = click.option(
    "--fields", default="*", show_default=True, metavar="A,B,…", help="The fields to show."
)


@dataclass(frozen=True, slots=True)
class RecommendArgs:
    """What `milvine recommend` was asked."""

    catalog: str
    user: str | None
    history: str | None
    event_type: str
    count: int
    filter_: str
    params: dict[str, Parameter]
    fields: str
    include_seen: bool
    exclude: tuple[str, ...]
    boost: tuple[Boost, ...]
    decay: tuple[NumberDecay | TimeDecay, ...]
    diversity: float | None
    cap: tuple[tuple[str, str], ...]

    def __post_init__(self) -> None:
        if (self.user is None) == (self.history is None):
            raise click.UsageError("name a --user or a --history, and only one of them")


@click.command()
@click.argument("catalog")
@click.option("--user", metavar="ID", help="Recommend to that user.")
@click.option(
    "--history",
    metavar="ITEM[=VALUE],…",
    help="Recommend to whoever did that, oldest first; with values such as ratings.",
)
@click.option(
    "--event-type",
    default="",
    metavar="NAME",
    help="What the --history did; needed where the catalog declares several event types.",
)
@_COUNT
@_FILTER
@_PARAMS
@_FIELDS
@click.option("--include-seen", is_flag=True, help="Items of the own history, too.")
@click.option("--exclude", multiple=True, metavar="ITEM", help="Not that item.")
@ranking_options
@remote(RecommendArgs)
async def recommend(call: Remote, args: RecommendArgs) -> None:
    """Recommend items of a CATALOG to a user, or for a history."""
    told = RankingArgs(args.boost, args.decay, args.diversity, args.cap)
    found = await call.client.recommend(
        args.catalog,
        user=args.user,
        history=None if args.history is None else _events(args.history, args.event_type),
        page_size=args.count,
        filter=args.filter_,
        filter_params=told.others(args.params, args.filter_),
        exclude=args.exclude,
        include_seen=args.include_seen,
        return_fields=_names(args.fields),
        ranking=told.ranking(args.params),
    )
    call.output.show(
        asdict(found),
        _hits(found.hits, "item", args.fields, is_count=found.is_popular),
        *_remarks(found, args.count),
    )


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

    def __post_init__(self) -> None:
        if (self.user is None) == (self.item is None):
            raise click.UsageError("name an --item or a --user, and only one of them")


@click.command()
@click.argument("catalog")
@click.option("--item", metavar="ID", help="Items like that one.")
@click.option("--user", metavar="ID", help="Users like that one.")
@_COUNT
@_FILTER
@_PARAMS
@_FIELDS
@remote(SimilarArgs)
async def similar(call: Remote, args: SimilarArgs) -> None:
    """Find items of a CATALOG like an item, or users like a user, by cosine."""
    found = await _neighbours(call, args)
    side = "item" if args.item is not None else "user"
    remarks = []
    if found.is_short:
        told = f"{len(found.hits):,} of {args.count:,}"
        remarks.append(f"{told}: no more {side}s of the release match the filter.")
    call.output.show(asdict(found), _hits(found.hits, side, args.fields), *remarks)


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
@_COUNT
@_FILTER
@_PARAMS
@_FIELDS
@click.option("--exclude", multiple=True, metavar="ITEM", help="Not that item.")
@remote(PopularArgs)
async def popular(call: Remote, args: PopularArgs) -> None:
    """Find the items of a CATALOG that users had to do with most, lately or ever."""
    found = await call.client.popular_items(
        args.catalog,
        half_life=args.half_life,
        event_types=args.event_type,
        page_size=args.count,
        filter=args.filter_,
        filter_params=args.params,
        exclude=args.exclude,
        return_fields=_names(args.fields),
    )
    remarks = []
    if found.is_short:
        told = f"{len(found.hits):,} of {args.count:,}"
        remarks.append(f"{told}: no more items of the release match and have a count.")
    call.output.show(asdict(found), _hits(found.hits, "item", args.fields, is_count=True), *remarks)


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
@_COUNT
@click.option(
    "--order",
    type=click.Choice(["latest", "value"]),
    default="latest",
    show_default=True,
    help="The latest first, or the highest value.",
)
@_FIELDS
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
    names = _columns(args.fields, known.values())
    rows = (
        (
            event.item_id,
            *(known.get(event.item_id, {}).get(name) for name in names),
            event.event_type,
            None if event.value is None else f"{event.value:g}",
            event.event_time,
        )
        for event in shown
    )
    columns = [
        *(Column("item", style="cyan"), *map(Column, names)),
        *(Column("event"), number("value"), Column("when")),
    ]
    call.output.show(
        {"interactions": [_document(e, known, names) for e in shown], "count": len(events)},
        table(columns, rows),
        f"{len(shown):,} of {len(events):,} interactions.",
    )


async def _neighbours(call: Remote, args: SimilarArgs) -> Neighbours:
    find = call.client.similar_users if args.item is None else call.client.similar_items
    return await find(
        args.catalog,
        args.item or args.user or "",
        page_size=args.count,
        filter=args.filter_,
        filter_params=args.params,
        return_fields=_names(args.fields),
    )


def _hits(hits: Sequence[Hit], side: str, fields: str, *, is_count: bool = False) -> Table:
    """The hits as a table; `is_count` says that scores are counts."""
    names = _columns(fields, (hit.fields for hit in hits))
    rows = (
        (rank, hit.id, *(hit.fields.get(name) for name in names), _score(hit, is_count=is_count))
        for rank, hit in enumerate(hits, start=1)
    )
    columns = [number("#", "dim"), Column(side, style="cyan"), *map(Column, names)]
    return table([*columns, number("count" if is_count else "score")], rows)


def _score(hit: Hit, *, is_count: bool) -> float | str:
    return f"{hit.score:,.2f}" if is_count else hit.score


def _events(text: str, event_type: str = "") -> list[HistoryEvent]:
    """The events of `ITEM[=VALUE],…`; what stands behind the last `=` is a value if a number."""
    return [_event(part, event_type) for part in _names(text)]


def _event(text: str, event_type: str) -> HistoryEvent:
    item_id, sign, number_text = text.rpartition("=")
    if sign and item_id:
        with contextlib.suppress(ValueError):
            return HistoryEvent(item_id, event_type, float(number_text))
    return HistoryEvent(text, event_type)


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
    event: Interaction, known: Mapping[str, Mapping[str, Value]], names: Sequence[str]
) -> dict[str, object]:
    fields = known.get(event.item_id, {})
    return {**asdict(event), "fields": {name: fields[name] for name in names if name in fields}}


def _columns(fields: str, found: Iterable[Mapping[str, Value]]) -> list[str]:
    """The fields to show: those that were asked for, or all that have a value."""
    names = _names(fields)
    if names != ["*"]:
        return names
    return list(dict.fromkeys(name for values in found for name in sorted(values)))


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]
