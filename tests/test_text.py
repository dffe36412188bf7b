"""A message that is passed on as it is says what jupyter_server's own text of it says."""

from __future__ import annotations

import json
from typing import Any

import pytest
from jupyter_client.jsonutil import json_default
from jupyter_client.session import Session

from jupyter_sessions_ext.kernels.text import Message

CONTENTS = [
    {"name": "stdout", "text": 'a "quoted" \\ line\n\u2028\x00 ünï 🚀'},
    {"data": {"text/plain": "1", "application/json": {"a": [1.5, None, True]}}},
    {},
]


@pytest.fixture
def session() -> Session:
    return Session(key=b"secret")


def frames_of(session: Session, content: dict[str, Any], **options: Any) -> list[bytes]:
    parent = session.msg("execute_request")
    message = session.msg("stream", content=content, parent=parent, metadata={"a": 1})
    return session.serialize({**message, **options})[1:]


@pytest.mark.parametrize("content", CONTENTS)
def test_it_says_the_same_as_the_text_of_jupyter_server(
    session: Session, content: dict[str, Any]
) -> None:
    frames = frames_of(session, content)
    expected = {**Session(key=b"secret").deserialize(frames), "channel": "iopub"}
    text = Message(session, frames).text("iopub")
    assert json.loads(text) == json.loads(json.dumps(expected, default=json_default))


def test_what_is_no_text_in_it_is_replaced(session: Session) -> None:
    frames = frames_of(session, {"text": "?"})
    frames[4] = b'{"text": "\xff"}'
    frames[0] = session.sign(frames[1:])
    assert json.loads(Message(session, frames).text("iopub"))["content"] == {"text": "\ufffd"}


@pytest.mark.parametrize(
    ("place", "frame"),
    [
        (0, b"another's signature"),
        (1, b'{"msg_id": "a", "msg_type": "stream", "date": "2026", "version": "4.1"}'),
        (1, b'{"msg_id": "a", "msg_type": "stream", "version": "5.3"}'),
        (1, b'{"msg_type": "stream", "date": "2026", "version": "5.3"}'),
        (2, b"[]"),
        (4, b'{"text": '),
        (5, b"a buffer"),
    ],
)
def test_what_cannot_be_passed_on_as_it_is_is_left_to_jupyter_server(
    session: Session, place: int, frame: bytes
) -> None:
    frames = frames_of(session, {"text": "a"})
    frames[place : place + 1] = [frame]
    if place:
        frames[0] = session.sign(frames[1:5])
    with pytest.raises(ValueError, match=r"."):
        Message(session, frames)


def test_a_session_of_another_packer_is_left_to_jupyter_server() -> None:
    session = Session(key=b"secret", packer="pickle", unpacker="pickle")
    with pytest.raises(ValueError, match="to be done"):
        Message(session, frames_of(session, {"text": "a"}))
