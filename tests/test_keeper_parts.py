"""The keeper's parts: what a client has, what it has sent, and how two accounts become one."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import socket
import struct
import threading
import time
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st
from jupyter_server.services.kernels.connection.base import (
    serialize_binary_message,
    serialize_msg_to_ws_v1,
)
from websocket import ABNF
from websocket._abnf import continuous_frame, frame_buffer

from jupyter_sessions_ext.errors import KeeperError, KeeperGoneError
from jupyter_sessions_ext.keeper import starter, supervisor
from jupyter_sessions_ext.keeper.backlog import Backlog
from jupyter_sessions_ext.keeper.channel import ServerLink
from jupyter_sessions_ext.keeper.delivery import CAPACITY, INPUT_SIZE, Delivery
from jupyter_sessions_ext.keeper.loop import Loop, Receiver
from jupyter_sessions_ext.keeper.memo import Memo
from jupyter_sessions_ext.keeper.messages import Connection
from jupyter_sessions_ext.keeper.protocol import Channel
from jupyter_sessions_ext.keeper.ring import Ring
from jupyter_sessions_ext.keeper.splice import Splice
from jupyter_sessions_ext.keeper.websocket_frames import NotAMessageError, requests

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jupyter_sessions_ext.keeper.channel import Feed


# ---------------------------------------------------------------------- delivery


@pytest.fixture
def delivery() -> Iterator[Delivery]:
    made = Delivery.create()
    yield made
    made.close()


def test_a_connection_that_has_not_begun_has_delivered_nothing_that_could_be_told(
    delivery: Delivery,
) -> None:
    assert delivery.delivered(1000) is None
    delivery.begin(7)
    assert delivery.delivered(1000) == 7


def test_what_is_wholly_within_the_acknowledged_bytes_is_delivered(delivery: Delivery) -> None:
    delivery.begin(7)
    for number, end in [(8, 100), (9, 250), (11, 251)]:
        delivery.write(number, end)
    sizes = [0, 99, 100, 249, 250, 251, 10**9]
    assert [delivery.delivered(size) for size in sizes] == [7, 7, 8, 8, 9, 11, 11]
    delivery.wrote(100)
    assert delivery.delivered(None) == 8


def test_what_was_noted_long_ago_is_delivered(delivery: Delivery) -> None:
    delivery.begin(0)
    for number in range(1, 2 * CAPACITY):
        delivery.write(number, 10 * number)
    assert delivery.delivered(10 * (CAPACITY + 100) + 9) == CAPACITY + 100


@given(
    st.lists(st.tuples(st.binary(max_size=INPUT_SIZE // 3), st.booleans()), max_size=12),
    st.binary(max_size=50),
    st.integers(0, 10**9),
)
@settings(deadline=None, max_examples=40)
def test_what_a_client_sent_and_was_not_handled_is_found_whole(
    pieces: list[tuple[bytes, bool]], unread: bytes, before: int
) -> None:
    delivery = Delivery.create()
    delivery.begin_input(before, b"")
    received, left = before, b""
    for piece, is_handled in pieces:
        delivery.take(piece)
        received += len(piece)
        left = b"" if is_handled else left + piece
        if is_handled:
            delivery.handle(delivery.taken)
    expected = left + unread if len(left) <= INPUT_SIZE else None
    assert delivery.unhandled(received, unread) == expected
    delivery.close()


def test_what_was_noted_and_never_taken_is_not_found_twice(delivery: Delivery) -> None:
    delivery.begin_input(100, b"ab")
    delivery.take(b"cdef")  # and killed before it was taken
    assert delivery.unhandled(100, b"cdef") == b"abcdef"
    assert delivery.unhandled(104, b"") == b"abcdef"


# ---------------------------------------------------------------------- what clients send

PARTS = st.tuples(*[st.dictionaries(st.text(), st.text() | st.integers())] * 4)


def frame(data: bytes, opcode: int, final: bool = True) -> bytes:
    made = ABNF.create_frame(data, opcode, int(final))
    return bytes(made.format())


@given(PARTS, st.lists(st.binary(max_size=200), max_size=3), st.sampled_from(Channel), st.data())
@settings(deadline=None)
def test_each_form_of_a_clients_message_is_understood_however_it_is_cut(
    parts: tuple[dict[str, object], ...],
    buffers: list[bytes],
    channel: Channel,
    data: st.DataObject,
) -> None:
    names = ("header", "parent_header", "metadata", "content")
    message = {**dict(zip(names, parts, strict=True)), "channel": channel.name.lower()}
    packed = [json.dumps(part).encode() for part in parts]
    forms = [
        (serialize_msg_to_ws_v1([*packed, *buffers], channel.name.lower()), ABNF.OPCODE_BINARY),
        (serialize_binary_message({**message, "buffers": buffers}), ABNF.OPCODE_BINARY),
    ]
    if not buffers:
        forms.append((json.dumps(message).encode(), ABNF.OPCODE_TEXT))
    for text, opcode in forms:
        cut = data.draw(st.integers(0, len(text)))
        whole = frame(text, opcode)
        pieces = (
            frame(text[:cut], opcode, final=False)
            + frame(b"still there?", ABNF.OPCODE_PING)
            + frame(text[cut:], ABNF.OPCODE_CONT)
        )
        end = frame(struct.pack("!H", 1000), ABNF.OPCODE_CLOSE)
        for sent in (whole + end, pieces + end, pieces + whole[:-1]):
            [found] = requests(sent)
            assert found.channel is channel
            assert [json.loads(part) for part in found.parts[:4]] == list(parts)
            assert found.parts[4:] == buffers


@given(st.binary(max_size=300))
def test_what_is_no_message_is_refused_or_waited_for(data: bytes) -> None:
    for sent in (data, frame(data, ABNF.OPCODE_TEXT), frame(data, ABNF.OPCODE_BINARY)):
        with suppress(NotAMessageError):
            for request in requests(sent):
                assert request.channel in Channel


def fragments(text: bytes, cuts: list[int]) -> bytes:
    """Return frames of a text that is cut at these places, with a ping after each but the last."""
    places = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    pieces = [text[start:end] for start, end in pairwise(places)]
    opcodes = [ABNF.OPCODE_TEXT, *[ABNF.OPCODE_CONT] * len(cuts)]
    ping = frame(b"still there?", ABNF.OPCODE_PING)
    return ping.join(
        frame(piece, opcode, final=number == len(cuts))
        for number, (piece, opcode) in enumerate(zip(pieces, opcodes, strict=True))
    )


def read_by_another(data: bytes) -> Iterator[bytes]:
    """Yield the messages in a websocket's bytes as the package websocket-client reads them."""
    source, parts = io.BytesIO(data), continuous_frame(False, True)
    frames = frame_buffer(source.read, skip_utf8_validation=True)
    while source.tell() < len(data):
        found = frames.recv_frame()
        if found.opcode in (ABNF.OPCODE_TEXT, ABNF.OPCODE_CONT):
            parts.validate(found)
            parts.add(found)
            if parts.is_fire(found):
                yield parts.extract(found)[1].data


