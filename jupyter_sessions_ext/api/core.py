"""``/api/sessions``: jupyter_server's handlers, with status 503 or 400 where the store refuses."""

from __future__ import annotations

import sys
from typing import Any

from jupyter_server.services.sessions import handlers as stock
from tornado import web


def _refusal(error: BaseException | None) -> web.HTTPError | None:
    """Return the 400, 409 or 503 that an error is, or that it was made of."""
    while error is not None:
        if isinstance(error, web.HTTPError) and error.status_code in (400, 409, 503):
            return error
        error = error.__cause__
    return None


class _AnswersRefusals:
    """Keeps a refusal what it is where jupyter_server's handlers make a 500 or 501 of any error."""

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        if _refusal(value) is None:  # the workspace has logged the first of them
            super().log_exception(typ, value, tb)  # type: ignore[misc]

    def send_error(self, status_code: int = 500, **kwargs: Any) -> None:
        refusal = _refusal(kwargs.get("exc_info", (None, None, None))[1])
        if refusal is not None:
            status_code = refusal.status_code
            kwargs["exc_info"] = (type(refusal), refusal, refusal.__traceback__)
        super().send_error(status_code, **kwargs)  # type: ignore[misc]

    def set_status(self, status_code: int, reason: str | None = None) -> None:
        refusal = _refusal(sys.exc_info()[1]) if status_code == 501 else None
        if refusal is not None:
            raise refusal
        super().set_status(status_code, reason)  # type: ignore[misc]


class SessionRootHandler(_AnswersRefusals, stock.SessionRootHandler):
    """List and create."""


class SessionHandler(_AnswersRefusals, stock.SessionHandler):
    """Read, change and delete one."""


handlers: list[tuple[str, type[web.RequestHandler]]] = [
    (rf"/api/sessions/{stock._session_id_regex}", SessionHandler),
    (r"/api/sessions", SessionRootHandler),
]
