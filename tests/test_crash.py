"""The server is killed at random moments while clients create, change and delete sessions."""

from __future__ import annotations

import os
import random
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from drills import FULL
from homes import state_folder
from servers import Home, Server, kernel_processes, wait_until
from stores import read_elsewhere

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KILLS = 60 if FULL else 8
WORKERS = 4
LONGEST = 1.5
"""Seconds of changes before a kill."""


@dataclass
class Worker:
    """One client, with paths of its own: what it was told, and what it asked for at last."""

    number: int
    random: random.Random
    session: dict[str, Any] | None = None
    asked: str | None = None
    wanted: Any = None
    names: Iterator[int] = field(default_factory=lambda: iter(range(1_000_000)))

    def path(self) -> str:
        return f"w{self.number}-{next(self.names)}.ipynb"

    def work(self, server: Server, done: threading.Event) -> None:
        try:
            while not done.is_set():
                self._one_change(server)
                self.asked = None
        except httpx.TransportError:
            pass  # the server was killed before it answered

    def _one_change(self, server: Server) -> None:
        if self.session is None:
            self.asked, self.wanted = "create", self.path()
            body = {"path": self.wanted, "type": "notebook", "kernel": {"name": "python3"}}
            self.session = self._told(server.post("/api/sessions", body), 201)
            return
        url = f"/api/sessions/{self.session['id']}"
        self.asked = self.random.choice(["rename", "rename", "kernel", "delete"])
        if self.asked == "rename":
            self.wanted = self.path()
            self.session = self._told(server.patch(url, {"path": self.wanted}), 200)
        elif self.asked == "kernel":
            self.session = self._told(server.patch(url, {"kernel": {"name": "python3"}}), 200)
        else:
            self._told(server.delete(url), 204)
            self.session = None

    def _told(self, reply: httpx.Response, status: int) -> dict[str, Any]:
        assert reply.status_code == status, (self.asked, reply.status_code, reply.text)
        model: dict[str, Any] = reply.json() if reply.content else {}
        return model

    def check(self, listed: list[dict[str, Any]]) -> None:
        """Check that what was acknowledged is there, and nothing that was never asked for."""
        mine = [s for s in listed if s["path"].startswith(f"w{self.number}-")]
        told, asked = self.session, self.asked
        if told is None:
            allowed = [self.wanted] if asked == "create" else []
            assert [s["path"] for s in mine] in ([], allowed), (asked, self.wanted, mine)
        elif not mine:
            assert asked == "delete", f"acknowledged {told} is lost; it was asked to {asked}"
        else:
            [found] = mine
            assert found["id"] == told["id"]
            paths = {told["path"]} | ({self.wanted} if asked == "rename" else set())
            assert found["path"] in paths
            if asked != "kernel":
                assert found["kernel"]["id"] == told["kernel"]["id"]
        self.session = mine[0] if mine else None
        self.asked = None


def look(server: Server, file: Path, done: threading.Event) -> None:
    """Ask for the server's health, as its page does, and read its database by another program."""
    while not done.is_set():
        with suppress(httpx.TransportError):
            assert server.get("/sessions/api/v1/health").json() == {"status": "ok"}
        read_elsewhere(file)


@pytest.mark.drill
@pytest.mark.timeout(60 + 30 * KILLS)
@pytest.mark.parametrize("is_looked_at", [False, True], ids=["alone", "others look at it"])
def test_no_acknowledged_change_is_lost_and_nothing_is_left_over(
    is_looked_at: bool, home: Home, server: Server
) -> None:
    seed = int(os.environ.get("SESSIONS_SEED", random.randrange(1 << 32)))
    print(f"SESSIONS_SEED={seed}")
    dice = random.Random(seed)
    workers = [Worker(n, random.Random(dice.random())) for n in range(WORKERS)]
    file = state_folder(home) / "sessions.sqlite"
    for _ in range(KILLS if FULL or not is_looked_at else KILLS // 2):
        done = threading.Event()
        threads = [threading.Thread(target=w.work, args=(server, done)) for w in workers]
        if is_looked_at:
            threads.append(threading.Thread(target=look, args=(server, file, done)))
        for thread in threads:
            thread.start()
        done.wait(dice.uniform(0.05, LONGEST))
        server.kill()
        done.set()
        server.start()  # what was asked in between waits for it
        for thread in threads:
            thread.join()
        listed = server.get("/api/sessions").json()
        for worker in workers:
            worker.check(listed)
        kernels = {kernel["id"] for kernel in server.get("/api/kernels").json()}
        assert {s["kernel"]["id"] for s in listed} == kernels
        wait_until(partial(_runs_just, home, kernels), 5, "just these kernels ran")


def _runs_just(home: Home, kernels: set[str]) -> bool:
    commands = [" ".join(p.cmdline()) for p in kernel_processes(home)]
    ids = {word.rpartition("kernel-")[2].removesuffix(".json") for word in commands}
    assert len(ids) == len(commands), f"two processes for one kernel: {commands}"
    return ids == kernels
