"""Processes that live and die with this one: a server's worker, and the servers of a supervisor."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Mapping
from contextlib import suppress

import structlog

log = structlog.get_logger(__name__)

REST_S = 1.0
LONGEST_REST_S = 30.0
LONG_LIFE_S = 60.0
"""After so long a life a process is started again as if it had never died before."""
STOP_S = 10.0


class Attached:
    """A milvine process that is started again whenever it ends alone.

    It sees the end of its stdin when this process is gone, however that went, and stops then.
    """

    def __init__(
        self,
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        stop_s: float = STOP_S,
        on_end: Callable[[int], None] = lambda _: None,
    ) -> None:
        """A process that is not started yet.

        Args:
            arguments: What stands after `milvine`; it prints a line once it has started.
            environment: Variables that differ from this process's.
            stop_s: The seconds that it gets to stop before it is killed.
            on_end: Called with the pid of each process that ended.
        """
        self._arguments = arguments
        self._environment = os.environ | dict(environment or {})
        self._stop_s = stop_s
        self._on_end = on_end
        self.started = asyncio.Event()
        """Set once a process has said that it has started."""
        self.refused = asyncio.Event()
        """Set when the first process ended, by itself, without having started."""

    async def run(self) -> None:
        """Keep a process running until cancelled."""
        rest_s = REST_S
        while True:
            began = time.monotonic()
            code = await self._live()
            if not self.started.is_set() and code > 0:
                self.refused.set()
            if time.monotonic() - began > LONG_LIFE_S:
                rest_s = REST_S
            log.warning(
                "a process ended; starting another",
                process=self._arguments[0],
                code=code,
                in_s=rest_s,
            )
            await asyncio.sleep(rest_s)
            rest_s = min(2 * rest_s, LONGEST_REST_S)

    async def _live(self) -> int:
        """Start a process and wait for its end; its exit code."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "milvine", *self._arguments),
            env=self._environment,
            stdin=PIPE,
            stdout=PIPE,
            start_new_session=True,  # Ctrl-C is for this process, which ends it in turn
        )
        try:
            await self._listen(process)
            return await process.wait()
        finally:
            await asyncio.shield(_stop(process, self._stop_s))
            self._on_end(process.pid)

    async def _listen(self, process: Process) -> None:
        """Read stdout until it ends; the first line says that the process has started."""
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        if (await process.stdout.readline()).startswith(b'{"'):
            self.started.set()
        while await process.stdout.read(1 << 16):
            pass


async def run_worker(after: asyncio.Event, environment: Mapping[str, str] | None = None) -> None:
    """Keep a worker running from an event on, until cancelled.

    An embedded Milvus belongs to this process, so the worker is started when that is there.
    """
    await after.wait()
    await Attached("worker", "--attached", "--json", environment=environment).run()


async def until_parted() -> None:
    """Wait in an attached process until the process that it is attached to is gone."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    await reader.read()  # returns when the other end is closed, however its process ended


async def _stop(process: Process, stop_s: float) -> None:
    if process.returncode is not None:
        return
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), timeout=stop_s)
    except TimeoutError:
        process.kill()
        await process.wait()
