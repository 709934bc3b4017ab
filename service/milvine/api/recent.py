"""Catalogs that were read within the last second."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from milvine.api.services import Services
from milvine.domain.catalog import Catalog
from milvine.domain.errors import InvalidArgument

MAX_AGE_S = 1.0

T = TypeVar("T")


class RecentCatalogs:
    """Spares the calls that check against a declaration its reading; from any thread.

    Declarations only ever grow, so what an older one allows, the present one does. What it refuses
    is checked again with the present one.
    """

    def __init__(self, services: Services) -> None:
        self._services = services
        self._known: dict[str, tuple[Catalog, float]] = {}
        """By id, with the time until which they count."""

    def use(self, catalog_id: str, check: Callable[[Catalog], T]) -> T:
        """What `check` makes of the catalog; blocks.

        Raises:
            NotFound: there is no such catalog.
        """
        recent = self._recent(catalog_id)
        if recent:
            try:
                return check(recent)
            except InvalidArgument:
                pass  # another process may have declared more since
        catalog = self._services.records.catalogs.get(catalog_id)
        self._known[catalog_id] = (catalog, time.monotonic() + MAX_AGE_S)
        return check(catalog)

    def forget(self, catalog_id: str) -> None:
        """Read the catalog anew next time: it was deleted."""
        self._known.pop(catalog_id, None)

    def _recent(self, catalog_id: str) -> Catalog | None:
        catalog, until = self._known.get(catalog_id, (None, 0.0))
        return catalog if time.monotonic() < until else None
