"""The three stores of a deployment, each connected as soon as it answers."""

from __future__ import annotations

import asyncio

import structlog

from milvine.artifacts import Artifacts
from milvine.domain.errors import MilvineError, Reason, Unavailable
from milvine.records import Records
from milvine.settings import Settings
from milvine.vectors import LiteProcess, Vectors

log = structlog.get_logger(__name__)

RETRY_S = 0.5
PING_S = 2.0


class Stores:
    """Records, vectors and artifacts.

    A process starts without them and answers UNAVAILABLE until they are there, so that the order
    in which a deployment's parts come up does not matter. Once connected, each recovers by itself
    from an absence.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._records: Records | None = None
        self._vectors: Vectors | None = None
        self._embedded: LiteProcess | None = None
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
        if self._embedded is not None:
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
        if self._vectors is not None:
            await self._vectors.ping(timeout_s=timeout_s)
            return
        self._vectors = await Vectors.connect(
            await self._vectors_uri(),
            token=self._settings.vectors_token.get_secret_value(),
            database=self._settings.vectors_database,
            timeout_s=timeout_s,
        )

    async def _vectors_uri(self) -> str:
        lite_file = self._settings.lite_file
        if lite_file is None:
            return self._settings.vectors_uri
        if self._embedded is None:
            self._embedded = await asyncio.to_thread(LiteProcess.attach_or_open, lite_file)
        return self._embedded.uri
