"""Which sessions follow a document that the server renames or deletes, and to where."""

from __future__ import annotations

import posixpath
import re
from dataclasses import replace

from ..models import SessionRecord

CONTENTS_EVENTS = "https://events.jupyter.org/jupyter_server/contents_service/v1"

_NO_DOCUMENT = re.compile(r"(^|[/-])[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")
"""Paths that JupyterLab makes up: of a session until it is PATCHed, and of a console for ever."""


def is_at(session: SessionRecord, path: str) -> bool:
    """Tell whether a session is a document's, or of one below a folder."""
    own = (session.path or "").strip("/")
    if _NO_DOCUMENT.search(own):
        return False
    return own == path.strip("/") or own.startswith(path.strip("/") + "/")


def moved(session: SessionRecord, source: str, target: str) -> SessionRecord:
    """Return a session as it is when its document, or a folder of it, was renamed."""
    own = (session.path or "").strip("/")
    path = target.strip("/") + own[len(source.strip("/")) :]
    has_own_name = session.name != posixpath.basename(own)
    name = session.name if has_own_name else posixpath.basename(path)
    return replace(session, path=path, name=name)
