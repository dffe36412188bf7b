"""What administrators ask a server, at ``/sessions/api/v1``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import minimal_kernel
from servers import Home, Server, kernel_processes, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx
    import pytest

ROOT = "/sessions/api/v1"
UNKNOWN = "11111111-1111-4111-8111-111111111111"


class Administered:
    """A real server, seen by an administrator."""

    def __init__(self, server: Server) -> None:
        self.server = server

    def ask(self, method: str, path: str, json: Any = None, **options: Any) -> httpx.Response:
        """Send a request to what is below the API's root."""
        return self.server.request(method, f"{ROOT}{path}", json, **options)

    def get(self, path: str, /, **parameters: Any) -> Any:
        """Return what is answered with 200."""
        query = f"?{urlencode(parameters)}" if parameters else ""
        reply = self.ask("GET", path + query)
        assert reply.status_code == 200, reply.text
        return reply.json()

    def ids(self, **parameters: Any) -> list[str]:
        """Return the ids of a list of sessions, in its order."""
        return [item["id"] for item in self.get("/sessions", **parameters)["items"]]

    def item(self, session_id: str) -> dict[str, Any]:
        """Return a session's item."""
        found: dict[str, Any] = self.get(f"/sessions/{session_id}")
        return found

    def act(self, action: str, **wanted: Any) -> dict[str, Any]:
        """Do something to many sessions, and return what became of each."""
        reply = self.ask("POST", "/sessions/actions", {"action": action, **wanted})
        assert reply.status_code == 200, reply.text
        answer: dict[str, Any] = reply.json()
        assert answer["total"] == len(answer["results"])
        assert answer["succeeded"] + answer["failed"] == answer["total"]
        return answer

    def live(self, path: str, **options: Any) -> dict[str, Any]:
        """Open a session, and return its model."""
        body = {"path": path, "type": "notebook", **options}
        reply = self.server.post("/api/sessions", body)
        assert reply.status_code == 201, reply.text
        model: dict[str, Any] = reply.json()
        return model

    def dormant(self, path: str) -> str:
        """Open a session and end its kernel, and return its id."""
        session = self.live(path)
        reply = self.server.delete(f"/api/kernels/{session['kernel']['id']}")
        assert reply.status_code == 204, reply.text
        assert self.item(session["id"])["state"] == "dormant"
        return str(session["id"])

    def clear(self) -> None:
        """End everything."""
        self.act("delete", all=True)
        for kernel in self.server.get("/api/kernels").json():
            self.server.delete(f"/api/kernels/{kernel['id']}")
        wait_until(lambda: not kernel_processes(self.server.home), 10, "all kernels ended")


def administered_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Administered]:
    """Run a server with quick kernels for all tests of a module."""
    home = Home(tmp_path_factory.mktemp("administered") / "home")
    minimal_kernel.install(home)
    with Server(home, **minimal_kernel.OPTIONS) as server:
        yield Administered(server)
    assert home.processes() == []
