"""The command line finds the servers that run, and withstands those that do not answer well."""

from __future__ import annotations

import contextlib
import http.server
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from clients import new_session
from commands import held_lease, keep, run, write_server_file
from conftest import require
from jupyter_server.auth.security import passwd
from records import EVERYTHING, SESSION
from servers import Home, Server, wait_until

from jupyter_sessions_ext.cli import servers
from jupyter_sessions_ext.cli.servers import Server as Found
from jupyter_sessions_ext.models import Change, now

if TYPE_CHECKING:
    pass

ABOUT = b'{"workspace": {"key": "k", "root_dir": "/nowhere", "folder": null}, "version": "1"}'
CUT_OFF = b'{"format": "'
EMPTY = b'{"items": [], "next": null, "total": 0}'


@pytest.fixture
def socket_path() -> Iterator[Path]:
    """Return a path that is short enough for a socket."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "a socket"


def test_a_server_on_a_unix_socket_below_a_base_url_is_asked(home: Home, socket_path: Path) -> None:
    keep(home, Change(sessions=(replace(SESSION, since=now()),)))
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "jupyter_server", "--no-browser", "--allow-root"),
            f"--ServerApp.sock={socket_path}",
            f"--ServerApp.root_dir={home.root_dir}",
            "--ServerApp.base_url=/user/a%20b/",
        ],
        env=home.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:

        def told() -> list[Any]:
            items: list[Any] = run(home, "list", "--json").json
            return [item for item in items if item["server"]]

        [item] = wait_until(told, 30, "the server was asked")
        assert item["server"].startswith("http+unix://")
        assert item["links"]["self"].startswith("/user/a%20b/sessions/api/v1/")
        named = run(home, "revive", item["id"], "--server", item["server"])
        assert named.code == 0, named.err
        assert run(home, "stop", "--all", "--running").code == 0
    finally:
        process.kill()
        process.wait()


def test_a_server_that_asks_for_nothing_is_asked_and_steered(home: Home) -> None:
    with Server(home, token="", base_url="/user/a%20b") as server:
        session = new_session_without_token(server)
        assert run(home, "stop", session).code == 0
        done = run(home, "revive", session, "--server", f"{server.url}/")
        assert done.code == 0, done.err


def new_session_without_token(server: Server) -> str:
    pair = {"X-XSRFToken": "00", "Cookie": "_xsrf=00"}
    body = {"path": "a.ipynb", "type": "notebook", "kernel": {"name": "python3"}}
    reply = server.request("POST", "/api/sessions", body, token=None, headers=pair)
    assert reply.status_code == 201, reply.text
    return str(reply.json()["id"])


def test_of_a_server_that_asks_for_a_password_it_is_read_what_is_recorded(home: Home) -> None:
    secret = passwd("hunter2")
    with Server(home) as server:
        session = new_session(server)
        server.terminate()
    arguments = [f"--PasswordIdentityProvider.hashed_password={secret}"]
    with Server(home, token="", args=arguments) as server:
        listed = run(home, "list", "--json")
        assert (listed.code, [item["id"] for item in listed.json]) == (0, [session["id"]])
        assert f"{server.url} does not let us in (403)" in listed.err
        assert "what is recorded" in listed.err
        for verb in ("revive", "stop"):
            refused = run(home, verb, session["id"])
            assert refused.code in (1, 3)
        wrong = run(home, "list", "--server", server.url, "--token", "a-wrong-token")
        assert (wrong.code, "a-wrong-token" in wrong.err) == (1, False)
        assert "--token" in wrong.err


def test_a_token_comes_from_the_call_the_servers_file_or_the_environment(
    home: Home, server: Server
) -> None:
    [file] = home.runtime_dir.glob("jpserver-*.json")
    localhost = f"http://localhost:{server.port}"

    def code(*arguments: str, **env: str) -> int:
        return run(home, "list", *arguments, env=env).code

    assert code("--server", localhost) == 0, "its file has it"
    assert code("--server", localhost, JUPYTER_TOKEN="wrong") == 0, "the file's is the right one"
    assert code("--server", localhost, "--token", "wrong") == 1
    file.rename(file.with_suffix(".hidden"))
    assert code("--server", localhost) == 1
    assert code("--server", localhost, "--token", server.token) == 0
    assert code("--server", localhost, JUPYTER_TOKEN=server.token) == 0
    assert code("--server", f"{localhost}/?token={server.token}") == 0
    assert code("--server", f"http://user:word@localhost:{server.port}") == 1
    assert "word" not in run(home, "list", "--server", "http://user:word@127.0.0.1:1").err
    server.terminate()
    gone = run(home, "list", "--server", localhost)
    assert (gone.code, "no server answers" in gone.err) == (3, True)


# -------------------------------------------------------------------------- no server of ours


@contextlib.contextmanager
def answering(answers: dict[str, tuple[int, bytes]]) -> Iterator[int]:
    """Answer requests with what is given for the ends of their paths; yield the port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            status, body = next(
                (a for end, a in answers.items() if path.endswith(end)), (404, b"<html>")
            )
            self.send_response(status)
            self.send_header("Content-Length", str(len(body) + 10 * (body == CUT_OFF)))
            if status == 302:
                self.send_header("Location", "/login")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("answers", "code", "said"),
    [
        ({}, 0, ""),
        ({"/v1": (200, b"<html>hello</html>")}, 1, "is no Jupyter server"),
        ({"/v1": (200, b"[]")}, 1, "is no Jupyter server"),
        ({"/v1": (302, b"")}, 1, "does not let us in"),
        ({"/v1": (401, b"")}, 1, "does not let us in"),
        ({"/v1": (500, b"oh")}, 1, "500"),
        ({"/v1": (200, ABOUT), "/sessions": (503, b'{"message": "it is full."}')}, 1, "it is full"),
        ({"/v1": (200, ABOUT), "/sessions": (200, EMPTY), "/kernels": (200, EMPTY)}, 0, ""),
    ],
)
def test_what_answers_otherwise_is_named_and_what_is_kept_is_shown(
    home: Home, answers: dict[str, tuple[int, bytes]], code: int, said: str
) -> None:
    keep(home, EVERYTHING)
    with answering(answers) as port:
        write_server_file(home, f"http://127.0.0.1:{port}/")
        done = run(home, "list", "--json")
        assert (done.code, len(done.json)) == (code, 1)
        assert said in done.err
        assert (done.err == "") == (not said)
        if said:
            refused = run(home, "list", "--server", f"http://127.0.0.1:{port}")
            assert (refused.code, said in refused.err, refused.out) == (1, True, "")


