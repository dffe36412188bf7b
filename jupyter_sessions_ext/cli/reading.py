"""``list``, ``show`` and ``history``: what runs, what is kept, and what has happened."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from ..administration.schemas import Filter
from ..errors import SessionsError
from ..models import EventAction, EventFilter, SessionState
from ..wire import InvalidBodyError
from .items import Item, kernel_id, ordered
from .outcome import USAGE, CommandError, tell
from .sources import Source, Where, opened, read, resolved
from .tables import print_json, print_pairs, print_table, print_title
from .units import ago, read_time, size

_TITLES = ("ID", "STATE", "PATH", "KERNEL", "PID", "CPU", "MEMORY", "ACTIVE", "USER", "NOTE")
_NUMBERS = ("PID", "CPU", "MEMORY", "ACTIVE")
_IDS = ("ID", "USER", "SESSION")


def list_sessions(options: argparse.Namespace, where: Where) -> int:
    """Show sessions and kernels, of every root folder."""
    try:
        wanted = Filter(
            state=SessionState(options.state) if options.state else None,
            type=options.type,
            kernel_name=options.kernel,
            path=options.path,
            q=options.q,
            idle_longer_than=options.idle_longer_than,
        )
    except InvalidBodyError as error:
        raise CommandError(f"--{error}", USAGE) from error
    problems: list[str] = []
    with opened(where, problems) as sources:
        found = [(s, ordered(read(s, problems, wanted), options.sort)) for s in sources]
    if options.json:
        items = [item for _, items in found for item in items]
        print_json(ordered(items, options.sort))
        return tell(problems)
    for source, items in found:
        if items:
            print_title(f"{source.root_dir}  ({source.use}; {source.folder or 'nothing is kept'})")
            print_table(_TITLES, map(_row, items), numbers=_NUMBERS, ids=_IDS)
    if not any(items for _, items in found) and not problems:
        filtered = wanted != Filter()
        print(f"No sessions and no kernels {'are like that' if filtered else 'are kept'}.")
    return tell(problems)


def _row(item: Item) -> Sequence[str]:
    process = item["process"] or {}
    kernel = item["kernel"] or {}
    return (
        item["id"] or kernel["id"],
        item["state"],
        (item["path"] or "") if item["id"] else "(no session)",
        item["kernel_name"] or "",
        str(process.get("pid", "")),
        f"{process['cpu_percent']:.0f}%" if process else "",
        size(process.get("memory_bytes")),
        ago(read_time(item["last_activity"])),
        item["created_by"] or "",
        item["reason"] or str(kernel.get("execution_state") or ""),
    )


# ---------------------------------------------------------------------- show


def show(options: argparse.Namespace, where: Where) -> int:
    """Show one session whole."""
    problems: list[str] = []
    with opened(where, problems) as sources:
        found = resolved([options.id], sources, problems)
    for source, item in found:
        if options.json:
            print_json(item)
        else:
            _print_item(source, item)
    return tell(problems)


def _print_item(source: Source, item: Item) -> None:
    process = item["process"] or {}
    kernel = item["kernel"] or {}
    cpu = f", {process['cpu_percent']:.0f}% of a CPU" if process else ""
    print_pairs(
        [
            ("id", item["id"] or "(no session)"),
            ("path", item["path"] or ""),
            ("name", item["name"] or ""),
            ("type", item["type"] or ""),
            ("state", item["state"]),
            ("reason", item["reason"]),
            ("created", f"{_when(item['created_at'])} by {item['created_by'] or 'unknown'}"),
            ("in this state", _when(item["since"])),
            ("last active", _when(item["last_activity"])),
            ("kernel name", item["kernel_name"] or ""),
            ("kernel", kernel_id(item) or ""),
            ("kernel does", str(kernel.get("execution_state") or "")),
            ("clients", str(item["connections"]) if item["server"] and kernel else ""),
            ("adopted", f"{item['adoptions']} times" if item["adoptions"] else ""),
            ("process", f"{process['pid']}, {size(process['memory_bytes'])}{cpu}" if cpu else ""),
            ("root folder", source.root_dir),
            ("server", item["server"] or source.use),
            ("kept in", source.folder or ""),
        ]
    )


def _when(text: str | None) -> str:
    then = read_time(text)
    if then is None:
        return "unknown"
    return f"{then.astimezone().isoformat(' ', 'seconds')} ({ago(then)})"


# ---------------------------------------------------------------------- history


def history(options: argparse.Namespace, where: Where) -> int:
    """Show what has happened, the latest first."""
    problems: list[str] = []
    events: list[dict[str, Any]] = []
    with opened(where, problems) as sources:
        session_id = _meant(options.id, sources) if options.id else None
        wanted = EventFilter(
            session_id=session_id,
            action=EventAction(options.action) if options.action else None,
            since=options.since,
        )
        for source in sources:
            try:
                found = source.events(wanted, options.limit or None)
            except (CommandError, SessionsError) as error:
                problems.append(str(error))
                continue
            events += [{**event, "root_dir": source.root_dir} for event in found]
    events.sort(key=_time, reverse=True)
    events = events[: options.limit or None]
    if options.id and not events and not problems and wanted == EventFilter(session_id=session_id):
        problems.append(
            f"{options.id} has no history: `jupyter sessions history` shows that of all"
        )
    if options.json:
        print_json(events)
    elif events:
        titles = ("TIME", "ACTION", "SESSION", "USER", "DETAIL")
        print_table(titles, map(_event_row, events), ids=_IDS)
    elif not problems:
        print("Nothing has happened.")
    return tell(problems)


def _meant(reference: str, sources: Sequence[Source]) -> str:
    """Return a session's id; one that is not known may be that of a session that was deleted."""
    for _, item in resolved([reference], sources, []):
        if item["id"] is not None:
            return str(item["id"])
    return reference


def _time(event: dict[str, Any]) -> datetime:
    time = read_time(event["time"])
    assert time is not None
    return time


def _event_row(event: dict[str, Any]) -> Sequence[str]:
    return (
        _time(event).astimezone().isoformat(" ", "seconds"),
        event["action"],
        event["session_id"] or event["kernel_id"] or "",
        event["user"],
        event["detail"] if event["session_id"] else f"a kernel {event['detail']}".strip(),
    )