@given(st.lists(st.tuples(st.text(max_size=300), st.lists(st.integers(0), max_size=30))))
@settings(deadline=None)
def test_messages_are_read_as_another_implementation_reads_them(
    messages: list[tuple[str, list[int]]],
) -> None:
    whole: dict[str, object] = {name: {} for name in ("header", "parent_header", "metadata")}
    texts = [json.dumps({**whole, "content": text}).encode() for text, _ in messages]
    sent = b"".join(fragments(text, cuts) for text, (_, cuts) in zip(texts, messages, strict=True))
    assert [*read_by_another(sent)] == texts
    assert [json.loads(found.parts[3]) for found in requests(sent)] == [t for t, _ in messages]


def test_the_time_for_a_message_in_fragments_of_one_byte_grows_with_its_size_alone() -> None:
    def seconds(size: int) -> float:
        piece = frame(b" ", ABNF.OPCODE_CONT, final=False)
        sent = frame(b"", ABNF.OPCODE_TEXT, final=False) + piece * size
        sent += frame(b"{}", ABNF.OPCODE_CONT)
        began = time.thread_time()
        with pytest.raises(NotAMessageError, match="header"):
            next(requests(sent))
        return time.thread_time() - began

    assert seconds(600_000) < 8 * seconds(150_000)  # 14 times that with what is quadratic


