"""What a keeper says to whoever speaks its protocol, on a socket, as a server does."""

from __future__ import annotations

import socket
import subprocess
import sys
from contextlib import ExitStack, closing, suppress
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest
from servers import wait_until

from jupyter_sessions_ext.keeper.delivery import Delivery
from jupyter_sessions_ext.keeper.protocol import (
    Channel,
    Kind,
    Packet,
    Unpacker,
    pack,
    pack_json,
)
from jupyter_sessions_ext.keeper.takeover import connect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

NOWHERE = {
    "transport": "ipc",
    "ip": "nobody",
    "key": "key",
    **{
        f"{name}_port": number for number, name in enumerate(("iopub", "shell", "stdin", "control"))
    },
}
"""Where a kernel would be."""


class Wire:
    """Speaks to a keeper."""

    def __init__(self, folder: Path) -> None:
        self._socket = connect(folder, 10)
        self._unpacker = Unpacker()
        self._packets = list[Packet]()
        self._numbers = count(1)

    def close(self) -> None:
        self._socket.close()

    def call(self, what: str, *files: int, **more: Any) -> int:
        """Ask, and return the number that the answer has."""
        number = next(self._numbers)
        socket.send_fds(self._socket, [pack_json(Kind.CALL, number, op=what, **more)], [*files])
        return number

    def send(self, packet: bytes) -> None:
        self._socket.sendall(packet)

    def said(self, kind: Kind, about: Callable[[Packet], bool]) -> dict[str, Any]:
        """Wait for a packet, and return what it says."""
        while True:
            for packet in self._packets:
                if packet.kind is kind and about(packet):
                    self._packets.remove(packet)
                    return packet.body
            self._packets += self._unpacker.feed(self._socket.recv(1 << 16))

    def answer(self, number: int) -> dict[str, Any]:
        return self.said(Kind.ANSWER, lambda packet: packet.number == number)


@pytest.fixture
def keeper(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a keeper."""
    folder = tmp_path / "keeper"
    command = [sys.executable, "-m", "jupyter_sessions_ext.keeper", str(folder)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as keeper:
        try:
            wait_until((folder / "keeper.sock").exists, 10, "the keeper was there")
            yield keeper
        finally:
            keeper.kill()


@pytest.fixture
def wire(keeper: subprocess.Popen[bytes], tmp_path: Path) -> Iterator[Wire]:
    """Have a keeper keep a kernel that is nowhere, which it takes as heard."""
    with closing(Wire(tmp_path / "keeper")) as wire:
        wire.answer(wire.call("hello", limit=1 << 24, total=1 << 28, orphan_timeout=0))
        keep(wire, "kernel", NOWHERE)
        yield wire


def keep(wire: Wire, kernel: str, connection: dict[str, Any], **more: Any) -> dict[str, Any]:
    options = {"is_first": True, "is_new": False, "is_fed": False, "is_busy": True, "allowed": []}
    return wire.answer(wire.call("kernel", kernel=kernel, connection=connection, **options, **more))


@pytest.fixture
def delivery() -> Iterator[Delivery]:
    made = Delivery.create()
    made.begin(0)
    yield made
    made.close()


def attach(wire: Wire, delivery: Delivery, peer: socket.socket) -> int:
    files = delivery.file, peer.fileno()
    return wire.call("attach", *files, kernel="kernel", client="c", has_peer=True)


def test_the_server_is_told_of_what_was_forwarded_though_the_kernel_is_silent(
    wire: Wire, delivery: Delivery
) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        stream = wire.answer(attach(wire, delivery, ours))["stream"]
        for number in range(3):
            frames = [b"s", b'{"msg_id": "%d"}' % number, b"{}", b"{}", b"{}"]
            wire.send(pack(Kind.REQUEST, Channel.SHELL, stream, [b"<IDS|MSG>", *frames]))
            said = wire.said(Kind.NOTE, lambda packet: packet.body["op"] == "recorded")
            assert said["forwarded"] == {str(stream): 1}


def test_a_client_that_comes_twice_at_once_keeps_its_last_connection(
    wire: Wire, delivery: Delivery
) -> None:
    with ExitStack() as stack, socket.create_server(("127.0.0.1", 0)) as listener:

        def connected() -> tuple[socket.socket, socket.socket]:
            client = stack.enter_context(socket.create_connection(listener.getsockname()))
            return client, stack.enter_context(listener.accept()[0])

        _, old = connected()
        wire.answer(attach(wire, delivery, old))
        old.setblocking(False)
        with suppress(BlockingIOError):
            while old.send(bytes(1 << 16)):  # its client does not read
                pass
        first, second = connected(), connected()
        calls = [attach(wire, delivery, server) for _, server in (first, second)]
        streams = [wire.answer(number)["stream"] for number in calls]
        first[1].close()
        wire.send(pack_json(Kind.NOTE, op="detach", stream=streams[0]))
        wire.answer(wire.call("ping"))
        first[0].settimeout(10)
        assert first[0].recv(1) == b""
        second[0].setblocking(False)
        with pytest.raises(BlockingIOError):  # it was not hung up
            second[0].recv(1)


def test_a_client_of_a_kernel_of_which_it_is_not_known_where_it_is_is_refused(
    wire: Wire, delivery: Delivery
) -> None:
    assert "error" in keep(wire, "lost", {**NOWHERE, "transport": "none"})
    answer = wire.answer(
        wire.call("attach", delivery.file, kernel="lost", client="c", has_peer=False)
    )
    assert answer == {"error": "LookupError: there is no connection to kernel lost"}


def test_no_keeper_stays_for_a_kernel_that_had_ended_before_it_was_made_known(
    keeper: subprocess.Popen[bytes], wire: Wire
) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as kernel:
        kernel.wait(20)
    keep(wire, "kernel", NOWHERE, process={"pid": kernel.pid, "started": None})
    wire.close()
    assert keeper.wait(20) == 0