def test_an_export_that_is_cut_off_leaves_no_file(home: Home) -> None:
    with answering({"/v1": (200, ABOUT), "/export": (200, CUT_OFF)}) as port:
        file = home.path / "sessions.ndjson"
        done = run(home, "export", "-o", file, "--server", f"http://127.0.0.1:{port}")
        assert (done.code, "did not answer" in done.err) == (1, True)
        assert [path for path in home.path.iterdir() if path.name.startswith(file.name)] == []


def test_a_server_that_hangs_is_not_waited_for_long(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers, "_PROBE_SECONDS", 0.2)
    place = keep(home, EVERYTHING)
    with socket.create_server(("127.0.0.1", 0)) as hung:
        write_server_file(home, f"http://127.0.0.1:{hung.getsockname()[1]}/")
        done = run(home, "list", "--json")
        assert (done.code, len(done.json)) == (1, 1)
        assert "did not answer in time" in done.err
        assert run(home, "list", "--state-dir", place.folder.parent).code == 0, "it may be another"


def test_the_file_of_a_server_that_is_gone_is_passed_over(home: Home) -> None:
    keep(home, EVERYTHING)
    with answering({"/v1": (500, b"it is another's port now")}) as port:
        file = write_server_file(home, f"http://127.0.0.1:{port}/", pid=2**22 + 1)
        assert run(home, "list").code == 0, "its process is gone"
        write_server_file(home, f"http://127.0.0.1:{port}/")
        assert run(home, "list").code == 1
        file.write_text(file.read_text()[:20])
        assert run(home, "list").code == 0, "it is being written"
    write_server_file(home, f"http://127.0.0.1:{port}/")
    done = run(home, "list", "--json")
    assert (done.code, done.err, len(done.json)) == (0, "", 1), "nothing listens"
    assert file.exists(), "it is not ours to remove"


def test_a_server_on_all_addresses_is_asked_at_this_host(home: Home) -> None:
    """Its file has the host's name, which may be unknown where there is no name server."""
    with answering({"/v1": (200, ABOUT)}) as port:
        url = f"http://an-unknown-name.invalid:{port}/"
        write_server_file(home, url, hostname="0.0.0.0", port=port)
        unclear = run(home, "export")
        assert (unclear.code, f"http://127.0.0.1:{port}" in unclear.err) == (1, True)


