"""Vector indexes: how they are built and searched."""

from __future__ import annotations

import json

from milvine.domain.catalog import IndexKind, VectorIndex

METRIC = "IP"


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
