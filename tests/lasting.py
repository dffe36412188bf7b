"""A client that goes on after a lost connection, as JupyterLab does: under the same session id."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import websocket
from jupyter_server.services.kernels.connection.base import deserialize_binary_message
from messages import execute_request
from servers import Server, wait_until

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

PRINTS = "import time\nfor i in range({count}): print(i, flush=True); time.sleep(0.01)"


class LastingClient:
    """Receives, on a thread of its own, all that a kernel sends it, over every restart.

    :param delay: seconds that it takes for each message
    """

    def __init__(self, server: Server, kernel_id: str, delay: float = 0) -> None:
        self.session_id = uuid4().hex
        self._messages: dict[tuple[str | None, str], list[dict[str, Any]]] = {}
        self.connections = 0
        self.is_connected = False
        self.states: list[str] = []
        """What it was told of the kernel's state."""
        self._server = server
        self._kernel_id = kernel_id
        self._delay = delay
        self._channels: websocket.WebSocket | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._receive, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        wait_until(lambda: self.connections, 30, "the client was connected")
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._closed = True
        self.drop()
        self._thread.join(30)
        assert not self._thread.is_alive()

    def drop(self) -> None:
        """Lose the connection."""
        channels = self._channels
        if channels is not None:
            channels.close(timeout=0)

    def _receive(self) -> None:
        while not self._closed:
            with contextlib.suppress(OSError, websocket.WebSocketException):
                self._channels = self._server.connect(self._kernel_id, self.session_id, 120)
                self.connections += 1
                self.is_connected = True
                while data := self._channels.recv():
                    time.sleep(self._delay)
                    is_binary = isinstance(data, bytes)  # one with buffers
                    message = deserialize_binary_message(data) if is_binary else json.loads(data)
                    self._add(message)
            self.is_connected = False
            time.sleep(0.02)

    def _add(self, message: dict[str, Any]) -> None:
        key = message["parent_header"].get("msg_id"), message["header"]["msg_type"]
        self._messages.setdefault(key, []).append(message)
        if key[1] == "status":
            self.states.append(message["content"]["execution_state"])

    @property
    def kinds(self) -> set[str]:
        """The types of what it has got."""
        return {kind for _, kind in [*self._messages]}

    def execute(self, code: str, **content: Any) -> str:
        """Have code run, and return the request's id."""
        request = execute_request(code, self.session_id)
        request["content"].update(content)
        self._send(request)
        return str(request["header"]["msg_id"])

    def _send(self, message: dict[str, Any]) -> None:
        """Send a message: where the connection is lost, when there is another."""
        connections, channels = self.connections, self._channels
        assert channels is not None
        try:
            channels.send(json.dumps(message))
        except (OSError, websocket.WebSocketException):
            wait_until(lambda: self.connections > connections, 30, "the client was back")
            self._send(message)

    def of(self, request: str, kind: str) -> list[dict[str, Any]]:
        """Return the messages of a type that came of a request."""
        return [*self._messages.get((request, kind), [])]

    def text(self, request: str) -> str:
        """Return what a request has printed."""
        return "".join(message["content"]["text"] for message in self.of(request, "stream"))

    def was_idle_after(self, request: str) -> bool:
        """Tell whether the kernel is done with a request."""
        states = [m["content"]["execution_state"] for m in self.of(request, "status")]
        return "idle" in states

    def is_finished(self, request: str) -> bool:
        """Tell whether a cell is, as JupyterLab sees it: a reply has come, and that it is idle."""
        return self.was_idle_after(request) and bool(self.of(request, "execute_reply"))

    def until_heard(self) -> None:
        """Wait until what the kernel says comes here, though a cell runs.

        The connections with it may be made some moments later than the client's.
        """
        asked: list[str] = []

        def is_heard() -> bool:
            request = execute_request("", self.session_id)
            request["channel"], request["content"] = "control", {}
            request["header"]["msg_type"] = "kernel_info_request"
            asked.append(request["header"]["msg_id"])
            self._send(request)
            return any(self.was_idle_after(one) for one in asked)

        wait_until(is_heard, 20, "the kernel was heard")

    def answer(self, request: str, value: str) -> None:
        """Answer the question that a request has asked last."""
        asked = self.of(request, "input_request")[-1]
        reply = execute_request("", self.session_id)
        reply["channel"] = "stdin"
        reply["header"]["msg_type"] = "input_reply"
        reply["parent_header"] = asked["header"]
        reply["content"] = {"value": value, "status": "ok"}
        self._send(reply)


def assert_whole(client: LastingClient, request: str, count: int, timeout: float = 30) -> None:
    """Check that a client has got a cell's numbers and its end, each once and in order."""
    wait_until(lambda: client.is_finished(request), timeout, "the cell had finished")
    numbers = client.text(request).split()
    place = next((i for i, number in enumerate(numbers) if number != str(i)), len(numbers))
    assert numbers == [str(i) for i in range(count)], f"{place}: {numbers[place : place + 20]}"
    assert len(client.of(request, "execute_reply")) == 1
    states = [m["content"]["execution_state"] for m in client.of(request, "status")]
    assert states == ["busy", "idle"], states


def until_printed(client: LastingClient, request: str, count: int) -> None:
    """Wait until a client has got so much of what a request prints."""
    wait_until(lambda: len(client.of(request, "stream")) >= count, 30, "it had printed")
