"""What a page of the list for administrators costs beside a constant reply of its size.

The server is real and has 10,000 sessions, a fifth of them live on 20 kernels. Each query is asked
in turn with a constant answer of the same bytes. ``new`` queries were never asked before; the
others are as a page asks them again and again. After a rename nothing that was kept is of use.
"""

from __future__ import annotations

import json
from itertools import count
from statistics import mean, median
from typing import TYPE_CHECKING, Final

from .figure import Figure, note
from .subject import Subject

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

LIST: Final = "/sessions/api/v1/sessions?limit=100"
TARGET: Final = 3.0
CHANGED: Final = 20.0
"""What a change costs the next page, as all rows are looked at: no target was set for it."""
WARM_UPS: Final = 3
SORTS: Final = ("path", "created_at", "last_activity", "cpu", "memory")
FILTERS: Final = (
    "state=live",
    "state=dormant",
    "type=notebook",
    "kernel_name=python3",
    "path=*/notebook-00000*",
    "q=NOTEBOOK-0",
    "idle_longer_than=1",
    "state=live&type=notebook&kernel_name=python3&path=*1*&q=2&idle_longer_than=0",
)


def measure(folder: Path, short: bool) -> list[Figure]:
    """Ask for pages of every sort and filter."""
    sessions, rounds = (10_000, 20) if short else (10_000, 60)
    subject = Subject(folder, 10 if short else 20)
    try:
        subject.fill(sessions // 5)
        subject.take_over(_dormant(sessions - sessions // 5))
        note(f"administration: {sessions} sessions")
        numbers = count(10_000)
        figures = [
            _compare(subject, f"sort={sign}{sort}", rounds, lambda q=f"&sort={sign}{sort}": q)  # type: ignore[misc]
            for sort in SORTS
            for sign in ("", "-")
        ]
        figures += [
            _compare(subject, query, rounds, lambda q=f"&{query}": q)  # type: ignore[misc]
            for query in FILTERS
        ]
        figures += [
            _compare(subject, "new q", rounds, lambda: f"&q=b{next(numbers) % 10}"),
            _compare(subject, "new path", rounds, lambda: f"&path=*{next(numbers)}*"),
            _compare(subject, "after a rename", rounds, str, before=subject.rename, target=CHANGED),
        ]
    finally:
        subject.close()
    return figures


def _compare(
    subject: Subject,
    name: str,
    rounds: int,
    query: Callable[[], str],
    before: Callable[[], object] = int,
    target: float = TARGET,
) -> Figure:
    """Compare the pages of a query with constant replies of their size."""
    lists: list[float] = []
    floors: list[float] = []
    total = 0
    for number in range(WARM_UPS + rounds):
        before()
        reply = subject.get(LIST + query())
        page = json.loads(reply.body)
        total = page["total"]
        subject.answer(reply.body)
        floor = subject.constant()
        assert floor.body == reply.body
        if number >= WARM_UPS:
            lists.append(reply.seconds)
            floors.append(floor.seconds)
    return Figure(
        name=f"100 of 10000, {name} / floor",
        measured=_fastest(lists) / _fastest(floors),
        target=target,
        detail=(
            f"{_fastest(lists) * 1000:.2f} ms, {_fastest(floors) * 1000:.2f} ms; "
            f"of the medians of {rounds} {median(lists) / median(floors):.3g}; {total} let through"
        ),
    )


def _fastest(seconds: list[float]) -> float:
    """Return the mean of the fastest tenth."""
    return mean(sorted(seconds)[: max(len(seconds) // 10, 1)])


def _dormant(number: int) -> Iterator[dict[str, object]]:
    """Yield the lines of an export of dormant sessions."""
    time = "2026-01-01T00:00:00Z"
    yield {"format": "jupyter_sessions_ext", "version": 1, "exported_at": time}
    for one in range(number):
        path = f"folder/notebook-{one:09d}-d.ipynb"
        yield {
            "session": {
                "id": f"dormant-{one}",
                "path": path,
                "name": path,
                "type": "notebook",
                "kernel_id": None,
                "kernel_name": "python3",
                "state": "dormant",
                "reason": "",
                "created_at": time,
                "created_by": "ada",
                "since": time,
            }
        }
