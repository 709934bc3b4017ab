"""Why hits are there, for people: `because of Aliens +0.31, The Thing +0.20`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.table import Table

from milvine.cli.output import Column, number, table
from milvine.client import Client
from milvine.client.types import Explanation, Hit, Value

MOST_NAMED = 3
"""So many items of the history are named for a hit, and as many against it."""
_MOST_FETCHED = 1_000
_NAMES = ("title", "name")
"""Fields that name an item for people, if it has one of them."""


async def reasons_table(client: Client, catalog: str, hits: Sequence[Hit]) -> Table:
    """What of the history speaks for each hit and against it, by the names of the items."""
    told = [(hit, hit.explanation) for hit in hits if hit.explanation is not None]
    ids = {item for _, why in told for item, _ in why.contributions} | {hit.id for hit in hits}
    known = await client.get_items(catalog, sorted(ids)[:_MOST_FETCHED]) if ids else []
    named = {item.id: _name(item.id, item.fields) for item in known}
    has_boosts = any(why.boosts for _, why in told)
    rows = (
        (rank, named.get(hit.id, hit.id), *_parts(why, named), *_boosts(why)[: 2 * has_boosts])
        for rank, (hit, why) in enumerate(told, start=1)
    )
    columns = [
        *(number("#", "dim"), Column("item", style="cyan")),
        *(Column("because of", style="green"), Column("in spite of", style="red")),
        *[number("before boosts"), Column("boosts")][: 2 * has_boosts],
    ]
    return table(columns, rows)


def _parts(why: Explanation, named: Mapping[str, str]) -> tuple[str, str]:
    """What speaks for a hit, and what against it, most first."""
    fits = [one for one in why.contributions if one[1] > 0]
    doesnt = [one for one in why.contributions if one[1] < 0]
    return _list(fits, named), _list(doesnt, named)


def _list(contributions: Sequence[tuple[str, float]], named: Mapping[str, str]) -> str:
    parts = (f"{named.get(item, item)} {amount:+.3g}" for item, amount in contributions)
    return ", ".join([*parts][:MOST_NAMED])


def _boosts(why: Explanation) -> tuple[float, str]:
    """The score before boosts, and those that apply by their place in the request."""
    return why.base_score, ", ".join(f"#{index} ×{factor:.3g}" for index, factor in why.boosts)


def _name(item_id: str, fields: Mapping[str, Value]) -> str:
    return next((str(fields[name]) for name in _NAMES if name in fields), item_id)