def test_the_process_that_has_a_lease_is_told_from_the_servers_that_answer(home: Home) -> None:
    place = keep(home, EVERYTHING)
    with held_lease(place) as pid, answering({"/v1": (403, b"")}) as port:
        write_server_file(home, f"http://127.0.0.1:{port}/", pid=pid)
        done = run(home, "list")
        assert (done.code, "what is recorded of" in done.err) == (0, True)
        assert f"pid {pid}" in done.out


def test_no_server_is_said_with_its_token() -> None:
    found = Found("http://user:word@127.0.0.1:8888/a/?token=secret", "secret", pid=os.getpid())
    assert found.url == "http://127.0.0.1:8888/a"
    assert "secret" not in repr(found) + str(vars(found)["url"])


# -------------------------------------------------------------------------- whose a server is

LISTENS = """
import http.server, os, sys

host, user, answer = sys.argv[1], int(sys.argv[2]), sys.argv[3].encode()

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        print(self.requestline, self.headers.get("Authorization"), flush=True)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(answer)

    do_DELETE = do_POST = do_GET

    def log_message(self, *_):
        pass

class Listener(http.server.HTTPServer):
    address_family = __import__("socket").AF_INET6 if ":" in host else 2

os.setuid(user)
with Listener((host, int(sys.argv[4])), Handler) as server:
    print(server.server_port, flush=True)
    server.serve_forever()
"""
NOBODY = 65534


@contextlib.contextmanager
def listener(
    user: int, host: str = "127.0.0.1", port: int = 0
) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Have a program of a user listen; yield its process and its port."""
    # A Python that this user may not read is of no use to another one.
    program = "/usr/bin/python3" if user else sys.executable
    command = [program, "-c", LISTENS, host, str(user), "{}", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd="/") as process:
        try:
            assert process.stdout is not None
            yield process, int(process.stdout.readline())
        finally:
            process.kill()


def heard(process: subprocess.Popen[str]) -> str:
    """End a program that listens, and return what it was asked."""
    process.kill()
    assert process.stdout is not None
    return process.stdout.read()


ask_all = pytest.mark.parametrize(
    "verb", [("list",), ("check",), ("stop", "--all", "--running"), ("export",)]
)


@pytest.fixture
def is_root() -> None:
    require(os.geteuid() == 0 and Path("/usr/bin/python3").exists(), "another user")


@ask_all
@pytest.mark.usefixtures("is_root")
@pytest.mark.parametrize("pid", ["the other user's", "a program of ours"])
def test_a_program_of_another_user_gets_no_token(
    verb: tuple[str, ...], pid: str, home: Home
) -> None:
    with listener(NOBODY) as (process, port):
        own = process.pid if pid.startswith("the") else os.getpid()
        write_server_file(home, f"http://127.0.0.1:{port}/", pid=own, token="a-secret")
        done = run(home, *verb, env={"JUPYTER_TOKEN": "another-secret"})
        assert "secret" not in heard(process)
        assert "secret" not in done.out + done.err


@pytest.mark.usefixtures("is_root")
def test_a_program_of_another_user_at_another_address_of_the_port_gets_no_token(
    home: Home,
) -> None:
    with listener(0) as (ours, port), listener(NOBODY, "::1", port) as (theirs, _):
        write_server_file(home, f"http://localhost:{port}/", pid=ours.pid, token="a-secret")
        run(home, "list")
        assert "secret" not in heard(theirs)


def test_a_program_that_has_a_pid_again_gets_no_token(home: Home) -> None:
    """The port is another program's of this user, and the process is younger than the file."""
    with listener(0) as (ours, port), subprocess.Popen(["cat"], stdin=subprocess.PIPE) as other:
        file = write_server_file(home, f"http://127.0.0.1:{port}/", pid=other.pid, token="a-secret")
        os.utime(file, (1e9, 1e9))
        run(home, "list")
        other.kill()
        assert "secret" not in heard(ours)


def test_a_server_of_this_user_gets_its_token_whatever_the_clock_said(home: Home) -> None:
    with listener(0) as (ours, port):
        file = write_server_file(home, f"http://127.0.0.1:{port}/", pid=ours.pid, token="a-secret")
        os.utime(file, (1e9, 1e9))
        run(home, "list")
        assert "a-secret" in heard(ours)


@pytest.mark.usefixtures("is_root")
def test_a_socket_of_another_user_gets_no_token(home: Home, socket_path: Path) -> None:
    socket_path.parent.chmod(0o777)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(socket_path))
        listening.listen()
        listening.settimeout(0)
        os.chown(socket_path, NOBODY, NOBODY)
        url = f"http+unix://{quote(str(socket_path), safe='')}/"
        write_server_file(home, url, token="a-secret")
        run(home, "list")
        with pytest.raises(BlockingIOError):
            listening.accept()