@pytest.mark.parametrize("is_v1", [False, True])
def test_parts_that_overlap_are_refused(is_v1: bool) -> None:
    count, size = 1000, 1 << 16
    offsets = [0, size] * (count // 2)
    if is_v1:
        text = struct.pack(f"<{count + 1}Q", count, *offsets)
    else:
        text = struct.pack(f"!{count + 1}I", count, *offsets)
    with pytest.raises(NotAMessageError, match="overlap"):
        next(requests(frame(text.ljust(size), ABNF.OPCODE_BINARY)))


# ---------------------------------------------------------------------- two accounts


def message(number: int) -> list[bytes]:
    header = json.dumps({"msg_id": f"{number}", "msg_type": "stream"}).encode()
    return [b"signature %d" % number, header, b"{}", b"{}", b"%d" % number]


@given(
    recorded=st.integers(0, 20),
    fed_from=st.integers(0, 20),
    heard_from=st.integers(0, 30),
    count=st.integers(0, 40),
    order=st.lists(st.booleans(), max_size=120),
)
@settings(deadline=None, max_examples=300)
def test_what_two_have_heard_is_put_together_without_a_gap_and_nothing_comes_twice(
    tmp_path_factory: pytest.TempPathFactory,
    recorded: int,
    fed_from: int,
    heard_from: int,
    count: int,
    order: list[bool],
) -> None:
    """One keeper has recorded, the server was there before its end, the next keeper comes later."""
    ring = Ring(tmp_path_factory.mktemp("ring"), 1 << 20)
    ring.append([(Channel.IOPUB, b"", message(n)) for n in range(recorded)])
    total = max(recorded, count)
    fed = [message(n) for n in range(min(fed_from, recorded), total)]
    heard = [message(n) for n in range(min(heard_from, total), total)]
    splice = Splice(ring)
    found: list[int] = []
    for takes_fed in [*order, *[True] * total, *[False] * total]:
        source, take = (fed, splice.feed) if takes_fed else (heard, splice.hear)
        if source:
            found += [int(frames[4]) for frames in take([source.pop(0)])]
    found += [int(frames[4]) for frames in splice.give_up()]
    assert found == [*range(recorded, total)]


def test_two_accounts_of_which_it_was_given_up_that_they_meet_are_compared_no_more(
    tmp_path: Path,
) -> None:
    splice = Splice(Ring(tmp_path / "ring", 1 << 20))
    splice.feed([message(1), message(2)])
    splice.hear([message(5)])
    assert splice.give_up() == [message(5)]
    assert splice.is_over


@given(st.lists(st.one_of(st.just("hear"), st.integers(1, 10))))
def test_the_server_keeps_what_the_keeper_has_not_recorded_and_no_more(
    steps: list[str | int],
) -> None:
    backlog = Backlog(1 << 20)
    heard = recorded = 0
    for step in steps:
        if step == "hear":
            backlog.add(message(heard))
            heard += 1
        else:
            recorded += int(step)
            backlog.recorded(message(recorded - 1)[0])
        if recorded <= heard:
            kept = [int(frames[4]) for frames in backlog.messages()]
            assert kept == [*range(recorded, heard)]


def test_a_backlog_is_limited() -> None:
    backlog = Backlog(200)
    for number in range(50):
        backlog.add(message(number))
    assert [int(frames[4]) for frames in backlog.messages()][-1] == 49
    assert len(backlog.messages()) < 5


# ---------------------------------------------------------------------- memo, connection


def test_what_is_noted_of_a_client_is_read_by_the_next_keeper(tmp_path: Path) -> None:
    memo = Memo(tmp_path, "kernel", "clïent".encode(), 5, {"a": "x", "b": "y"})
    memo.write()
    memo.received, memo.pending = 7, {"b": "y"}
    memo.write()
    [path] = Memo.all(tmp_path)
    loaded = Memo.load(path)
    assert (loaded.kernel_id, loaded.client, loaded.received, loaded.pending) == (
        "kernel", "clïent".encode(), 7, {"b": "y"},
    )  # fmt: skip
    assert path.stat().st_mode & 0o777 == 0o600
    memo.remove()
    assert [*Memo.all(tmp_path)] == []


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"{}", b'{"kernel": 1, "client": 2}', b"\xff"])
def test_a_memo_that_is_none_is_refused(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "x.client"
    path.write_bytes(text)
    with pytest.raises(ValueError, match=r"JSON|Expecting|no memo|utf-8"):
        Memo.load(path)


def test_no_key_is_shown() -> None:
    info = {"transport": "tcp", "ip": "127.0.0.1", "key": "s3cret"}
    ports = {f"{name}_port": 1 for name in ("iopub", "shell", "stdin", "control")}
    assert "s3cret" not in repr(Connection.of({**info, **ports}))


# ---------------------------------------------------------------------- loop


def test_of_more_than_may_wait_the_oldest_is_given_up_and_the_rest_is_received_in_order() -> None:
    loop, received, handled = Loop(print), list[int](), list[int]()

    def give_up(small: list[list[bytes]], large: int) -> None:
        assert small == []
        handled.extend(range(len(handled), len(handled) + len(small) + large))

    def receive(messages: list[list[bytes]]) -> None:
        received.extend(int(number) for number, _ in messages)
        handled.extend(int(number) for number, _ in messages)
        if handled[-1] == 79:
            loop.stop()

    with zmq.Context() as context, context.socket(zmq.PAIR) as ours, context.socket(zmq.PAIR) as it:
        it.sndhwm = ours.rcvhwm = 0
        ours.bind("inproc://flood")
        it.connect("inproc://flood")
        for number in range(80):
            it.send_multipart([b"%d" % number, bytes(500_000)])
        receiver = Receiver(loop, ours, receive, give_up, lambda: 4_000_000)
        assert receiver.is_behind
        loop.run()
        receiver.close()
    assert handled == [*range(80)]
    assert received[-7:] == [*range(73, 80)]
    assert len(received) < 40


# ---------------------------------------------------------------------- supervisor


@pytest.mark.parametrize("is_greeted", [False, True])
async def test_a_connection_that_is_made_when_the_server_stops_is_closed(
    is_greeted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_connecting, go_on = threading.Event(), threading.Event()
    ours, keepers = socket.socketpair()
    keepers.settimeout(10)

    def connect(folder: Path, timeout: float) -> socket.socket:
        is_connecting.set()
        go_on.wait(10)
        return ours

    monkeypatch.setattr(starter, "connect", connect)
    log = logging.getLogger(__name__)
    keeper = supervisor.Supervisor(tmp_path, log, limit=1, total=1, orphan_timeout=0)
    keeper.keep("a", connection={}, process=None, is_new=True, is_busy=False, allowed=[])
    with keepers:
        if is_greeted:
            go_on.set()
            assert await asyncio.to_thread(keepers.recv, 1 << 16)
        else:
            await asyncio.to_thread(is_connecting.wait, 10)
        keeper.forget("a", has_transcript=False)  # else it is waited for
        closing = asyncio.ensure_future(keeper.close())
        asyncio.get_running_loop().call_soon(go_on.set)
        await closing
        assert ours.fileno() < 0
        while await asyncio.to_thread(keepers.recv, 1 << 16):
            pass
        with pytest.raises(KeeperError, match="the server stops"):
            await keeper.attach(cast("Feed", None), "a", "client", delivery=0)


async def test_a_call_on_a_link_that_has_ended_is_refused(tmp_path: Path) -> None:
    ours, keepers = socket.socketpair()
    link = ServerLink(logging.getLogger(__name__), ours, {}, lambda _: None, lambda *_: None)
    keepers.close()
    link.close()
    file = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(KeeperGoneError):
        await asyncio.wait_for(link.call("attach", [file]), 5)
    with pytest.raises(OSError, match="descriptor"):
        os.fstat(file)
