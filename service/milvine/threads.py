"""Threads apart from asyncio's own, for calls that may wait long for each other."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Threads:
    """A few threads of one purpose. Calls over their number wait without one."""

    def __init__(self, purpose: str, count: int) -> None:
        self._pool = ThreadPoolExecutor(count, thread_name_prefix=f"milvine-{purpose}")

    async def run(self, call: Callable[[*Ts], T], *args: *Ts) -> T:
        """What a blocking call gives, as `asyncio.to_thread` has it."""
        context = contextvars.copy_context()
        work = partial(context.run, call, *args)
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    def close(self) -> None:
        """End the threads once their calls have."""
        self._pool.shutdown(cancel_futures=True)
