"""What is sent to a keeper, or over it, that should not be: it is the sender's own matter."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
from contextlib import ExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING

import websocket
from clients import kernel_state, new_session
from conftest import require
from jupyter_server.services.kernels.connection.base import serialize_msg_to_ws_v1
from kept import ask_keeper, finishes, keeper_folder, keeper_log
from lasting import PRINTS, LastingClient, assert_whole, until_printed
from servers import Server, keepers, wait_until

from jupyter_sessions_ext.keeper.protocol import Channel, Kind, pack, pack_json
from jupyter_sessions_ext.keeper.takeover import connect

if TYPE_CHECKING:
    from pathlib import Path

V1 = "v1.kernel.websocket.jupyter.org"

DEEP = 100_000 * '{"a":' + "1" + 100_000 * "}"


def v1(*parts: str, channel: str = "shell") -> bytes:
    message: bytes = serialize_msg_to_ws_v1([part.encode() for part in parts], channel)
    return message


BAD: list[str | bytes] = [
    v1(),
    v1("{}"),
    v1("{}", "{}", "{}", "{}"),
    v1("{}", "{}", "{}", "{}", channel="iopub"),
    v1("{}", "{}", "{}", "{}", channel="none"),
    v1(DEEP, "{}", "{}", "{}"),
    v1("[]", "1", "null", "x"),
    b"",
    b"\xff" * 1000,
    b"\x7f" + b"\xff" * 1000,
    bytes(1000),
    struct.pack("<QQQ", 3, 1 << 40, 1 << 41),
    "",
    "[]",
    "{}",
    DEEP,
    f'{{"header": {DEEP}, "parent_header": {{}}, "metadata": {{}}, "content": {{}}}}',
    '{"header": {"msg_type": [], "msg_id": {}}, "parent_header": 1, "metadata": 2, "content": 3}',
]
"""What no client should send."""


def misbehave(server: Server, kernel_id: str, stack: ExitStack) -> None:
    """Send what is bad, each on a connection of its own, and end them."""
    for data in BAD:
        for protocols in ([V1], []):
            channels = server.connect(kernel_id, subprotocols=protocols)
            stack.callback(channels.close, timeout=0)
            is_text = isinstance(data, str)
            channels.send(
                data, websocket.ABNF.OPCODE_TEXT if is_text else websocket.ABNF.OPCODE_BINARY
            )
    channels = server.connect(kernel_id, "s" * 300)
    stack.callback(channels.close, timeout=0)


def test_a_clients_bad_messages_are_no_other_clients_matter(shared: Server) -> None:
    kernel_id = new_session(shared)["kernel"]["id"]
    with ExitStack() as stack:
        misbehave(shared, kernel_id, stack)  # while the kernel starts
        client = stack.enter_context(LastingClient(shared, kernel_id))
        finishes(client)
        [keeper] = keepers(shared.home)
        assert "Traceback" not in keeper_log(shared.home)
        request = client.execute(PRINTS.format(count=150))
        until_printed(client, request, 5)
        misbehave(shared, kernel_id, stack)
        assert_whole(client, request, 150)
        finishes(client)
        assert client.connections == 1
    wait_until(lambda: ask_keeper(shared.home, "ping") == {}, 5, "ok")
    assert "Traceback" not in keeper_log(shared.home)
    assert keepers(shared.home) == [keeper]


# -------------------------------------------------------------------------- its own socket

WHOLE = pack_json(Kind.CALL, 1, op="status")

NO_PACKETS = [
    b"GET / HTTP/1.1\r\n\r\n",
    bytes(1000),
    b"\xff" * 1000,
    WHOLE[:-3],
    pack_json(Kind.CALL, 1, op="none"),
    pack_json(Kind.CALL, 1, op="forget"),
    pack_json(Kind.NOTE, op="passed_on", stream=[], size=None),
    pack(Kind.CALL, Channel.SHELL, 1, []),
    pack(Kind.REQUEST, Channel.SHELL, 1, [b"x"]),
    pack(Kind.FED, Channel.SHELL, 1, []),
    pack(Kind.STREAM, Channel.SHELL, 1, []),
]


NO_SIGNATURE = """
from ipykernel.kernelapp import IPKernelApp
state = [b'{"msg_type": "status", "msg_id": "1"}', b"{}", b"{}", b'{"execution_state": "busy"}']
IPKernelApp.instance().iopub_thread.send_multipart([b"<IDS|MSG>", b"none", *state])
"""


def test_after_a_kernels_bad_message_the_server_hears_it_as_before(shared: Server) -> None:
    kernel_id = new_session(shared)["kernel"]["id"]
    shared.execute(kernel_id, NO_SIGNATURE)
    with LastingClient(shared, kernel_id) as client:
        for _ in range(3):
            finishes(client)
            wait_until(lambda: kernel_state(shared, kernel_id) == "idle", 10, "it was heard")
            request = client.execute("input()", allow_stdin=True)
            wait_until(lambda: kernel_state(shared, kernel_id) == "busy", 10, "it was heard")
            wait_until(partial(client.of, request, "input_request"), 10, "it had asked")
            client.answer(request, "")
            wait_until(partial(client.is_finished, request), 10, "it had finished")


LONG_SIGNATURES = """
import threading, time
from ipykernel.kernelapp import IPKernelApp
state = [b'{{"msg_type": "stream", "msg_id": "1"}}', b"{{}}", b"{{}}", b"{{}}"]
odd = [b"<IDS|MSG>", bytes([255]) * 300_000, *state]

