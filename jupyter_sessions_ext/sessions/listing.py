"""Sessions as JSON, kept between requests: only what changed is written anew."""

from __future__ import annotations

import json
from typing import Any

from jupyter_client.jsonutil import json_default

from ..kernels.activity import ActivityMixin
from ..models import SessionRecord, SessionState
from ..registry import Registry
from .reading import session_model


class Listing:
    """What ``GET /api/sessions`` answers, byte for byte as if it were written anew each time.

    A session's own text lives as long as its record, and a kernel's until its manager says that
    its model has changed.
    """

    def __init__(self, kernels: ActivityMixin) -> None:
        self._kernels = kernels
        self._session_texts: dict[str, tuple[SessionRecord, str, str]] = {}
        self._kernel_texts: dict[str, str] = {}
        self._body = "[]"
        self._is_of: tuple[Registry, int] | None = None

    def all(self, registry: Registry) -> str:
        """Return the live sessions whose kernels run, in the order of their creation."""
        self._drop_changed()
        if self._is_of == (registry, registry.version):
            return self._body
        before, self._session_texts = self._session_texts, {}
        parts: list[str] = []
        are_kept = True
        for session in registry.live():
            if self._is_shown(session):
                text = before.get(session.session_id)
                if text is None or text[0] is not session:
                    text = _text(session)
                self._session_texts[session.session_id] = text
                kernel, is_kept = self._kernel(session.kernel_id)
                are_kept = are_kept and is_kept
                parts.append(f"{text[1]}{kernel}{text[2]}")
        self._body = f"[{', '.join(parts)}]"
        self._is_of = (registry, registry.version) if are_kept else None
        return self._body

    def one(self, registry: Registry, session_id: str) -> str | None:
        """Return a live session whose kernel runs, or ``None``."""
        session = registry.sessions.get(session_id)
        if session is None or not self._is_shown(session):
            return None
        self._drop_changed()
        text = self._session_texts.get(session_id)
        if text is None or text[0] is not session:
            text = self._session_texts[session_id] = _text(session)
        return f"{text[1]}{self._kernel(session.kernel_id)[0]}{text[2]}"

    def _is_shown(self, session: SessionRecord) -> bool:
        return session.state is SessionState.LIVE and (session.kernel_id or "") in self._kernels

    def _drop_changed(self) -> None:
        changed = self._kernels.take_changed()
        for kernel_id in changed:
            self._kernel_texts.pop(kernel_id, None)
        if changed:
            self._is_of = None

    def _kernel(self, kernel_id: str | None) -> tuple[str, bool]:
        """Return a kernel's text, and whether it can be kept."""
        assert kernel_id is not None
        text = self._kernel_texts.get(kernel_id)
        if text is not None:
            return text, True
        text = _json(self._kernels.kernel_model(kernel_id))
        is_kept = self._kernels.is_tracked(kernel_id)
        if is_kept:
            self._kernel_texts[kernel_id] = text
        return text, is_kept


def _text(session: SessionRecord) -> tuple[SessionRecord, str, str]:
    """Return a record with what stands before its kernel, and what after it."""
    model = session_model(session.row(), None)
    del model["kernel"]
    document = model.pop("notebook", None)
    tail = "}" if document is None else f', "notebook": {_json(document)}}}'
    return session, f'{_json(model)[:-1]}, "kernel": ', tail


def _json(value: Any) -> str:
    return json.dumps(value, default=json_default)
