"""Vector indexes: what each engine builds for a declared index, and how it is searched."""

from __future__ import annotations

import json
from dataclasses import dataclass

from milvine.domain.catalog import IndexKind, VectorIndex

METRIC = "IP"


@dataclass(frozen=True, slots=True)
class Engine:
    """What the server at hand can do."""

    is_lite: bool

    @property
    def insert_rows(self) -> int:
        """The rows of an insert that it takes best."""
        return 500 if self.is_lite else 2_000

    @property
    def upsert_rows(self) -> int:
        """The rows of an upsert that it takes best: on Lite it costs the square of them."""
        return 250 if self.is_lite else 2_000

    def kind(self, index: VectorIndex) -> IndexKind:
        """The index that is built: Lite has no HNSW, and no need of it at its sizes."""
        match index.kind:
            case IndexKind.AUTO | IndexKind.HNSW:
                return IndexKind.FLAT if self.is_lite else IndexKind.HNSW
            case kind:
                return kind


def build_parameters(kind: IndexKind, index: VectorIndex) -> dict[str, str]:
    """The parameters of a build."""
    return {
        "index_type": kind,
        "metric_type": METRIC,
        "params": json.dumps(_build(kind, index)),
    }


def search_parameters(kind: IndexKind, index: VectorIndex, limit: int) -> str:
    """The index's own parameters of a search, as JSON."""
    match kind:
        case IndexKind.HNSW:
            # Milvus refuses fewer candidates than hits.
            return json.dumps({"ef": max(index.hnsw_search_candidates, limit)})
        case IndexKind.IVF_FLAT:
            return json.dumps({"nprobe": min(index.ivf_search_clusters, index.ivf_clusters)})
        case _:
            return "{}"


def _build(kind: IndexKind, index: VectorIndex) -> dict[str, int]:
    match kind:
        case IndexKind.HNSW:
            return {"M": index.hnsw_links, "efConstruction": index.hnsw_build_candidates}
        case IndexKind.IVF_FLAT:
            return {"nlist": index.ivf_clusters}
        case _:
            return {}
