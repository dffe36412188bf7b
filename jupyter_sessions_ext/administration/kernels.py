"""The running kernels as a list, with and without sessions."""

from __future__ import annotations

from bisect import bisect_right
from contextlib import suppress

from tornado import web

from .cursors import read_cursor, write_cursor
from .items import Items
from .schemas import KernelItem, KernelsPage, KernelsQuery

_SORT = "id"


async def kernels_page(items: Items, query: KernelsQuery) -> KernelsPage:
    """Return a page of the kernels, by id.

    :raises InvalidBodyError: the cursor is not one of this list
    """
    kernels = await items.kernels()
    ids = sorted(kernels.running)
    start = 0
    if query.cursor is not None:
        [last] = read_cursor(query.cursor, _SORT, tuple[str])
        start = bisect_right(ids, last)
    chosen = ids[start : start + query.limit]
    shown: list[KernelItem] = []
    for kernel_id in chosen:
        with suppress(web.HTTPError, KeyError):  # it has just ended
            shown.append(await items.kernel(kernel_id, kernels))
    is_last = start + query.limit >= len(ids)
    following = None if is_last else write_cursor(_SORT, chosen[-1])
    return KernelsPage(items=shown, next=following, total=len(ids))
