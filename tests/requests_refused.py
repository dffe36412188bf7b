"""The requests that ours refuses, where jupyter_server fails, or does what nobody asked for."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Final
from uuid import uuid4

from requests_sent import BASE, MIB, NO_KERNEL, SESSIONS, UNKNOWN, Request, encoded, new, on

SURROGATE: Final = "\ud800"


@dataclass(frozen=True, kw_only=True)
class Refused(Request):
    """One request that jupyter_server answers with status ``stock``, and ours with ``here``.

    :param names: what the message must name.
    """

    names: str
    stock: int
    here: int = 400


def refused(
    method: str, rule: str, names: str, stock: int, body: object, **options: Any
) -> Refused:
    options |= {"rule": rule, "names": names, "stock": stock}
    return Refused(method=method, content=encoded(body), **options)


post = partial(refused, "POST", path=SESSIONS)
patch = partial(refused, "PATCH", path=BASE)


def id_of_running(**values: Any) -> dict[str, Any]:
    return {"id": "{base.kernel}", **values}


REFUSED: Final[list[Refused]] = [
    # ------------------------------------------------------------------ the body as a whole
    post("wrong-type", "body", 500, "text"),
    post("wrong-type", "body", 500, 5),
    post("wrong-type", "body", 500, 0.5),
    post("wrong-type", "body", 500, True),
    post("wrong-type", "body", 500, []),
    post("wrong-type", "body", 500, [new("x")]),
    patch("wrong-type", "body", 200, "text"),
    patch("wrong-type", "body", 500, "kernel"),
    patch("wrong-type", "body", 500, 5),
    patch("wrong-type", "body", 500, True),
    patch("wrong-type", "body", 200, []),
    patch("wrong-type", "body", 500, ["path"]),
    post("not-utf-8", "body", 500, b"\xff"),
    post("not-utf-8", "body", 500, b'{"path": "\xe9", "type": "x"}'),
    post("not-utf-8", "body", 500, b'{"path": "\xed\xa0\x80", "type": "x"}'),
    post("not-utf-8", "body", 500, '{"path": "x", "type": "x"}'.encode("utf-16")),
    post("not-utf-8", "body", 500, b'{"path": "x", "type": "x", "more": "\xff"}'),
    patch("not-utf-8", "body", 500, b'{"name": "\xff"}'),
    patch("not-utf-8", "body", 500, b'{"\xff": 1}'),
    # ------------------------------------------------------------------ POST: path
    post("null", "path", 500, {"path": None, "type": "x"}),
    post("null", "path", 201, {"path": None, "type": "x", "kernel": id_of_running()}),
    post("wrong-type", "path", 500, {"path": 5, "type": "x"}),
    post("wrong-type", "path", 201, {"path": 6, "type": "x", "kernel": id_of_running()}),
    post("wrong-type", "path", 500, {"path": True, "type": "x"}),
    post("wrong-type", "path", 500, {"path": ["x"], "type": "x"}),
    post("wrong-type", "path", 500, {"path": {}, "type": "x"}),
    post("text", "path", 500, {"path": f"x{SURROGATE}", "type": "x"}),
    post("text", "path", 500, {"path": "x\0y", "type": "x"}),
    post("text", "path", 201, on("x\0y")),
    post("path-above-root", "path", 500, {"path": "../../etc", "type": "x"}),
    post("path-above-root", "path", 500, {"path": "/a/../../b/../../etc/x", "type": "x"}),
    post("path-above-root", "path", 201, on("..")),
    post("too-long", "path", 201, on("p" * 4097)),
    post("too-long", "path", 201, on("\U0001f600" * 4097)),
    post("too-long", "path", 201, on("p" * 100_000)),
    # ------------------------------------------------------------------ POST: type, name
    post("null", "type", 201, on("y1", type=None)),
    post("wrong-type", "type", 201, on("y2", type=5)),
    post("wrong-type", "type", 201, on("y3", type=False)),
    post("wrong-type", "type", 500, on("y4", type=[])),
    post("wrong-type", "type", 500, on("y5", type={"a": "b"})),
    post("text", "type", 500, on("y6", type=SURROGATE)),
    post("text", "type", 201, on("y7", type="\0")),
    post("too-long", "type", 201, on("y8", type="t" * 257)),
    post("too-long", "type", 201, on("y9", type="t" * 100_000)),
    post("wrong-type", "name", 201, on("z1", name=5)),
    post("wrong-type", "name", 500, new("z0", name=5)),
    post("wrong-type", "name", 500, on("z2", name=[])),
    post("wrong-type", "name", 500, on("z3", name={})),
    post("text", "name", 500, on("z4", name=SURROGATE)),
    post("text", "name", 201, on("z5", name="\0")),
    post("too-long", "name", 201, on("z6", name="n" * 4097)),
    # ------------------------------------------------------------------ POST: kernel
    post("null", "kernel", 500, new("k", kernel=None)),
    post("wrong-type", "kernel", 500, new("k", kernel=5)),
    post("wrong-type", "kernel", 500, new("k", kernel="python3")),
    post("wrong-type", "kernel", 500, new("k", kernel=["python3"])),
    post("wrong-type", "kernel", 500, new("k", kernel=False)),
    post("wrong-type", "kernel.name", 500, new("k", kernel={"name": 5})),
    post("wrong-type", "kernel.name", 201, new("k", kernel={"name": []})),
    post("wrong-type", "kernel.name", 500, new("k", kernel={"name": {"a": 1}})),
    post("text", "kernel.name", 501, new("k", kernel={"name": "x\0"})),
    post("text", "kernel.name", 501, new("k", kernel={"name": SURROGATE})),
    post("too-long", "kernel.name", 501, new("k", kernel={"name": "n" * 1025})),
    post("wrong-type", "kernel.id", 500, new("k", kernel={"id": 5})),
    post("wrong-type", "kernel.id", 500, new("k", kernel={"id": []})),
    post("wrong-type", "kernel.id", 500, new("k", kernel={"id": {}})),
    post("kernel-id-form", "kernel.id", 201, new("k1", kernel={"id": "x"})),
    post("kernel-id-form", "kernel.id", 201, new("k2", kernel={"id": ""})),
    post("kernel-id-form", "kernel.id", 201, new("k3", kernel={"id": "a-b-c-d-e-f"})),
    post("kernel-id-form", "kernel.id", 201, new("k4", kernel={"id": "a-b-c-d-e\n"})),
    post("kernel-id-form", "kernel.id", 500, new("k5", kernel={"id": "a/b-b-c-d-e"})),
    post("kernel-id-form", "kernel.id", 500, new("k6", kernel={"id": "../x-b-c-d-e"})),
    post("text", "kernel.id", 500, new("k", kernel={"id": "a-b-c-d-\0"})),
    post(
        "kernel-name-empty",
        "kernel.name",
        500,
        new("k", kernel={"id": str(uuid4()), "name": ""}),
    ),
    # ------------------------------------------------------------------ POST: notebook
    post("null", "notebook", 500, {"notebook": None}),
    post("wrong-type", "notebook", 500, {"notebook": 5}),
    post("wrong-type", "notebook", 500, {"notebook": "a name"}),
    post("wrong-type", "notebook", 201, on("nb1", notebook="x")),
    post("wrong-type", "notebook", 201, on("nb2", notebook=[])),
    post("wrong-type", "notebook.path", 500, {"notebook": {"path": 7}}),
    post("wrong-type", "notebook.name", 500, {"notebook": {"name": 8}}),
    post("null", "notebook.path", 500, {"notebook": {"path": None}}),
    post("path-above-root", "path", 500, {"notebook": {"path": "../../etc"}}),
    # ------------------------------------------------------------------ PATCH
    patch("null", "path", 200, {"path": None}),
    patch("wrong-type", "path", 200, {"path": 5}),
    patch("wrong-type", "path", 500, {"path": []}),
    patch("wrong-type", "path", 500, {"path": {}}),
    patch("text", "path", 500, {"path": SURROGATE}),
    patch("text", "path", 200, {"path": "x\0"}),
    patch("path-above-root", "path", 200, {"path": "../../etc"}),
    patch("too-long", "path", 200, {"path": "p" * 4097}),
    patch("null", "type", 200, {"type": None}),
    patch("wrong-type", "type", 200, {"type": 5}),
    patch("wrong-type", "type", 500, {"type": []}),
    patch("wrong-type", "type", 500, {"type": {}}),
    patch("text", "type", 500, {"type": SURROGATE}),
    patch("text", "type", 200, {"type": "\0"}),
    patch("too-long", "type", 200, {"type": "t" * 257}),
    patch("wrong-type", "name", 500, {"name": 5}),
    patch("wrong-type", "name", 500, {"name": []}),
    patch("wrong-type", "name", 500, {"name": {}}),
    patch("text", "name", 500, {"name": SURROGATE}),
    patch("text", "name", 200, {"name": "\0"}),
    patch("too-long", "name", 200, {"name": "n" * 4097}),
    patch("null", "kernel", 500, {"kernel": None}),
    patch("wrong-type", "kernel", 500, {"kernel": 5}),
    patch("wrong-type", "kernel", 500, {"kernel": "python3"}),
    patch("wrong-type", "kernel", 500, {"kernel": []}),
    patch("wrong-type", "kernel.id", 400, {"kernel": {"id": 5}}),
    patch("wrong-type", "kernel.id", 500, {"kernel": {"id": []}}),
    patch("wrong-type", "kernel.id", 500, {"kernel": {"id": {}}}),
    patch("wrong-type", "kernel.name", 501, {"kernel": {"name": 5}}),
    patch("wrong-type", "kernel.name", 501, {"kernel": {"name": []}}),
    patch("wrong-type", "kernel.name", 501, {"kernel": {"name": False}}),
    patch("kernel-name-empty", "kernel.name", 501, {"kernel": {"name": ""}}),
    patch("text", "kernel.name", 501, {"kernel": {"name": "x\0"}}),
    patch("too-long", "kernel.name", 501, {"kernel": {"name": "n" * 1025}}),
    patch("null", "notebook", 500, {"notebook": None}),
    patch("wrong-type", "notebook", 500, {"notebook": 5}),
    patch("wrong-type", "notebook", 500, {"notebook": "a path"}),
    patch("wrong-type", "notebook", 200, {"notebook": []}),
    patch("wrong-type", "notebook.path", 200, {"notebook": {"path": 5}}),
    patch("null", "notebook.path", 200, {"notebook": {"path": None}}),
    patch("wrong-type", "path", 404, {"path": 5}, path=UNKNOWN),
    patch("wrong-type", "type", 400, {"kernel": {"id": NO_KERNEL}, "type": 5}),
    # ------------------------------------------------------------------ size, and what is no JSON
    post("body-too-large", "body", 201, on("large", more="x" * MIB), here=413),
    post("body-too-large", "body", 400, b"[" * (MIB + 1), here=413),
    patch("body-too-large", "body", 200, {"more": "x" * (MIB - len('{"more": ""}') + 1)}, here=413),
    post("no-json", "body", 201, on("nan", more=float("nan"))),
    patch("no-json", "body", 200, {"more": float("inf")}),
    patch("no-json", "body", 200, {"more": float("-inf")}),
]
