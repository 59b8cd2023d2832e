"""Lists that the venue hands out in pages, followed to their end.

Promise: every item once, in the venue's order, or `VenueAnswerUnknown`: never a list that was cut short in silence.

Limits: at most `MAX_PAGES` pages; the venue may change the list between two of them.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Final, TypeVar

from holdfast.core.errors import VenueAnswerUnknown
from holdfast.venues.kalshi.values import Page

MAX_PAGES: Final = 1_000

T = TypeVar("T")


async def all_pages(fetch: Callable[[str | None], Awaitable[Page[T]]]) -> list[T]:
    """Every item of a paged list.

    Raises:
        VenueAnswerUnknown: As `each_item`.
    """
    return [item async for item in each_item(fetch)]


async def each_item(fetch: Callable[[str | None], Awaitable[Page[T]]]) -> AsyncGenerator[T, None]:
    """The items of a paged list one after the other; a page is read when the one before is used up.

    Raises:
        VenueAnswerUnknown: The venue hands out a cursor twice or more than `MAX_PAGES` pages: the list never ends.
    """
    count = 0
    seen: set[str] = set()
    cursor: str | None = None
    for _ in range(MAX_PAGES):
        page = await fetch(cursor)
        for item in page.items:
            yield item
        count += len(page.items)
        cursor = page.cursor
        if not cursor:
            return
        if cursor in seen:
            raise VenueAnswerUnknown(f"paging goes in circles after {count} items")
        seen.add(cursor)
    raise VenueAnswerUnknown(f"paging has not ended after {MAX_PAGES} pages")
