"""The list of sessions as JSON, kept between lists: only what changed is written anew."""

from __future__ import annotations

import json
from typing import Any

from jupyter_client.jsonutil import json_default

from ..kernels.activity import ActivityMixin
from ..models import SessionRecord
from ..registry import Registry
from .reading import session_model


class Listing:
    """What ``GET /api/sessions`` answers, byte for byte as if each list were written anew.

    A session's own text lives as long as its record, and a kernel's until its manager says that
    its model has changed.
    """

    def __init__(self, kernels: ActivityMixin) -> None:
        self._kernels = kernels
        self._session_texts: dict[str, tuple[SessionRecord, str, str]] = {}
        self._kernel_texts: dict[str, str] = {}
        self._body = "[]"
        self._is_of: tuple[Registry, int] | None = None

    def body(self, registry: Registry) -> str:
        """Return the live sessions whose kernels run, in the order of their creation."""
        changed = self._kernels.take_changed()
        for stale in changed:
            self._kernel_texts.pop(stale, None)
        if not changed and self._is_of == (registry, registry.version):
            return self._body
        parts: list[str] = []
        are_tracked = True
        before, self._session_texts = self._session_texts, {}
        for session in registry.live():
            kernel_id = session.kernel_id
            if kernel_id is None or kernel_id not in self._kernels:
                continue
            kernel = self._kernel_texts.get(kernel_id, "")
            if not kernel:
                kernel = _json(self._kernels.kernel_model(kernel_id))
                if self._kernels.is_tracked(kernel_id):
                    self._kernel_texts[kernel_id] = kernel
                else:
                    are_tracked = False
            text = before.get(session.session_id)
            if text is None or text[0] is not session:
                text = _text(session)
            self._session_texts[session.session_id] = text
            parts.append(f"{text[1]}{kernel}{text[2]}")
        self._body = f"[{', '.join(parts)}]"
        self._is_of = (registry, registry.version) if are_tracked else None
        return self._body


def _text(session: SessionRecord) -> tuple[SessionRecord, str, str]:
    """Return a record with what stands before its kernel, and what after it."""
    model = session_model(session.row(), None)
    del model["kernel"]
    document = model.pop("notebook", None)
    tail = "}" if document is None else f', "notebook": {_json(document)}}}'
    return session, f'{_json(model)[:-1]}, "kernel": ', tail


def _json(value: Any) -> str:
    return json.dumps(value, default=json_default)
