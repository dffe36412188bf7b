"""What kernels print of keys, of tokens and of their environment leaves the server masked."""

from __future__ import annotations

import json
import random
import string
import sys
from contextlib import closing
from typing import TYPE_CHECKING, Final

import pytest
import websocket
from clients import kernel_state
from homes import state_folder
from servers import Home, Server, wait_until

from jupyter_sessions_ext.api.documents import admin_document
from jupyter_sessions_ext.keeper.log_file import LOG_LIMIT
from jupyter_sessions_ext.kernels.logs import read_end
from jupyter_sessions_ext.kernels.secrets import MASK, SHORTEST, masked, secrets_of, without_rest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# ---------------------------------------------------------------------- a real server

TOKEN: Final = "token-3f9c61d2"
OF_SERVER: Final = {
    "MY_SETTING": "setting-0b7d",
    "DATABASE_URL": "postgres://ada:lovelace-51@db.test/sessions",
    "AWS_SECRET_ACCESS_KEY": "/begins+like/a/path",
    "PYTHON_INDEX_TOKEN": "index-8812",
    "SIGNING": "-----BEGIN OF IT-----\nfirst-line-of-it\nsecond-line-of-it",
}
OF_KERNEL: Final = {"SPEC_SETTING": "spec-44d0", "SPEC_PASSWORD": "hunter-22"}
SECRETS: Final = [
    TOKEN,
    *(line for value in OF_SERVER.values() for line in value.split("\n")),
    *OF_KERNEL.values(),
]
NOISE: Final = f"""
import json, os
from ipykernel.connect import get_connection_file
key = json.load(open(get_connection_file()))["key"]
names = {[*OF_SERVER, *OF_KERNEL]}
for value in [key, {TOKEN!r}, *(os.environ[name] for name in names)]:
    os.write(2, f"before {{value}} after\\n".encode())
os.write(2, (repr(dict(os.environ)) + "\\n").encode())
os.system("env >&2; echo the end >&2")
print(key)
"""
ROUTES: Final = [
    path
    for path, methods in admin_document()["paths"].items()
    # A transcript has what cells print, as any client gets it.
    if "get" in methods and not path.endswith("/transcript")
]
OTHERS: Final = ["/sessions", "/api/sessions", "/api/kernels", "/api/kernelspecs", "/metrics"]


class Noisy:
    """A server whose kernel has printed all that it knows."""

    def __init__(self, home: Home) -> None:
        argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        folder = home.data_dir / "kernels" / "noisy"
        folder.mkdir(parents=True)
        spec = {"argv": argv, "display_name": "Noisy", "language": "python", "env": OF_KERNEL}
        (folder / "kernel.json").write_text(json.dumps(spec))
        self.home = home
        self.server = Server(home, token=TOKEN, env=OF_SERVER).start()
        self.events: list[str] = []
        with closing(self._listening()) as bus:
            body = {"path": "a.ipynb", "type": "notebook", "kernel": {"name": "noisy"}}
            session = self.server.post("/api/sessions", body).json()
            self.session_id = session["id"]
            self.kernel_id = session["kernel"]["id"]
            self.key = self.server.execute(self.kernel_id, NOISE).strip()
            self.server.patch(f"/sessions/api/v1/sessions/{self.session_id}", {"path": "b.ipynb"})
            while "renamed" not in "".join(self.events):
                self.events.append(str(bus.recv()))
        wait_until(lambda: "the end" in self.raw_log(), 10, "all was in the log")

    def _listening(self) -> websocket.WebSocket:
        url = f"ws{self.server.url.removeprefix('http')}/api/events/subscribe"
        header = [f"Authorization: token {TOKEN}"]
        return websocket.create_connection(url, header=header, timeout=20)

    def raw_log(self) -> str:
        """Return what the kernel has written."""
        folder = state_folder(self.home) / "logs"
        return (folder / f"kernel-{self.kernel_id}.log").read_text()

    def told(self) -> Iterator[tuple[str, str]]:
        """Yield what the server tells anybody, by where it does."""
        for path in [*ROUTES, *OTHERS]:
            reply = self.server.get(path.replace("{session_id}", self.session_id))
            assert reply.status_code == 200, (path, reply.text)
            yield path, reply.text + str(reply.headers)
        yield "the server's log", self.server.log
        yield "the event bus", "".join(self.events)

    def leaks(self) -> list[tuple[str, str]]:
        """Return what is told that should not be, and where."""
        return [
            (where, secret)
            for where, text in self.told()
            for secret in (*SECRETS, self.key)
            # A kernelspec is what /api/kernelspecs is for.
            if secret in text and not (where == "/api/kernelspecs" and secret in OF_KERNEL.values())
        ]

    def log(self) -> str:
        """Return the log as it is shown."""
        return self.server.get(f"/sessions/api/v1/sessions/{self.session_id}/log").text


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Noisy]:
    home = Home(tmp_path_factory.mktemp("secrets") / "home")
    try:
        yield Noisy(home)
    finally:
        home.close()


