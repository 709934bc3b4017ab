"""The typed asynchronous client of milvine.

Needs grpcio, googleapis-common-protos and `milvine.v1` alone, so that others can take it along.

    async with Client("localhost:50051") as client:
        found = await client.recommend("films", user="42", filter="year >= 1990")
"""

from milvine.client.client import Client
from milvine.client.errors import RpcError, Violation
from milvine.client.operations import OperationHandle, Progress
from milvine.client.pages import pages
from milvine.client.ranking import Boost, NumberDecay, Ranking, TimeDecay
from milvine.client.types import (
    Embeddings,
    Entity,
    HistoryEvent,
    Hit,
    Interaction,
    Item,
    Neighbours,
    PopularItems,
    Recommendation,
    RecommendedPage,
    Recorded,
    User,
    UserRecommendation,
    Value,
)

__all__ = [
    "Boost",
    "Client",
    "Embeddings",
    "Entity",
    "HistoryEvent",
    "Hit",
    "Interaction",
    "Item",
    "Neighbours",
    "NumberDecay",
    "OperationHandle",
    "PopularItems",
    "Progress",
    "Ranking",
    "Recommendation",
    "RecommendedPage",
    "Recorded",
    "RpcError",
    "TimeDecay",
    "User",
    "UserRecommendation",
    "Value",
    "Violation",
    "pages",
]