def publish():
    for _ in range(5):
        time.sleep(0.2)  # each is the last for a while
        IPKernelApp.instance().iopub_thread.send_multipart(odd)
    open({sign!r}, "x")

threading.Thread(target=publish).start()
"""


def test_a_kernels_odd_messages_are_no_other_kernels_matter(shared: Server, tmp_path: Path) -> None:
    odd, other = (new_session(shared, f"{name}.ipynb")["kernel"]["id"] for name in "ab")
    size = len(shared.log)
    with LastingClient(shared, other) as client:
        request = client.execute(PRINTS.format(count=100))
        until_printed(client, request, 5)
        sign = tmp_path / "published"
        shared.execute(odd, LONG_SIGNATURES.format(sign=str(sign)))
        wait_until(sign.exists, 10, "it had published")
        assert_whole(client, request, 100)
        finishes(client)
        assert client.connections == 1
    assert "The keeper is gone" not in shared.log[size:]


def test_a_lost_link_with_the_keeper_ends_no_clients_connection(shared: Server) -> None:
    kernel_id = new_session(shared)["kernel"]["id"]
    with LastingClient(shared, kernel_id) as client:
        finishes(client)
        [keeper] = keepers(shared.home)
        for _ in range(3):
            request = client.execute(PRINTS.format(count=100))
            until_printed(client, request, 5)
            assert shared.post("/test/unlink").status_code == 204
            assert_whole(client, request, 100)
            finishes(client)
        assert (client.connections, keepers(shared.home)) == (1, [keeper])
        request = client.execute(PRINTS.format(count=100))
        until_printed(client, request, 5)
        shared.restart()  # what the keeper knows of the client is right
        assert_whole(client, request, 100)


def dial(folder: Path) -> socket.socket | None:
    with suppress(BlockingIOError):
        return connect(folder, 5)
    return None


def test_nothing_that_is_sent_to_its_socket_harms_a_keeper(shared: Server) -> None:
    kernel_id = new_session(shared)["kernel"]["id"]
    folder = keeper_folder(shared.home)
    with LastingClient(shared, kernel_id) as client, ExitStack() as stack:
        finishes(client)
        [keeper] = keepers(shared.home)
        for data in NO_PACKETS:
            with connect(folder, 5) as connection:
                connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(1 << 16):
                    pass
        for number in range(100):  # and then nothing more
            half = wait_until(partial(dial, folder), 5, "it has room for another one")
            assert half is not None
            stack.enter_context(half).sendall(WHOLE[: number % len(WHOLE)])
        finishes(client)
        assert ask_keeper(shared.home, "ping") == {}
        assert (client.connections, keepers(shared.home)) == (1, [keeper])


STRANGER = """
import os, socket
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
connection = socket.socket(socket.AF_UNIX)
connection.settimeout(10)
connection.connect("keeper.sock")
try:
    connection.sendall(bytes.fromhex("{data}"))
    print(connection.recv(1000))
except (BrokenPipeError, ConnectionResetError):
    print(b"")
"""


def test_another_user_is_refused(shared: Server) -> None:
    require(os.geteuid() == 0, "the right to become another user")
    kernel_id = new_session(shared)["kernel"]["id"]
    shared.execute(kernel_id, "x = 1")
    folder = keeper_folder(shared.home)
    mode = folder.stat().st_mode
    assert (folder / "keeper.sock").stat().st_mode & 0o777 == 0o600
    try:
        folder.chmod(0o777)  # modes alone would let it in
        (folder / "keeper.sock").chmod(0o777)
        code = STRANGER.format(data=WHOLE.hex())
        said = subprocess.run(
            [sys.executable, "-c", code], cwd=folder, capture_output=True, check=True, timeout=20
        )
        assert said.stdout == b"b''\n"
    finally:
        folder.chmod(mode)
        (folder / "keeper.sock").chmod(0o600)
    assert "another user was refused" in keeper_log(shared.home)
    assert ask_keeper(shared.home, "ping") == {}
