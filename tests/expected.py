"""A server, what a test expects it to have, and the checks that it has just that."""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import minimal_kernel
import psutil
from hypothesis.stateful import RuleBasedStateMachine, invariant
from servers import Home, Server, kernel_processes, wait_until

from jupyter_sessions_ext import cli
from jupyter_sessions_ext.cli.stop import POLITE_SECONDS
from jupyter_sessions_ext.folder import STATE_DIR

if TYPE_CHECKING:
    from pathlib import Path

    import httpx

PATHS: Final = ("a.ipynb", "b.ipynb", "c.ipynb", "console-1", "sub folder/ü.ipynb")
MOST_KILLS: Final = 2
"""Of one kernel by one server: from the next on it may be given up."""
SIGNS_OF_A_FAULT: Final = ("Task exception was never", "Exception in callback", "A change was lost")
"""What the server's log must not have; jupyter_client logs a traceback for an unknown kernel."""

OPTIONS: Final = {
    **minimal_kernel.OPTIONS,
    "args": [
        *minimal_kernel.OPTIONS["args"],
        # A killed kernel is soon missed, and soon given up when it cannot be started again.
        "--KernelRestarter.time_to_dead=0.1",
        f"--KernelRestarter.restart_limit={MOST_KILLS}",
        # Culling is on, but only the test's own route gets to do any.
        *(
            "--MappingKernelManager.cull_idle_timeout=3600",
            "--MappingKernelManager.cull_interval=3600",
        ),
    ],
}


@dataclass
class Session:
    """What the test expects of one session; ``asleep`` is the reason when it is dormant."""

    id: str
    path: str
    name: str | None
    type: str
    kernel_id: str
    asleep: str | None = None


class Expected(RuleBasedStateMachine):
    """One server in a home of its own, and what it is expected to have."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.sessions: dict[str, Session] = {}
        """Those that are not deleted, live and dormant, in the order of their creation."""
        self.kernels: dict[str, int] = {}
        """The process of each kernel that is to run."""
        self.restarts = 0
        self.kills = Counter[str]()
        self.home = Home(folder)
        (self.home.root_dir / "sub folder").mkdir()
        minimal_kernel.install(self.home)
        self.server = Server(self.home, **OPTIONS).start()

    # ------------------------------------------------------------------ what always holds

    @invariant()
    def the_list_is_what_was_asked_for(self) -> None:
        listed = self._get("/api/sessions")
        expected = [
            (s.id, s.path, s.name, s.type, s.kernel_id)
            for s in self.sessions.values()
            if s.asleep is None
        ]
        assert [
            (s["id"], s["path"], s["name"], s["type"], s["kernel"]["id"]) for s in listed
        ] == expected

    @invariant()
    def just_the_kernels_that_are_wanted_run(self) -> None:
        assert {k["id"] for k in self._get("/api/kernels")} == set(self.kernels)
        assert self._processes() == self.kernels, self.server.log[-4000:]

    @invariant()
    def the_store_holds_what_is_shown(self) -> None:
        assert self._stored() == self._expected()

    def teardown(self) -> None:
        """End everything as a user would, and check that it did; what is left is killed."""
        try:
            self.server.kill()
            for sign in SIGNS_OF_A_FAULT:
                assert sign not in self.server.log
            began = time.monotonic()
            assert cli.main(["stop", "--all", "--state-dir", str(self._state_dir)]) == cli.OK
            assert time.monotonic() - began < POLITE_SECONDS, "a kernel was not asked to end"
            wait_until(lambda: self.home.processes() == [], 5, "the keeper had ended, too")
        finally:
            self.server.close()

    # ------------------------------------------------------------------ how it is done

    def _told(self, reply: httpx.Response, status: int) -> dict[str, Any]:
        request = reply.request
        assert reply.status_code == status, (
            request.method,
            request.url,
            request.content,
            reply.text,
        )
        model: dict[str, Any] = reply.json() if reply.content else {}
        return model

    def _get(self, path: str) -> Any:
        return self._told(self.server.get(path), 200)

    def _live(self) -> list[Session]:
        return [s for s in self.sessions.values() if s.asleep is None]

    def _asleep(self) -> list[Session]:
        return [s for s in self.sessions.values() if s.asleep is not None]

    def _loose(self) -> set[str]:
        """Return the kernels that no session has."""
        return set(self.kernels) - {s.kernel_id for s in self._live()}

    def _unused_paths(self) -> list[str]:
        used = {s.path for s in self.sessions.values()}
        return [path for path in PATHS if path not in used]

    def _session(self, pick: int) -> Session:
        live = self._live()
        return live[pick % len(live)]

    def _kernel(self, pick: int) -> str:
        return list(self.kernels)[pick % len(self.kernels)]

    def _learn(self, kernel_id: str) -> None:
        """Take note of a kernel's process when it answers: it starts anew if its ports are taken.

        One that does not answer yet dies of an interrupt, too, and jupyter_client's request to
        shut down, still under way for a second, ends the kernel that comes after it.
        """

        def answering() -> int:
            pid = self._processes().get(kernel_id, 0)
            return pid if pid and minimal_kernel.is_up(self.home, kernel_id, pid) else 0

        self.kernels[kernel_id] = wait_until(answering, 10, "the kernel answered")

    def _ended(self, kernel_id: str, reason: str) -> None:
        del self.kernels[kernel_id]
        for session in self._live():
            if session.kernel_id == kernel_id:
                session.asleep = reason

    def _processes(self) -> dict[str, int]:
        """Return the process of each kernel of the home.

        :raises AssertionError: a kernel has two
        """
        found: dict[str, int] = {}
        for process in kernel_processes(self.home):
            with suppress(psutil.NoSuchProcess):  # it has ended since, as one without words has
                for file in [word for word in process.cmdline() if word.endswith(".json")]:
                    kernel_id = file.rpartition("kernel-")[2].removesuffix(".json")
                    assert kernel_id not in found, f"two processes for kernel {kernel_id}"
                    found[kernel_id] = process.pid
        return found

    def _expected(self) -> tuple[list[tuple[Any, ...]], set[tuple[Any, ...]]]:
        sessions = [
            (
                s.id,
                s.path,
                s.name,
                s.type,
                s.kernel_id,
                "dormant" if s.asleep else "live",
                s.asleep or "",
            )
            for s in self.sessions.values()
        ]
        return sessions, {(kernel_id, "running", None) for kernel_id in self.kernels}

    def _stored(self) -> tuple[list[tuple[Any, ...]], set[tuple[Any, ...]]]:
        [database] = self._state_dir.glob("*/*.sqlite")
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
            sessions = connection.execute(
                "SELECT session_id, path, name, type, kernel_id, state, reason "
                "FROM session JOIN session_detail USING (session_id) ORDER BY session.rowid"
            ).fetchall()
            kernels = connection.execute("SELECT kernel_id, phase, intent FROM kernel").fetchall()
        return sessions, set(kernels)

    def _await_stored(self, what: str) -> None:
        """Wait for what is stored after it was shown, as nobody is told of it."""
        wait_until(lambda: self._stored() == self._expected(), 5, what)

    @property
    def _state_dir(self) -> Path:
        return self.home.data_dir / STATE_DIR
