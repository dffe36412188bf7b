"""What the keeper knows of a client, whatever that sends and whatever the disk is like."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
import zmq
from websocket import ABNF

from jupyter_sessions_ext.keeper import client as clients
from jupyter_sessions_ext.keeper import process as processes
from jupyter_sessions_ext.keeper import stream as streams
from jupyter_sessions_ext.keeper.client import Client, Connected
from jupyter_sessions_ext.keeper.delivery import Delivery
from jupyter_sessions_ext.keeper.endpoint import Endpoint
from jupyter_sessions_ext.keeper.kernels import Kernels
from jupyter_sessions_ext.keeper.loop import Loop
from jupyter_sessions_ext.keeper.memo import Memo
from jupyter_sessions_ext.keeper.messages import DELIMITER, Connection
from jupyter_sessions_ext.keeper.peer import Peer
from jupyter_sessions_ext.keeper.process import KernelProcess
from jupyter_sessions_ext.keeper.protocol import Channel, Kind, Unpacker, unpack_records
from jupyter_sessions_ext.keeper.ring import Ring, folder_name
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
        self.recorded: list[Channel] = []
        self.client = Client(endpoint, Memo(folder, "kernel", b"client", 0, {}), self._record)
        reader = Ring(folder / "ring", 1 << 16).reader(1)
        self.stream = Stream(1, reader, lambda _: None, self.loop.call_later)
        self.delivery = Delivery.create()

    def _record(self, messages: list[tuple[Channel, bytes, Sequence[bytes]]]) -> None:
        self.recorded += [channel for channel, _, _ in messages]

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


@pytest.mark.parametrize("channel", [Channel.SHELL, Channel.CONTROL])
def test_a_reply_is_waited_for_until_it_is_there(known: Known, channel: Channel) -> None:
    known.client.send(channel, WHOLE)
    assert [*known.client.memo.pending] == ["a"]
    known.client.detach()
    known.client.replied(Channel.STDIN, [[b"s", b"{}", HEADER, b"{}", b"{}"]])
    assert not known.client.is_away
    known.client.replied(channel, [[b"s", b"{}", HEADER, b"{}", b"{}"]])
    assert known.client.is_away


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


def kernels(folder: Path) -> Kernels:
    def ignore(*_: object) -> None:
        pass

    return Kernels(
        folder, Loop(print), recorded=ignore, forwarded=ignore, spliced=ignore, ended=ignore
    )


def test_where_nothing_can_be_noted_of_a_client_it_is_known_all_the_same(
    tmp_path: Path, context: zmq.Context[zmq.Socket[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zmq, "Context", lambda _: context)  # one that is ended with the test
    kept = kernels(tmp_path)
    kernel = kept.keep("kernel", is_new=True, is_fed=False)
    (tmp_path / "clients").rmdir()
    (tmp_path / "clients").touch()
    assert kept.client(kernel, b"client") is kept.client(kernel, b"client")
    kept.drop("kernel", has_transcript=True)


def test_what_a_client_has_sent_is_taken_once_and_what_it_goes_on_to_send_is_dropped() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname(), 5) as browser,
        ThreadPoolExecutor(1) as pool,
    ):
        accepted = listener.accept()[0]
        browser.sendall(b"handled, and unread")
        assert accepted.recv(8) == b"handled,"
        peer = Peer(accepted.detach())
        assert peer.take_unread() == (8, b" and unread")
        sent = pool.submit(browser.sendall, bytes(40 << 20))
        looks = 0
        while not sent.done():
            peer.look()
            looks += 1
        sent.result()
        peer.look()
        assert looks >= 4
        assert peer.take_unread() == (19 + (40 << 20), b"")
        peer.close()


def test_a_client_that_is_ahead_of_its_ring_gets_what_comes(
    tmp_path: Path, context: zmq.Context[zmq.Socket[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zmq, "Context", lambda _: context)
    kernel = kernels(tmp_path).keep("kernel", is_new=True, is_fed=False)
    folder = tmp_path / "clients" / folder_name("kernel")
    folder.mkdir(parents=True)
    Memo(folder, "kernel", b"client", 5000, {}).write()
    kernel.ring.close()
    successor = kernels(tmp_path)
    kernel = successor.keep("kernel", is_new=False, is_fed=False)
    assert successor.client(kernel, b"client").memo.received == 0


def test_no_more_is_kept_of_all_than_may_be_however_many_there_are(
    tmp_path: Path, context: zmq.Context[zmq.Socket[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zmq, "Context", lambda _: context)
    kept = kernels(tmp_path)
    kept.set_limits(1 << 20, 1 << 18)
    for number in range(20):
        kernel = kept.keep(str(number), is_new=True, is_fed=False)
        for _ in range(10):
            kernel.record([(Channel.IOPUB, b"", [b"s", b"{}", b"{}", b"{}", bytes(10_000)])])
    assert sum(file.stat().st_size for file in tmp_path.rglob("*.ring")) <= 1 << 18
    assert kernel.ring.next == 11


class Files:
    """A ring of several files, one of which cannot be read for a while, and what a stream sends."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.fails = True
        self._open = os.open
        self._ring = Ring(folder, 1 << 20)
        for _ in range(60):
            self._ring.append([(Channel.IOPUB, b"", [b"s", b"{}", b"{}", b"{}", bytes(5000)])])
        monkeypatch.setattr(os, "open", self._open_or_fail)
        self._sent = list[bytes]()
        self.later = list[Callable[[], object]]()
        reader = self._ring.reader(1)
        self.stream = Stream(
            1, reader, self._sent.append, lambda _, callback: self.later.append(callback)
        )

    def _open_or_fail(self, path: Any, *args: Any, **kwargs: Any) -> int:
        if self.fails and str(path).endswith("/00000000000000000001.ring"):
            raise OSError(errno.EMFILE, "injected")
        return self._open(path, *args, **kwargs)

    @property
    def sent(self) -> tuple[list[int], list[dict[str, Any]]]:
        """The numbers of the records, and the notes."""
        unpacker = Unpacker()
        packets = [packet for data in self._sent for packet in unpacker.feed(data)]
        streams = (packet.frames[0] for packet in packets if packet.kind is Kind.STREAM)
        numbers = [record.number for data in streams for record in unpack_records(data)]
        return numbers, [packet.body for packet in packets if packet.kind is Kind.NOTE]


