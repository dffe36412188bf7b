"""What clients ask a server about sessions and kernels."""

from __future__ import annotations

from typing import Any

from servers import Server, wait_until

KERNEL: dict[str, Any] = {"kernel": {"name": "python3"}}


def new_session(server: Server, path: str = "a.ipynb", **options: Any) -> dict[str, Any]:
    reply = server.post("/api/sessions", {"path": path, "type": "notebook", **KERNEL, **options})
    assert reply.status_code == 201, reply.text
    model: dict[str, Any] = reply.json()
    return model


def running_session(server: Server) -> dict[str, Any]:
    """Open a session whose kernel is up: while it starts, others may take the ports meant for it.

    A server that runs would start it again; for what comes after the server, it must be up.
    """
    session = new_session(server)
    server.execute(session["kernel"]["id"], "pass")
    return session


def sessions(server: Server) -> list[dict[str, Any]]:
    reply = server.get("/api/sessions")
    assert reply.status_code == 200, reply.text
    found: list[dict[str, Any]] = reply.json()
    return found


def kernel_state(server: Server, kernel_id: str) -> str | None:
    reply = server.get(f"/api/kernels/{kernel_id}")
    return str(reply.json()["execution_state"]) if reply.status_code == 200 else None


def until_idle(server: Server, kernel_id: str) -> None:
    wait_until(lambda: kernel_state(server, kernel_id) == "idle", 20, f"{kernel_id} was idle")
