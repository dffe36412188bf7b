"""What bodies have in common: their texts, how they are read, and models that several have."""

from __future__ import annotations

import json
import posixpath
import re
from datetime import datetime, timezone
from typing import Annotated, TypeVar

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

MOST_BYTES = 1024 * 1024
"""The largest body that is read."""

TEXT = r"^[^\x00\ud800-\udfff]*$"
TEXT_DESCRIBED = r"^[^\x00]*$"
"""What the document says of it: few tools can read a pattern of surrogates, and none sends them."""
_ID_IS = "must be a UUID, or of its form"
_TEXT_IS = "must not contain null characters or lone surrogates"

Path = Annotated[
    str,
    Meta(
        max_length=4096,
        pattern=TEXT,
        description="The document's API path, below the root folder.",
        examples=["work/Untitled.ipynb"],
    ),
]
Name = Annotated[
    str, Meta(max_length=4096, pattern=TEXT, description="The document's name, without folders.")
]
Type = Annotated[
    str, Meta(max_length=256, pattern=TEXT, description="`notebook`, `console`, `file`, or other.")
]
KernelName = Annotated[
    str, Meta(max_length=1024, pattern=TEXT, description="The name of a kernelspec.")
]
KernelId = Annotated[
    str,
    Meta(
        max_length=100,
        pattern=TEXT,
        description="A kernel that runs; or, for a new session, the id (a UUID) of its new kernel.",
    ),
]

SessionId = Annotated[
    str,
    Meta(
        max_length=256,
        pattern=r"^[A-Za-z0-9_]+(?:-[A-Za-z0-9_]+){4}$(?!\n)",
        description="A session's id, as `/api/sessions/` has it: a UUID, or of its form.",
    ),
]

T = TypeVar("T")


class InvalidBodyError(ValueError):
    """A body that cannot be used; the message names the field and the reason."""


def check_path(path: str | UnsetType) -> None:
    """Refuse a path that leads out of the root folder.

    :raises InvalidBodyError: so it does
    """
    if not isinstance(path, UnsetType):
        inside = posixpath.normpath(path.lstrip("/"))
        if inside == ".." or inside.startswith("../"):
            raise InvalidBodyError("path: must not lead out of the root folder")


def in_utc(name: str, time: datetime) -> datetime:
    """Return a time in the zone in which times are kept and compared.

    :raises InvalidBodyError: there is no such time in UTC, as before the year 1
    """
    try:
        return time.astimezone(timezone.utc)
    except OverflowError as error:
        raise InvalidBodyError(f"{name}: out of range") from error


class Kernel(Struct):
    """A kernel that runs."""

    id: str
    name: str
    last_activity: datetime
    execution_state: str | None
    connections: int
    reason: str | UnsetType = UNSET


class NamedDocument(Struct):
    """The document of a notebook's session. Deprecated."""

    path: str
    name: str | None


def decode(body: bytes, cls: type[T]) -> T:
    """Return a body as the struct that it must be.

    :raises InvalidBodyError: it is not JSON, or not what it must be
    """
    if not body:
        raise InvalidBodyError("No JSON data provided")
    try:
        # Not msgspec's parser: it lets a lone surrogate fail without the name of its field.
        value = json.loads(body.strip().decode(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise InvalidBodyError("Invalid JSON in body of request") from error
    if value is None:
        raise InvalidBodyError("No JSON data provided")
    try:
        return msgspec.convert(value, cls)
    except msgspec.ValidationError as error:
        raise InvalidBodyError(explained(error)) from error
    except UnicodeEncodeError as error:
        raise InvalidBodyError("body: a name must not contain lone surrogates") from error


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def explained(error: msgspec.ValidationError) -> str:
    """Return an error with the name of its field in front."""
    if isinstance(error.__cause__, InvalidBodyError):
        return str(error.__cause__)
    reason, _, place = str(error).partition(" - at `$")
    if "matching regex" in reason:
        reason = _TEXT_IS if "x00" in reason else _ID_IS
    field = place.strip(".`")
    wrong = re.fullmatch("Object (missing required|contains unknown) field `(.*)`", reason)
    if wrong is not None:
        what = "unknown" if "unknown" in wrong[1] else "missing"
        return f"{field}.{wrong[2]}: {what}".lstrip(".")
    return f"{field or 'body'}: {reason}"
