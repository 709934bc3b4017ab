"""Recommendations for every user, over as many streams as it takes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc

from milvine.client import types
from milvine.client.calls import Caller, Method
from milvine.client.errors import RpcError
from milvine.v1 import retrieval_service_pb2 as pb

_TRIES = 5
"""How often in a row a stream may break off before it has sent a user."""
_REST_S = 0.5


async def recommend_all(
    caller: Caller, method: Method, request: pb.RecommendAllRequest
) -> AsyncIterator[types.RecommendedPage]:
    """Yield the pages of a stream; where it breaks off, from one that goes on after the last user.

    All pages are of the release of the first, and each user comes once.
    """
    tries = done = 0
    while True:
        before = done
        try:
            async for response in caller.stream(method, request):
                request.release_id = response.release_id
                page = types.recommended_page(response, before)
                if page.users:
                    tries, request.after_user_id = 0, page.users[-1].user_id
                    done += len(page.users)
                yield page
        except RpcError as error:
            tries += 1
            if error.code is not grpc.StatusCode.UNAVAILABLE or tries > _TRIES:
                raise
            await asyncio.sleep(_REST_S * 2 ** (tries - 1))
        else:
            return
