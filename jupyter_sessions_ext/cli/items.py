"""Sessions and kernels as ``--json`` prints them: the items of the administration API, and more.

An item is a session's, or that of a kernel that has none: its ``id`` and ``path`` are then null.
Every item also says its ``root_dir`` and its ``server``, the URL of the one that answered, if so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from typing import Any

from ..administration.catalog import matcher
from ..administration.schemas import Filter
from ..models import SessionState, now
from .outcome import CommandError
from .units import read_time

Item = dict[str, Any]

_SHORTEST_PREFIX = 4


def of_kernel(kernel: Item) -> Item:
    """Return the item of a kernel that has no session, of what ``GET /kernels`` tells of it."""
    model = ("id", "name", "last_activity", "execution_state", "connections", "reason")
    return {
        "id": None,
        "path": None,
        "name": None,
        "type": None,
        "kernel": {name: kernel[name] for name in model if name in kernel},
        "state": "live",
        "reason": "",
        "created_at": kernel["started_at"],
        "created_by": None,
        "since": kernel["started_at"],
        "last_activity": kernel["last_activity"],
        "kernel_name": kernel["name"],
        "adoptions": kernel["adoptions"],
        "connections": kernel["connections"],
        "process": kernel["process"],
        "links": kernel["links"],
    }


def kernel_id(item: Item) -> str | None:
    """Return the id of an item's kernel that runs."""
    found: str | None = (item["kernel"] or {}).get("id")
    return found


def names(item: Item) -> str:
    """Return what people know an item by."""
    if item["id"] is None:
        return f"kernel {kernel_id(item)}"
    return f"{item['id']} ({item['path']})"


def kernel_matches(item: Item, wanted: Filter) -> bool:
    """Tell whether a filter lets a kernel without a session through: it has no path and no type."""
    last = read_time(item["last_activity"])
    text = f"{kernel_id(item)}\0{item['kernel_name']}".casefold()
    return (
        wanted.state is not SessionState.DORMANT
        and not wanted.type
        and wanted.kernel_name in (None, item["kernel_name"])
        and (wanted.path is None or matcher(wanted.path)("") is not None)
        and (wanted.q or "").casefold() in text
        and (
            wanted.idle_longer_than is None
            or (last is not None and now() - last >= timedelta(seconds=wanted.idle_longer_than))
        )
    )


_KEYS: dict[str, Callable[[Item], Any]] = {
    "path": lambda item: item["path"] or "",
    "created_at": lambda item: read_time(item["created_at"]) or now(),
    "last_activity": lambda item: read_time(item["last_activity"]) or now(),
    "cpu": lambda item: item["process"]["cpu_percent"] if item["process"] else -1,
    "memory": lambda item: item["process"]["memory_bytes"] if item["process"] else -1,
}


def ordered(items: Iterable[Item], sort: str) -> list[Item]:
    """Return items in an order of the administration API's: downwards with a ``-`` before it."""
    value = _KEYS[sort.removeprefix("-")]
    return sorted(
        items, key=lambda item: (value(item), item["id"] or ""), reverse=sort.startswith("-")
    )


def find(reference: str, items: Sequence[Item]) -> Item:
    """Return the item that is meant: by its id, its kernel's, its path, or the begin of an id.

    :raises CommandError: there is none, or more than one
    """
    for meant in (_is_of_id, _is_of_path, _is_of_prefix):
        found = [item for item in items if meant(item, reference)]
        if meant is _is_of_id and len({(item["root_dir"], kernel_id(item)) for item in found}) == 1:
            return found[0]  # of sessions that share the kernel that is named, any will do
        if len(found) == 1:
            return found[0]
        if found:
            candidates = "; ".join(f"{names(item)} of {item['root_dir']}" for item in found[:5])
            raise CommandError(
                f"{reference} may be any of {len(found)}: {candidates}. Name an id, or the root "
                "folder with --root-dir"
            )
    raise CommandError(
        f"{reference} is no session or kernel that is known: `jupyter sessions list` shows them"
    )


def _is_of_id(item: Item, reference: str) -> bool:
    return reference in (item["id"], kernel_id(item))


def _is_of_path(item: Item, reference: str) -> bool:
    return item["path"] is not None and reference.strip("/") == item["path"].strip("/")


def _is_of_prefix(item: Item, reference: str) -> bool:
    ids = (item["id"] or "", kernel_id(item) or "")
    return len(reference) >= _SHORTEST_PREFIX and any(i.startswith(reference) for i in ids)
