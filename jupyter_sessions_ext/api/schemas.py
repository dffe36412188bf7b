"""What ``/api/sessions`` takes and answers, as structs: they validate it and describe it."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType, field

from .. import __version__
from ..wire import (
    TEXT,
    TEXT_DESCRIBED,
    InvalidBodyError,
    Kernel,
    KernelId,
    KernelName,
    Name,
    NamedDocument,
    Path,
    Type,
    check_path,
)

# ---------------------------------------------------------------------- requests


class KernelChoice(Struct):
    """The kernel of a session: one that runs, or a new one. An id goes before a name."""

    id: KernelId | None = None
    name: KernelName | None = None


class Document(Struct):
    """The document of a notebook's session, in the form of Notebook 4. Deprecated."""

    path: Path | UnsetType = UNSET
    name: Name | UnsetType | None = UNSET


class CreateSession(Struct):
    """A session to be opened. ``path`` and ``type``, or the deprecated ``notebook``."""

    path: Path | UnsetType = UNSET
    type: Type | UnsetType = UNSET
    name: Name | None = None
    kernel: KernelChoice = field(default_factory=KernelChoice)
    notebook: Document | UnsetType = UNSET

    def __post_init__(self) -> None:
        if self.notebook is not UNSET:
            self.type = "notebook"
            if self.notebook.name is not UNSET:
                if self.notebook.name is None:
                    raise InvalidBodyError("notebook.name: must be a string")
                self.path = self.notebook.name
            elif self.notebook.path is not UNSET:
                self.path = self.notebook.path
        check_path(self.path)
        for name in ("path", "type"):
            if getattr(self, name) is UNSET:
                raise InvalidBodyError(f"Missing field in JSON data: {name}")

    def values(self) -> dict[str, Any]:
        """Return the columns of the new session."""
        return {"path": self.path, "type": self.type, "name": self.name}


class ChangeSession(Struct):
    """What is to be changed of a session."""

    path: Path | UnsetType = UNSET
    type: Type | UnsetType = UNSET
    name: Name | UnsetType | None = UNSET
    kernel: KernelChoice = field(default_factory=KernelChoice)
    notebook: Document | UnsetType = UNSET

    def __post_init__(self) -> None:
        if self.notebook is not UNSET and self.notebook.path is not UNSET:
            self.path, self.type = self.notebook.path, "notebook"
        check_path(self.path)
        if self.kernel.name == "" and self.kernel.id is None:
            raise InvalidBodyError("kernel.name: must not be empty")

    def values(self) -> dict[str, str | None]:
        """Return the columns that are to be changed."""
        columns = {"path": self.path, "name": self.name, "type": self.type}
        values = {k: v for k, v in columns.items() if not isinstance(v, UnsetType)}
        return values if self.kernel.id is None else {**values, "kernel_id": self.kernel.id}


# ---------------------------------------------------------------------- answers


class Session(Struct):
    """A live session."""

    id: str
    path: str
    name: str | None
    type: str
    kernel: Kernel
    notebook: NamedDocument | UnsetType = UNSET


class Error(Struct):
    """Why a request was refused, in the form of all of jupyter_server's errors."""

    message: str
    reason: str | UnsetType | None = UNSET
    traceback: str | UnsetType = UNSET


class KernelUnavailable(Struct):
    """Why there is no kernel of that name."""

    message: str
    short_message: str


# ---------------------------------------------------------------------- description


def openapi(base_url: str = "/") -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of ``/api/sessions``.

    :param base_url: the server's
    """
    structs = (CreateSession, ChangeSession, Session, Error, KernelUnavailable)
    _, components = msgspec.json.schema_components(
        structs, ref_template="#/components/schemas/{name}"
    )
    return {
        "openapi": "3.1.0",
        "info": {"title": "Jupyter sessions", "version": __version__},
        "servers": [{"url": base_url}],
        "security": [{"token": []}],
        "paths": {
            "/api/sessions": {
                "get": _operation("List the live sessions", {200: _list_of("Session")}),
                "post": _operation(
                    "Open a session: create it, revive it, or return the one that is there",
                    {
                        201: _ref("Session"),
                        409: _ref("Error"),
                        413: _ref("Error"),
                        501: _ref("KernelUnavailable"),
                    },
                    body="CreateSession",
                    located=True,
                ),
            },
            "/api/sessions/{session_id}": {
                "parameters": [
                    {
                        "name": "session_id",
                        "in": "path",
                        "required": True,
                        "schema": {"type": "string", "format": "uuid"},
                    }
                ],
                "get": _operation("Read a session", {200: _ref("Session"), 404: _ref("Error")}),
                "patch": _operation(
                    "Change a session",
                    {
                        200: _ref("Session"),
                        404: _ref("Error"),
                        413: _ref("Error"),
                        501: _ref("KernelUnavailable"),
                    },
                    body="ChangeSession",
                ),
                "delete": _operation(
                    "Delete a session and end its kernel", {204: None, 404: _ref("Error")}
                ),
            },
        },
        "components": {
            "schemas": _described(components),
            "securitySchemes": {
                "token": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "Authorization",
                    "description": "`token` and the server's token.",
                }
            },
        },
    }


def _described(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _described(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_described(part) for part in value]
    return TEXT_DESCRIBED if value == TEXT else value


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def _list_of(name: str) -> dict[str, Any]:
    return {"type": "array", "items": _ref(name)}


def _operation(
    summary: str,
    answers: dict[int, dict[str, Any] | None],
    *,
    body: str | None = None,
    located: bool = False,
) -> dict[str, Any]:
    """Describe a method; any may be refused, for want of rights (403) or of room (503)."""
    answers = {**answers, 403: _ref("Error"), 503: _ref("Error")}
    operation: dict[str, Any] = {"summary": summary, "responses": {}}
    if body is not None:
        answers[400] = _ref("Error")
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": _ref(body)}},
        }
    for status, schema in sorted(answers.items()):
        answer: dict[str, Any] = {"description": _MEANINGS[status]}
        if schema is not None:
            answer["content"] = {"application/json": {"schema": schema}}
        if status == 404:  # for an id of another form, jupyter_server's own page
            answer["content"]["text/html"] = {}
        if located and status == 201:
            answer["headers"] = {"Location": {"schema": {"type": "string"}}}
        operation["responses"][str(status)] = answer
    return operation


_MEANINGS = {
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
