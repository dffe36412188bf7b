"""What a check finds."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class State(str, Enum):
    """How bad a finding is."""

    OK = "ok"
    WARNING = "warning"
    """It works, but not as well as it could, or not for long."""
    PROBLEM = "problem"
    """Something does not work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one check found about one subject."""

    name: str
    """The check's, which does not change: ``docs/command-line.md`` lists them."""
    state: State
    text: str
    advice: str = ""
    """What to do about it; empty where nothing is to be done."""
    subject: str = ""
    """The folder, the file, the server or the kernel that it is about."""


def ok(name: str, text: str, *, subject: str = "") -> Finding:
    """Return that nothing is wrong."""
    return Finding(name=name, state=State.OK, text=text, subject=subject)


def warning(name: str, text: str, advice: str, *, subject: str = "") -> Finding:
    """Return that something could be better."""
    return Finding(name=name, state=State.WARNING, text=text, advice=advice, subject=subject)


def problem(name: str, text: str, advice: str, *, subject: str = "") -> Finding:
    """Return that something does not work."""
    return Finding(name=name, state=State.PROBLEM, text=text, advice=advice, subject=subject)
