"""Removing what belongs to nobody any more: rows, collections and artifacts.

The records say what that is, whoever left it and however, so a removal that fails is made up for
later. Any number of sweepers may be at it at one time.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable

import structlog

from milvine.artifacts import Artifacts
from milvine.domain.errors import DeadlineExceeded, MilvineError, Unavailable
from milvine.records import Records, Stray, StrayKind
from milvine.vectors import Vectors

log = structlog.get_logger(__name__)

PAGE = 1_000
PAUSE_S = 0.5
REST_S = 5.0
"""The pause after a removal that failed."""
DROP_S = 60.0


class Sweeper:
    """Removes what belongs to nobody."""

    def __init__(self, records: Records, vectors: Vectors, artifacts: Artifacts) -> None:
        self._records = records
        self._vectors = vectors
        self._artifacts = artifacts

    async def run(self, stopping: asyncio.Event) -> None:
        """Sweep until `stopping` is set."""
        while not stopping.is_set():
            pause_s = PAUSE_S
            try:
                while await self.sweep() and not stopping.is_set():
                    pass
            except MilvineError as fault:
                log.warning("cannot tidy up", reason=str(fault.reason), error=str(fault))
                pause_s = REST_S
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), pause_s)

    async def sweep(self) -> bool:
        """Do some of what there is to do; whether there is more.

        Raises:
            MilvineError: Something could not be removed; all that could be is.
        """
        has_rows = await asyncio.to_thread(self._records.catalogs.purge)
        strays = await asyncio.to_thread(self._records.strays.removable, limit=PAGE)
        await self._remove_all(strays)
        return has_rows or len(strays) == PAGE

    async def _remove_all(self, strays: Iterable[Stray]) -> None:
        faults: list[MilvineError] = []
        away: set[StrayKind] = set()
        for stray in strays:
            if stray.kind in away:
                continue
            try:
                await self._remove(stray)
            except MilvineError as fault:
                faults.append(fault)
                if isinstance(fault, Unavailable | DeadlineExceeded):
                    away.add(stray.kind)
        if faults:
            raise faults[0]

    async def _remove(self, stray: Stray) -> None:
        match stray.kind:
            case StrayKind.COLLECTION:
                await self._vectors.drop(stray.name, timeout_s=DROP_S)
            case StrayKind.ARTIFACT:
                await asyncio.to_thread(self._artifacts.delete, stray.name)
        await asyncio.to_thread(self._records.strays.forget, stray)
