"""Recommendations for every user of a catalog, page after page, each as `Recommend` gives them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial

from milvine.domain.hit import Recommendation
from milvine.domain.query import Consistency, Selection, UserSubject
from milvine.records import Records
from milvine.retrieval.retriever import Retriever

PAGE = 128
"""Users of a page: more of them share nothing more, and keep other requests waiting longer."""
MOST_HITS = 32_768
"""Long lists make smaller pages."""
UNDER_WAY = 2
"""Pages under way: the histories of one are read while the other is searched for."""


@dataclass(frozen=True, slots=True)
class RecommendedPage:
    """Recommendations for some users, by one release."""

    release_id: str
    user_count: int
    """How many users there were to answer for when it began."""
    recommendations: tuple[tuple[str, Recommendation], ...] = ()
    """Each user's, in the order of the bytes of their ids."""


async def recommend_all(
    records: Records,
    retriever: Retriever,
    catalog_id: str,
    selection: Selection,
    *,
    after: str = "",
    timeout_s: float,
) -> AsyncGenerator[RecommendedPage, None]:
    """Yield the recommendations of all users with interactions, by the release of the beginning.

    The first page has no users. The next pages are made as they are taken, `UNDER_WAY` ahead.

    Args:
        records: Who did something.
        retriever: What answers for a page of users.
        catalog_id: The catalog.
        selection: Which items, and by which release.
        after: The user after whom to begin.
        timeout_s: How long a page may take.

    Raises:
        NotFound: There is no such catalog or release, or it was deleted on the way.
        FailedPrecondition: There is no active release, or the one that is named is not READY.
        InvalidArgument: The filter or a field to return breaks its rule.
    """
    release_id = await retriever.release_id(catalog_id, selection.release_id)
    interactions = records.interactions
    count = await asyncio.to_thread(interactions.count_users, catalog_id, after=after)
    empty = RecommendedPage(release_id, count)
    pinned = replace(selection, release_id=release_id, consistency=Consistency.STRONG)
    ask = partial(retriever.recommend, catalog_id, selection=pinned, timeout_s=timeout_s)

    async def answer(user_ids: list[str]) -> RecommendedPage:
        found = await ask([UserSubject(user_id) for user_id in user_ids])
        return replace(empty, recommendations=tuple(zip(user_ids, found, strict=True)))

    yield empty
    under_way: deque[asyncio.Task[RecommendedPage]] = deque()
    limit = max(1, min(PAGE, MOST_HITS // selection.page_size))
    try:
        async with aclosing(_users(records, catalog_id, after, limit)) as pages:
            async for user_ids in pages:
                under_way.append(asyncio.create_task(answer(user_ids)))
                if len(under_way) == UNDER_WAY:
                    yield await under_way.popleft()
        while under_way:
            yield await under_way.popleft()
    finally:
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)


async def _users(
    records: Records, catalog_id: str, after: str, limit: int
) -> AsyncGenerator[list[str], None]:
    read = partial(records.interactions.users, catalog_id, limit=limit)
    while user_ids := await asyncio.to_thread(read, after=after):
        yield user_ids
        after = user_ids[-1]
