"""The requests that are sent to a stock server and to ours, and what may differ in the answers.

In paths, bodies and headers ``{name}`` stands for the id of the session that an earlier request
kept under that name, ``{name.kernel}`` for its kernel's; ``{base}`` is a session whose kernel runs
from first to last. ``{etag}``, ``{cookies}`` and ``{xsrf}`` are what the server gave last.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

if TYPE_CHECKING:
    from collections.abc import Mapping

SESSIONS: Final = "/api/sessions"
BASE: Final = f"{SESSIONS}/{{base}}"
UNKNOWN: Final = f"{SESSIONS}/00000000-0000-4000-8000-000000000000"
NO_KERNEL: Final = "00000000-0000-4000-8000-000000000001"
RUNNING: Final[dict[str, Any]] = {"kernel": {"id": "{base.kernel}"}}
MIB: Final = 1024 * 1024
OWN: Final = "own"


@dataclass(frozen=True, kw_only=True)
class Request:
    """One request.

    :param content: the body; None sends none.
    :param keep: the name that the session of the answer gets.
    :param quiet: whether neither server is asked what it has after that.
    :param rule: which of the documented differences the answer shows.
    :param differs: where in the answer ours differs, by the rule.
    """

    method: str
    path: str
    content: bytes | None = None
    token: str | None = OWN
    headers: Mapping[str, str] = field(default_factory=dict)
    keep: str = ""
    quiet: bool = False
    rule: str = ""
    differs: tuple[str, ...] = ()


def get(path: str = SESSIONS, **options: Any) -> Request:
    return Request(method="GET", path=path, **options)


def post(body: object, **options: Any) -> Request:
    return Request(method="POST", path=SESSIONS, content=encoded(body), **options)


def patch(body: object, path: str = BASE, **options: Any) -> Request:
    return Request(method="PATCH", path=path, content=encoded(body), **options)


def delete(path: str, **options: Any) -> Request:
    return Request(method="DELETE", path=path, **options)


def send(method: str, path: str = SESSIONS, **options: Any) -> Request:
    return Request(method=method, path=path, **options)


def encoded(body: object) -> bytes | None:
    """Return what is sent for a body: bytes and None as they are, all else as JSON."""
    return body if isinstance(body, bytes) or body is None else json.dumps(body).encode()


def new(path: str, **values: Any) -> dict[str, Any]:
    """Return the body of a POST for a session with a kernel of its own."""
    return {"path": path, "type": "notebook", **values}


def on(path: str, **values: Any) -> dict[str, Any]:
    """Return the body of a POST for a session on the kernel that runs."""
    return {"path": path, "type": "notebook", **RUNNING, **values}


FIRST: Final = [
    get(),
    get("/api/kernels"),
    post(new("base.ipynb", name="base.ipynb", kernel={"name": "python3"}), keep="base"),
]
"""What is sent to a server that has no session yet."""

CHOSEN: Final = str(uuid4())

PATHS: Final = {
    "nothing": "",
    "a leading slash": "/leading.ipynb",
    "a trailing slash": "folder/",
    "two slashes": "two//slashes.ipynb",
    "a space": "a space.ipynb",
    "spaces around": "  spaces.ipynb  ",
    "percent signs": "100% %2e%2e%2f %00 %.ipynb",
    "unicode": "ünïcode π 世界.ipynb",
    "an emoji": "\U0001f600.ipynb",
    "decomposed unicode": "e\u0301.ipynb",
    "up and down": "a/../b.ipynb",
    "a dot": "./dot.ipynb",
    "dots in a name": "..dots..ipynb",
    "a backslash": "back\\slash.ipynb",
    "a drive": "RTC:drive.ipynb",
    "a line feed": "line\nfeed\t.ipynb",
    "a quote": "quote'\"; DROP TABLE session; --",
    "a URL": "https://example.org/x?y=z#a",
    "braces": "{0} {path} %s %(path)s",
    "a folder that is not there": "no/such/folder/x.ipynb",
    "the most characters": "p" * 4096,
    "the most wide characters": "\U0001f600" * 4096,
}

ASKED: Final[dict[str, list[Request]]] = {
    # ------------------------------------------------------------------ GET
    "GET: lists and single sessions": [
        post(on("list-1.ipynb", name="one"), keep="one"),
        post(on("list-2", type="console"), keep="two"),
        get(),
        get(f"{SESSIONS}/{{one}}"),
        get(f"{SESSIONS}/{{two}}"),
        get("/api/kernels"),
        get("/api/kernels/{base.kernel}"),
    ],
    "GET: arguments": [
        get(f"{SESSIONS}?no_track_activity=1"),
        get(f"{SESSIONS}?1700000000000"),
        get(f"{SESSIONS}?path=base.ipynb&limit=0"),
        get(f"{BASE}?a=%ff"),
    ],
    "GET: Etag": [
        get(),
        get(headers={"If-None-Match": "{etag}"}),
        get(headers={"If-None-Match": "*"}),
        get(headers={"If-None-Match": '"another"'}),
        get(BASE),
        get(BASE, headers={"If-None-Match": "{etag}"}),
    ],
    "GET: compressed": [
        post(on("z" * 2000), keep="z"),
        get(headers={"Accept-Encoding": "gzip"}),
        get(f"{SESSIONS}/{{z}}", headers={"Accept-Encoding": "gzip"}),
        get(BASE, headers={"Accept-Encoding": "gzip"}),
    ],
    "GET: a body": [
        get(content=b'{"path": 5}'),
        get(BASE, content=b"\xff"),
    ],
    "GET: a client that wants no JSON": [get(headers={"Accept": "text/html"})],
    # ------------------------------------------------------------------ POST
    "POST: the least": [post(new("least.ipynb"), keep="least"), get(f"{SESSIONS}/{{least}}")],
    "POST: all fields": [
        post(new("folder/all.ipynb", name="all", kernel={"id": None, "name": "python3"})),
    ],
    "POST: fields that are not known": [
        post(on("more.ipynb", id="x", state="live", more={"a": [1, None]}, model=None)),
        post(on("more-2.ipynb", kernel={"id": "{base.kernel}", "x": 1, "connections": -1})),
        post(on("more-3.ipynb", notebook={"path": "more-3.ipynb", "x": 1})),
    ],
    "POST: what JupyterLab sends": [
        post(new("5f6b", name="lab.ipynb", kernel={"name": "python3"}), keep="lab"),
        patch({"id": "{lab}", "path": "lab.ipynb"}, f"{SESSIONS}/{{lab}}"),
        patch({"id": "{lab}", "name": "lab.ipynb"}, f"{SESSIONS}/{{lab}}"),
        patch({"id": "{lab}", "type": "notebook"}, f"{SESSIONS}/{{lab}}"),
        patch({"id": "{lab}", "kernel": {"name": "python3"}}, f"{SESSIONS}/{{lab}}"),
        delete(f"{SESSIONS}/{{lab}}"),
    ],
    "POST: what Visual Studio Code sends": [
        post(new("a-jvsc-5f.ipynb", name="a-5f.ipynb", kernel={"name": ""})),
        post(new("-jvsc-5f.ipynb", name="-5f", type="console", kernel={"name": "python3"})),
    ],
    "POST: what a client sends back": [
        post({"id": "x", "path": "back.ipynb", "name": "", "type": "notebook", **RUNNING}),
        post(
            on(
                "whole.ipynb",
                kernel={
                    "id": "{base.kernel}",
                    "name": "python3",
                    "last_activity": "2026-01-01T00:00:00.000000Z",
                    "execution_state": "idle",
                    "connections": 1,
                },
                notebook={"path": "whole.ipynb", "name": ""},
            )
        ),
    ],
    "POST: notebook with path": [
        post({"notebook": {"path": "deprecated.ipynb"}, **RUNNING}),
        post({"notebook": {"path": "deprecated-2.ipynb"}, "name": "n", **RUNNING}),
        post({"notebook": {"path": "won.ipynb"}, "path": "lost.ipynb", "type": "file", **RUNNING}),
    ],
    "POST: notebook with name": [
        post({"notebook": {"name": "named.ipynb"}, **RUNNING}),
        post({"notebook": {"name": "won-2.ipynb", "path": "lost-2.ipynb"}, **RUNNING}),
    ],
    "POST: notebook {}": [
        post({"notebook": {}, **RUNNING}),
        post({"notebook": {}, "path": "beside.ipynb", **RUNNING}),
    ],
    "POST: notebook, for a new kernel": [post({"notebook": {"path": "new-deprecated.ipynb"}})],
    "POST: notebook, for a new kernel of any id": [
        post({"notebook": {"path": "own-id.ipynb"}, "kernel": {"name": "python3", "id": "foo"}})
    ],
    "POST: kernel {}": [post(new("k1.ipynb", kernel={}))],
    "POST: kernel of nulls": [post(new("k2.ipynb", kernel={"id": None, "name": None}))],
    'POST: kernel.name ""': [post(new("k3.ipynb", kernel={"name": ""}))],
    "POST: kernel.id wins over kernel.name": [
        post(on("k4.ipynb", kernel={"id": "{base.kernel}", "name": "no-such"})),
        post(on("k5.ipynb", kernel={"id": "{base.kernel}", "name": ""})),
        post(on("k6.ipynb", kernel={"id": "{base.kernel}", "name": None})),
    ],
    "POST: a kernel id of the client's choice": [
        post(new("chosen.ipynb", kernel={"id": CHOSEN, "name": "python3"}), keep="chosen"),
        post(new("chosen-2.ipynb", kernel={"id": CHOSEN, "name": "python3"})),
        get(f"/api/kernels/{CHOSEN}"),
        delete(f"{SESSIONS}/{{chosen}}"),
        get(),
        get(f"/api/kernels/{CHOSEN}"),
    ],
    "POST: a kernel id that is no UUID": [
        post(new("form.ipynb", kernel={"id": "a-b-c-d-e", "name": "python3"}), keep="form"),
        get("/api/kernels/a-b-c-d-e"),
        delete(f"{SESSIONS}/{{form}}"),
    ],
    "POST: a kernel id in capitals": [
        post(new("upper.ipynb", kernel={"id": str(uuid4()).upper(), "name": "python3"})),
    ],
    "POST: a kernel that is not installed": [
        post(new("no.ipynb", kernel={"name": "no-such-kernel"})),
        post(new("no.ipynb", kernel={"name": "ünïcode %s ' \" <b>"})),
        post(new("no.ipynb", kernel={"name": "../../etc"})),
        post(new("no.ipynb", kernel={"name": "n" * 1024})),
        post(new("no.ipynb", kernel={"name": "no-such", "id": str(uuid4())})),
        post(new("no.ipynb", kernel={"name": " python3"})),
    ],
    "POST: name": [
        post(on("n1.ipynb", name=None)),
        post(on("n2.ipynb", name="")),
        post(on("n3.ipynb", name="a name / with % everything π")),
        post(on("n4.ipynb", name="n" * 4096)),
        post(on("n5.ipynb", name="../../etc")),
        post(new("n6.ipynb", name="n6.ipynb")),
        post(new("n7.ipynb", name="../../etc")),
    ],
    "POST: type": [
        post(on("t1", type="console")),
        post(on("t2.py", type="file")),
        post(on("t3", type="")),
        post(on("t4", type="whatever π %s")),
        post(on("t5", type="t" * 256)),
        post(on("t6", type="Notebook")),
    ],
    **{
        f"POST: path, {what}": [post(on(path, name="n"), keep="p"), get(f"{SESSIONS}/{{p}}")]
        for what, path in PATHS.items()
    },
    "POST: paths of new kernels": [
        post(new("")),
        post(new("/x/../leading.ipynb", name="leading.ipynb")),
        post(new("no/such/folder/new.ipynb", name="new.ipynb")),
        post(new("new ünïcode % π.ipynb", name="π")),
    ],
    "POST: a path that has a session": [
        post(on("again.ipynb", name="first"), keep="again"),
        post(on("again.ipynb", name="second", type="console")),
        post(new("again.ipynb")),
        post(new("again.ipynb", kernel={"name": "no-such-kernel"})),
        post(new("again.ipynb", kernel={"id": str(uuid4()), "name": "python3"})),
        post({"notebook": {"path": "again.ipynb"}}),
        post(on("/again.ipynb")),
        post(on("x/../again.ipynb")),
        post(on("AGAIN.ipynb")),
    ],
    "POST: no path": [post({}), post({"type": "notebook"}), post({"name": "x", "kernel": {}})],
    "POST: no type": [post({"path": "x"}), post({"path": "x", **RUNNING})],
    # ------------------------------------------------------------------ PATCH
    "PATCH: one field": [
        post(on("p.ipynb", name="p"), keep="p"),
        patch({"path": "p2.ipynb"}, f"{SESSIONS}/{{p}}"),
        patch({"name": "p2"}, f"{SESSIONS}/{{p}}"),
        patch({"name": None}, f"{SESSIONS}/{{p}}"),
        patch({"name": ""}, f"{SESSIONS}/{{p}}"),
        patch({"type": "console"}, f"{SESSIONS}/{{p}}"),
        patch({"path": ""}, f"{SESSIONS}/{{p}}"),
        patch({"type": ""}, f"{SESSIONS}/{{p}}"),
    ],
    "PATCH: several fields": [
        post(on("q.ipynb", name="q"), keep="q"),
        patch({"path": "q2.ipynb", "name": "q2"}, f"{SESSIONS}/{{q}}"),
        patch({"path": "q3.py", "name": "q3", "type": "file"}, f"{SESSIONS}/{{q}}"),
        patch({"type": "notebook", "path": "q4.ipynb", **RUNNING}, f"{SESSIONS}/{{q}}"),
        patch({"path": "ünï % \U0001f600/../x", "name": "π"}, f"{SESSIONS}/{{q}}"),
        patch({"path": "p" * 4096, "name": "n" * 4096, "type": "t" * 256}, f"{SESSIONS}/{{q}}"),
    ],
    "PATCH: nothing": [
        patch({}),
        patch({"kernel": {}}),
        patch({"kernel": {"id": None, "name": None}}),
        patch({"notebook": {}}),
        patch({"id": "x", "more": [1, {"path": 5}]}),
    ],
    "PATCH: notebook": [
        post(on("d.ipynb", type="file"), keep="d"),
        patch({"notebook": {"path": "d2.ipynb"}}, f"{SESSIONS}/{{d}}"),
        patch({"notebook": {"name": "ignored"}}, f"{SESSIONS}/{{d}}"),
        patch({"notebook": {"path": "d3.ipynb"}, "path": "lost.ipynb"}, f"{SESSIONS}/{{d}}"),
        patch({"notebook": {"path": "d4.ipynb"}, "type": "file"}, f"{SESSIONS}/{{d}}"),
    ],
    "PATCH: onto the path of another": [
        post(on("live.ipynb"), keep="live"),
        post(on("mover.ipynb"), keep="mover"),
        patch({"path": "live.ipynb"}, f"{SESSIONS}/{{mover}}"),
        get(f"{SESSIONS}/{{live}}"),
        get(f"{SESSIONS}/{{mover}}"),
        post(on("live.ipynb")),
    ],
    "PATCH: away from a path, which is then opened": [
        post(on("left.ipynb"), keep="left"),
        patch({"path": "there.ipynb"}, f"{SESSIONS}/{{left}}"),
        post(on("left.ipynb")),
        post(on("there.ipynb")),
    ],
    "PATCH: kernel.id": [
        post(new("k.ipynb", name="k"), keep="k"),
        patch({"kernel": {"id": "{k.kernel}"}}, f"{SESSIONS}/{{k}}"),
        patch({"kernel": {"id": NO_KERNEL}}, f"{SESSIONS}/{{k}}"),
        patch({"kernel": {"id": "no id"}}, f"{SESSIONS}/{{k}}"),
        patch({"kernel": {"id": ""}}, f"{SESSIONS}/{{k}}"),
        patch({"kernel": {"id": "{base.kernel}", "name": "no-such"}}, f"{SESSIONS}/{{k}}"),
        get("/api/kernels"),
        get("/api/kernels/{k.kernel}"),
    ],
    "PATCH: kernel.name": [
        post(new("kn.ipynb", name="kn.ipynb"), keep="kn"),
        patch({"kernel": {"name": "python3"}}, f"{SESSIONS}/{{kn}}"),
        get("/api/kernels/{kn.kernel}"),
        patch({"kernel": {"name": "python3", "id": None}, "path": "kn2"}, f"{SESSIONS}/{{kn}}"),
        patch({"kernel": {"name": "no-such-kernel"}}, f"{SESSIONS}/{{kn}}"),
        patch({"kernel": {"name": "no-such-kernel"}, "path": "kept?"}, f"{SESSIONS}/{{kn}}"),
        patch({"kernel": {"name": "n" * 1024}}, f"{SESSIONS}/{{kn}}"),
    ],
    "PATCH: a kernel without a session": [
        send("POST", "/api/kernels", content=b'{"kernel_id": "b-b-c-d-e"}'),
        post(new("kk.ipynb"), keep="kk"),
        patch({"kernel": {"id": "b-b-c-d-e"}, "name": "x"}, f"{SESSIONS}/{{kk}}"),
        get("/api/kernels/{kk.kernel}"),
        delete(f"{SESSIONS}/{{kk}}"),
        get("/api/kernels/b-b-c-d-e"),
    ],
    # ------------------------------------------------------------------ DELETE
    "DELETE: once and again": [
        post(new("del.ipynb", name="del"), keep="del"),
        delete(f"{SESSIONS}/{{del}}"),
        delete(f"{SESSIONS}/{{del}}"),
        get(f"{SESSIONS}/{{del}}"),
        patch({"name": "x"}, f"{SESSIONS}/{{del}}"),
        get("/api/kernels/{del.kernel}"),
        get(),
    ],
    "DELETE: a body": [
        post(new("del-2.ipynb"), keep="del"),
        delete(f"{SESSIONS}/{{del}}", content=b"\xffno JSON"),
    ],
    "DELETE: others of the kernel are gone too": [
        post(new("owner.ipynb"), keep="owner"),
        post(new("guest.ipynb", kernel={"id": "{owner.kernel}"}), keep="guest"),
        delete(f"{SESSIONS}/{{owner}}"),
        get(),
        get(f"{SESSIONS}/{{guest}}"),
    ],
    # ------------------------------------------------------------------ kernels that are gone
    "a session whose kernel is gone": [
        post(new("gone.ipynb", name="gone"), keep="gone"),
        delete("/api/kernels/{gone.kernel}"),
        get(),
        get(f"{SESSIONS}/{{gone}}"),
        patch({"name": "x"}, f"{SESSIONS}/{{gone}}"),
        delete(f"{SESSIONS}/{{gone}}"),
        post(
            new("gone.ipynb", name="back"),
            rule="same-id",
            differs=("headers.location", "body.id", "then.sessions[].id"),
        ),
    ],
    **{
        f"a session whose kernel is gone, and which is not listed first: {how}": [
            post(new("alone.ipynb"), keep="alone"),
            delete("/api/kernels/{alone.kernel}", quiet=True),
            send(
                how,
                f"{SESSIONS}/{{alone}}",
                content=b"{}",
                rule="gone-message",
                differs=("body.message",),
            ),
            send(how, f"{SESSIONS}/{{alone}}", content=b"{}"),
        ]
        for how in ("GET", "PATCH", "DELETE")
    },
}

BASE_URL: Final[list[Request]] = [
    post(new("at/another.ipynb", name="x"), keep="a"),
    get(),
    get(f"{SESSIONS}/{{a}}"),
    get(f"{SESSIONS}/"),
    get(f"{SESSIONS}/x"),
    get(UNKNOWN),
    patch({"path": "at/other.ipynb"}, f"{SESSIONS}/{{a}}"),
    post(new("at/other.ipynb")),
    post(new("no.ipynb", kernel={"name": "no-such-kernel"})),
    post({"type": "x"}),
    get(token=None),
    send("OPTIONS"),
    delete(f"{SESSIONS}/{{a}}"),
    delete(f"{SESSIONS}/{{a}}"),
]
"""What is sent to servers with a ``base_url``, too."""
