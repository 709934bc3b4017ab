"""RetrievalService."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from functools import partial

from milvine.api.convert import bulk, popularity, search
from milvine.api.convert import retrieval as convert
from milvine.api.convert.values import required_id
from milvine.api.recent import RecentCatalogs
from milvine.api.services import Context, Services
from milvine.domain.entity import Side
from milvine.domain.query import Subject, TextQuery
from milvine.retrieval import recommend_all
from milvine.v1 import retrieval_service_pb2 as pb
from milvine.v1 import retrieval_service_pb2_grpc


class RetrievalServicer(retrieval_service_pb2_grpc.RetrievalServiceServicer):
    """Finds items for users, and neighbours of items and users."""

    def __init__(self, services: Services, catalogs: RecentCatalogs) -> None:
        self._services = services
        self._catalogs = catalogs

    async def Recommend(
        self, request: pb.RecommendRequest, context: Context
    ) -> pb.RecommendResponse:
        catalog_id = required_id(request.catalog_id, "catalog_id")
        [subject] = await self._subjects(catalog_id, [request.subject], ["subject"])
        selection = convert.recommended(request)
        timeout_s = self._services.timeout_s(context)
        found = await self._services.retriever.recommend(
            catalog_id, [subject], selection, timeout_s=timeout_s
        )
        return convert.recommendation_message(found[0])

    async def BatchRecommend(
        self, request: pb.BatchRecommendRequest, context: Context
    ) -> pb.BatchRecommendResponse:
        catalog_id = required_id(request.catalog_id, "catalog_id")
        convert.check_subject_count(request.subjects)
        paths = [f"subjects[{i}]" for i in range(len(request.subjects))]
        subjects = await self._subjects(catalog_id, request.subjects, paths)
        selection = convert.recommended(request)
        timeout_s = self._services.timeout_s(context)
        found = await self._services.retriever.recommend(
            catalog_id, subjects, selection, timeout_s=timeout_s
        )
        return pb.BatchRecommendResponse(
            recommendations=[convert.recommendation_message(one) for one in found]
        )

    async def SimilarItems(
        self, request: pb.SimilarItemsRequest, context: Context
    ) -> pb.SimilarItemsResponse:
        catalog_id = required_id(request.catalog_id, "catalog_id")
        item_id = required_id(request.item_id, "item_id")
        selection = convert.selection(request)
        timeout_s = self._services.timeout_s(context)
        found = await self._services.retriever.similar(
            Side.ITEM, catalog_id, item_id, selection, timeout_s=timeout_s
        )
        return convert.similar_items_message(found)

    async def SimilarUsers(
        self, request: pb.SimilarUsersRequest, context: Context
    ) -> pb.SimilarUsersResponse:
        catalog_id = required_id(request.catalog_id, "catalog_id")
        user_id = required_id(request.user_id, "user_id")
        selection = convert.selection(request)
        timeout_s = self._services.timeout_s(context)
        found = await self._services.retriever.similar(
            Side.USER, catalog_id, user_id, selection, timeout_s=timeout_s
        )
        return convert.similar_users_message(found)

    async def RankItems(
        self, request: pb.RankItemsRequest, context: Context
    ) -> pb.RankItemsResponse:
        catalog_id = required_id(request.catalog_id, "catalog_id")
        [subject] = await self._subjects(catalog_id, [request.subject], ["subject"])
        item_ids, selection = convert.ranked(request)
        timeout_s = self._services.timeout_s(context)
        found = await self._services.retriever.rank(
            catalog_id, subject, item_ids, selection, timeout_s=timeout_s
        )
        return convert.ranked_message(found)

    async def FindAudience(
        self, request: pb.FindAudienceRequest, context: Context
    ) -> pb.FindAudienceResponse:
        catalog_id = required_id(request.catalog_id, "catalog_id")
        item_id = required_id(request.item_id, "item_id")
        selection = convert.audience(request)
        timeout_s = self._services.timeout_s(context)
        found = await self._services.retriever.audience(
            catalog_id, item_id, selection, timeout_s=timeout_s
        )
        return convert.audience_message(found)

    async def PopularItems(
        self, request: pb.PopularItemsRequest, context: Context
    ) -> pb.PopularItemsResponse:
        catalog_id = required_id(request.catalog_id, "catalog_id")
        count = partial(popularity.counting, request)
        counting = await asyncio.to_thread(self._catalogs.use, catalog_id, count)
        selection = popularity.popular(request)
        timeout_s = self._services.timeout_s(context)
        found = await self._services.retriever.popular(
            catalog_id, counting, selection, timeout_s=timeout_s
        )
        return convert.popular_items_message(found)

    async def RecommendAll(
        self, request: pb.RecommendAllRequest, context: Context
    ) -> AsyncIterator[pb.RecommendAllResponse]:
        catalog_id = required_id(request.catalog_id, "catalog_id")
        recommended = recommend_all(
            self._services.records,
            self._services.retriever,
            catalog_id,
            bulk.recommended_to_all(request),
            after=bulk.begin(request),
            timeout_s=self._services.call_timeout_s,
        )
        async with aclosing(recommended) as pages:
            async for page in pages:
                for message in bulk.page_messages(page):
                    yield message

    async def SearchItems(
        self, request: pb.SearchItemsRequest, context: Context
    ) -> pb.SearchItemsResponse:
        catalog_id = required_id(request.catalog_id, "catalog_id")
        text, fusion = search.query_text(request.query), search.fusion(request)
        messages = [request.subject] if request.HasField("subject") else []
        subjects = await self._subjects(catalog_id, messages, ["subject"][: len(messages)])
        query = TextQuery(text, subjects[0] if subjects else None, fusion)
        selection = search.searched(request)
        timeout_s = self._services.timeout_s(context)
        found = await self._services.text_search.find(
            catalog_id, query, selection, timeout_s=timeout_s
        )
        return search.found_message(found)

    async def GetEmbeddings(
        self, request: pb.GetEmbeddingsRequest, context: Context
    ) -> pb.GetEmbeddingsResponse:
        catalog_id = required_id(request.catalog_id, "catalog_id")
        item_ids, user_ids = convert.embedding_ids(request)
        timeout_s = self._services.timeout_s(context)
        found = await self._services.retriever.embeddings(
            catalog_id, item_ids, user_ids, timeout_s=timeout_s
        )
        return convert.embeddings_message(found, item_ids, user_ids)

    async def _subjects(
        self, catalog_id: str, messages: Sequence[pb.Subject], paths: Sequence[str]
    ) -> list[Subject]:
        """Whom to recommend to; only histories are checked against the catalog."""
        if not any(message.HasField("history") for message in messages):
            return convert.subjects(messages, paths, None)
        read = partial(convert.subjects, messages, paths)
        return await asyncio.to_thread(self._catalogs.use, catalog_id, read)
