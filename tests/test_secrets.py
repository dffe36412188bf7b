"""No key, no token and no value of an environment is shown to anyone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from administered import Administered
from clients import running_session

from jupyter_sessions_ext.kernels.logs import read_end
from jupyter_sessions_ext.kernels.secrets import MASK, masked, secrets_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from servers import Home, Server

VALUES = {
    "MY_SETTING": "value-of-my-setting",
    "DATABASE_URL": "postgres://ada:lovelace@db/sessions",
    "API_TOKEN": "/looks/like/a/path",
    "SEVERAL_LINES": "first-of-several\nsecond-of-several",
}
WRITES = """
import json, os, re, sys
from ipykernel.connect import get_connection_file
key = json.load(open(get_connection_file()))["key"]
os.write(2, b"begin " + key.encode() + b"\\n")
for name in {names}:
    os.write(2, f"{{name}}={{os.environ[name]}}\\n".encode())
os.write(2, b"token {token}\\nend\\n")
print(key)
"""


def test_what_a_kernel_writes_of_its_secrets_is_masked(
    server_factory: Callable[..., Server], home: Home
) -> None:
    with server_factory(env=VALUES, token="token-of-this-server") as server:
        admin = Administered(server)
        session = running_session(server)
        code = WRITES.format(names=list(VALUES), token=server.token)
        key = server.execute(session["kernel"]["id"], code).strip()
        secrets = [key, server.token, *(v for value in VALUES.values() for v in value.split("\n"))]
        log = f"/sessions/{session['id']}/log"
        before = admin.ask("GET", log).text
        assert "begin [...]\n" in before
        assert "MY_SETTING=[...]\n" in before
        assert before.endswith("token [...]\nend\n")
        server.delete(f"/api/kernels/{session['kernel']['id']}")
        after = admin.ask("GET", log).text
        shown = [before, after, server.log, server.get("/metrics").text]
        paths = ("", "/health", "/openapi.json", "/sessions", "/kernels", "/events", "/export")
        one = f"/sessions/{session['id']}"
        shown += [admin.ask("GET", path).text for path in (*paths, one)]
        for secret in secrets:
            assert not [text for text in shown if secret in text], secret
        raw = next(home.data_dir.rglob(f"kernel-{session['kernel']['id']}.log")).read_text()
        assert all(secret in raw for secret in secrets)  # so that it could have been shown


@pytest.mark.parametrize("size", [1, 5, 10, 60, 1000])
@pytest.mark.parametrize("secret", ["s3cret-s3cret", "ünï-cödé-ünï"])
def test_the_end_of_a_log_has_whole_lines_and_no_part_of_a_secret(
    tmp_path: Path, size: int, secret: str
) -> None:
    log = tmp_path / "log"
    lines = [f"{number} {secret} ü\n" for number in range(100)]
    log.write_text("".join(lines))
    end = read_end(log, size, [secret])
    assert len(end.encode()) <= size
    whole = "".join(lines).replace(secret, MASK)
    assert whole.endswith(end)
    assert not any(part in end for part in (secret[:6], secret[-6:]))
    if size >= 60:
        assert end.partition(" ")[0].isdigit()


def test_a_log_that_is_shorter_than_asked_for_is_read_whole(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"\xff first\nlast without an end")
    assert read_end(log, 100, []) == "\ufffd first\nlast without an end"


def test_what_every_system_has_is_no_secret() -> None:
    harmless = {"PATH": "/usr/bin:/bin", "LANG": "en_GB.UTF-8", "TERM": "xterm-256color"}
    assert [s for s in secrets_of({}, harmless) if s] == []
    assert masked("a short xy stays", ["xy"]) == "a short xy stays"
    assert masked("secret1 and secret12", ["secret1", "secret12"]) == f"{MASK} and {MASK}"
