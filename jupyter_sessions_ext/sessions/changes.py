"""What creating, changing and deleting a session does to the records: pure, given the registry."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import replace
from typing import Any

from ..models import (
    Change,
    Event,
    EventAction,
    KernelPhase,
    KernelRecord,
    SessionRecord,
    SessionState,
    merged,
)
from ..registry import Registry
from . import documents
from .documents import is_at


def saved(registry: Registry, session: SessionRecord) -> Change:
    """Return the change that makes a session live with its kernel, created or revived."""
    old = registry.sessions.get(session.session_id)
    if old is not None:
        since = old.since if old.state is SessionState.LIVE else session.since
        session = replace(
            session, created_at=old.created_at, created_by=old.created_by, since=since
        )
    return Change(
        sessions=(session,),
        kernels=_taken(registry, session.kernel_id),
        events=(_told(EventAction.REVIVED if old else EventAction.CREATED, session),),
    )


def updated(
    registry: Registry,
    old: SessionRecord,
    values: Mapping[str, Any],
    *,
    kernel_name: str | None = None,
    reviving: Container[str] = (),
) -> Change:
    """Return the change of a session's columns; a dormant session of a new path is absorbed.

    :param kernel_name: the name of the kernel that it then has
    :param reviving: dormant sessions that are just being given a kernel, and are not absorbed
    """
    new = replace(old, **values)
    kernels: tuple[KernelRecord, ...] = ()
    absorbed: list[SessionRecord] = []
    events = []
    if new.kernel_id != old.kernel_id:
        new = replace(new, kernel_name=kernel_name)
        kernels = (*_taken(registry, new.kernel_id), *_abandoned(registry, old))
        events.append(_told(EventAction.KERNEL_CHANGED, new, f"from {old.kernel_id}"))
    if new.path != old.path:
        absorbed = [
            session
            for session in registry.at_path(new.path, SessionState.DORMANT)
            if session.session_id not in reviving
        ]
        events.append(_told(EventAction.RENAMED, new, f"from {old.path}"))
        events += [_told(EventAction.ABSORBED, new, f"session {s.session_id}") for s in absorbed]
    return Change(
        sessions=(new,),
        kernels=kernels,
        forgotten_sessions=tuple(s.session_id for s in absorbed),
        absorbed=tuple((s.session_id, old.session_id) for s in absorbed),
        events=tuple(events),
    )


def moved(registry: Registry, source: str, target: str, *, reviving: Container[str] = ()) -> Change:
    """Return the change that has sessions follow a document, or a folder, that was renamed.

    :param reviving: as for :func:`updated`
    """
    followed = []
    for session in registry.sessions.values():
        if is_at(session, source):
            there = documents.moved(session, source, target)
            values = {"path": there.path, "name": there.name}
            followed.append(updated(registry, session, values, reviving=reviving))
    starting = tuple(
        replace(kernel, intent=documents.moved(kernel.intent, source, target))
        for kernel in registry.kernels.values()
        if kernel.intent is not None and is_at(kernel.intent, source)
    )
    return merged([*followed, Change(kernels=starting)])


def deleted(registry: Registry, session: SessionRecord, detail: str = "") -> Change:
    """Return the change that deletes a session.

    It says that its kernel is to end, and any that is just being started for it.
    """
    ending = [
        replace(kernel, phase=KernelPhase.STOPPING, intent=None)
        for kernel in registry.kernels.values()
        if kernel.kernel_id == session.kernel_id
        or (kernel.intent is not None and kernel.intent.session_id == session.session_id)
    ]
    return replace(forgotten([session], detail), kernels=tuple(ending))


def kept(before: Change) -> Change:
    """Return the change that takes a deletion back, as the kernel could not be shut down."""
    [session] = before.sessions
    return replace(before, events=(_told(EventAction.KEPT, session),))


def forgotten(sessions: Iterable[SessionRecord], detail: str) -> Change:
    """Return the change that deletes sessions."""
    gone = list(sessions)
    return Change(
        forgotten_sessions=tuple(s.session_id for s in gone),
        events=tuple(_told(EventAction.DELETED, s, detail) for s in gone),
    )


def _taken(registry: Registry, kernel_id: str | None) -> tuple[KernelRecord, ...]:
    """Return the record of a kernel that a session now has."""
    kernel = registry.kernels.get(kernel_id or "")
    if kernel is None:
        return ()
    replaced = kernel.phase is KernelPhase.REPLACED
    phase = KernelPhase.RUNNING if replaced else kernel.phase
    return (replace(kernel, intent=None, phase=phase),)


def _abandoned(registry: Registry, session: SessionRecord) -> tuple[KernelRecord, ...]:
    """Return the record of a session's kernel when no other session has it."""
    kernel = registry.kernels.get(session.kernel_id or "")
    if kernel is None or len(registry.of_kernel(kernel.kernel_id)) > 1:
        return ()
    return (replace(kernel, phase=KernelPhase.REPLACED),)


def _told(action: EventAction, session: SessionRecord, detail: str = "") -> Event:
    return Event(
        action=action, session_id=session.session_id, kernel_id=session.kernel_id, detail=detail
    )
