"""The requests that ask about HTTP itself: ids, methods, logins, content types and bodies."""

from __future__ import annotations

import json
from typing import Final
from urllib.parse import quote

from requests_sent import (
    BASE,
    MIB,
    NO_KERNEL,
    SESSIONS,
    UNKNOWN,
    Request,
    delete,
    get,
    on,
    patch,
    post,
    send,
)

HTTP: Final[dict[str, list[Request]]] = {
    # ------------------------------------------------------------------ ids and methods
    "ids: unknown": [
        get(UNKNOWN),
        patch({}, UNKNOWN),
        patch({"path": "x"}, UNKNOWN),
        patch({"kernel": {"name": "python3"}}, UNKNOWN),
        patch({"kernel": {"id": NO_KERNEL}}, UNKNOWN),
        delete(UNKNOWN),
        get(f"{SESSIONS}/a-b-c-d-e"),
        get(f"{SESSIONS}/{quote('é-π-_-1-世')}"),
        delete(f"{SESSIONS}/{'a' * 3000}-b-c-d-e"),
    ],
    "ids: of the wrong form": [
        request
        for session_id in ("x", "a-b-c-d", "a-b-c-d-e-f", "a-b-c-d-", "a%20-b-c-d-e", "%00", "*")
        for request in (
            get(f"{SESSIONS}/{session_id}"),
            patch({}, f"{SESSIONS}/{session_id}"),
            delete(f"{SESSIONS}/{session_id}"),
        )
    ],
    "ids: with more behind": [
        get(f"{SESSIONS}/"),
        get(f"{BASE}/"),
        get(f"{BASE}/x"),
        send("POST", f"{SESSIONS}/", content=b"{}"),
        get(f"{SESSIONS}/%2e%2e/kernels"),
        get("/api/sessionsx"),
        get("//api/sessions"),
    ],
    "methods: not allowed": [
        send(method, path)
        for path in (SESSIONS, BASE, UNKNOWN)
        for method in ("PUT", "HEAD", "OPTIONS", "TRACE", "BREW")
    ],
    "methods: of the other resource": [
        patch({}, SESSIONS),
        delete(SESSIONS),
        send("POST", BASE, content=b"{}"),
    ],
    # ------------------------------------------------------------------ who asks
    **{
        f"login: {who}": [
            get(token=token),
            get(BASE, token=token),
            get(UNKNOWN, token=token),
            get(f"{SESSIONS}/x", token=token),
            post(on("denied.ipynb"), token=token),
            post(b"\xff", token=token),
            patch({"path": "denied.ipynb"}, token=token),
            delete(BASE, token=token),
            send("OPTIONS", token=token),
            send("HEAD", token=token),
        ]
        for who, token in {"no token": None, "a wrong token": "wrong"}.items()
    },
    "login: a token elsewhere": [
        get(f"{SESSIONS}?token=test-token", token=None),
        get(f"{SESSIONS}?token=wrong", token=None),
        get(token=None, headers={"Authorization": "Bearer test-token"}),
        get(token=None, headers={"Authorization": "Basic dGVzdC10b2tlbg=="}),
    ],
    "login: a cookie": [
        get(token=None, headers={"Cookie": "{cookies}"}),
        get(BASE, token=None, headers={"Cookie": "{cookies}"}),
        post(on("cookie.ipynb"), token=None, headers={"Cookie": "{cookies}"}),
        patch({}, token=None, headers={"Cookie": "{cookies}"}),
        delete(BASE, token=None, headers={"Cookie": "{cookies}"}),
        patch({}, token=None, headers={"Cookie": "{cookies}", "X-XSRFToken": "2|1|2|3"}),
        patch({}, token=None, headers={"Cookie": "{cookies}", "X-XSRFToken": "{xsrf}"}),
        patch({}, f"{BASE}?_xsrf={{xsrf}}", token=None, headers={"Cookie": "{cookies}"}),
        post(
            on("cookie.ipynb"),
            token=None,
            headers={"Cookie": "{cookies}", "X-XSRFToken": "{xsrf}"},
        ),
        get(token=None, headers={"Cookie": 'username-127-0-0-1-1="2|1:0|x"'}),
    ],
    "login: another origin": [
        get(headers={"Origin": "http://example.org"}),
        get(token=None, headers={"Origin": "http://example.org"}),
        get(token=None, headers={"Origin": "http://example.org", "Cookie": "{cookies}"}),
        send(
            "OPTIONS",
            token=None,
            headers={
                "Origin": "http://example.org",
                "Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": "authorization, content-type",
            },
        ),
        get(headers={"Host": "example.org"}),
        post(on("host.ipynb"), headers={"Host": "example.org"}),
        get(headers={"Referer": "http://example.org/"}),
    ],
    # ------------------------------------------------------------------ bodies
    **{
        f"content type: {kind or 'none'}": [
            post(on(f"type {kind}"), headers={"Content-Type": kind} if kind else {}),
            patch({}, headers={"Content-Type": kind} if kind else {}),
        ]
        for kind in (
            "",
            "application/json",
            "application/json; charset=latin-1",
            "text/plain;charset=UTF-8",
            "application/x-www-form-urlencoded",
            "application/octet-stream",
            "%&/",
        )
    },
    "content type: a form": [
        post(b"path=x&type=notebook", headers={"Content-Type": "application/x-www-form-urlencoded"})
    ],
    "content type: a broken multipart form": [
        post(on("multipart"), headers={"Content-Type": "multipart/form-data; boundary=x"})
    ],
    **{
        f"body: {what}": [post(body), patch(body), patch(body, UNKNOWN)]
        for what, body in {
            "none": None,
            "empty": b"",
            "null": b"null",
            "spaces": b" \r\n\t ",
            "cut off": b'{"path": "x", "type": "noteb',
            "a word": b"path",
            "a byte order mark": b'\xef\xbb\xbf{"path": "x", "type": "y"}',
            "a comma too much": b'{"path": "x", "type": "y",}',
            "single quotes": b"{'path': 'x', 'type': 'y'}",
            "two objects": b'{"path": "x", "type": "y"} {}',
            "a comment": b'{"path": "x", "type": "y"} // x',
            "a raw line feed in a text": b'{"path": "x\n", "type": "y"}',
            "an escape that is none": b'{"path": "\\x41", "type": "y"}',
            "deep nesting that does not end": b"[" * 100_000,
        }.items()
    },
    "body: deep nesting": [
        post(b'{"path": "deep", "type": "x", "more": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
        patch(b'{"more": ' + b'{"x": ' * 10_000 + b"1" + b"}" * 10_000 + b"}"),
    ],
    "body: nesting": [
        post(on("nested", more=json.loads("[" * 100 + "]" * 100))),
        patch({"more": json.loads('{"x": ' * 100 + "1" + "}" * 100)}),
    ],
    "body: a key twice": [
        post(
            b'{"path": "a", "path": "twice", "type": "x", "type": "y", "kernel": {"id": "x"}, '
            b'"kernel": {"id": "{base.kernel}"}}'
        ),
        patch(b'{"name": "x", "name": "base.ipynb"}'),
    ],
    "body: big numbers": [
        patch(b'{"more": 123456789012345678901234567890}'),
        patch(b'{"more": 1e400}'),
        patch(b'{"more": ' + b"9" * 5000 + b"}"),
        patch(b'{"more": -0.0e-999}'),
    ],
    "body: spaces around": [patch(b' \r\n\t{ "name" : "base.ipynb" } \n')],
    "body: escapes": [
        post(
            b'{"path": "\\u0065sc\\/\\ud83d\\ude00", "\\u0074ype": "x", '
            b'"kernel": {"id": "{base.kernel}"}}'
        ),
        patch(b'{"more": "\\u0000"}'),
    ],
    "body: large": [
        post(on("large", more="x" * 100_000)),
        patch({"more": "x" * (MIB - len('{"more": ""}'))}),
        patch({"more": ["x"] * 100_000}),
    ],
}
