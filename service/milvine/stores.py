"""The three stores of a deployment, each connected as soon as it answers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import structlog

from milvine.artifacts import Artifacts
from milvine.domain.errors import (
    FailedPrecondition,
    InvalidArgument,
    MilvineError,
    NotSupported,
    Reason,
    Unavailable,
)
from milvine.records import Records
from milvine.settings import Settings
from milvine.vectors import LiteProcess, Vectors

log = structlog.get_logger(__name__)

RETRY_S = 0.5
PING_S = 2.0
_HOPELESS = (InvalidArgument, FailedPrecondition, NotSupported)
"""What trying again does not mend: a wrong setting, a newer database, no such store here."""


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
        self._opened = AsyncExitStack()
        self._away: dict[str, str] = {}
        self.artifacts = Artifacts(settings.artifacts)
        self._opened.push_async_callback(asyncio.to_thread, self.artifacts.close)
        self.connected = asyncio.Event()
        """Set once records and vectors were there."""
        self.failed = asyncio.Event()
        """Set once it is certain that they will never be; `failure` says why."""
        self.failure: MilvineError | None = None
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
        """Connect what is not connected and ping what is, until cancelled or without hope."""
        while self.failure is None:
            answers = await asyncio.gather(
                self._answers("records", self._watch_records),
                self._answers("vectors", self._watch_vectors),
            )
            self.healthy = all(answers)
            if self.healthy:
                self.connected.set()
            await asyncio.sleep(PING_S if self.healthy else RETRY_S)

    async def close(self) -> None:
        """Close the connections, and end the embedded Milvus if this process owns it."""
        await self._opened.aclose()

    async def _answers(self, store: str, watch: Callable[[], Awaitable[None]]) -> bool:
        """Whether a store is there; a change is logged, and what nothing can mend is kept."""
        fault: Exception | None = None
        try:
            await watch()
        except Exception as exc:  # noqa: BLE001 - a fault of ours too is told, and tried again
            fault = exc
        self._tell(store, fault)
        if isinstance(fault, _HOPELESS) and not self.connected.is_set():
            self.failure = fault
            self.failed.set()
        return fault is None

    def _tell(self, store: str, fault: Exception | None) -> None:
        """Log that a store is away and why, or is back, where that is news."""
        away = str(fault or "")
        if away == self._away.get(store, ""):
            return
        self._away[store] = away
        if fault is None:
            log.info("a store answers again", store=store)
        else:
            is_ours = not isinstance(fault, MilvineError)
            log.warning(
                "a store does not answer",
                store=store,
                message=away,
                exc_info=fault if is_ours else None,
            )

    async def _watch_records(self) -> None:
        if self._records is not None:
            await asyncio.to_thread(self._records.ping)
            return
        if not self._settings.records_url:
            self._settings.make_data_dir()
        self._records = await asyncio.to_thread(
            Records.open, self._settings.records, timeout_s=self._settings.records_timeout_s
        )
        self._opened.push_async_callback(asyncio.to_thread, self._records.close)

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
        self._opened.push_async_callback(self._vectors.close)

    async def _vectors_uri(self) -> str:
        lite_file = self._settings.lite_file
        if lite_file is None:
            return self._settings.vectors_uri
        if self._embedded is None:
            self._settings.make_data_dir()
            self._embedded = await asyncio.to_thread(LiteProcess.attach_or_open, lite_file)
            self._opened.push_async_callback(asyncio.to_thread, self._embedded.close)
        return self._embedded.uri
