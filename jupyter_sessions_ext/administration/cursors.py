"""Where a page of a list ends, as an opaque text: the sort, and the last item's place in it."""

from __future__ import annotations

import base64
import json
from typing import TypeVar

import msgspec

from ..wire import InvalidBodyError

T = TypeVar("T")


def write_cursor(sort: str, *place: float | str) -> str:
    """Return the cursor of the page behind a place."""
    text = json.dumps([sort, *place], ensure_ascii=False)  # shorter: it is part of a URL
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def read_cursor(text: str, sort: str, place: type[T]) -> T:
    """Return the place that a cursor names.

    :param place: the type of a place, a tuple
    :raises InvalidBodyError: it is none that this list has made, or one of another sort
    """
    try:
        padded = text.encode() + b"=" * (-len(text) % 4)
        of, *values = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
        if isinstance(of, str) and of != sort:
            raise InvalidBodyError(f"cursor: goes with sort={of}, not with sort={sort}")
        return msgspec.convert(values, place)
    except InvalidBodyError:
        raise
    except (msgspec.MsgspecError, ArithmeticError, ValueError, TypeError, RecursionError) as error:
        raise InvalidBodyError("cursor: not one that this list has answered") from error
