"""Following long work to its end, or cancelling it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import TypeVar

from google.protobuf.message import Message

from milvine.cli.bars import WorkBar
from milvine.cli.command import Remote
from milvine.client import RpcError
from milvine.client.operations import OperationHandle, Progress

R = TypeVar("R", bound=Message)

CANCEL_S = 5.0
"""How long to wait for work to end that was cancelled: a worker looks twice a second."""


async def follow(
    call: Remote,
    handle: OperationHandle[R],
    title: str,
    remark: Callable[[Progress], str] = lambda _: "",
) -> R:
    """Show a bar until the operation is done; what it made.

    Args:
        call: the command that started it.
        handle: the operation.
        title: what is being done.
        remark: what to say of its progress, beside its step and share.

    Raises:
        RpcError: It failed.
        CancelledError: The command was interrupted; the operation is cancelled, too.
    """
    with WorkBar(call.output.err, title) as bar:
        try:
            async for progress in handle.watch():
                bar.show(progress.stage, progress.progress, remark(progress))
            made = await handle.result()
        except asyncio.CancelledError:
            await _cancel(call, handle)
            raise
        bar.finish()
    return made


async def _cancel(call: Remote, handle: OperationHandle[R]) -> None:
    await handle.cancel()
    call.output.note(f"Cancelled {handle.name}.")
    # A server inside this command ends with it, and should write the end down before.
    with contextlib.suppress(RpcError, TimeoutError):
        await handle.result(CANCEL_S)
