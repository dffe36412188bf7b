"""How much of a drill is run: a short form, unless the whole is asked for."""

from __future__ import annotations

import os
from typing import Final

FULL: Final = os.environ.get("SESSIONS_DRILLS") == "full"


def drill_count(short: int, full: int) -> int:
    """Return how often something is tried."""
    return full if FULL else short
