"""Jupyter sessions that last: documents, kernels and their variables survive the server.

The public names load on first use, so that what needs only a part pays only for that part.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .app import SessionsApp
    from .sessions.manager import SessionManager

__version__ = "0.1.0"
__all__ = ["SessionManager", "SessionsApp", "__version__"]

_HOME = {"SessionManager": ".sessions.manager", "SessionsApp": ".app"}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name], __name__), name)
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)


def _jupyter_server_extension_points() -> list[dict[str, Any]]:
    from .app import SessionsApp

    return [{"module": "jupyter_sessions_ext", "app": SessionsApp}]
