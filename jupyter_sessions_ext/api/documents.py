"""What the OpenAPI documents say of each route."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from ..administration.schemas import (
    ActionResults,
    Attachment,
    BulkAction,
    DeleteQuery,
    EventsPage,
    EventsQuery,
    Health,
    Imported,
    KernelsPage,
    KernelsQuery,
    LogQuery,
    Notebook,
    ServerInfo,
    SessionChange,
    SessionItem,
    SessionsPage,
    SessionsQuery,
    TranscriptQuery,
)
from ..administration.transcript import FILE_TYPE
from .openapi import Error, Operation, document
from .schemas import ChangeSession, CreateSession, KernelUnavailable, Session

# ---------------------------------------------------------------------- /api/sessions

_CORE_MEANINGS = {
    200: "It is done.",
    201: "The session is live.",
    204: "It is gone.",
    400: "The body is not what it must be: the message names the field. Nothing was changed.",
    403: "The user may not do this, or is not known.",
    404: "There is no such session (or the id has not the form of one: an HTML page).",
    409: "The kernel id that was asked for is taken.",
    413: "The body is too large.",
    501: "There is no such kernel.",
    503: "It cannot be stored, or the server is stopping. Nothing was changed.",
}

_CORE_ONE = "/api/sessions/{session_id}"

_CORE = (
    Operation(
        method="get",
        path="/api/sessions",
        summary="List the live sessions",
        answers={200: list[Session]},
    ),
    Operation(
        method="post",
        path="/api/sessions",
        summary="Open a session: create it, revive it, or return the one that is there",
        body=CreateSession,
        answers={201: Session, 409: Error, 501: KernelUnavailable},
        answer_headers=["Location"],
    ),
    Operation(
        method="get",
        path=_CORE_ONE,
        summary="Read a session",
        answers={200: Session, 404: Error},
    ),
    Operation(
        method="patch",
        path=_CORE_ONE,
        summary="Change a session",
        body=ChangeSession,
        answers={200: Session, 404: Error, 501: KernelUnavailable},
    ),
    Operation(
        method="delete",
        path=_CORE_ONE,
        summary="Delete a session and end its kernel",
        answers={204: None, 404: Error},
    ),
)


def core_document(base_url: str = "/") -> dict[str, Any]:
    """Return the document of ``/api/sessions``.

    :param base_url: the server's
    """
    made = document(
        "Jupyter sessions",
        base_url,
        _CORE,
        path_parameters={"session_id": {"type": "string", "format": "uuid"}},
        meanings=_CORE_MEANINGS,
    )
    for path in made["paths"].values():
        for method in ("get", "patch", "delete"):
            # For an id of another form it is jupyter_server's own page.
            if method in path and "404" in path[method]["responses"]:
                path[method]["responses"]["404"]["content"]["text/html"] = {}
    return made


# ---------------------------------------------------------------------- /sessions/api/v1


class Document(Struct):
    """An OpenAPI document, as far as it is told here."""

    openapi: str


_ADMIN_MEANINGS = {
    200: "It is done.",
    201: "The session is live.",
    204: "It is gone.",
    304: "It is still the same.",
    400: "A parameter, or a field, is not what it must be: the message names it.",
    403: "The user may not do this, or is not known.",
    404: "There is no such thing.",
    409: "It cannot be done as things are: the message says why. Nothing was changed.",
    412: "The session is not what it was any more. Nothing was changed.",
    413: "The body is too large.",
    500: "A kernel could not be started, or restarted.",
    503: "It cannot be stored. Nothing was changed.",
}

_ROOT = "/sessions/api/v1"
_ONE = f"{_ROOT}/sessions/{{session_id}}"
_KERNEL = f"{_ROOT}/kernels/{{kernel_id}}"
_CONDITIONAL = {"If-None-Match": "Answered with 304 if it still has one of these tags."}

_ADMIN = (
    Operation(
        method="get",
        path=_ROOT,
        summary="What the server is, and what it keeps",
        headers=_CONDITIONAL,
        answers={200: ServerInfo, 304: None},
        answer_headers=["ETag"],
    ),
    Operation(
        method="get",
        path=f"{_ROOT}/health",
        summary="Whether changes can be stored",
        headers=_CONDITIONAL,
        answers={200: Health, 304: None, 503: Health},
        answer_headers=["ETag"],
    ),
    Operation(
        method="get",
        path=f"{_ROOT}/openapi.json",
        summary="This document",
        headers=_CONDITIONAL,
        answers={200: Document, 304: None},
        answer_headers=["ETag"],
    ),
    Operation(
        method="get",
        path=f"{_ROOT}/sessions",
        summary="List sessions, live and dormant",
        query=SessionsQuery,
        headers=_CONDITIONAL,
        answers={200: SessionsPage, 304: None},
        answer_headers=["ETag"],
    ),
    Operation(
        method="post",
        path=f"{_ROOT}/sessions/actions",
        summary="Do one thing to many sessions",
        body=BulkAction,
        answers={200: ActionResults},
    ),
    Operation(
        method="get",
        path=_ONE,
        summary="Read a session",
        headers=_CONDITIONAL,
        answers={200: SessionItem, 304: None, 404: Error},
        answer_headers=["ETag"],
    ),
    Operation(
        method="patch",
        path=_ONE,
        summary="Change a session's path, name, type or kernel",
        headers={"If-Match": "Refused with 412 if what can be changed is not what it was."},
        body=SessionChange,
        answers={200: SessionItem, 404: Error, 409: Error, 412: Error, 500: Error},
        answer_headers=["ETag"],
    ),
    Operation(
        method="delete",
        path=_ONE,
        summary="Delete a session and, unless it is to be kept, end its kernel",
        query=DeleteQuery,
        answers={204: None, 404: Error, 409: Error},
    ),
    Operation(
        method="post",
        path=f"{_ONE}/revive",
        summary="Give a dormant session a new kernel",
        answers={200: SessionItem, 404: Error, 409: Error, 500: Error},
        answer_headers=["ETag"],
    ),
    Operation(
        method="post",
        path=f"{_ONE}/interrupt",
        summary="Interrupt a session's kernel",
        answers={200: SessionItem, 404: Error, 409: Error},
        answer_headers=["ETag"],
    ),
    Operation(
        method="post",
        path=f"{_ONE}/restart",
        summary="Restart a session's kernel, which loses its variables",
        answers={200: SessionItem, 404: Error, 409: Error, 500: Error},
        answer_headers=["ETag"],
    ),
    Operation(
        method="get",
        path=f"{_ONE}/log",
        summary="Read the end of what a session's kernel has written outside of cells",
        query=LogQuery,
        headers=_CONDITIONAL,
        answers={200: "text/plain", 304: None, 404: Error},
        answer_headers=["ETag"],
    ),
    Operation(
        method="get",
        path=f"{_ONE}/transcript",
        summary="Read what a session's kernel ran and printed, as a notebook",
        query=TranscriptQuery,
        headers=_CONDITIONAL,
        answers={200: (Notebook, FILE_TYPE), 304: None, 404: Error, 409: Error},
        answer_headers=["ETag"],
    ),
    Operation(
        method="get",
        path=f"{_ROOT}/kernels",
        summary="List the running kernels, with and without sessions",
        query=KernelsQuery,
        headers=_CONDITIONAL,
        answers={200: KernelsPage, 304: None},
        answer_headers=["ETag"],
    ),
    Operation(
        method="delete",
        path=_KERNEL,
        summary="End a kernel: its sessions are dormant then",
        answers={204: None, 404: Error},
    ),
    Operation(
        method="post",
        path=f"{_KERNEL}/attach",
        summary="Make a session of a running kernel",
        body=Attachment,
        answers={201: SessionItem, 404: Error, 409: Error},
        answer_headers=["Location", "ETag"],
    ),
    Operation(
        method="get",
        path=f"{_ROOT}/events",
        summary="List the history, the latest first",
        query=EventsQuery,
        headers=_CONDITIONAL,
        answers={200: EventsPage, 304: None},
        answer_headers=["ETag"],
    ),
    Operation(
        method="get",
        path=f"{_ROOT}/export",
        summary="Read all sessions and their history, line by line",
        answers={200: "application/x-ndjson"},
        answer_headers=["Content-Disposition"],
    ),
    Operation(
        method="post",
        path=f"{_ROOT}/import",
        summary="Take over what was exported and is not there",
        body="application/x-ndjson",
        answers={200: Imported},
    ),
)


def admin_document(base_url: str = "/") -> dict[str, Any]:
    """Return the document of ``/sessions/api/v1``.

    :param base_url: the server's
    """
    any_id = {"type": "string", "minLength": 1}
    made = document(
        "Administration of Jupyter sessions",
        base_url,
        _ADMIN,
        path_parameters={"session_id": any_id, "kernel_id": any_id},
        meanings=_ADMIN_MEANINGS,
        refusals=(400, 403, 503),  # what is unknown in a query is refused everywhere
    )
    schemas = made["components"]["schemas"]
    _say_what_goes_together(schemas)
    return made


def _say_what_goes_together(schemas: dict[str, Any]) -> None:
    """Add what structs say in code alone: which of their fields must, and must not, be there."""
    not_empty = {"minLength": 1}
    schemas["KernelChange"]["oneOf"] = [
        {"required": [name], "properties": {name: not_empty, other: False}}
        for name, other in (("id", "name"), ("name", "id"))
    ]
    keeps_back = {
        **{name: {"type": "string"} for name in ("state", "type", "kernel_name")},
        "path": {"type": "string", "pattern": r"^$|[^*]"},
        "q": {"type": "string", **not_empty},
        "idle_longer_than": {"type": "number", "exclusiveMinimum": 0},
    }
    narrow = {
        "anyOf": [{"required": [n], "properties": {n: s}} for n, s in keeps_back.items()],
    }
    schemas["BulkAction"]["oneOf"] = [
        {"required": ["ids"], "properties": {"all": {"const": False}, "filter": False}},
        {
            "required": ["filter"],
            "properties": {"all": {"const": False}, "ids": False, "filter": narrow},
        },
        {"required": ["all"], "properties": {"all": {"const": True}, "ids": False}},
    ]