def test_no_secret_is_told_while_the_kernel_runs_nor_to_the_next_server_nor_when_it_is_gone(
    noisy: Noisy,
) -> None:
    raw = noisy.raw_log()
    assert [s for s in (*SECRETS, noisy.key) if s not in raw] == []
    assert noisy.leaks() == []
    shown = noisy.log()
    assert shown.count(f"before {MASK} after\n") == len(OF_SERVER) + len(OF_KERNEL) + 2 - 1
    assert shown.endswith("the end\n")
    # The next server is started without the secrets: the kernel has them still.
    noisy.server.kill()
    noisy.server.env = dict.fromkeys(OF_SERVER, "")
    noisy.server.start()
    assert kernel_state(noisy.server, noisy.kernel_id) is not None
    assert noisy.leaks() == []
    noisy.server.kill()
    noisy.server.env = OF_SERVER
    noisy.server.start()
    assert noisy.server.delete(f"/api/kernels/{noisy.kernel_id}").status_code == 204
    assert noisy.leaks() == []
    assert "the end\n" in noisy.log()


# ---------------------------------------------------------------------- what is one

KEY: Final = "0a1b2c3d-0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MY_SETTING", "anything"),
        ("AWS_SECRET_ACCESS_KEY", "/like/a/path"),
        ("CONDA_TOKEN", "named like what is harmless"),
        ("JUPYTER_TOKEN", "anything"),
        ("db_password", "anything"),
    ],
)
def test_what_a_variable_says_is_a_secret(name: str, value: str) -> None:
    assert value in secrets_of({}, {name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PATH", "bin:sbin"),
        ("MY_FOLDER", "/home/ada"),
        ("LC_ALL", "C.UTF-8"),
        ("TERM", "xterm-256color"),
        ("JPY_SESSION_NAME", "work/a.ipynb"),
        ("PYTHONHASHSEED", "random"),
    ],
)
def test_what_every_log_is_full_of_is_none(name: str, value: str) -> None:
    assert value not in secrets_of({}, {name: value})


@pytest.mark.parametrize("key", ["key of a text", b"key of bytes"])
def test_a_kernels_key_is_one(key: str | bytes) -> None:
    text = key if isinstance(key, str) else key.decode()
    assert text in secrets_of({"key": key, "ip": "127.0.0.1"}, {})
    assert not any(secrets_of({}, {}))


def test_each_line_of_a_value_is_one() -> None:
    printed = repr({"SIGNING": "first line\nsecond line"})
    assert masked(printed, secrets_of({}, {"SIGNING": "first line\nsecond line"})) == (
        repr({"SIGNING": f"{MASK}\\n{MASK}"}).replace("\\\\", "\\")
    )


