"""Lists of hits, page after page."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import ParamSpec, Protocol, TypeVar

P = ParamSpec("P")


class Page(Protocol):
    """A part of a list."""

    @property
    def next_page_token(self) -> str:
        """Where the next page begins; empty when there is none."""


T = TypeVar("T", bound=Page)


async def pages(
    find: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs
) -> AsyncIterator[T]:
    """Yield the pages of a list from the first on, each when it is asked for.

    All come from one release, for the history of the first, and no hit comes twice.

        async for page in pages(client.recommend, "films", user="42", page_size=20):
            ...

    Args:
        find: a method of the client that takes a `page_token`.
        args: its arguments.
        kwargs: its options.
    """
    page = await find(*args, **kwargs)
    yield page
    while page.next_page_token:
        kwargs["page_token"] = page.next_page_token
        page = await find(*args, **kwargs)
        yield page
