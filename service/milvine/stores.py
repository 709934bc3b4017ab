"""The three stores of a deployment, each connected as soon as it answers."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass

import structlog

from milvine.artifacts import Artifacts
from milvine.domain.errors import MilvineError, Reason, Unavailable
from milvine.records import Records
from milvine.settings import Settings
from milvine.vectors import LiteProcess, Vectors

log = structlog.get_logger(__name__)

RETRY_S = 0.5
PING_S = 2.0


@dataclass(slots=True)
class _Embedded:
    """The Milvus Lite that goes with a connection, where there is one."""

    process: LiteProcess | None = None

    def close(self) -> None:
        if self.process is not None:
            self.process.close()
            self.process = None


class Stores:
    """Records, vectors and artifacts.

    A process starts without them and answers UNAVAILABLE until they are there, so that the order
    in which a deployment's parts come up does not matter. Records and vectors recover by
    themselves from an absence; an embedded Milvus that died is started again.
    """

    def __init__(self, settings: Settings, *, owns_embedded: bool = True) -> None:
        self._settings = settings
        self._owns_embedded = owns_embedded
        self._records: Records | None = None
        self._vectors: Vectors | None = None
        self._embedded = _Embedded()
        self.artifacts = Artifacts(settings.artifacts)
        self.connected = asyncio.Event()
        """Set once records and vectors were there."""
        self.healthy = False
        """Whether both answered the last ping."""

    @property
    def records(self) -> Records:
        """The records; raises Unavailable before they answer."""
        if self._records is None:
            raise Unavailable(
                "the database does not answer yet; try again", Reason.RECORDS_UNAVAILABLE
            )
        return self._records

    @property
    def vectors(self) -> Vectors:
        """The vectors; raises Unavailable before they answer."""
        if self._vectors is None:
            raise Unavailable(
                "the vector store does not answer yet; try again", Reason.VECTORS_UNAVAILABLE
            )
        return self._vectors

    async def watch(self) -> None:
        """Connect what is not connected and ping what is, until cancelled."""
        while True:
            results = await asyncio.gather(
                self._watch_records(), self._watch_vectors(), return_exceptions=True
            )
            faults = [fault for fault in results if isinstance(fault, BaseException)]
            for fault in faults:
                if not isinstance(fault, MilvineError):
                    raise fault
                if self.healthy or not self.connected.is_set():
                    log.warning("a store does not answer", reason=str(fault.reason))
            self.healthy = not faults
            if self.healthy:
                self.connected.set()
            await asyncio.sleep(PING_S if self.healthy else RETRY_S)

    async def close(self) -> None:
        """Close the connections, and end the embedded Milvus if this process owns it."""
        if self._vectors is not None:
            await self._vectors.close()
        await asyncio.to_thread(self._embedded.close)
        if self._records is not None:
            await asyncio.to_thread(self._records.close)

    async def _watch_records(self) -> None:
        if self._records is not None:
            await asyncio.to_thread(self._records.ping)
            return
        self._settings.data_dir.mkdir(parents=True, exist_ok=True)
        self._records = await asyncio.to_thread(
            Records.open, self._settings.records, timeout_s=self._settings.records_timeout_s
        )

    async def _watch_vectors(self) -> None:
        timeout_s = self._settings.vectors_timeout_s
        if self._vectors is None:
            self._vectors = await self._connect(timeout_s)
            return
        try:
            await self._vectors.ping(timeout_s=timeout_s)
        except Unavailable:
            if self._embedded.process is not None:  # a dead child does not come back by itself
                await self._vectors.close()
                self._vectors = None
                await asyncio.to_thread(self._embedded.close)
            raise

    async def _connect(self, timeout_s: float) -> Vectors:
        uri = self._settings.vectors_uri
        lite_file = self._settings.lite_file
        if lite_file is not None:
            lite_file.parent.mkdir(parents=True, exist_ok=True)
            start = LiteProcess.attach_or_open if self._owns_embedded else LiteProcess.attach
            process = await asyncio.to_thread(start, lite_file)
            self._embedded.process = process
            uri = process.uri
        try:
            return await Vectors.connect(
                uri,
                token=self._settings.vectors_token.get_secret_value(),
                database=self._settings.vectors_database,
                timeout_s=timeout_s,
            )
        except BaseException:
            with contextlib.suppress(OSError):
                await asyncio.to_thread(self._embedded.close)
            raise