@pytest.mark.parametrize(
    ("text", "secrets", "shown"),
    [
        ("a secret, a secret", ["secret"], f"a {MASK}, a {MASK}"),
        ("secret-and-more", ["secret", "secret-and-more"], MASK),
        ("a.c+[x]* abcxx", ["a.c+[x]*"], f"{MASK} abcxx"),
        ("x" * SHORTEST, ["x" * (SHORTEST - 1)], "x" * SHORTEST),
        ("empty", [""], "empty"),
        (f"another's {KEY}.", [], f"another's {MASK}."),
        ("11111111-1111-4111-8111-111111111111", [], "11111111-1111-4111-8111-111111111111"),
    ],
)
def test_secrets_are_masked_and_nothing_else(text: str, secrets: list[str], shown: str) -> None:
    assert masked(text, secrets) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("of-a-secret, and more", ", and more"),
        ("the-name-of-a-secret, and more", "the-name-of-a-secret, and more"),
        ("secret", ""),
        ("ecret is too short", "ecret is too short"),
        ("", ""),
    ],
)
def test_the_rest_of_a_secret_that_was_cut_is_left_out(text: str, shown: str) -> None:
    assert without_rest(text, ["the-name-of-a-secret", "tiny"]) == shown


# ---------------------------------------------------------------------- the end of a log

LONG: Final = [f"battery-staple-{string.ascii_letters}", "tiny-secret", "grüße-an-alle"]


def log_of(kind: str) -> str:
    """Return a log that is longer than what is read of it."""
    generator = random.Random(kind)

    def noise(most: int) -> str:
        return "".join(
            generator.choices(f"{string.ascii_letters} äß€😀", k=generator.randint(0, most))
        )

    if kind == "nothing but secrets":
        return f"{LONG[0]}\n" * 3000
    if kind == "secrets, and no line ends":
        return LONG[0] * 3000
    if kind == "one line":
        return noise(80) + "ü" * 200_000
    lines = (f"{noise(120)}{generator.choice(['', '', *LONG])}{noise(9)}\n" for _ in range(4000))
    return "".join(lines)


@pytest.mark.parametrize("size", [1, 100, 4097, 65536, LOG_LIMIT])
@pytest.mark.parametrize(
    "kind", ["noise", "nothing but secrets", "secrets, and no line ends", "one line"]
)
def test_the_end_of_a_log_begins_with_a_line_and_has_no_part_of_a_secret(
    kind: str, size: int, tmp_path: Path
) -> None:
    log = tmp_path / "kernel-k.log"
    text = log_of(kind)
    log.write_text(text, encoding="utf-8")
    whole = masked(text, LONG)
    for shift in range(0, 120, 7):  # where the cut is in a secret
        shown = read_end(log, size - shift if size > shift else size, LONG)
        assert len(shown.encode()) <= size
        assert whole.endswith(shown[SHORTEST - 1 :])  # what is shorter may be left of a secret
        begins = len(whole) - len(shown)
        assert begins == 0 or "\n" not in shown[:-1] or whole[begins - 1] == "\n"
    if kind == "noise":
        longest = max(len(line.encode()) for line in whole.splitlines(keepends=True))
        assert len(shown.encode()) >= min(size - shift - longest, len(whole.encode()))


def test_the_end_of_a_log_is_read_whatever_bytes_are_in_it(tmp_path: Path) -> None:
    log = tmp_path / "kernel-k.log"
    log.write_bytes(b"\xff\x00tiny-secret\n" * 20_000)
    shown = read_end(log, 999, LONG)
    assert shown == f"\ufffd\0{MASK}\n" * (len(shown) // 8)
    assert 900 < len(shown.encode()) <= 999
    log.write_bytes(b"\xff first\nlast, without an end")
    assert read_end(log, 999, LONG) == "\ufffd first\nlast, without an end"
    log.write_bytes(b"")
    assert read_end(log, 999, LONG) == ""
    with pytest.raises(FileNotFoundError):
        read_end(tmp_path / "none.log", 999, LONG)
