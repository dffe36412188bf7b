"""Sizes and times as people read and write them."""

from __future__ import annotations

import argparse
import re
from datetime import datetime, timedelta, timezone

from ..models import now

_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_MOST_SECONDS = 1e10


def duration(text: str) -> float:
    """Return the seconds of a duration: ``90``, ``30s``, ``15m``, ``2h``, ``7d``, ``1.5w``.

    :raises argparse.ArgumentTypeError: it is none
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw]?)", text.strip())
    seconds = float(match[1]) * _SECONDS[match[2]] if match else _MOST_SECONDS + 1
    if seconds > _MOST_SECONDS:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no duration: a number of seconds, or one with s, m, h, d or w after it"
        )
    return seconds


def moment(text: str) -> datetime:
    """Return a time: in ISO 8601, local where it has no time zone; or so long ago as a duration.

    :raises argparse.ArgumentTypeError: it is neither
    """
    try:
        # Python 3.10 does not know the Z.
        time = datetime.fromisoformat(re.sub(r"[zZ]$", "+00:00", text.strip()))
        return time.astimezone(timezone.utc)
    except (ValueError, OverflowError):
        pass
    try:
        return now() - timedelta(seconds=duration(text))
    except (argparse.ArgumentTypeError, OverflowError):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no time: 2026-01-31, 2026-01-31T12:00, or a duration such as 7d"
        ) from None


def size(count: float | None) -> str:
    """Return a number of bytes in a few characters."""
    if count is None:
        return ""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 9.95 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def ago(then: datetime | None) -> str:
    """Return how long ago a time was, in its largest unit."""
    if then is None:
        return ""
    seconds = max((now() - then).total_seconds(), 0)
    for unit, most in (("s", 60), ("m", 3600), ("h", 48 * 3600)):
        if seconds < most:
            return f"{seconds // _SECONDS[unit]:.0f}{unit} ago"
    return f"{seconds // _SECONDS['d']:.0f}d ago"


def read_time(text: str | None) -> datetime | None:
    """Return the time that an answer tells."""
    return datetime.fromisoformat(re.sub(r"Z$", "+00:00", text)) if text else None
