"""A request's query as the struct that it must be, and its conditional headers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TypeVar

import msgspec

from ..wire import InvalidBodyError, explained

T = TypeVar("T")

_OF_JUPYTER = re.compile(r"token|_xsrf|no_track_activity|\d+")
"""What jupyter_server reads itself, and the time that JupyterLab adds against caches."""


def read_parameters(arguments: Mapping[str, Sequence[bytes]], cls: type[T]) -> T:
    """Return a query as the struct that it must be.

    :raises InvalidBodyError: a parameter is unknown, given twice, or not what it must be
    """
    values = {}
    for name, given in arguments.items():
        if _OF_JUPYTER.fullmatch(name):
            continue
        if len(given) > 1:
            raise InvalidBodyError(f"{name}: given {len(given)} times")
        try:
            values[name] = given[0].decode()
        except UnicodeDecodeError as error:
            raise InvalidBodyError(f"{name}: not UTF-8") from error
    try:
        query = msgspec.convert(values, cls, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidBodyError(explained(error)) from error
    for name in values:
        if getattr(query, name) is None:  # msgspec takes the text "null" for none
            raise InvalidBodyError(f"{name}: Invalid value 'null'")
    return query


def versions(if_match: str) -> set[str] | None:
    """Return the versions that ``If-Match`` names; ``None`` for any.

    A weak tag names none: RFC 9110, section 13.1.1, has strong ones compared.
    """
    if if_match.strip() == "*":
        return None
    return set(re.findall(r'(?<!W/)"([^"-]*)-[^"]*"', if_match))
