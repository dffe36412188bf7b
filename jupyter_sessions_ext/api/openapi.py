"""OpenAPI 3.1 documents, made of the structs that requests are validated with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args, get_origin

import msgspec
from msgspec import Struct, UnsetType

from .. import __version__
from ..wire import TEXT, TEXT_DESCRIBED

JSON = "application/json"


class Error(Struct):
    """Why a request was refused, in the form of all of jupyter_server's errors."""

    message: str
    reason: str | UnsetType | None = msgspec.UNSET
    traceback: str | UnsetType = msgspec.UNSET


@dataclass(frozen=True, kw_only=True)
class Operation:
    """A method of a path."""

    method: str
    path: str
    summary: str
    answers: Mapping[int, Any]
    """By status, the struct that is sent; ``None`` for nothing, a media type for no JSON, a tuple
    where it may be either."""
    body: Any = None
    """The struct that it takes, or the media type."""
    query: type[Struct] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    """What the request's headers mean."""
    answer_headers: Sequence[str] = ()

    def structs(self) -> list[Any]:
        """Return the structs that it is described with."""
        all_of = [self.body, self.query]
        for answer in self.answers.values():
            all_of += answer if isinstance(answer, tuple) else [answer]
        return [_struct(one) for one in all_of if one is not None and not isinstance(one, str)]


def document(
    title: str,
    base_url: str,
    operations: Iterable[Operation],
    *,
    path_parameters: Mapping[str, Any],
    meanings: Mapping[int, str],
    refusals: Iterable[int] = (403, 503),
) -> dict[str, Any]:
    """Return a document.

    :param base_url: the server's
    :param path_parameters: the schemas of what is in braces in paths
    :param meanings: what each status says
    :param refusals: how any method may be refused: for want of rights (403), of room (503), ...
    """
    operations = list(operations)
    structs = {s.__name__: s for o in operations for s in o.structs()} | {"Error": Error}
    _, made = msgspec.json.schema_components(
        structs.values(), ref_template="#/components/schemas/{name}"
    )
    components = _described(made)
    queries = {o.query.__name__ for o in operations if o.query is not None}
    paths: dict[str, Any] = {}
    for operation in operations:
        path = paths.setdefault(operation.path, _path(operation.path, path_parameters))
        path[operation.method] = _operation(operation, components, meanings, refusals)
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": __version__},
        "servers": [{"url": base_url}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": {k: v for k, v in components.items() if k not in queries},
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


def _path(path: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    named = [
        {"name": name, "in": "path", "required": True, "schema": schema}
        for name, schema in parameters.items()
        if f"{{{name}}}" in path
    ]
    return {"parameters": named} if named else {}


def _operation(
    operation: Operation,
    components: Mapping[str, Any],
    meanings: Mapping[int, str],
    refusals: Iterable[int],
) -> dict[str, Any]:
    answers = {**dict.fromkeys(refusals, Error), **operation.answers}
    made: dict[str, Any] = {"summary": operation.summary, "responses": {}}
    parameters = [
        {"name": name, "in": "header", "description": meaning, "schema": {"type": "string"}}
        for name, meaning in operation.headers.items()
    ]
    if operation.query is not None:
        parameters += _query(components[operation.query.__name__])
    if parameters:
        made["parameters"] = parameters
    if operation.body is not None:
        answers = {400: Error, 413: Error, **answers}
        made["requestBody"] = {"required": True, "content": _content(operation.body)}
    for status, answer in sorted(answers.items()):
        described: dict[str, Any] = {"description": meanings[status]}
        if answer is not None:
            described["content"] = _content(answer)
        if operation.answer_headers and status < 300:
            described["headers"] = {
                name: {"schema": {"type": "string"}} for name in operation.answer_headers
            }
        made["responses"][str(status)] = described
    return made


def _content(what: Any) -> dict[str, Any]:
    if isinstance(what, tuple):
        return {kind: content for one in what for kind, content in _content(one).items()}
    if isinstance(what, str):
        return {what: {"schema": {"type": "string"}}}
    schema: dict[str, Any] = {"$ref": f"#/components/schemas/{_struct(what).__name__}"}
    if what is not _struct(what):
        schema = {"type": "array", "items": schema}
    return {JSON: {"schema": schema}}


def _struct(what: Any) -> Any:
    """Return the struct of a list of them, or what is none."""
    return get_args(what)[0] if get_origin(what) is list else what


def _query(component: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Describe the fields of a struct as parameters: there is no null in a query."""
    parameters = []
    for name, described in component["properties"].items():
        schema = {key: value for key, value in described.items() if key != "description"}
        if schema.get("default", "") is None:
            del schema["default"]
        variants = [v for v in schema.pop("anyOf", []) if v != {"type": "null"}]
        if len(variants) == 1:
            schema |= variants[0]
        parameter = {"name": name, "in": "query", "schema": schema}
        text = described.get("description") or schema.pop("description", None)
        if text:
            parameter["description"] = text
        parameters.append(parameter)
    return parameters
