"""Whatever clients, kernels and restarts do, in any order: list, processes and store agree."""

from __future__ import annotations

import os
import signal
from itertools import count
from typing import TYPE_CHECKING, Any, Final, Literal
from uuid import uuid4

import minimal_kernel
import pytest
from drills import FULL
from expected import MOST_KILLS, PATHS, Expected, Session
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule, run_state_machine_as_test
from servers import wait_until

from jupyter_sessions_ext.kernels.recovery import KERNEL_ENDED

if TYPE_CHECKING:
    from pathlib import Path

RUNS: Final = 300 if FULL else 15
STEPS: Final = 30
MOST_KERNELS: Final = 6
MOST_RESTARTS: Final = 2
"""Of the server, in one run: they take longest."""
ENDED: Final = "shut down"

TYPES = st.sampled_from(["notebook", "console", "file"])
NAMES = st.sampled_from([None, "", "one", "zwei ü"])
PICKS = st.integers(0, MOST_KERNELS - 1)
REFUSED: Final = (
    ("POST", "/api/sessions", {"path": "a.ipynb"}, 400),
    ("POST", "/api/sessions", {"path": "new", "type": "file", "kernel": {"name": "none"}}, 501),
    ("PATCH", "/api/sessions/{session}", {"kernel": {"id": str(uuid4())}}, 400),
    ("PATCH", "/api/sessions/{session}", {"path": "new", "kernel": {"name": "none"}}, 501),
    ("PATCH", f"/api/sessions/{uuid4()}", {"path": "new"}, 404),
    ("GET", f"/api/sessions/{uuid4()}", None, 404),
    ("DELETE", f"/api/sessions/{uuid4()}", None, 404),
)


