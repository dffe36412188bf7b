"""The list of sessions: whatever is asked for, the pages hold all of it once, in order."""

from __future__ import annotations

import fnmatch
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from records import WHEN

from jupyter_sessions_ext.administration.catalog import Catalog, Kernels, matcher
from jupyter_sessions_ext.administration.schemas import Filter, SessionsQuery
from jupyter_sessions_ext.kernels.usage import Usage
from jupyter_sessions_ext.models import Change, SessionRecord, SessionState, now
from jupyter_sessions_ext.registry import Registry
from jupyter_sessions_ext.wire import InvalidBodyError

KERNELS = ["k0", "k1", "k2", "gone"]
SORTS = ["path", "created_at", "last_activity", "cpu", "memory"]

JUST_NOW = now().timestamp()

# Few values of each kind: many are equal, so that the order of equal ones matters.
SESSIONS = st.builds(
    SessionRecord,
    session_id=st.uuids().map(str),
    path=st.sampled_from([None, "", "a.ipynb", "A.ipynb", "w/a.ipynb", "w/b [1].py", "\n", "ß"]),
    name=st.sampled_from([None, "a", "Name"]),
    type=st.sampled_from(["notebook", "console", "file", "other"]),
    kernel_id=st.sampled_from([*KERNELS, None]),
    kernel_name=st.sampled_from(["python3", "ir", None]),
    state=st.sampled_from(SessionState),
    reason=st.sampled_from(["", "culled"]),
    created_by=st.sampled_from(["ada", "system"]),
    created_at=st.integers(0, 3).map(lambda n: WHEN + timedelta(microseconds=n)),
    since=st.integers(0, 3).map(lambda n: WHEN + timedelta(microseconds=n)),
)
QUERIES = st.builds(
    SessionsQuery,
    state=st.sampled_from([None, *SessionState]),
    type=st.sampled_from([None, "notebook", "none"]),
    kernel_name=st.sampled_from([None, "python3"]),
    path=st.sampled_from([None, "*", "w/*", "?.ipynb", "*[[]1]*", "[", "", "*ipynb"]),
    q=st.sampled_from([None, "", "A", "ss", "CULL", "k1", "ada", "a\n"]),
    idle_longer_than=st.sampled_from([None, 0.0, 50.0, 1e10]),
    sort=st.sampled_from([*SORTS, *(f"-{sort}" for sort in SORTS)]),
    limit=st.integers(1, 4),
)


def kernels(cpu: float = 1.0) -> Kernels:
    """Return three kernels that run, of which one has not been measured yet."""
    seconds = WHEN.timestamp()
    activity = {"k0": seconds, "k1": seconds + 1, "k2": JUST_NOW}
    usage = {"k0": Usage(1, cpu, 7), "k1": Usage(2, 1.0, 5)}
    return Kernels(("k0", "k1", "k2"), lambda: activity, usage)


def holding(*sessions: SessionRecord) -> Registry:
    registry = Registry()
    registry.apply(Change(sessions=sessions))
    return registry


def pages(catalog: Catalog, registry: Registry, query: SessionsQuery) -> list[SessionRecord]:
    """Return what is on all pages."""
    found: list[SessionRecord] = []
    while True:
        page = catalog.page(registry, query, kernels())
        assert len(page.sessions) == query.limit or page.next is None
        found += page.sessions
        assert len(found) <= page.total
        if page.next is None:
            assert len(found) == page.total
            return found
        query = SessionsQuery(**{**fields(query), "cursor": page.next})


def fields(query: SessionsQuery) -> dict[str, Any]:
    return {name: getattr(query, name) for name in query.__struct_fields__}


# -------------------------------------------------------------------------- what is to be found


def is_live(session: SessionRecord) -> bool:
    return session.state is SessionState.LIVE and session.kernel_id in ("k0", "k1", "k2")


def activity_of(session: SessionRecord) -> float:
    if not is_live(session):
        return session.since.timestamp()
    return kernels().activity[str(session.kernel_id)]


def passes(session: SessionRecord, query: Filter) -> bool:
    texts = [*session.row().values(), session.kernel_name, session.reason, session.created_by]
    idle = now().timestamp() - activity_of(session)
    return (
        (query.state is None or (query.state is SessionState.LIVE) is is_live(session))
        and query.type in (None, session.type)
        and query.kernel_name in (None, session.kernel_name)
        and (query.path is None or fnmatch.fnmatchcase(session.path or "", query.path))
        and (not query.q or any(query.q.casefold() in t.casefold() for t in texts if t))
        and (query.idle_longer_than is None or idle >= query.idle_longer_than)
    )


def value_of(session: SessionRecord, sort: str) -> Any:
    if sort == "path":
        return session.path or ""
    if sort == "created_at":
        return session.created_at
    if sort == "last_activity":
        return activity_of(session)
    usage = kernels().usage.get(str(session.kernel_id)) if is_live(session) else None
    if usage is None:
        return -1
    return usage.cpu_percent if sort == "cpu" else usage.memory_bytes


def expected(sessions: list[SessionRecord], query: SessionsQuery) -> list[SessionRecord]:
    sort = query.sort.lstrip("-")
    return sorted(
        (s for s in sessions if passes(s, query)),
        key=lambda s: (value_of(s, sort), s.session_id),
        reverse=query.sort.startswith("-"),
    )


