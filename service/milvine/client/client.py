"""The client: a method for each thing that the service does."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Self, TypeAlias

import grpc
from google.longrunning import operations_pb2, operations_pb2_grpc

from milvine.client import requests, types
from milvine.client.bulk import recommend_all
from milvine.client.calls import Caller, Metadata, batched, channel_options
from milvine.client.operations import OperationHandle
from milvine.client.ranking import AnyRanking, ranking_message
from milvine.v1 import (
    catalog_pb2,
    catalog_service_pb2,
    catalog_service_pb2_grpc,
    interaction_pb2,
    interaction_service_pb2,
    interaction_service_pb2_grpc,
    item_service_pb2,
    item_service_pb2_grpc,
    model_pb2,
    model_service_pb2,
    model_service_pb2_grpc,
    release_pb2,
    release_service_pb2,
    release_service_pb2_grpc,
    retrieval_service_pb2,
    retrieval_service_pb2_grpc,
    tuning_pb2,
    user_service_pb2,
    user_service_pb2_grpc,
)

Many: TypeAlias = Iterable[types.Entity] | AsyncIterable[types.Entity]
Events: TypeAlias = (
    Iterable[types.Interaction | interaction_pb2.Interaction]
    | AsyncIterable[types.Interaction | interaction_pb2.Interaction]
)
_ENTITY_BATCH = 500
_EVENT_BATCH = 5_000


class Client:
    """A connection to a milvine service; an asynchronous context manager.

    Methods raise RpcError. Calls that may be sent again are, while the service is unavailable and
    the deadline allows it.
    """

    def __init__(
        self,
        target: str,
        *,
        credentials: grpc.ChannelCredentials | None = None,
        metadata: Metadata = (),
        timeout_s: float = 30.0,
    ) -> None:
        """A client that connects at its first call.

        Args:
            target: the address, `host:port`.
            credentials: how to speak TLS, as `grpc.ssl_channel_credentials()`; None: plaintext.
            metadata: sent with each call.
            timeout_s: the seconds that a call may take; streams have no limit.
        """
        options = channel_options()
        self._channel = (
            grpc.aio.secure_channel(target, credentials, options)
            if credentials
            else grpc.aio.insecure_channel(target, options)
        )
        self._caller = Caller(timeout_s, tuple(metadata))
        self._catalogs = catalog_service_pb2_grpc.CatalogServiceStub(self._channel)
        self._items = item_service_pb2_grpc.ItemServiceStub(self._channel)
        self._users = user_service_pb2_grpc.UserServiceStub(self._channel)
        self._interactions = interaction_service_pb2_grpc.InteractionServiceStub(self._channel)
        self._models = model_service_pb2_grpc.ModelServiceStub(self._channel)
        self._releases = release_service_pb2_grpc.ReleaseServiceStub(self._channel)
        self._retrieval = retrieval_service_pb2_grpc.RetrievalServiceStub(self._channel)
        self._operations = operations_pb2_grpc.OperationsStub(self._channel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection; calls under way fail."""
        await self._channel.close()

    # Catalogs

    async def create_catalog(
        self,
        catalog_id: str,
        *,
        event_types: Iterable[str | catalog_pb2.EventType],
        item_fields: requests.Fields = (),
        user_fields: requests.Fields = (),
        vector_index: catalog_pb2.VectorIndex | None = None,
        display_name: str = "",
    ) -> catalog_pb2.Catalog:
        """Create a catalog.

        Fields are `{"year": "INT64"}` or messages; an event type is a name or a message.
        """
        catalog = catalog_pb2.Catalog(
            catalog_id=catalog_id,
            display_name=display_name,
            item_fields=requests.fields(item_fields),
            user_fields=requests.fields(user_fields),
            event_types=requests.event_types(event_types),
            vector_index=vector_index,
        )
        request = catalog_service_pb2.CreateCatalogRequest(catalog=catalog)
        return await self._caller.call(self._catalogs.CreateCatalog, request)

    async def get_catalog(self, catalog_id: str) -> catalog_pb2.Catalog:
        """Get a catalog."""
        request = catalog_service_pb2.GetCatalogRequest(catalog_id=catalog_id)
        return await self._caller.call(self._catalogs.GetCatalog, request)

    def catalogs(self) -> AsyncIterator[catalog_pb2.Catalog]:
        """All catalogs by id."""
        request = catalog_service_pb2.ListCatalogsRequest()
        return self._caller.pages(self._catalogs.ListCatalogs, request, "catalogs")

    async def update_catalog(
        self, catalog: catalog_pb2.Catalog, paths: Sequence[str] = ()
    ) -> catalog_pb2.Catalog:
        """Replace the named parts of a catalog's declaration; without names all that is set."""
        request = catalog_service_pb2.UpdateCatalogRequest(catalog=catalog)
        if paths:
            request.update_mask.paths.extend(paths)
        return await self._caller.call(self._catalogs.UpdateCatalog, request)

    async def delete_catalog(self, catalog_id: str, *, force: bool = False) -> None:
        """Delete an empty catalog; with `force` also what it holds."""
        request = catalog_service_pb2.DeleteCatalogRequest(catalog_id=catalog_id, force=force)
        await self._caller.call(self._catalogs.DeleteCatalog, request)

    # Items

    async def upsert_items(self, catalog_id: str, items: Many) -> int:
        """Write any number of items in batches; how many."""
        count = 0
        async for batch in batched(items, _ENTITY_BATCH):
            messages = [requests.item(item) for item in batch]
            request = item_service_pb2.UpsertItemsRequest(catalog_id=catalog_id, items=messages)
            count += (await self._caller.call(self._items.UpsertItems, request)).item_count
        return count

    async def get_item(self, catalog_id: str, item_id: str) -> types.Entity:
        """Get an item."""
        request = item_service_pb2.GetItemRequest(catalog_id=catalog_id, item_id=item_id)
        return types.entity(await self._caller.call(self._items.GetItem, request))

    async def get_items(self, catalog_id: str, item_ids: Sequence[str]) -> list[types.Entity]:
        """Get the items that exist of at most 1,000, in their order."""
        request = item_service_pb2.BatchGetItemsRequest(catalog_id=catalog_id, item_ids=item_ids)
        response = await self._caller.call(self._items.BatchGetItems, request)
        return [types.entity(item) for item in response.items]

    async def items(self, catalog_id: str) -> AsyncIterator[types.Entity]:
        """Yield all items by id."""
        request = item_service_pb2.ListItemsRequest(catalog_id=catalog_id)
        async for item in self._caller.pages(self._items.ListItems, request, "items"):
            yield types.entity(item)

    async def delete_items(self, catalog_id: str, item_ids: Sequence[str]) -> int:
        """Delete at most 1,000 items; how many existed."""
        request = item_service_pb2.DeleteItemsRequest(catalog_id=catalog_id, item_ids=item_ids)
        response = await self._caller.call(self._items.DeleteItems, request)
        return int(response.item_count)

    # Users

    async def upsert_users(self, catalog_id: str, users: Many) -> int:
        """Write any number of users in batches; how many."""
        count = 0
        async for batch in batched(users, _ENTITY_BATCH):
            messages = [requests.user(user) for user in batch]
            request = user_service_pb2.UpsertUsersRequest(catalog_id=catalog_id, users=messages)
            count += (await self._caller.call(self._users.UpsertUsers, request)).user_count
        return count

    async def get_user(self, catalog_id: str, user_id: str) -> types.Entity:
        """Get a user."""
        request = user_service_pb2.GetUserRequest(catalog_id=catalog_id, user_id=user_id)
        return types.entity(await self._caller.call(self._users.GetUser, request))

    async def get_users(self, catalog_id: str, user_ids: Sequence[str]) -> list[types.Entity]:
        """Get the users that exist of at most 1,000, in their order."""
        request = user_service_pb2.BatchGetUsersRequest(catalog_id=catalog_id, user_ids=user_ids)
        response = await self._caller.call(self._users.BatchGetUsers, request)
        return [types.entity(user) for user in response.users]

    async def users(self, catalog_id: str) -> AsyncIterator[types.Entity]:
        """Yield all users by id."""
        request = user_service_pb2.ListUsersRequest(catalog_id=catalog_id)
        async for user in self._caller.pages(self._users.ListUsers, request, "users"):
            yield types.entity(user)

    async def delete_users(self, catalog_id: str, user_ids: Sequence[str]) -> int:
        """Delete the metadata of at most 1,000 users; how many existed."""
        request = user_service_pb2.DeleteUsersRequest(catalog_id=catalog_id, user_ids=user_ids)
        response = await self._caller.call(self._users.DeleteUsers, request)
        return int(response.user_count)

    async def erase_user(
        self, catalog_id: str, user_id: str
    ) -> OperationHandle[user_service_pb2.EraseUserReceipt]:
        """Erase a user with metadata, interactions and vectors."""
        request = user_service_pb2.EraseUserRequest(catalog_id=catalog_id, user_id=user_id)
        started = await self._caller.call(self._users.EraseUser, request)
        return OperationHandle(started.name, self._caller, self._operations)

    # Interactions

    async def record(self, catalog_id: str, events: Events) -> types.Recorded:
        """Record any number of interactions, in batches of which each is written whole.

        An interaction without id and time gets the time of this call, so that the client's own
        repetitions are known again; calling again with it records another one.
        """
        written = duplicates = 0
        async for batch in batched(events, _EVENT_BATCH):
            request = interaction_service_pb2.RecordInteractionsRequest(
                catalog_id=catalog_id, interactions=requests.interactions(batch)
            )
            done = await self._caller.call(self._interactions.RecordInteractions, request)
            written += done.written_count
            duplicates += done.duplicate_count
        return types.Recorded(written, duplicates)

    async def stream_interactions(
        self, catalog_id: str, events: Events, *, batch_size: int = _EVENT_BATCH
    ) -> AsyncIterator[types.Recorded]:
        """Record interactions as fast as the service takes them; yields for each durable batch."""
        batches = requests.interaction_batches(catalog_id, batched(events, batch_size))
        async for ack in self._caller.stream(self._interactions.StreamInteractions, batches):
            yield types.Recorded(ack.written_count, ack.duplicate_count)

    async def interactions(self, catalog_id: str, user_id: str) -> AsyncIterator[types.Interaction]:
        """Yield all interactions of a user, latest first."""
        request = interaction_service_pb2.ListInteractionsRequest(
            catalog_id=catalog_id, user_id=user_id
        )
        method = self._interactions.ListInteractions
        async for event in self._caller.pages(method, request, "interactions"):
            yield types.interaction(event)

    # Models

    async def train(  # noqa: PLR0913 - an argument for each family, of which one is given
        self,
        catalog_id: str,
        *,
        als: requests.Settings | model_pb2.AlsConfig | None = None,
        ratings_mf: requests.Settings | model_pb2.RatingsMfConfig | None = None,
        bpr: requests.Settings | model_pb2.BprConfig | None = None,
        softmax_mf: requests.Settings | model_pb2.SoftmaxMfConfig | None = None,
        lightgcn: requests.Settings | model_pb2.LightGcnConfig | None = None,
        neural_cf: requests.Settings | model_pb2.NeuralCfConfig | None = None,
        mult_vae: requests.Settings | model_pb2.MultVaeConfig | None = None,
        two_tower: requests.Settings | model_pb2.TwoTowerConfig | None = None,
        sasrec: requests.Settings | model_pb2.SasRecConfig | None = None,
        config: model_pb2.ModelConfig | None = None,
        holdout: requests.Settings | model_pb2.Holdout | None = None,
        event_types: Sequence[str] = (),
        display_name: str = "",
        process_count: int = 1,
    ) -> OperationHandle[model_pb2.Model]:
        """Train a model of the family that is given, `als={}` with every default.

        A family takes its settings by name or as a message; `config` is a family as a message, in
        place of one by name. Without `holdout` the latest item of each user measures the model,
        and without `event_types` it learns from all. Several processes share the work where
        `process_count` says so, for families that learn by gradients.

        Raises:
            ValueError: When it is not one family that is given.
        """
        families = {
            "als": als,
            "ratings_mf": ratings_mf,
            "bpr": bpr,
            "softmax_mf": softmax_mf,
            "lightgcn": lightgcn,
            "neural_cf": neural_cf,
            "mult_vae": mult_vae,
            "two_tower": two_tower,
            "sasrec": sasrec,
        }
        request = model_service_pb2.TrainModelRequest(
            catalog_id=catalog_id,
            config=requests.model_config(config, families),
            holdout=requests.holdout(holdout),
            event_types=event_types,
            display_name=display_name,
            process_count=process_count,
        )
        started = await self._caller.call(self._models.TrainModel, request)
        return OperationHandle(started.name, self._caller, self._operations)

    async def tune(  # noqa: PLR0913 - what the request has
        self,
        catalog_id: str,
        config: model_pb2.ModelConfig | Mapping[str, requests.Settings],
        space: Mapping[str, requests.Searched],
        *,
        trial_count: int = 0,
        metric: str = "ndcg",
        cutoff: int = 0,
        holdout: requests.Settings | model_pb2.Holdout | None = None,
        event_types: Sequence[str] = (),
        seed: int = 0,
        train_best: bool = False,
        display_name: str = "",
    ) -> OperationHandle[tuning_pb2.Tuning]:
        """Search for the settings of a family that do best on what is held out.

        Args:
            catalog_id: What to learn from.
            config: The family and the settings that are fixed, as `{"als": {"epochs": 10}}`.
            space: Where other settings are looked for, by name: `(low, high)`,
                `(low, high, "log")`, a list of values, or a message.
            trial_count: How many are tried; 0 for 20.
            metric: `ndcg`, `recall`, `mrr` or `hit_rate`.
            cutoff: The length of the lists that are measured; 0 for 20.
            holdout: What is held out; without it the latest item of each user.
            event_types: What to learn from; empty for all.
            seed: With the same seed and data, it tries the same.
            train_best: Whether a model is trained with the best settings afterwards;
                `operation(tuning.train_operation)` follows it.
            display_name: A name for that model.

        Raises:
            ValueError: When the metric or a part of the space has another form.
        """
        request = model_service_pb2.TuneModelRequest(
            catalog_id=catalog_id,
            config=requests.family_config(config),
            space=requests.space(space),
            trial_count=trial_count,
            metric=requests.metric(metric),
            cutoff=cutoff,
            holdout=requests.holdout(holdout),
            event_types=event_types,
            seed=seed,
            train_best=train_best,
            display_name=display_name,
        )
        started = await self._caller.call(self._models.TuneModel, request)
        return OperationHandle(started.name, self._caller, self._operations)

    async def get_model(self, model_id: str) -> model_pb2.Model:
        """Get a model."""
        request = model_service_pb2.GetModelRequest(model_id=model_id)
        return await self._caller.call(self._models.GetModel, request)

    async def evaluate(
        self,
        model_id: str,
        *,
        holdout: requests.Settings | model_pb2.Holdout | None = None,
        release: str = "",
    ) -> OperationHandle[model_pb2.Model]:
        """Measure a model again; with a release of it, what its live index loses, too.

        What the model may have learned from measures its settings, fitted anew on the rest.
        """
        request = model_service_pb2.EvaluateModelRequest(
            model_id=model_id, holdout=requests.holdout(holdout), release_id=release
        )
        started = await self._caller.call(self._models.EvaluateModel, request)
        return OperationHandle(started.name, self._caller, self._operations)

    def models(self, catalog_id: str) -> AsyncIterator[model_pb2.Model]:
        """All models of a catalog, newest first."""
        request = model_service_pb2.ListModelsRequest(catalog_id=catalog_id)
        return self._caller.pages(self._models.ListModels, request, "models")

    async def delete_model(self, model_id: str) -> None:
        """Delete a model that no release was made of."""
        request = model_service_pb2.DeleteModelRequest(model_id=model_id)
        await self._caller.call(self._models.DeleteModel, request)

    # Releases

    async def publish(
        self,
        model_id: str,
        *,
        hold: bool = False,
        min_index_recall: float | None = None,
        keep_releases: int | None = None,
    ) -> OperationHandle[release_pb2.Release]:
        """Build a release of a model, check it and, without `hold`, activate it."""
        request = release_service_pb2.PublishModelRequest(
            model_id=model_id,
            hold=hold,
            min_index_recall=min_index_recall,
            keep_releases=keep_releases,
        )
        started = await self._caller.call(self._releases.PublishModel, request)
        return OperationHandle(started.name, self._caller, self._operations)

    async def get_release(self, release_id: str) -> release_pb2.Release:
        """Get a release."""
        request = release_service_pb2.GetReleaseRequest(release_id=release_id)
        return await self._caller.call(self._releases.GetRelease, request)

    def releases(self, catalog_id: str) -> AsyncIterator[release_pb2.Release]:
        """All releases of a catalog, newest first."""
        request = release_service_pb2.ListReleasesRequest(catalog_id=catalog_id)
        return self._caller.pages(self._releases.ListReleases, request, "releases")

    async def activate(self, release_id: str) -> release_pb2.Release:
        """Make a ready release the active one, also to go back to an older one."""
        request = release_service_pb2.ActivateReleaseRequest(release_id=release_id)
        return await self._caller.call(self._releases.ActivateRelease, request)

    async def delete_release(self, release_id: str) -> None:
        """Delete a release that is not active."""
        request = release_service_pb2.DeleteReleaseRequest(release_id=release_id)
        await self._caller.call(self._releases.DeleteRelease, request)

    # Retrieval

    async def recommend(  # noqa: PLR0913 - what the request has
        self,
        catalog_id: str,
        *,
        user: str | None = None,
        history: Sequence[types.HistoryEvent | str] | None = None,
        vector: Sequence[float] | None = None,
        liked: requests.Examples = (),
        disliked: requests.Examples = (),
        page_size: int = 0,
        filter: str = "",  # noqa: A002 - the request's name
        filter_params: Mapping[str, types.Parameter] | None = None,
        exclude: Iterable[str] = (),
        include_seen: bool = False,
        return_fields: Sequence[str] = (),
        ranking: AnyRanking | None = None,
        explain: bool = False,
        release: str = "",
        strong: bool = False,
        page_token: str = "",
    ) -> types.Recommendation:
        """Recommend items to a user, to a person known by what they did, or to a vector.

        Args:
            catalog_id: the catalog.
            user: the id of a user.
            history: in place of a user, items or events, oldest first.
            vector: in place of a user, a point of the embedding space.
            liked: in place of a user, items that fit a taste, or items with the weight of each.
            disliked: items that don't, likewise.
            page_size: how many hits; 0: 10.
            filter: what every hit must match, such as `year >= {year}`.
            filter_params: the values of the filter's placeholders.
            exclude: items that must not be among the hits.
            include_seen: whether items of the user's history may be.
            return_fields: the fields to return with each hit; `["*"]`: all.
            ranking: how hits are ordered and chosen; None: by score alone.
            explain: whether to tell of each hit why it is there.
            release: the release to ask; empty: the active one.
            strong: whether to reflect every acknowledged interaction, of other servers too.
            page_token: the `next_page_token` of the page before.
        """
        request = retrieval_service_pb2.RecommendRequest(
            catalog_id=catalog_id,
            subject=requests.subject(user, history, vector, liked, disliked),
            page_size=page_size,
            page_token=page_token,
            filter=filter,
            filter_params=types.value_messages(filter_params or {}),
            exclude_item_ids=exclude,
            include_seen=include_seen,
            return_fields=return_fields,
            ranking=ranking_message(ranking),
            explain=explain,
            consistency=requests.consistency(strong=strong),
            release_id=release,
        )
        return types.recommendation(await self._caller.call(self._retrieval.Recommend, request))

    async def batch_recommend(  # noqa: PLR0913 - what the request has
        self,
        catalog_id: str,
        users: Iterable[str],
        *,
        page_size: int = 0,
        filter: str = "",  # noqa: A002 - the request's name
        filter_params: Mapping[str, types.Parameter] | None = None,
        exclude: Iterable[str] = (),
        include_seen: bool = False,
        return_fields: Sequence[str] = (),
        ranking: AnyRanking | None = None,
        release: str = "",
        strong: bool = False,
    ) -> list[types.Recommendation]:
        """Recommend items to each of at most 256 users, by one release."""
        request = retrieval_service_pb2.BatchRecommendRequest(
            catalog_id=catalog_id,
            subjects=[requests.subject(user, None, None) for user in users],
            page_size=page_size,
            filter=filter,
            filter_params=types.value_messages(filter_params or {}),
            exclude_item_ids=exclude,
            include_seen=include_seen,
            return_fields=return_fields,
            ranking=ranking_message(ranking),
            consistency=requests.consistency(strong=strong),
            release_id=release,
        )
        response = await self._caller.call(self._retrieval.BatchRecommend, request)
        return [types.recommendation(one) for one in response.recommendations]

    def recommend_all(  # noqa: PLR0913 - what the request has
        self,
        catalog_id: str,
        *,
        page_size: int = 0,
        filter: str = "",  # noqa: A002 - the request's name
        filter_params: Mapping[str, types.Parameter] | None = None,
        exclude: Iterable[str] = (),
        include_seen: bool = False,
        return_fields: Sequence[str] = (),
        ranking: AnyRanking | None = None,
        release: str = "",
        after: str = "",
    ) -> AsyncIterator[types.RecommendedPage]:
        """Recommend items to every user with interactions, in the order of their ids.

        A stream that breaks off because the service is away is taken up again after the last user.

        Args:
            catalog_id: the catalog.
            page_size: how many hits for a user; 0: 10.
            filter: what every hit must match, such as `year >= {year}`.
            filter_params: the values of the filter's placeholders.
            exclude: items that must not be among the hits.
            include_seen: whether items of the user's history may be.
            return_fields: the fields to return with each hit; `["*"]`: all.
            ranking: how hits are ordered and chosen; None: by score alone.
            release: the release to ask; empty: the active one.
            after: the user after whom to begin.
        """
        request = retrieval_service_pb2.RecommendAllRequest(
            catalog_id=catalog_id,
            page_size=page_size,
            filter=filter,
            filter_params=types.value_messages(filter_params or {}),
            exclude_item_ids=exclude,
            include_seen=include_seen,
            return_fields=return_fields,
            ranking=ranking_message(ranking),
            release_id=release,
            after_user_id=after,
        )
        return recommend_all(self._caller, self._retrieval.RecommendAll, request)

    async def search_items(  # noqa: PLR0913 - what the request has
        self,
        catalog_id: str,
        query: str,
        *,
        user: str | None = None,
        history: Sequence[types.HistoryEvent | str] | None = None,
        weights: tuple[float, float] | None = None,
        page_size: int = 0,
        filter: str = "",  # noqa: A002 - the request's name
        filter_params: Mapping[str, types.Parameter] | None = None,
        exclude: Iterable[str] = (),
        exclude_seen: bool = False,
        return_fields: Sequence[str] = (),
        release: str = "",
        strong: bool = False,
    ) -> types.FoundItems:
        """Find the items whose texts are most like a query's, for anyone or for someone.

        Args:
            catalog_id: the catalog.
            query: what to search for.
            user: for whom, the id of a user.
            history: in place of a user, items or events, oldest first.
            weights: of the text and of the fit to whom it is for; None: by reciprocal rank.
            page_size: how many hits; 0: 10.
            filter: what every hit must match, such as `year >= {year}`.
            filter_params: the values of the filter's placeholders.
            exclude: items that must not be among the hits.
            exclude_seen: whether items of the history must not be, either.
            return_fields: the fields to return with each hit; `["*"]`: all.
            release: the release to ask; empty: the active one.
            strong: whether to reflect every acknowledged interaction, of other servers too.
        """
        request = requests.search(catalog_id, query, user, history, weights)
        request.page_size = page_size
        request.filter = filter
        request.exclude_item_ids.extend(exclude)
        request.exclude_seen = exclude_seen
        request.return_fields.extend(return_fields)
        request.release_id = release
        request.consistency = requests.consistency(strong=strong)
        for name, value in types.value_messages(filter_params or {}).items():
            request.filter_params[name].CopyFrom(value)
        return types.found_items(await self._caller.call(self._retrieval.SearchItems, request))

    async def rank_items(  # noqa: PLR0913 - what the request has
        self,
        catalog_id: str,
        item_ids: Iterable[str],
        *,
        user: str | None = None,
        history: Sequence[types.HistoryEvent | str] | None = None,
        vector: Sequence[float] | None = None,
        liked: requests.Examples = (),
        disliked: requests.Examples = (),
        return_fields: Sequence[str] = (),
        ranking: AnyRanking | None = None,
        explain: bool = False,
        release: str = "",
        strong: bool = False,
    ) -> types.RankedItems:
        """Put at most 10,000 items into the order in which they fit a subject.

        Args:
            catalog_id: the catalog.
            item_ids: the items; seen ones are ranked like any.
            user: the id of a user.
            history: in place of a user, items or events, oldest first.
            vector: in place of a user, a point of the embedding space.
            liked: in place of a user, items that fit a taste, or items with the weight of each.
            disliked: items that don't, likewise.
            return_fields: the fields to return with each hit; `["*"]`: all.
            ranking: how hits are ordered and chosen; None: by score alone.
            explain: whether to tell of each hit why it is there.
            release: the release to ask; empty: the active one.
            strong: whether to reflect every acknowledged interaction, of other servers too.
        """
        request = retrieval_service_pb2.RankItemsRequest(
            catalog_id=catalog_id,
            subject=requests.subject(user, history, vector, liked, disliked),
            item_ids=item_ids,
            return_fields=return_fields,
            ranking=ranking_message(ranking),
            explain=explain,
            release_id=release,
            consistency=requests.consistency(strong=strong),
        )
        return types.ranked_items(await self._caller.call(self._retrieval.RankItems, request))

    async def find_audience(  # noqa: PLR0913 - what the request has
        self,
        catalog_id: str,
        item_id: str,
        *,
        page_size: int = 0,
        filter: str = "",  # noqa: A002 - the request's name
        filter_params: Mapping[str, types.Parameter] | None = None,
        include_seen: bool = False,
        return_fields: Sequence[str] = (),
        release: str = "",
        page_token: str = "",
    ) -> types.Neighbours:
        """Find the users whom an item fits best, by the model's score.

        Args:
            catalog_id: the catalog.
            item_id: the item.
            page_size: how many hits; 0: 10.
            filter: what every user must match, such as `age >= {age}`.
            filter_params: the values of the filter's placeholders.
            include_seen: whether users who had the item may be among the hits.
            return_fields: the user fields to return with each hit; `["*"]`: all.
            release: the release to ask; empty: the active one.
            page_token: the `next_page_token` of the page before.
        """
        request = retrieval_service_pb2.FindAudienceRequest(
            catalog_id=catalog_id,
            item_id=item_id,
            page_size=page_size,
            page_token=page_token,
            filter=filter,
            filter_params=types.value_messages(filter_params or {}),
            include_seen=include_seen,
            return_fields=return_fields,
            release_id=release,
        )
        return types.neighbours(await self._caller.call(self._retrieval.FindAudience, request))

    async def similar_items(  # noqa: PLR0913 - what the request has
        self,
        catalog_id: str,
        item_id: str,
        *,
        page_size: int = 0,
        filter: str = "",  # noqa: A002 - the request's name
        filter_params: Mapping[str, types.Parameter] | None = None,
        return_fields: Sequence[str] = (),
        release: str = "",
        page_token: str = "",
    ) -> types.Neighbours:
        """Find the items most like an item, by cosine."""
        request = retrieval_service_pb2.SimilarItemsRequest(
            catalog_id=catalog_id,
            item_id=item_id,
            page_size=page_size,
            page_token=page_token,
            filter=filter,
            filter_params=types.value_messages(filter_params or {}),
            return_fields=return_fields,
            release_id=release,
        )
        found = await self._caller.call(self._retrieval.SimilarItems, request)
        return types.neighbours(found)

    async def similar_users(  # noqa: PLR0913 - what the request has
        self,
        catalog_id: str,
        user_id: str,
        *,
        page_size: int = 0,
        filter: str = "",  # noqa: A002 - the request's name
        filter_params: Mapping[str, types.Parameter] | None = None,
        return_fields: Sequence[str] = (),
        release: str = "",
        page_token: str = "",
    ) -> types.Neighbours:
        """Find the users most like a user, by cosine."""
        request = retrieval_service_pb2.SimilarUsersRequest(
            catalog_id=catalog_id,
            user_id=user_id,
            page_size=page_size,
            page_token=page_token,
            filter=filter,
            filter_params=types.value_messages(filter_params or {}),
            return_fields=return_fields,
            release_id=release,
        )
        found = await self._caller.call(self._retrieval.SimilarUsers, request)
        return types.neighbours(found)

    async def popular_items(  # noqa: PLR0913 - what the request has
        self,
        catalog_id: str,
        *,
        half_life: timedelta | None = None,
        event_types: Iterable[str] = (),
        page_size: int = 0,
        filter: str = "",  # noqa: A002 - the request's name
        filter_params: Mapping[str, types.Parameter] | None = None,
        exclude: Iterable[str] = (),
        return_fields: Sequence[str] = (),
        release: str = "",
        page_token: str = "",
    ) -> types.PopularItems:
        """Find the items that users had to do with most: lately, or ever.

        Args:
            catalog_id: the catalog.
            half_life: after how long an interaction counts half; None: all count the same.
            event_types: the event types that count; none: all with a weight over 0.
            page_size: how many hits; 0: 10.
            filter: what every hit must match, such as `year >= {year}`.
            filter_params: the values of the filter's placeholders.
            exclude: items that must not be among the hits.
            return_fields: the fields to return with each hit; `["*"]`: all.
            release: the release to ask; empty: the active one.
            page_token: the `next_page_token` of the page before.
        """
        request = retrieval_service_pb2.PopularItemsRequest(
            catalog_id=catalog_id,
            half_life=types.duration(half_life),
            event_types=event_types,
            page_size=page_size,
            filter=filter,
            filter_params=types.value_messages(filter_params or {}),
            exclude_item_ids=exclude,
            return_fields=return_fields,
            release_id=release,
            page_token=page_token,
        )
        return types.popular_items(await self._caller.call(self._retrieval.PopularItems, request))

    async def embeddings(
        self, catalog_id: str, *, items: Iterable[str] = (), users: Iterable[str] = ()
    ) -> types.Embeddings:
        """Get the stored vectors of items and users; those without are left out."""
        request = retrieval_service_pb2.GetEmbeddingsRequest(
            catalog_id=catalog_id, item_ids=items, user_ids=users
        )
        found = await self._caller.call(self._retrieval.GetEmbeddings, request)
        return types.embeddings(found)

    # Operations

    def operation(self, name: str) -> OperationHandle[model_pb2.Model | release_pb2.Release]:
        """The operation of that name, to go on with after a restart."""
        return OperationHandle(name, self._caller, self._operations)

    def operations(self) -> AsyncIterator[operations_pb2.Operation]:
        """All operations, newest first."""
        request = operations_pb2.ListOperationsRequest()
        return self._caller.pages(self._operations.ListOperations, request, "operations")