class Sessions(Expected):
    """What clients do, and what happens to kernels and to their server."""

    # ------------------------------------------------------------------ what clients do

    @initialize()
    def open_some(self) -> None:
        """Open three sessions, two of them with one kernel: chance alone seldom has that."""
        self.create(PATHS[0], "notebook", None, "named", 0)
        self.create(PATHS[1], "console", "one", "running", 0)
        self.create(PATHS[2], "notebook", "", "default", 0)

    @precondition(lambda self: len(self.kernels) < MOST_KERNELS)
    @rule(
        path=st.sampled_from(PATHS),
        type=TYPES,
        name=NAMES,
        kernel=st.sampled_from(["default", "named", "own id", "running", "running"]),
        pick=PICKS,
    )
    def create(self, path: str, type: str, name: str | None, kernel: str, pick: int) -> None:
        wanted: dict[str, str] = {}
        if kernel == "named":
            wanted = {"name": "minimal"}
        elif kernel == "own id":
            wanted = {"name": "minimal", "id": str(uuid4())}
        elif kernel == "running" and self.kernels:
            wanted = {"id": self._kernel(pick)}
        body = {"path": path, "name": name, "type": type, "kernel": wanted}
        model = self._told(self.server.post("/api/sessions", body), 201)
        at_path = [s for s in self.sessions.values() if s.path == path]
        live = [s for s in at_path if s.asleep is None]
        if live:
            assert model["id"] == live[0].id, "not the oldest session of the path"
            return
        if at_path:
            assert model["id"] in [s.id for s in at_path], "a dormant session was not revived"
        else:
            assert model["id"] not in self.sessions
        kernel_id = model["kernel"]["id"]
        if "id" in wanted:
            assert kernel_id == wanted["id"]
        else:
            assert kernel_id not in self.kernels, "it has another session's kernel"
        self.sessions[model["id"]] = Session(model["id"], path, name, type, kernel_id)
        self._learn(kernel_id)

    @precondition(lambda self: self._unused_paths() and self._live())
    @rule(pick=PICKS, type=TYPES, kernel=PICKS)
    def share_kernel(self, pick: int, type: str, kernel: int) -> None:
        paths = self._unused_paths()
        self.create(paths[pick % len(paths)], type, None, "running", kernel)

    @precondition(lambda self: self._asleep())
    @precondition(lambda self: len(self.kernels) < MOST_KERNELS)
    @rule(pick=PICKS)
    def reopen(self, pick: int) -> None:
        asleep = self._asleep()
        session = asleep[pick % len(asleep)]
        self.create(session.path, session.type, session.name, "default", 0)

    @precondition(lambda self: self._live())
    @rule(pick=PICKS, path=st.sampled_from(PATHS))
    def rename(self, pick: int, path: str) -> None:
        self._change(self._session(pick), {"path": path})

    @precondition(lambda self: self._live())
    @rule(pick=PICKS, name=NAMES, type=TYPES)
    def edit(self, pick: int, name: str | None, type: str) -> None:
        self._change(self._session(pick), {"name": name, "type": type})

    @precondition(lambda self: self._live() and len(self.kernels) < MOST_KERNELS)
    @rule(pick=PICKS, path=st.none() | st.sampled_from(PATHS), kernel=st.none() | PICKS)
    def change_kernel(self, pick: int, path: str | None, kernel: int | None) -> None:
        wanted = {"name": "minimal"} if kernel is None else {"id": self._kernel(kernel)}
        body = {"kernel": wanted} | ({} if path is None else {"path": path})
        self._change(self._session(pick), body)

    @precondition(lambda self: self._live())
    @rule(pick=PICKS)
    def delete(self, pick: int) -> None:
        session = self._session(pick)
        self._told(self.server.delete(f"/api/sessions/{session.id}"), 204)
        del self.sessions[session.id]
        self._ended(session.kernel_id, ENDED)

    @precondition(lambda self: self._live())
    @rule(request=st.sampled_from(REFUSED), pick=PICKS)
    def be_refused(self, request: tuple[str, str, Any, int], pick: int) -> None:
        method, path, body, status = request
        session = self._session(pick)
        self._told(self.server.request(method, path.format(session=session.id), body), status)
        self._await_stored("a reservation for a kernel that cannot start is withdrawn")

    @precondition(lambda self: len(self.kernels) < MOST_KERNELS and not self._loose())
    @rule()
    def start_kernel(self) -> None:
        model = self._told(self.server.post("/api/kernels", {"name": "minimal"}), 201)
        assert model["id"] not in self.kernels
        self._learn(model["id"])

    @precondition(lambda self: self.kernels)
    @rule(pick=PICKS)
    def end_kernel(self, pick: int) -> None:
        kernel_id = self._kernel(pick)
        self._told(self.server.delete(f"/api/kernels/{kernel_id}"), 204)
        self._ended(kernel_id, ENDED)

    @precondition(lambda self: self.kernels)
    @rule(pick=PICKS)
    def restart_kernel(self, pick: int) -> None:
        kernel_id = self._kernel(pick)
        old = self.kernels[kernel_id]
        self._told(self.server.post(f"/api/kernels/{kernel_id}/restart"), 200)
        self._learn(kernel_id)
        assert self.kernels[kernel_id] != old

    # ------------------------------------------------------------------ what happens to kernels

    @precondition(lambda self: self.kernels)
    @rule(pick=PICKS)
    def kill_kernel(self, pick: int) -> None:
        kernel_id = self._kernel(pick)
        if self.kills[kernel_id] == MOST_KILLS:
            return
        self.kills[kernel_id] += 1
        old = self.kernels[kernel_id]
        os.kill(old, signal.SIGKILL)
        wait_until(
            lambda: self._processes().get(kernel_id, old) != old, 10, "the kernel was restarted"
        )
        self._learn(kernel_id)

    @precondition(lambda self: self.kernels)
    @rule(pick=PICKS)
    def kill_kernel_for_good(self, pick: int) -> None:
        kernel_id = self._kernel(pick)
        with minimal_kernel.broken(self.home, kernel_id):
            os.kill(self.kernels[kernel_id], signal.SIGKILL)
            wait_until(
                lambda: kernel_id not in [k["id"] for k in self._get("/api/kernels")],
                10,
                "the kernel was given up",
            )
        self._ended(kernel_id, "died")
        self._await_stored("the kernel's end is stored")

    @precondition(lambda self: self.kernels)
    @rule(pick=PICKS)
    def cull_kernel(self, pick: int) -> None:
        kernel_id = self._kernel(pick)
        wait_until(
            lambda: self._get(f"/api/kernels/{kernel_id}")["execution_state"] != "busy",
            10,
            "an adopted kernel has said that it is idle",
        )
        self._told(self.server.post(f"/test/cull/{kernel_id}"), 204)
        self._ended(kernel_id, "culled")

    # ------------------------------------------------------------------ what happens to the server

    @precondition(lambda self: self.kernels and self.restarts < MOST_RESTARTS)
    @rule(stop=st.sampled_from(["kill", "terminate"]), lost=st.none() | PICKS)
    def restart_server(self, stop: Literal["kill", "terminate"], lost: int | None) -> None:
        self.restarts += 1
        self.kills.clear()
        getattr(self.server, stop)()
        if lost is not None:
            kernel_id = self._kernel(lost)
            os.kill(self.kernels[kernel_id], signal.SIGKILL)
            wait_until(lambda: kernel_id not in self._processes(), 10, "the kernel ended")
            self._ended(kernel_id, KERNEL_ENDED)
        self.server.start()

    # ------------------------------------------------------------------ how it is done

    def _change(self, session: Session, body: dict[str, Any]) -> None:
        model = self._told(self.server.patch(f"/api/sessions/{session.id}", body), 200)
        assert model["id"] == session.id
        if (path := body.get("path", session.path)) != session.path:
            absorbed = [s.id for s in self._asleep() if s.path == path]
            for session_id in absorbed:
                del self.sessions[session_id]
        session.path = path
        session.name = body.get("name", session.name)
        session.type = body.get("type", session.type)
        old, new = session.kernel_id, model["kernel"]["id"]
        wanted = body.get("kernel", {"id": old})
        if "id" in wanted:
            assert new == wanted["id"]
        else:
            assert new not in self.kernels
            self._learn(new)
        session.kernel_id = new
        if new != old:
            self._ended(old, ENDED)


@pytest.mark.drill
@pytest.mark.timeout(120 + 20 * RUNS)
def test_no_order_of_changes_breaks_what_always_holds(tmp_path: Path) -> None:
    numbers = count()
    run_state_machine_as_test(
        lambda: Sessions(tmp_path / f"home-{next(numbers)}"),  # type: ignore[arg-type]
        settings=settings(
            max_examples=RUNS,
            stateful_step_count=STEPS,
            derandomize=not FULL,
            # Thirty steps can be read; what fails in the full form is worth five minutes more.
            phases=[Phase.generate, *([Phase.shrink] if FULL else [])],
            database=None,
            deadline=None,  # a step starts a kernel or a server
            suppress_health_check=[HealthCheck.too_slow],
            print_blob=True,
        ),
    )
