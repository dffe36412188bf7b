"""What is missing at the end of a cell is made of what is there, whatever a kernel sends."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import zmq

from jupyter_sessions_ext.keeper import endpoint as endpoint_module
from jupyter_sessions_ext.keeper.client import Client
from jupyter_sessions_ext.keeper.endpoint import Endpoint
from jupyter_sessions_ext.keeper.finish import Finisher, IdleWatch
from jupyter_sessions_ext.keeper.loop import Loop, Timer
from jupyter_sessions_ext.keeper.memo import Memo
from jupyter_sessions_ext.keeper.messages import Connection
from jupyter_sessions_ext.keeper.protocol import Channel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path


class Later(Loop):
    """A loop on which what is to come later comes when it is told to."""

    def __init__(self) -> None:
        super().__init__(print)
        self.waiting: list[Callable[[], object]] = []

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        self.waiting.append(callback)
        return Timer(callback)

    def pass_time(self) -> None:
        waiting, self.waiting = self.waiting, []
        for callback in waiting:
            callback()


def part(kind: str, asked: str, **content: object) -> list[bytes]:
    header = {"msg_id": f"{kind} of {asked}", "msg_type": kind, "session": "kernel"}
    packed = [json.dumps(p).encode() for p in (header, {"msg_id": asked}, {}, content)]
    return [b"signature", *packed]


@pytest.fixture
def dropped() -> tuple[IdleWatch, Later, list[list[bytes]]]:
    """Return a watch whose kernel answers at once, its loop, and what it finds missing."""
    loop, found = Later(), list[list[bytes]]()
    watch = IdleWatch(loop, lambda answered: answered(), found.extend, lambda p: [b"s", *p])
    return watch, loop, found


def test_a_cell_whose_end_the_kernel_has_dropped_ends(
    dropped: tuple[IdleWatch, Later, list[list[bytes]]],
) -> None:
    watch, loop, found = dropped
    watch.reply(part("execute_reply", "a", status="ok"))
    for _ in range(3):
        loop.pass_time()
    kinds = [(json.loads(f[1])["msg_type"], json.loads(f[2])["msg_id"]) for f in found]
    assert kinds == [("stream", "a"), ("status", "a")]
    assert json.loads(found[1][4]) == {"execution_state": "idle"}
    assert {json.loads(f[1])["session"] for f in found} == {"kernel"}


@pytest.mark.parametrize("order", ["before the reply", "after it", "while the kernel is asked"])
def test_a_cell_that_has_ended_is_left_alone(
    dropped: tuple[IdleWatch, Later, list[list[bytes]]], order: str
) -> None:
    watch, loop, found = dropped
    idle = part("status", "a", execution_state="idle")
    if order == "before the reply":
        watch.publish(idle)
    watch.reply(part("execute_reply", "a", status="ok"))
    if order == "after it":
        watch.publish(idle)
    loop.pass_time()
    if order == "while the kernel is asked":
        watch.publish(idle)
    for _ in range(3):
        loop.pass_time()
    assert found == []


def test_a_cell_whose_end_may_be_among_what_waits_is_not_ended() -> None:
    loop, found, behind = Later(), list[list[bytes]](), [True, True, False]
    watch = IdleWatch(
        loop, lambda answered: answered(), found.extend, lambda p: [b"s", *p], lambda: behind.pop(0)
    )
    watch.reply(part("execute_reply", "a", status="ok"))
    while behind:
        assert found == []
        loop.pass_time()
    assert len(found) == 2


# ---------------------------------------------------------------------- what a keeper has missed


class Asked:
    """A client that has asked for something over a keeper that was killed."""

    def __init__(self, folder: Path, context: zmq.Context[zmq.Socket[bytes]], *asked: str) -> None:
        self.loop = Later()
        self.replies: list[tuple[Channel, bytes, Sequence[bytes]]] = []
        memo = Memo(folder, "kernel", b"client", 0, dict.fromkeys(asked, "name"))
        client = Client(Endpoint(self.loop, context), memo, self.replies.extend)
        self.finisher = Finisher(self.loop, [client], lambda parts: [b"signed", *parts])

    def sees(self, *messages: list[bytes]) -> None:
        for message in messages:
            self.finisher.see(message)

    @property
    def replied(self) -> list[tuple[str, dict[str, Any]]]:
        """Return what was replied to which request."""
        self.loop.pass_time()
        assert {(channel, client) for channel, client, _ in self.replies} <= {
            (Channel.SHELL, b"client")
        }
        found = [frames for _, _, frames in self.replies]
        return [(json.loads(frames[2])["msg_id"], json.loads(frames[4])) for frames in found]


@pytest.fixture
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    with zmq.Context[zmq.Socket[bytes]]() as context:
        yield context


BUSY = part("status", "a", execution_state="busy")
IDLE = part("status", "a", execution_state="idle")
INPUT = part("execute_input", "a", code="", execution_count=3)
OK = {"status": "ok", "execution_count": 3, "user_expressions": {}, "payload": []}


@pytest.fixture
def asked(tmp_path: Path, context: zmq.Context[zmq.Socket[bytes]]) -> Asked:
    return Asked(tmp_path, context, "a")


def test_a_cell_that_is_idle_without_a_reply_is_replied_to_once(asked: Asked) -> None:
    asked.sees(BUSY, INPUT)
    assert asked.replied == []
    asked.sees(IDLE, IDLE)
    assert asked.replied == [("a", OK)]
    assert asked.replied == [("a", OK)]


def test_an_error_is_that_of_the_reply(asked: Asked) -> None:
    said = {"ename": "ValueError", "evalue": "x", "traceback": ["t"]}
    asked.sees(INPUT, part("error", "a", **said), IDLE)
    assert asked.replied == [("a", {**said, "status": "error", "execution_count": 3})]


def test_what_was_no_execution_is_not_replied_to(asked: Asked) -> None:
    asked.sees(BUSY, IDLE)
    assert asked.replied == []


def raw(kind: str, content: bytes) -> list[bytes]:
    return [*part(kind, "a")[:4], content]


ODD = {
    "output that is no UTF-8": raw("stream", b'{"name": "stdout", "text": "\xff\xfe"}'),
    "code that is no UTF-8": raw("execute_input", b'{"code": "\xff", "execution_count": 3}'),
    "output that is a list": raw("stream", b"[1]"),
    "an error that is a list": raw("error", b"[1]"),
    "a state that is a list": raw("status", b"[]"),
    "a state that is no JSON": raw("status", b"idle"),
    "what is nested": raw("execute_result", 100_000 * b"[" + 100_000 * b"]"),
    "a header that is a list": [b"", b"[]", *part("stream", "a")[2:]],
    "a header that is no JSON": [b"", b"\xff", *part("stream", "a")[2:]],
    "output that looks like a state": part("display_data", "a", execution_state="idle"),
}


@pytest.mark.parametrize("odd", ODD)
def test_whatever_else_a_kernel_publishes_its_cell_is_replied_to(asked: Asked, odd: str) -> None:
    asked.sees(BUSY, INPUT, ODD[odd])
    assert asked.replied == []
    asked.sees(IDLE)
    [(request, reply)] = asked.replied
    assert (request, reply["execution_count"]) == ("a", 3)


def test_a_cell_whose_number_is_not_told_is_replied_to_without(asked: Asked) -> None:
    asked.sees(raw("execute_input", b'{"code": ""}'), IDLE)
    assert asked.replied == [("a", {**OK, "execution_count": None})]


def test_a_cell_that_had_begun_and_is_over_as_a_later_answer_shows_is_replied_to(
    tmp_path: Path, context: zmq.Context[zmq.Socket[bytes]]
) -> None:
    asked = Asked(tmp_path, context, "a", "later")
    asked.sees(BUSY, INPUT)
    begun = asked.finisher.begun
    asked.sees(part("status", "later", execution_state="busy"))
    asked.finisher.end(begun)
    assert asked.replied == [("a", OK)]


# ---------------------------------------------------------------------------- a question is put


def test_questions_are_answered_in_order_however_long_that_takes(
    tmp_path: Path, context: zmq.Context[zmq.Socket[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint_module, "NUDGE_TIMEOUT", 0.01)
    loop = Loop(print)
    endpoint = Endpoint(loop, context)
    endpoint.connection = Connection("ipc", str(tmp_path / "k"), (1, 2, 3, 4), b"", "hmac-sha256")
    answered = list[str]()
    with context.socket(zmq.ROUTER) as kernel:
        kernel.rcvtimeo = 10_000
        kernel.bind(endpoint.connection.url(Channel.SHELL))
        for name in ("first", "second"):
            endpoint.ask(lambda name=name: answered.append(name))  # type: ignore[misc]
        loop.call_later(0.1, loop.stop)
        loop.run()
        for number in (1, 2):
            kernel.send_multipart(kernel.recv_multipart())
            loop.call_later(0.1, loop.stop)
            loop.run()
            assert answered == ["first", "second"][:number]
        endpoint.ask(lambda: answered.append("never"))
        question = kernel.recv_multipart()
        endpoint.lose()
        kernel.send_multipart(question)
        loop.call_later(0.1, loop.stop)
        loop.run()
    assert len(answered) == 2
