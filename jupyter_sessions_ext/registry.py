"""The in-memory read model: what the store holds, indexed by id, path and kernel.

Nothing here waits: between a look-up and the next ``await`` nothing can change.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from .models import Change, KernelPhase, KernelRecord, SessionRecord, SessionState


class _Index:
    """Session ids by one of their values, in the order of creation."""

    def __init__(self) -> None:
        self._ids: dict[str | None, dict[str, None]] = {}

    def add(self, value: str | None, session_id: str) -> None:
        self._ids.setdefault(value, {})[session_id] = None

    def discard(self, value: str | None, session_id: str) -> None:
        ids = self._ids.get(value, {})
        ids.pop(session_id, None)
        if not ids:
            self._ids.pop(value, None)

    def get(self, value: str | None) -> tuple[str, ...]:
        return tuple(self._ids.get(value, ()))


class Registry:
    """Every session and kernel record of a workspace."""

    def __init__(self) -> None:
        self.sessions: dict[str, SessionRecord] = {}
        self.kernels: dict[str, KernelRecord] = {}
        self.version = 0
        """Grows with every change of a session."""
        self._by_path = _Index()
        self._by_kernel = _Index()

    def copy(self) -> Registry:
        """Return another one of the same records."""
        other = Registry()
        other.apply(
            Change(sessions=tuple(self.sessions.values()), kernels=tuple(self.kernels.values()))
        )
        return other

    def apply(self, change: Change) -> None:
        """Show a change that is committed."""
        if change.sessions or change.forgotten_sessions:
            self.version += 1
        for session_id in change.forgotten_sessions:
            self._drop(session_id)
        for session in change.sessions:
            self._put(session)
        for kernel_id in change.forgotten_kernels:
            self.kernels.pop(kernel_id, None)
        for kernel in change.kernels:
            self.kernels[kernel.kernel_id] = kernel
        for activity in change.activity:
            known = self.kernels.get(activity.kernel_id)
            if known is not None:
                self.kernels[activity.kernel_id] = replace(
                    known,
                    execution_state=activity.execution_state,
                    last_activity=activity.last_activity,
                )

    def live(self) -> list[SessionRecord]:
        """Return the live sessions in the order of their creation."""
        return [s for s in self.sessions.values() if s.state is SessionState.LIVE]

    def dormant(self) -> list[SessionRecord]:
        """Return the dormant sessions in the order of their creation."""
        return [s for s in self.sessions.values() if s.state is SessionState.DORMANT]

    def at_path(self, path: str | None, state: SessionState) -> Iterator[SessionRecord]:
        """Yield the sessions of a path that are in a state."""
        return (
            session
            for session in map(self.sessions.__getitem__, self._by_path.get(path))
            if session.state is state
        )

    def of_kernel(self, kernel_id: str) -> list[SessionRecord]:
        """Return the live sessions of a kernel."""
        return [
            session
            for session in map(self.sessions.__getitem__, self._by_kernel.get(kernel_id))
            if session.state is SessionState.LIVE
        ]

    def is_ending(self, kernel_id: str) -> bool:
        """Tell whether a kernel was asked to end, though it may still run."""
        kernel = self.kernels.get(kernel_id)
        return kernel is not None and kernel.phase is KernelPhase.STOPPING

    def _put(self, session: SessionRecord) -> None:
        old = self.sessions.get(session.session_id)
        if old is not None:
            self._unindex(old)
        self.sessions[session.session_id] = session
        self._by_path.add(session.path, session.session_id)
        self._by_kernel.add(session.kernel_id, session.session_id)

    def _drop(self, session_id: str) -> None:
        old = self.sessions.pop(session_id, None)
        if old is not None:
            self._unindex(old)

    def _unindex(self, session: SessionRecord) -> None:
        self._by_path.discard(session.path, session.session_id)
        self._by_kernel.discard(session.kernel_id, session.session_id)
