"""Rows out: by nearness, by filter, by id."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np
from numpy.typing import NDArray
from pymilvus.grpc_gen import common_pb2 as common
from pymilvus.grpc_gen import milvus_pb2 as pb

from milvine.domain.catalog import Field
from milvine.domain.entity import FieldValue
from milvine.domain.hit import Found
from milvine.vectors import columns, expressions, indexes
from milvine.vectors.connection import Calls, Message
from milvine.vectors.engine import Engine
from milvine.vectors.spec import Row

MAX_ROWS = 16_384
"""The most rows that Milvus returns for a query."""
_FETCH_BATCH = 1_000


def search_request(  # noqa: PLR0913 - a search has as many parts
    name: str,
    vectors: NDArray[np.float32],
    *,
    limit: int,
    expression: str,
    parameters: str,
    fields: Sequence[Field],
    strong: bool,
) -> pb.SearchRequest:
    """One request for all queries; `vectors` is (q, dimension) float32."""
    queries = common.PlaceholderValue(
        tag="$0",
        type=common.PlaceholderType.FloatVector,
        values=[vector.tobytes() for vector in np.ascontiguousarray(vectors, dtype="<f4")],
    )
    settings = {
        "anns_field": columns.VECTOR,
        "topk": str(limit),
        "metric_type": indexes.METRIC,
        "params": parameters,
        "round_decimal": "-1",
    }
    return pb.SearchRequest(
        collection_name=name,
        dsl=expression,
        dsl_type=common.BoolExprV1,
        placeholder_group=common.PlaceholderGroup(placeholders=[queries]).SerializeToString(),
        nq=len(vectors),
        output_fields=columns.names(fields),
        search_params=columns.pairs(settings),
        **_consistency(strong=strong),
    )


def found(results: Message, fields: Sequence[Field], engine: Engine) -> list[Found]:
    """What each query found."""
    ids, scores = engine.restored(results.ids.str_id.data), list(results.scores)
    rows: Sequence[Mapping[str, FieldValue]]
    rows = columns.decode(results.fields_data, fields, len(ids)) if fields else ()
    ends = list(accumulate(results.topks, initial=0))
    return [
        Found(ids[start:end], scores[start:end], rows[start:end]) for start, end in pairwise(ends)
    ]


@dataclass(frozen=True, slots=True)
class Queries:
    """Queries of one collection that see the same writes and share a deadline."""

    calls: Calls
    name: str
    engine: Engine
    strong: bool = True

    async def match(self, expression: str, limit: int) -> list[str]:
        """The smallest `limit` ids of rows that match, in their order; every row for ""."""
        found: list[str] = []
        page = expression or expressions.ANY
        while len(found) < limit:
            size = min(limit - len(found), MAX_ROWS)
            ids = columns.decode_ids(await self._ask(page, [columns.ID], size))
            found += ids
            if len(ids) < size:
                break
            page = expressions.after(max(ids), expression)
        return self.engine.restored(found)

    async def fetch(
        self,
        ids: Sequence[str],
        fields: Sequence[Field],
        *,
        expression: str = "",
        with_vector: bool,
    ) -> list[Row]:
        """The rows of these ids that exist and match, in no order."""
        outputs = [columns.ID, *columns.names(fields), *([columns.VECTOR] if with_vector else [])]
        stored = self.engine.stored(ids)
        rows: list[Row] = []
        for at in range(0, len(stored), _FETCH_BATCH):
            some = expressions.one_of(expression, stored[at : at + _FETCH_BATCH])
            rows += self._rows(await self._ask(some, outputs), fields, with_vector=with_vector)
        return rows

    async def count(self, expression: str = "") -> int:
        """The number of rows that match; of all for ""."""
        data = await self._ask(expression, ["count(*)"])
        return int(data[0].scalars.long_data.data[0])

    async def _ask(
        self, expression: str, outputs: Sequence[str], limit: int | None = None
    ) -> Message:
        """Columns of rows that match: those of the smallest ids where there is a limit."""
        settings = {} if limit is None else {"limit": str(limit)}
        request = pb.QueryRequest(
            collection_name=self.name,
            expr=expression,
            output_fields=outputs,
            query_params=columns.pairs(settings),
            **_consistency(strong=self.strong),
        )
        reply = await self.calls.send(self.calls.rpc.Query, request)
        return reply.fields_data

    def _rows(self, data: Message, fields: Sequence[Field], *, with_vector: bool) -> list[Row]:
        ids = self.engine.restored(columns.decode_ids(data))
        values = columns.decode(data, fields, len(ids))
        if not with_vector:
            return [Row(id_, row) for id_, row in zip(ids, values, strict=True)]
        vectors = columns.decode_vectors(data)
        return [Row(*parts) for parts in zip(ids, values, vectors, strict=True)]


def _consistency(*, strong: bool) -> dict[str, int]:
    """What a read has to see: every write that was acknowledged, or those until a moment ago."""
    level = common.ConsistencyLevel.Strong if strong else common.ConsistencyLevel.Bounded
    # 2 is Milvus's own sign for bounded; servers before 2.3 look at nothing else.
    return {"consistency_level": level, "guarantee_timestamp": 0 if strong else 2}
