"""Items by what they say, for anyone or for someone."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import numpy as np

from milvine.domain.entity import Side
from milvine.domain.errors import FailedPrecondition, InvalidArgument, Reason
from milvine.domain.hit import Found, Hit, Source
from milvine.domain.query import FoundItems, Selection, Subject, TextQuery
from milvine.retrieval.active import Active, ActiveReleases
from milvine.retrieval.fusion import fused
from milvine.retrieval.people import People
from milvine.retrieval.plan import Plan, Planner
from milvine.retrieval.popularity import Popularity
from milvine.retrieval.stored import with_fields
from milvine.text import same_encoder
from milvine.vectors import CollectionSpec, Vectors
from milvine.vectors.layout import text_spec

CONSIDERED = 200
"""So many of the best by text, or as many as are asked for, are put into an order for someone."""


@dataclass(frozen=True, slots=True, eq=False)
class _Asked:
    """A search of a release, made ready."""

    active: Active
    spec: CollectionSpec
    plan: Plan
    query: np.ndarray
    """(dimension,)"""
    ends: float


class TextSearch:
    """Finds items by text. The collection is scanned, so answers are exact, filter or not."""

    def __init__(
        self, vectors: Vectors, people: People, releases: ActiveReleases, popularity: Popularity
    ) -> None:
        self._vectors = vectors
        self._people = people
        self._releases = releases
        self._popularity = popularity
        self._planner = Planner(vectors.dialect)

    async def find(
        self, catalog_id: str, query: TextQuery, selection: Selection, *, timeout_s: float
    ) -> FoundItems:
        """Find the items whose texts are most like a query's, for its subject where it has one.

        Raises:
            NotFound: There is no such catalog or release.
            FailedPrecondition: There is no active release, the one that is named is not READY, it
                was built without text, or with an encoder that is not here.
            InvalidArgument: The query says nothing, or the filter, a field to return or a vector
                breaks its rule.
        """
        ends = time.monotonic() + timeout_s
        active = await self._releases.get(catalog_id, selection.release_id)
        asked = await self._ready(active, query.text, selection, ends)
        if query.subject is None:
            found = await self._search(asked, asked.plan.page_size, selection.exclude_ids)
            hits, source = list(found), Source.TEXT
        else:
            hits, source = await self._personal(asked, query, query.subject, selection)
        (hits,) = await with_fields(
            self._vectors, asked.spec, asked.plan.fields, [hits], ends=asked.ends
        )
        is_short = len(hits) < asked.plan.page_size
        return FoundItems(tuple(hits), active.release.id, source, is_short)

    async def _ready(self, active: Active, text: str, selection: Selection, ends: float) -> _Asked:
        index = active.release.text
        if index is None:
            raise _no_text(active)
        plan = await self._planner.plan(active.scope(Side.ITEM), selection)
        encoder = same_encoder(index.encoder, index.fingerprint)
        (vector,) = await asyncio.to_thread(encoder.encode, [text])
        if not vector.any():
            raise InvalidArgument.at("query", "says nothing that texts could be compared with")
        return _Asked(active, text_spec(active.release, index), plan, vector, ends)

    async def _search(self, asked: _Asked, count: int, without: frozenset[str]) -> Found:
        (found,) = await self._vectors.search(
            asked.spec,
            asked.query[np.newaxis],
            limit=count,
            expression=asked.plan.expression,
            without=without,
            timeout_s=asked.ends - time.monotonic(),
        )
        return found

    async def _personal(
        self, asked: _Asked, query: TextQuery, subject: Subject, selection: Selection
    ) -> tuple[list[Hit], Source]:
        """The best by text in an order for someone."""
        (person,) = await self._people.place(asked.active, [subject], selection.consistency)
        seen = () if selection.include_seen else person.seen
        count = max(CONSIDERED, asked.plan.page_size)
        found = await self._search(asked, count, selection.exclude_ids.union(seen))
        served = asked.active.served
        rows = served.items.rows(found.ids)
        known = rows >= 0
        personal = np.full(len(rows), np.nan)
        if person.vector is not None:
            personal[known] = served.item_vectors[rows[known]] @ person.vector
        else:
            left_s = asked.ends - time.monotonic()
            popular = await self._popularity.fallback(asked.active, timeout_s=left_s)
            personal[known] = popular.scores[rows[known]]
        scores = fused(np.array(found.scores, np.float64), personal, query.fusion)
        order = np.argsort(-scores, kind="stable")[: asked.plan.page_size]
        hits = [Hit(found.ids[place], float(scores[place])) for place in order.tolist()]
        return hits, Source.POPULAR if person.vector is None else Source.PERSONAL


def _no_text(active: Active) -> FailedPrecondition:
    return FailedPrecondition(
        f"release {active.release.id!r} has no texts to search; declare embed_text for a STRING "
        "field of items, and publish again",
        Reason.NO_TEXT_INDEX,
        {"release_id": active.release.id},
    )
