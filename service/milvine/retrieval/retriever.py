"""The answers of retrieval: recommendations, neighbours and stored embeddings.

A request resolves the active release once, places its subjects (one read of histories, one call of
the encoder), searches with the filter and drops what is seen or excluded. Where an index would lose
results, what matches is scored exactly, so that a short answer means that no more match.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np

from milvine.domain.entity import Side
from milvine.domain.errors import NotFound, Reason
from milvine.domain.hit import Hit, Recommendation, SearchMethod, Source
from milvine.domain.query import (
    Counting,
    Embeddings,
    Neighbours,
    PopularItems,
    RankedItems,
    Selection,
    Subject,
)
from milvine.models.vocabulary import Vocabulary
from milvine.records import Records
from milvine.retrieval.active import Active, ActiveReleases
from milvine.retrieval.audience import Audiences, Whom
from milvine.retrieval.columns import Columns
from milvine.retrieval.exact import Exact
from milvine.retrieval.explain import Explained, Explainer, explained
from milvine.retrieval.index import Index
from milvine.retrieval.named import in_order, look_up
from milvine.retrieval.pages import Page, Pages
from milvine.retrieval.people import People, Person
from milvine.retrieval.plan import BY_MODEL, Plan, Planner
from milvine.retrieval.popularity import Popularity, most_popular
from milvine.retrieval.ranked import RankedSearch
from milvine.retrieval.ranker import Asked, Ranker
from milvine.retrieval.ranking import NO_ROWS, Slate
from milvine.retrieval.search import Search
from milvine.vectors import CollectionSpec, Vectors


class Retriever:
    """Finds items for subjects, and neighbours of items and users."""

    def __init__(
        self,
        records: Records,
        people: People,
        vectors: Vectors,
        releases: ActiveReleases,
        popularity: Popularity,
    ) -> None:
        self._people = people
        self._vectors = vectors
        self._releases = releases
        self._popularity = popularity
        self._pages = Pages(records, releases)
        self._planner = Planner(vectors.dialect)
        self._index = Index(vectors)
        self._exact = Exact(vectors)
        self._explainer = Explainer(records, people)
        self._audiences = Audiences(records, vectors, self._index)
        columns = Columns(records)
        self._ranker = Ranker(vectors, self._exact.matchings, columns)

    async def recommend(
        self,
        catalog_id: str,
        subjects: Sequence[Subject],
        selection: Selection,
        *,
        timeout_s: float,
    ) -> list[Recommendation]:
        """Recommend items to each subject, by one release.

        Raises:
            NotFound: There is no such catalog or release.
            FailedPrecondition: There is no active release, or the one that is named is not READY.
            InvalidArgument: The filter, a field to return, a vector or a page token breaks its
                rule.
        """
        active, page = await self._pages.open(catalog_id, selection)
        made = await self._planner.plan(active.scope(Side.ITEM), selection)
        placed = await self._placed(active, subjects, selection, timeout_s, page)
        people = [one.person for one in placed]
        search = self._search(active, made, timeout_s)
        ranked = self._ranked(search, active, made, selection, page)
        shown = () if ranked else page.shown_ids(active.served.items)
        excluded = [_excluded(person, selection, shown) for person in people]
        known = {i: person.vector for i, person in enumerate(people) if person.vector is not None}
        unknown = [i for i in range(len(people)) if i not in known]
        queries, barred = [*known.values()], [excluded[i] for i in known]
        if ranked:
            personal = await ranked.best(queries, barred, [people[i].reader for i in known])
        else:
            personal = await search.best(queries, barred)
        popular = await self._fallback(
            ranked or search, active, made, [excluded[i] for i in unknown], timeout_s
        )
        answers = {
            i: _answer(active, made, hits, Source.PERSONAL, method)
            for i, (hits, method) in zip(known, personal, strict=True)
        } | {
            i: _answer(active, made, hits, Source.POPULAR, SearchMethod.EXACT)
            for i, hits in zip(unknown, popular, strict=True)
        }
        found = [answers[i] for i in range(len(people))]
        if selection.explain:
            found = [
                replace(answer, hits=tuple(await _told(active, one, answer.hits)))
                for one, answer in zip(placed, found, strict=True)
            ]
        if len(found) > 1:
            return found
        token = await self._pages.after(
            selection, page, found[0].hits, items=active.served.items, person=people[0]
        )
        return [replace(found[0], next_page_token=token)]

    async def release_id(self, catalog_id: str, release_id: str = "") -> str:
        """The release that answers now, for requests that are to be answered by one.

        Raises:
            NotFound: There is no such catalog, or it has no such release.
            FailedPrecondition: It has no active release, or the one that is named is not READY.
        """
        return (await self._releases.get(catalog_id, release_id)).release.id

    async def popular(
        self, catalog_id: str, counting: Counting, selection: Selection, *, timeout_s: float
    ) -> PopularItems:
        """Find the items that users had to do with most, of those with an interaction that counts.

        Raises:
            NotFound: There is no such catalog or release.
            FailedPrecondition: There is no active release, or the one that is named is not READY.
            InvalidArgument: The filter, a field to return or a page token breaks its rule.
        """
        active, page = await self._pages.open(catalog_id, selection)
        made = await self._planner.plan(active.scope(Side.ITEM), selection)
        popular = await self._popularity.of(active, counting, timeout_s=timeout_s)
        search = self._search(active, made, timeout_s)
        items, count = active.served.items, made.page_size
        excluded = [selection.exclude_ids.union(page.shown_ids(items))]
        found = await most_popular(search, active, popular, popular.counted, excluded, count)
        (hits,) = await search.with_fields(found)
        token = await self._pages.after(selection, page, hits, items=items)
        return PopularItems(tuple(hits), active.release.id, len(hits) < count, token)

    async def similar(
        self, side: Side, catalog_id: str, entity_id: str, selection: Selection, *, timeout_s: float
    ) -> Neighbours:
        """Find the items or users whose tastes point most nearly the same way, by cosine.

        Raises:
            NotFound: There is no such catalog or release, or it has no vector of the entity.
            FailedPrecondition: There is no active release, or the one that is named is not READY.
            InvalidArgument: The filter, a field to return or a page token breaks its rule.
        """
        active, page = await self._pages.open(catalog_id, selection)
        made = await self._planner.plan(active.scope(side), selection)
        spec = active.layout(side).neighbours
        rows = await self._vectors.fetch(spec, [entity_id], with_vector=True, timeout_s=timeout_s)
        if not rows or rows[0].vector is None:
            raise _no_vector(side, entity_id, active)
        search = self._search(active, made, timeout_s)
        items = _items(active, side)
        excluded = frozenset((entity_id, *page.shown_ids(items)))
        hits, method = await search.nearest(side, rows[0].vector, excluded)
        is_short = len(hits) < made.page_size
        token = await self._pages.after(selection, page, hits, items=items)
        return Neighbours(tuple(hits), active.release.id, is_short, method, token)

    async def rank(
        self,
        catalog_id: str,
        subject: Subject,
        item_ids: Sequence[str],
        selection: Selection,
        *,
        timeout_s: float,
    ) -> RankedItems:
        """Put items into the order in which they fit a subject; one named twice counts once.

        Raises:
            NotFound: There is no such catalog or release.
            FailedPrecondition: There is no active release, or the one that is named is not READY.
            InvalidArgument: A field to return or a vector breaks its rule.
        """
        active = await self._releases.get(catalog_id, selection.release_id)
        made = await self._planner.plan(active.scope(Side.ITEM), selection)
        search = self._search(active, made, timeout_s)
        (placed,) = await self._placed(active, [subject], selection, timeout_s)
        named = await look_up(search, active.served.items, item_ids)
        vector = placed.person.vector
        if vector is not None:
            scores = active.served.item_vectors[named.rows] @ vector
        else:
            popular = await self._popularity.fallback(active, timeout_s=timeout_s)
            scores = popular.scores[named.rows]
        made = replace(made, page_size=len(named.rows))
        if ranked := self._ranked(search, active, made, selection):
            hits = await ranked.of(Slate.of(named.rows, scores), placed.person.reader)
        else:
            (hits,) = await search.with_fields([in_order(active.served.items, named.rows, scores)])
        if selection.explain:
            hits = await _told(active, placed, hits)
        source = Source.POPULAR if vector is None else Source.PERSONAL
        return RankedItems(tuple(hits), active.release.id, source, named.missing)

    async def audience(
        self, catalog_id: str, item_id: str, selection: Selection, *, timeout_s: float
    ) -> Neighbours:
        """Find the users whom an item fits best, by the model's score.

        Raises:
            NotFound: There is no such catalog or release, or it has no vector of the item.
            FailedPrecondition: There is no active release, or the one that is named is not READY.
            InvalidArgument: The filter, a field to return or a page token breaks its rule.
        """
        active, page = await self._pages.open(catalog_id, selection)
        made = await self._planner.plan(active.scope(Side.USER), selection)
        items = self._search(active, Plan("", (), 1), timeout_s)
        named = await look_up(items, active.served.items, [item_id])
        if named.missing:
            raise _no_vector(Side.ITEM, item_id, active)
        whom = Whom(item_id, selection.include_seen, frozenset(page.shown_ids(None)))
        (vector,) = active.served.item_vectors[named.rows]
        reached = await self._audiences.find(active, made, vector, whom, timeout_s=timeout_s)
        token = await self._pages.after(selection, page, reached.hits)
        return Neighbours(reached.hits, active.release.id, reached.is_all, reached.method, token)

    async def embeddings(
        self,
        catalog_id: str,
        item_ids: Sequence[str],
        user_ids: Sequence[str],
        *,
        timeout_s: float,
    ) -> Embeddings:
        """Get stored vectors; those that the release does not have are left out."""
        active = await self._releases.get(catalog_id)
        items, users = await asyncio.gather(
            self._stored(active.layout(Side.ITEM).scores, item_ids, timeout_s),
            self._stored(active.layout(Side.USER).scores, user_ids, timeout_s),
        )
        return Embeddings(items, users, active.release.id)

    async def _fallback(
        self,
        search: Search | RankedSearch,
        active: Active,
        made: Plan,
        excluded: Sequence[frozenset[str]],
        timeout_s: float,
    ) -> list[list[Hit]]:
        """Popular items for subjects of whom nothing is known."""
        if not excluded:
            return []
        popular = await self._popularity.fallback(active, timeout_s=timeout_s)
        if isinstance(search, RankedSearch):
            return await search.popular(popular, excluded)
        rows, count = popular.rows, made.page_size
        found = await most_popular(search, active, popular, rows, excluded, count)
        return await search.with_fields(found)

    async def _placed(
        self,
        active: Active,
        subjects: Sequence[Subject],
        selection: Selection,
        timeout_s: float,
        page: Page | None = None,
    ) -> list[Explained]:
        """The subjects in the space of the release, with the reasons where they are asked for.

        After the first page of a list, its subject is who it was then, by the reasons of now.
        """
        then = page.person(active.served.items) if page and not page.is_first else None
        if selection.explain:
            placed = await self._explainer.place(active, subjects, timeout_s=timeout_s)
            return [replace(one, person=then or one.person) for one in placed]
        people = (
            [then] if then else await self._people.place(active, subjects, selection.consistency)
        )
        return [Explained(person) for person in people]

    def _ranked(
        self,
        search: Search,
        active: Active,
        made: Plan,
        selection: Selection,
        page: Page | None = None,
    ) -> RankedSearch | None:
        """The searches with the ranking, where there is one or the model has a scorer."""
        ranking = made.ranking or (BY_MODEL if active.served.scorer else None)
        if ranking is None:
            return None
        moment = page.moment if page else datetime.now(UTC)
        shown = page.shown_rows(active.served.items) if page else NO_ROWS
        asked = Asked(active, ranking, moment, search.ends, shown, explain=selection.explain)
        return RankedSearch(search, self._ranker, asked, made.page_size)

    def _search(self, active: Active, made: Plan, timeout_s: float) -> Search:
        return Search(self._vectors, self._index, self._exact, active, made, timeout_s=timeout_s)

    async def _stored(
        self, spec: CollectionSpec, ids: Sequence[str], timeout_s: float
    ) -> Mapping[str, np.ndarray]:
        if not ids:
            return {}
        rows = await self._vectors.fetch(spec, ids, with_vector=True, timeout_s=timeout_s)
        return {row.id: row.vector for row in rows if row.vector is not None}


def _excluded(person: Person, selection: Selection, shown: Sequence[str]) -> frozenset[str]:
    seen = () if selection.include_seen else person.seen
    return selection.exclude_ids.union(seen, shown) if seen or shown else selection.exclude_ids


async def _told(active: Active, placed: Explained, hits: Sequence[Hit]) -> list[Hit]:
    """Hits with what speaks for them, in a thread: a scorer looks at each without each item."""
    return await asyncio.to_thread(explained, active.served, placed, hits)


def _items(active: Active, side: Side) -> Vocabulary | None:
    """What the pages of a side's hits are told by; None for users."""
    return active.served.items if side is Side.ITEM else None


def _no_vector(side: Side, entity_id: str, active: Active) -> NotFound:
    return NotFound(
        f"release {active.release.id!r} has no vector of {side} {entity_id!r}; "
        "it needs interactions, and a model trained and published since",
        Reason(f"{side.upper()}_NOT_FOUND"),
        {f"{side}_id": entity_id, "release_id": active.release.id},
    )


def _answer(
    active: Active, made: Plan, hits: Sequence[Hit], source: Source, method: SearchMethod
) -> Recommendation:
    is_short = len(hits) < made.page_size
    return Recommendation(tuple(hits), active.release.id, source, is_short, method)
