"""The worker process that a server starts beside itself."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from contextlib import suppress

import structlog

log = structlog.get_logger(__name__)

RESTART_S = 1.0
STOP_S = 10.0


class AttachedWorker:
    """A worker process that lives and dies with a server, started again if it dies alone."""

    def __init__(self) -> None:
        self._process: Process | None = None

    async def run(self) -> None:
        """Keep a worker running until cancelled."""
        try:
            while True:
                self._process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "milvine", "worker", "--attached"),
                    stdin=PIPE,
                    start_new_session=True,  # Ctrl-C is for the server, which ends it in turn
                )
                code = await self._process.wait()
                log.warning("the worker ended; starting another", code=code)
                await asyncio.sleep(RESTART_S)
        finally:
            await asyncio.shield(self._stop())

    async def _stop(self) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        with suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), timeout=STOP_S)
        except TimeoutError:
            process.kill()
            await process.wait()
