"""What ``/api/sessions`` takes and answers, as structs: they validate it and describe it."""

from __future__ import annotations

import json
import posixpath
from datetime import datetime
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType, field

from .. import __version__

MOST_BYTES = 1024 * 1024
"""The largest body that is read."""

_TEXT = r"^[^\x00\ud800-\udfff]*$"
_TEXT_DESCRIBED = r"^[^\x00]*$"
"""What the document says of it: few tools can read a pattern of surrogates, and none sends them."""
_TEXT_IS = "must not contain null characters or lone surrogates"

Path = Annotated[
    str,
    Meta(
        max_length=4096,
        pattern=_TEXT,
        description="The document's API path, below the root folder.",
        examples=["work/Untitled.ipynb"],
    ),
]
Name = Annotated[
    str, Meta(max_length=4096, pattern=_TEXT, description="The document's name, without folders.")
]
Type = Annotated[
    str, Meta(max_length=256, pattern=_TEXT, description="`notebook`, `console`, `file`, or other.")
]
KernelName = Annotated[
    str, Meta(max_length=1024, pattern=_TEXT, description="The name of a kernelspec.")
]
KernelId = Annotated[
    str,
    Meta(
        max_length=100,
        pattern=_TEXT,
        description="A kernel that runs; or, for a new session, the id (a UUID) of its new kernel.",
    ),
]

T = TypeVar("T")


class InvalidBodyError(ValueError):
    """A body that cannot be used; the message names the field and the reason."""


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


def check_path(path: str | UnsetType) -> None:
    """Refuse a path that leads out of the root folder.

    :raises InvalidBodyError: so it does
    """
    if not isinstance(path, UnsetType):
        inside = posixpath.normpath(path.lstrip("/"))
        if inside == ".." or inside.startswith("../"):
            raise InvalidBodyError("path: must not lead out of the root folder")


# ---------------------------------------------------------------------- answers


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


# ---------------------------------------------------------------------- decoding


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
        raise InvalidBodyError(_explained(error)) from error
    except UnicodeEncodeError as error:
        raise InvalidBodyError("body: a name must not contain lone surrogates") from error


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _explained(error: msgspec.ValidationError) -> str:
    """Return an error with the name of its field in front."""
    if isinstance(error.__cause__, InvalidBodyError):
        return str(error.__cause__)
    reason, _, place = str(error).partition(" - at `$")
    if "matching regex" in reason:
        reason = _TEXT_IS
    return f"{place.strip('.`') or 'body'}: {reason}"


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
    return _TEXT_DESCRIBED if value == _TEXT else value


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
