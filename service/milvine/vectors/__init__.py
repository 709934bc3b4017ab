"""Collections of vectors in Milvus: the one package that speaks to it."""

from milvine.vectors.errors import CollectionMissing, CollectionNotLoaded, VectorsFault
from milvine.vectors.lite import LiteProcess
from milvine.vectors.spec import CollectionSpec, Row
from milvine.vectors.store import Vectors

__all__ = [
    "CollectionMissing",
    "CollectionNotLoaded",
    "CollectionSpec",
    "LiteProcess",
    "Row",
    "Vectors",
    "VectorsFault",
]
