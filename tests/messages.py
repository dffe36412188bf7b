"""What a client sends to a kernel over its websocket, and what comes back."""

from __future__ import annotations

import json
import time
from typing import Any
from uuid import uuid4

import websocket


class CellError(Exception):
    """The executed code raised an exception."""


def execute_request(code: str, session_id: str) -> dict[str, Any]:
    """Return the message that asks a kernel to run code, as a client's websocket sends it."""
    header = {
        "msg_id": uuid4().hex,
        "msg_type": "execute_request",
        "session": session_id,
        "username": "",
        "date": "",
        "version": "5.3",
    }
    content = {
        "code": code,
        "silent": False,
        "store_history": True,
        "user_expressions": {},
        "allow_stdin": False,
        "stop_on_error": True,
    }
    return {
        "channel": "shell",
        "header": header,
        "parent_header": {},
        "metadata": {},
        "content": content,
        "buffers": [],
    }


def run_cell(channels: websocket.WebSocket, request: dict[str, Any], deadline: float) -> str:
    """Send a request to execute code and return what that wrote to stdout.

    :param deadline: on the monotonic clock.
    :raises CellError: the code raised an exception.
    :raises TimeoutError: it did not end in time.
    :raises ConnectionError: the server closed the websocket.
    """
    stdout: list[str] = []
    error: CellError | None = None
    awaited = {"execute_reply", "idle"}
    channels.send(json.dumps(request))
    while awaited:
        channels.settimeout(max(deadline - time.monotonic(), 0.001))
        try:
            frame = channels.recv()
        except websocket.WebSocketTimeoutException:
            message = f"no {awaited} in time; stdout: {''.join(stdout)!r}"
            raise TimeoutError(message) from None
        if not frame:
            raise ConnectionError("the websocket was closed")
        reply = json.loads(frame)
        if reply["parent_header"].get("msg_id") != request["header"]["msg_id"]:
            continue
        kind, content = reply["header"]["msg_type"], reply["content"]
        if kind == "stream" and content["name"] == "stdout":
            stdout.append(content["text"])
        elif kind == "error":
            error = CellError(f"{content['ename']}: {content['evalue']}")
        awaited -= {kind, content.get("execution_state")}
    if error is not None:
        raise error
    return "".join(stdout)
