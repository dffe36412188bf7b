"""How a command ends: with an exit code, and with words for what could not be done."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from .tables import clean

OK = 0
"""Done."""
FAILED = 1
"""Something could not be done, and was named."""
USAGE = 2
"""The call was wrong."""
NO_SERVER = 3
"""It needs a running server, and none runs."""
INTERRUPTED = 130
"""Ctrl-C."""

CODES = {
    OK: "done",
    FAILED: "something could not be done and was named",
    USAGE: "the call was wrong",
    NO_SERVER: "it needs a running server, and none runs",
    INTERRUPTED: "interrupted",
}


class CommandError(Exception):
    """A command cannot go on; the message says what to do.

    :ivar code: the exit code
    """

    def __init__(self, message: str, code: int = FAILED) -> None:
        super().__init__(message)
        self.code = code


def tell(problems: Iterable[str], code: int = FAILED) -> int:
    """Print what could not be done, and return the exit code."""
    told = OK
    for problem in problems:
        note(problem)
        told = code
    return told


def note(text: str) -> None:
    """Print what is worth knowing, and no fault."""
    print(f"jupyter sessions: {clean(text)}", file=sys.stderr)
