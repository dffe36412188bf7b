"""What the keeper knows of a client, whatever that sends and whatever the disk is like."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING

import pytest
import zmq
from websocket import ABNF

from jupyter_sessions_ext.keeper.client import Client, Connected
from jupyter_sessions_ext.keeper.delivery import Delivery
from jupyter_sessions_ext.keeper.endpoint import Endpoint
from jupyter_sessions_ext.keeper.kernels import Kernels
from jupyter_sessions_ext.keeper.loop import Loop
from jupyter_sessions_ext.keeper.memo import Memo
from jupyter_sessions_ext.keeper.messages import DELIMITER, Connection
from jupyter_sessions_ext.keeper.peer import Peer
from jupyter_sessions_ext.keeper.protocol import Channel
from jupyter_sessions_ext.keeper.ring import Ring
from jupyter_sessions_ext.keeper.stream import Stream

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HEADER = json.dumps({"msg_id": "a", "msg_type": "execute_request"}).encode()
WHOLE = [DELIMITER, b"signature", HEADER, b"{}", b"{}", b"{}"]


class Known:
    """A client of a kernel that nobody listens for: it is heard, and takes all."""

    def __init__(self, folder: Path, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        self.logged: list[str] = []
        self.loop = Loop(self.logged.append)
        endpoint = Endpoint(self.loop, context)
        endpoint.connection = Connection(
            "ipc", str(folder / "kernel"), (1, 2, 3, 4), b"key", "hmac-x"
        )
        endpoint.hear()
        self.client = Client(endpoint, Memo(folder, "kernel", b"client", 0, {}), lambda _: None)
        reader = Ring(folder / "ring", 1 << 16).reader(1)
        self.stream = Stream(1, reader, lambda _: None)
        self.delivery = Delivery.create()

    def run(self) -> None:
        self.loop.call_later(0.01, self.loop.stop)
        self.loop.run()


@pytest.fixture
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    with zmq.Context[zmq.Socket[bytes]]() as context:
        yield context


@pytest.fixture
def known(tmp_path: Path, context: zmq.Context[zmq.Socket[bytes]]) -> Iterator[Known]:
    known = Known(tmp_path, context)
    yield known
    known.client.close()


def test_the_server_is_told_of_each_message_that_came_also_of_what_is_none(known: Known) -> None:
    """It counts them; what is still to be sent, as it thinks, it sends to the next keeper again."""
    known.client.attach(known.stream, Connected(None, known.delivery))
    known.client.send(Channel.IOPUB, WHOLE)
    for frames in ([], [DELIMITER], WHOLE[:-1], [*WHOLE[:2], b"\xff", *WHOLE[3:]], WHOLE, WHOLE):
        known.client.send(Channel.SHELL, frames)
    assert known.client.unconfirmed == 7


def test_whatever_a_client_had_sent_it_is_let_go_of_and_may_come_back(known: Known) -> None:
    text = '{"header": {}, "parent_header": {}, "metadata": {}, "content": {}}'
    sent = ABNF.create_frame(text, ABNF.OPCODE_TEXT).format()
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname(), 5) as browser,
    ):
        browser.sendall(sent)
        peer = Peer(listener.accept()[0].detach())
        known.delivery.begin_input(0, b"")
        known.client.attach(known.stream, Connected(peer, known.delivery))
        known.client.detach()
        came_back = list[bool]()
        known.client.when_settled(lambda: came_back.append(True), 5)
        known.run()
        assert came_back == [True]
        # The kernel's scheme is unknown, so that nothing can be signed for it.
        assert [text.splitlines()[-1].split(":")[0] for text in known.logged] == ["AttributeError"]
        assert browser.recv(1) == b""


def test_where_nothing_can_be_noted_of_a_client_it_is_known_all_the_same(
    tmp_path: Path, context: zmq.Context[zmq.Socket[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zmq, "Context", lambda _: context)  # one that is ended with the test
    kernels = Kernels(tmp_path, Loop(print), recorded=print, spliced=print, ended=print)
    kernel = kernels.keep("kernel", is_new=True, is_fed=False)
    (tmp_path / "clients").rmdir()
    (tmp_path / "clients").touch()
    assert kernels.client(kernel, b"client") is kernels.client(kernel, b"client")
    kernels.drop("kernel", has_transcript=True)
