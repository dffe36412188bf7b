"""``jupyter sessions``: what runs and what is kept, with and without a server."""

from __future__ import annotations

from .main import main
from .outcome import FAILED, INTERRUPTED, NO_SERVER, OK, USAGE

__all__ = ["FAILED", "INTERRUPTED", "NO_SERVER", "OK", "USAGE", "main"]
