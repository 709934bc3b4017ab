"""Retrieval: from a subject to a ranked list, by searches in the active release."""

from milvine.retrieval.active import Active, ActiveReleases
from milvine.retrieval.bulk import RecommendedPage, recommend_all
from milvine.retrieval.mapped import MappedItems
from milvine.retrieval.people import People
from milvine.retrieval.popularity import Popularity
from milvine.retrieval.retriever import Retriever
from milvine.retrieval.text_search import TextSearch

__all__ = [
    "Active",
    "ActiveReleases",
    "MappedItems",
    "People",
    "Popularity",
    "RecommendedPage",
    "Retriever",
    "TextSearch",
    "recommend_all",
]