@settings(max_examples=200, deadline=None, database=None)
@given(
    sessions=st.lists(SESSIONS, max_size=12, unique_by=lambda s: s.session_id),
    queries=st.lists(QUERIES, min_size=1, max_size=4),
    changed=st.lists(SESSIONS, max_size=4),
)
def test_pages_hold_all_that_is_let_through_once_in_order(
    sessions: list[SessionRecord], queries: list[SessionsQuery], changed: list[SessionRecord]
) -> None:
    catalog = Catalog()
    registry = holding(*sessions)
    for query in queries:
        assert pages(catalog, registry, query) == expected(sessions, query)
    # Whatever was kept of that is of no session that has changed, is new or is gone.
    ids = [s.session_id for s in sessions]
    renewed = [replace(s, session_id=i) for s, i in zip(changed, ids, strict=False)]
    registry.apply(Change(sessions=(*renewed, *changed), forgotten_sessions=tuple(ids[-1:])))
    for query in queries:
        present = list(registry.sessions.values())
        assert pages(catalog, registry, query) == expected(present, query)
        assert catalog.matching(registry, query, kernels()) == [
            s for s in present if passes(s, query)
        ]


def session(number: int, **columns: Any) -> SessionRecord:
    made = SessionRecord(
        session_id=f"s{number}", path=f"{number}.ipynb", type="notebook", created_at=WHEN
    )
    return replace(made, **columns)


def test_pages_go_on_behind_the_last_item_though_it_is_gone() -> None:
    registry = holding(*map(session, range(6)))
    catalog = Catalog()
    query = SessionsQuery(sort="path", limit=2)
    first = catalog.page(registry, query, kernels())
    registry.apply(Change(forgotten_sessions=("s0", "s1"), sessions=(session(7, path="2.a"),)))
    rest = catalog.page(registry, SessionsQuery(sort="path", cursor=first.next), kernels())
    assert [s.session_id for s in rest.sessions] == ["s7", "s2", "s3", "s4", "s5"]


def test_a_session_is_dormant_as_soon_as_its_kernel_is_gone() -> None:
    registry = holding(session(0, kernel_id="k0"))
    catalog = Catalog()
    for running, state in ((("k0",), "live"), ((), "dormant"), (("k0",), "live")):
        now_running = Kernels(running, dict, {})
        for asked in SessionState:
            page = catalog.page(registry, SessionsQuery(state=asked), now_running)
            assert page.total == (asked.value == state)


def test_what_kernels_use_is_looked_at_each_time() -> None:
    registry = holding(session(0, kernel_id="k0"), session(1, kernel_id="k1"))
    catalog = Catalog()
    for cpu, first in ((0.5, "s0"), (2.0, "s1"), (0.5, "s0")):
        page = catalog.page(registry, SessionsQuery(sort="cpu"), kernels(cpu))
        assert page.sessions[0].session_id == first


def test_a_list_of_nothing_is_a_page() -> None:
    page = Catalog().page(Registry(), SessionsQuery(), kernels())
    assert (page.sessions, page.next, page.total) == ([], None, 0)


def forged() -> list[str]:
    page = Catalog().page(holding(session(0), session(1)), SessionsQuery(limit=1), kernels())
    assert page.next is not None
    return [
        "",
        "x",
        "bnVsbA",
        "W10",
        "WzFd",
        "e30",
        page.next[:-3],
        "é",
        "W1tb" * 999,
    ]


@pytest.mark.parametrize("cursor", forged())
def test_a_cursor_that_was_never_answered_is_refused(cursor: str) -> None:
    with pytest.raises(InvalidBodyError, match="cursor"):
        Catalog().page(holding(session(0)), SessionsQuery(cursor=cursor), kernels())


@pytest.mark.parametrize("sort", ["-created_at", "path", "cpu"])
def test_a_cursor_of_another_sort_is_refused(sort: Any) -> None:
    registry = holding(session(0), session(1))
    page = Catalog().page(registry, SessionsQuery(limit=1), kernels())
    with pytest.raises(InvalidBodyError, match="sort=created_at, not with"):
        Catalog().page(registry, SessionsQuery(cursor=page.next, sort=sort), kernels())


@pytest.mark.parametrize(
    ("made", "lets_all"),
    [
        (Filter, True),
        (lambda: Filter(path="*"), True),
        (lambda: Filter(path="**", q="", idle_longer_than=0.0), True),
        (lambda: Filter(path=""), False),
        (lambda: Filter(path="*.ipynb"), False),
        (lambda: Filter(path="*", state=SessionState.LIVE), False),
        (lambda: Filter(q="a"), False),
        (lambda: Filter(idle_longer_than=1.0), False),
        (lambda: Filter(type="notebook"), False),
        (lambda: Filter(kernel_name="python3"), False),
    ],
)
def test_a_filter_that_lets_everything_through_is_known_for_it(
    made: Callable[[], Filter], lets_all: bool
) -> None:
    assert made().lets_all_through() is lets_all


# -------------------------------------------------------------------------- patterns

PATTERNS = st.text(alphabet="ab*?[]!-^\\/", max_size=12)


@given(pattern=PATTERNS, path=st.text(alphabet="ab[]!-^\\/", max_size=8))
@settings(max_examples=500)
def test_a_pattern_is_taken_as_by_fnmatch(pattern: str, path: str) -> None:
    assert bool(matcher(pattern)(path)) == fnmatch.fnmatchcase(path, pattern)


@pytest.mark.parametrize("piece", ["[a", "[", "[!", "[a]", "*a", "?", "*", "[a-", "[]", "[[]", "a"])
def test_no_pattern_takes_long(piece: str) -> None:
    pattern = (piece * 4096)[:4096] if piece != "*a" else "*a" * 100 + "a" * 3896
    began = time.thread_time()
    matches = matcher(pattern)
    matches("a" * 4096)
    matches("[" * 4096)
    assert time.thread_time() - began < 0.1


def test_a_pattern_with_many_stars_is_refused() -> None:
    assert Filter(path="*" * 4096).path
    assert Filter(path="*a" * 100).path
    with pytest.raises(InvalidBodyError, match="path: "):
        Filter(path="*a" * 101)
