"""Things to store."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa

from milvine.domain.catalog import VectorIndex
from milvine.domain.interaction import INTERACTIONS
from milvine.domain.model import (
    EpochReport,
    Evaluation,
    Holdout,
    HoldoutMethod,
    Model,
    ModelConfig,
    RankingMetrics,
)
from milvine.domain.operation import Operation, OperationKind, OperationState
from milvine.domain.release import Release, ReleaseState
from milvine.records import Records
from tests.contracts.records.conftest import SHOP


def events(*rows: tuple[str, str, int], event_id: str | None = None) -> pa.Table:
    """A table of views: user, item, time."""
    return table(
        [
            {
                "event_id": event_id,
                "user_id": user,
                "item_id": item,
                "event_type": "view",
                "value": None,
                "event_time": moment,
            }
            for user, item, moment in rows
        ]
    )


def table(rows: list[dict[str, object]]) -> pa.Table:
    """A table of the interactions in dictionaries."""
    return pa.Table.from_pylist(rows, schema=INTERACTIONS)


def model(name: str) -> Model:
    """A model of the catalog `shop` with everything that a model can have."""
    metrics = RankingMetrics(10, recall=0.25, ndcg=0.125, mrr=0.5, hit_rate=1.0, coverage=0.0)
    return Model(
        id=name,
        catalog_id="shop",
        config=ModelConfig("als", {"epochs": 3, "regularization": 1.0, "solver": "cg", "ok": True}),
        user_count=2,
        item_count=3,
        pair_count=4,
        dimension=8,
        data_fingerprint="f00",
        train_seconds=1.0,
        epochs=(EpochReport(1, 3, loss=0.5, seconds=1.0),),
        evaluation=Evaluation(
            Holdout(HoldoutMethod.RANDOM, fraction=0.5, cutoffs=(5,)), 2, (metrics,), ()
        ),
    )


def claimed(records: Records, name: str, kind: OperationKind = OperationKind.PUBLISH) -> Operation:
    """An operation of the catalog `shop` that worker `w` has taken up; no other may wait."""
    records.operations.create(Operation(name, "shop", kind, {}), exclusive=False)
    operation = records.operations.claim("w", lease_s=60)
    assert operation is not None
    assert operation.id == name
    return operation


def building(records: Records, name: str) -> Release:
    """A release of model `m` that operation `by NAME` has begun to build."""
    by = claimed(records, f"by {name}")
    return records.releases.begin(replace(release(name), operation_id=by.id, attempt=by.attempts))


def published(records: Records, name: str) -> Release:
    """A READY release of model `m`, whose operation has ended."""
    ready = records.releases.finish(building(records, name))
    records.operations.finish(ready.operation_id, "w", state=OperationState.SUCCEEDED)
    return ready


def release(name: str, model_id: str = "m") -> Release:
    """A release of the catalog `shop` that is to be built."""
    return Release(
        id=name,
        catalog_id="shop",
        model_id=model_id,
        state=ReleaseState.BUILDING,
        item_fields=SHOP.item_fields,
        user_fields=(),
        vector_index=VectorIndex(),
    )