def test_when_there_are_no_descriptors_for_a_moment_nothing_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = Files(tmp_path / "ring", monkeypatch)
    files.stream.pump()
    for _ in range(3):
        [again] = files.later
        files.later.clear()
        again()
    files.fails = False
    files.later.pop()()
    files.stream.passed_on(1 << 20)
    assert files.sent == ([*range(1, 61)], [])
    assert files.later == []


def test_of_a_file_that_can_never_be_read_it_is_said_how_many_messages_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "RETRY_TIMEOUT", -1.0)
    files = Files(tmp_path / "ring", monkeypatch)
    files.stream.pump()
    files.later.pop()()
    files.stream.passed_on(1 << 20)
    numbers, [note] = files.sent
    assert numbers == [*range(note["count"] + 1, 61)]
    assert 20 < note["count"] < 40


def test_a_process_is_not_ended_any_more_when_it_was_let_go_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(processes, "_STEPS", ((0.01, signal.SIGKILL),))
    loop = Loop(print)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        process = KernelProcess(loop, child.pid, None, print)
        process.end()
        process.close()
        loop.call_later(0.1, loop.stop)
        loop.run()
        assert child.poll() is None
        child.communicate(b"\n")
    assert child.returncode == 0


def test_what_was_replied_to_is_known_though_its_keeper_could_not_note_it(
    tmp_path: Path, context: zmq.Context[zmq.Socket[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zmq, "Context", lambda _: context)
    kept = kernels(tmp_path)
    kernel = kept.keep("kernel", is_new=True, is_fed=False)
    memo = kept.client(kernel, b"client").memo
    memo.asks("replied", "name")
    memo.asks("open", "name")
    reply = [b"s", b'{"msg_type": "execute_reply"}', b'{"msg_id": "replied"}', b"{}", b"{}"]
    kernel.record([(Channel.SHELL, b"client", reply)])
    successor = kernels(tmp_path).keep("kernel", is_new=False, is_fed=False)
    successor.finish_pending()
    assert [*successor.clients[b"client"].memo.pending] == ["open"]


def test_what_may_ask_a_question_is_forwarded_when_that_would_be_received_and_the_rest_after_it(
    known: Known, context: zmq.Context[zmq.Socket[bytes]]
) -> None:
    """A kernel that starts binds one socket after another, and drops what it cannot address."""
    where = known.client._kernel.connection
    assert where is not None
    asks = [*WHOLE[:-1], b'{"allow_stdin": true}']
    follows = [*WHOLE[:2], b'{"msg_id": "b"}', *WHOLE[3:]]
    with context.socket(zmq.ROUTER) as shell, context.socket(zmq.ROUTER) as stdin:
        shell.bind(where.url(Channel.SHELL))
        for frames in (asks, follows):
            known.client.send(Channel.SHELL, frames)
        known.run()
        assert not shell.poll(100)
        stdin.bind(where.url(Channel.STDIN))
        received = [shell.recv_multipart() for _ in range(2) if until(known, shell)]
        assert [message[1:] for message in received] == [asks, follows]
        stdin.send_multipart([received[0][0], *WHOLE])
        for _ in range(1000):
            known.run()
            if known.recorded:
                break
    assert known.recorded == [Channel.STDIN]


def test_a_kernel_that_asks_nothing_is_sent_all_the_same(
    known: Known, context: zmq.Context[zmq.Socket[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "ASK_TIMEOUT", 0.1)
    where = known.client._kernel.connection
    assert where is not None
    with context.socket(zmq.ROUTER) as shell:
        shell.bind(where.url(Channel.SHELL))
        known.client.send(Channel.SHELL, [*WHOLE[:-1], b'{"allow_stdin": true}'])
        assert until(known, shell)


def test_what_interrupts_a_kernel_does_not_wait_until_it_can_ask_something(
    known: Known, context: zmq.Context[zmq.Socket[bytes]]
) -> None:
    where = known.client._kernel.connection
    assert where is not None
    known.client.attach(known.stream, Connected(None, known.delivery))
    with context.socket(zmq.ROUTER) as control, context.socket(zmq.ROUTER) as stdin:
        control.bind(where.url(Channel.CONTROL))
        known.client.send(Channel.SHELL, [*WHOLE[:-1], b'{"allow_stdin": true}'])
        known.client.send(Channel.CONTROL, [*WHOLE[:2], b'{"msg_id": "b"}', *WHOLE[3:]])
        assert until(known, control)
        assert known.client.unconfirmed == 0, (
            "the server forgets messages in the order they came in"
        )
        stdin.bind(where.url(Channel.STDIN))
        for _ in range(1000):
            known.run()
            if known.client.unconfirmed:
                break
    assert known.client.unconfirmed == 2


def test_an_answer_waits_for_as_long_as_it_takes_and_not_for_another_process(
    known: Known, context: zmq.Context[zmq.Socket[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "ASK_TIMEOUT", 0.0)
    where = known.client._kernel.connection
    assert where is not None
    known.client.attach(known.stream, Connected(None, known.delivery))
    answers = [[*WHOLE[:2], b'{"msg_id": "%d"}' % number, *WHOLE[3:]] for number in range(2)]
    with context.socket(zmq.ROUTER) as stdin:
        known.client.send(Channel.STDIN, answers[0])
        known.run()
        assert known.client.unconfirmed == 0
        known.client.begin_anew()
        assert known.client.unconfirmed == 1
        known.client.send(Channel.STDIN, answers[1])
        known.run()
        stdin.bind(where.url(Channel.STDIN))
        assert until(known, stdin)
        assert stdin.recv_multipart()[1:] == answers[1]


def until(known: Known, socket: zmq.Socket[bytes]) -> bool:
    """Run until something has come on a socket."""
    for _ in range(1000):
        known.run()
        if socket.poll(0):
            return True
    return False
