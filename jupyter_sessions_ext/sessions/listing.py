"""Sessions as JSON, kept between requests: only what changed is written anew."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from jupyter_client.jsonutil import json_default

from ..kernels.activity import ActivityMixin
from ..models import SessionRecord, SessionState
from ..registry import Registry
from .reading import session_model


class _Entry(NamedTuple):
    """A session's text, and the record and the kernel's text that it was made of."""

    session: SessionRecord
    kernel: str
    head: str
    """What stands before the kernel."""
    tail: str
    text: str


class Listing:
    """What ``GET /api/sessions`` answers, byte for byte as if it were written anew each time.

    A session's text lives as long as its record and its kernel's text, and that until the kernel's
    manager says that its model has changed.
    """

    def __init__(self, kernels: ActivityMixin) -> None:
        self._kernels = kernels
        self._entries: dict[str, _Entry] = {}
        self._kernel_texts: dict[str | None, str] = {}
        self._body = "[]"
        self._is_of: tuple[Registry, int] | None = None
        self._all_are_tracked = True

    def all(self, registry: Registry) -> str:
        """Return the live sessions whose kernels run, in the order of their creation."""
        self._drop_changed()
        if self._is_of == (registry, registry.version):
            return self._body
        self._all_are_tracked = True
        entries, kernel_texts = self._entries, self._kernel_texts
        running = self._kernels.running()
        parts: list[str] = []
        for session in registry.sessions.values():  # no calls for what has not changed
            if session.state is SessionState.LIVE and session.kernel_id in running:
                entry = entries.get(session.session_id)
                if (
                    entry is None
                    or entry.session is not session
                    or entry.kernel is not kernel_texts.get(session.kernel_id)
                ):
                    entry = self._entry(session)
                parts.append(entry.text)
        self._body = f"[{', '.join(parts)}]"
        self._is_of = (registry, registry.version) if self._all_are_tracked else None
        self._prune(registry)
        return self._body

    def one(self, registry: Registry, session_id: str) -> str | None:
        """Return a live session whose kernel runs, or ``None``."""
        session = registry.sessions.get(session_id)
        if (
            session is None
            or session.state is not SessionState.LIVE
            or session.kernel_id not in self._kernels.running()
        ):
            return None
        self._drop_changed()
        self._prune(registry)
        return self._entry(session).text

    def _drop_changed(self) -> None:
        changed = self._kernels.take_changed()
        for kernel_id in changed:
            self._kernel_texts.pop(kernel_id, None)
        if changed:
            self._is_of = None

    def _prune(self, registry: Registry) -> None:
        """Drop the texts of sessions that are gone, when they are many."""
        if len(self._entries) > 2 * len(registry.sessions) + 100:
            self._entries = {k: v for k, v in self._entries.items() if k in registry.sessions}

    def _entry(self, session: SessionRecord) -> _Entry:
        assert session.kernel_id is not None
        kernel = self._kernel_texts.get(session.kernel_id)
        if kernel is None:
            kernel = _json(self._kernels.kernel_model(session.kernel_id))
            if self._kernels.is_tracked(session.kernel_id):
                self._kernel_texts[session.kernel_id] = kernel
            else:
                self._all_are_tracked = False
        entry = self._entries.get(session.session_id)
        if entry is not None and entry.session is session:
            head, tail = entry.head, entry.tail
        else:
            head, tail = _around_kernel(session)
        entry = _Entry(session, kernel, head, tail, f"{head}{kernel}{tail}")
        self._entries[session.session_id] = entry
        return entry


def _around_kernel(session: SessionRecord) -> tuple[str, str]:
    model = session_model(session.row(), None)
    del model["kernel"]
    document = model.pop("notebook", None)
    tail = "}" if document is None else f', "notebook": {_json(document)}}}'
    return f'{_json(model)[:-1]}, "kernel": ', tail


def _json(value: Any) -> str:
    return json.dumps(value, default=json_default)
