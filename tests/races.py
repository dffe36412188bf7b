"""Requests that a server serves at once, in an order that the test decides, and what is left."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
from clients import KERNEL, new_session, sessions
from held import SIGNS
from homes import TESTS, state_folder
from servers import Home, Server, is_keeper, wait_until

from jupyter_sessions_ext.models import KernelPhase, SessionState, Snapshot
from jupyter_sessions_ext.storage.sqlite import SQLiteStore

if TYPE_CHECKING:
    from typing_extensions import Self

SESSIONS = "/api/sessions"
PENDING = "--AsyncMultiKernelManager.use_pending_kernels=True"
PATIENCE = 30
MOST_AT_ONCE = 50
_KERNEL_FILE = re.compile(r"kernel-([\w-]+)\.json$")

Model = dict[str, Any]
Reply = Future[httpx.Response]


def held_server(home: Home, *args: str) -> Server:
    """Make a server whose kernels and requests a test holds and sees."""
    signs = home.path / "signs"
    signs.mkdir()
    return Server(
        home,
        args=[
            "--ServerApp.kernel_manager_class=held.HeldKernels",
            "--ServerApp.session_manager_class=held.WatchedSessions",
            "--FileContentsManager.delete_to_trash=False",
            "--KernelRestarter.time_to_dead=0.1",  # a killed kernel is soon missed
            *args,
        ],
        env={"PYTHONPATH": str(TESTS), SIGNS: str(signs)},
    )


@dataclass(frozen=True)
class _List:
    """One list that a client was given, and what is known of kernels at that time."""

    models: list[Model]
    ended: set[str]
    """Kernels that were gone before it was asked for."""
    started: set[str]
    """Kernels that ran, or had run, when it was given; pending ones too where there are any."""


class Lister:
    """A client that asks for the list of sessions again and again."""

    def __init__(self, races: Races) -> None:
        self._races = races
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._ask)
        self._error: BaseException | None = None
        self.lists: list[_List] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def until_next(self) -> None:
        """Wait for a list that was asked for after now."""
        wanted = len(self.lists) + 2
        wait_until(lambda: self._error or len(self.lists) >= wanted, PATIENCE, "lists were given")

    def _ask(self) -> None:
        server = self._races.server
        login = {"Authorization": f"token {server.token}"}
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
        with contextlib.closing(connection):
            try:
                while not self._done.is_set():
                    ended = self._races.signs("ended")
                    connection.request("GET", SESSIONS, headers=login)
                    reply = connection.getresponse()
                    assert reply.status == 200, reply.status
                    models = json.loads(reply.read())
                    self.lists.append(_List(models, ended, self._races.started()))
            except BaseException as error:
                self._error = error

    def check(self, away: set[str]) -> None:
        """Check that each list was one snapshot.

        :param away: sessions that were dormant for a while, and not to be listed then
        """
        if self._error is not None:
            raise self._error
        assert len(self.lists) > 1
        seen: dict[str, list[int]] = {}
        for number, given in enumerate(self.lists):
            ids = [model["id"] for model in given.models]
            assert len(set(ids)) == len(ids), given
            for model in given.models:
                seen.setdefault(model["id"], []).append(number)
                assert model["kernel"]["id"] in given.started - given.ended, model
        for session_id, numbers in seen.items():
            if session_id not in away:
                missed = set(range(numbers[0], numbers[-1])) - set(numbers)
                assert not missed, f"{session_id} was not in lists {missed}"


class Races:
    """One server, and what a test does to it.

    :param server: made by :func:`held_server`
    :param prefix: of the paths of this test
    """

    def __init__(self, server: Server, prefix: str) -> None:
        self.server = server
        self.home = server.home
        self._prefix = prefix
        self._pending = PENDING in server.args
        self.folder = Path(server.env[SIGNS])
        self._before = self.stored()
        self._away: set[str] = set()

    def __enter__(self) -> Self:
        self.server.get("/api")  # its client is made by one thread alone
        self._pool = ThreadPoolExecutor(MOST_AT_ONCE)
        self._lister = Lister(self).__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        for hold in self.folder.glob("hold.*"):
            hold.unlink()
        try:
            self._lister.__exit__()
            self._pool.shutdown()
            self.until_all_done()
            for model in sessions(self.server):
                self.server.delete(f"{SESSIONS}/{model['id']}")
            for kernel in self.server.get("/api/kernels").json():
                self.server.delete(f"/api/kernels/{kernel['id']}")
        finally:
            for file in self.folder.iterdir():
                file.unlink()

    # ------------------------------------------------------------------ signs

    def signs(self, *words: str) -> set[str]:
        """Return what the server has signed, without these words in front."""
        start = ".".join(words) + "."
        found = (path.name for path in self.folder.iterdir())
        return {name.removeprefix(start) for name in found if name.startswith(start)}

    def started(self) -> set[str]:
        """Return the kernels that may be listed, those that have ended included."""
        return self.signs("begun") if self._pending else self.signs("launched")

    def until_asked(self, what: str, times: int = 1) -> None:
        """Wait until the server does what it was asked for, as far as that is possible."""
        wait_until(lambda: len(self.signs("asked", what)) >= times, PATIENCE, f"{what} was asked")
        self._lister.until_next()  # one loop serves all: it has come to where it waits

    def until_done(self, what: str, times: int = 1) -> None:
        wait_until(lambda: len(self.signs("done", what)) >= times, PATIENCE, f"{what} was done")

    def until_all_done(self) -> None:
        wait_until(
            lambda: self.signs("asked") == self.signs("done"), PATIENCE, "all asked for was done"
        )

    def until_stored(self, kernel_id: str, phase: KernelPhase) -> None:
        """Wait for what becomes of a kernel without a reply that waits for it."""
        wait_until(
            lambda: (kernel_id, phase) in {(k.kernel_id, k.phase) for k in self.stored().kernels},
            PATIENCE,
            f"{kernel_id} was {phase.value}",
        )

    def until_ended_again(self, session: Model) -> None:
        """Wait until a kernel's second process was started, and has ended."""
        kernel_id = session["kernel"]["id"]
        wait_until(
            lambda: len(self.signs("process", kernel_id)) > 1 and kernel_id not in self.running(),
            PATIENCE,
            f"the restarted {kernel_id} ended",
        )

    def until_unlisted(self, session: Model) -> None:
        """Wait until a deletion that waits for its kernel is committed: it shows from then on."""
        wait_until(
            lambda: session["id"] not in {model["id"] for model in sessions(self.server)},
            PATIENCE,
            f"{session['id']} was deleted",
        )

    def until_gone(self, kernel_id: str) -> None:
        """Wait for the end of a kernel for which no reply waits."""
        wait_until(
            lambda: kernel_id not in {k.kernel_id for k in self.stored().kernels},
            PATIENCE,
            f"{kernel_id} was gone",
        )

    @contextlib.contextmanager
    def held(self, what: str) -> Iterator[Held]:
        """Hold each ``"start"`` or ``"end"`` of a kernel that comes until this is left."""
        file = self.folder / f"hold.{what}"
        held = Held(self, what)
        held.forget()
        file.touch()
        try:
            yield held
        finally:
            file.unlink()

    # ------------------------------------------------------------------ requests

    def path(self, name: str = "a.ipynb") -> str:
        return f"{self._prefix}-{name}"

    def send(self, method: str, url: str, body: Any = None) -> Reply:
        """Send a request, whose reply may be waited for."""
        return self._pool.submit(self.server.request, method, url, body, timeout=PATIENCE)

    def post(self, document: str = "a.ipynb", /, **options: Any) -> Reply:
        body = {"path": self.path(document), "type": "notebook", **KERNEL, **options}
        return self.send("POST", SESSIONS, body)

    def patch(self, session: Model, **changes: Any) -> Reply:
        if "path" in changes:
            changes["path"] = self.path(changes["path"])
        return self.send("PATCH", f"{SESSIONS}/{session['id']}", changes)

    def delete(self, session: Model) -> Reply:
        return self.send("DELETE", f"{SESSIONS}/{session['id']}")

    def restart(self, session: Model) -> Reply:
        return self.send("POST", f"/api/kernels/{session['kernel']['id']}/restart")

    def get(self, session: Model) -> Reply:
        return self.send("GET", f"{SESSIONS}/{session['id']}")

    def new(self, document: str = "a.ipynb", /, **options: Any) -> Model:
        return new_session(self.server, self.path(document), **options)

    def new_dormant(self, document: str = "a.ipynb") -> Model:
        """Make a session and end its kernel."""
        model = self.new(document)
        self.end_kernel(model)
        return model

    def end_kernel(self, session: Model) -> None:
        """End a session's kernel behind its back: it turns dormant."""
        told(self.delete_kernel(session), 204)

    def delete_kernel(self, session: Model) -> Reply:
        self._away.add(session["id"])
        return self.send("DELETE", f"/api/kernels/{session['kernel']['id']}")

    def new_document(self, name: str = "a.ipynb") -> str:
        url = f"/api/contents/{self.path(name)}"
        content = {"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
        body = {"type": "notebook", "content": content}
        reply = self.server.request("PUT", url, body)
        assert reply.status_code == 201, reply.text
        return url

    # ------------------------------------------------------------------ what is left

    def stored(self) -> Snapshot:
        """Return what the database says."""
        return SQLiteStore(str(state_folder(self.home) / "sessions.sqlite")).peek()

    def history(self, session: Model) -> list[str]:
        """Return what the database says was done to a session."""
        store = SQLiteStore(str(state_folder(self.home) / "sessions.sqlite"))
        return [e.action.value for e in store.all_events() if e.session_id == session["id"]]

    def check_listed(self, *live: Model) -> None:
        """Check what is listed while something is held."""
        listed = {m["id"]: _described(m) for m in sessions(self.server)}
        assert listed == {model["id"]: _described(model) for model in live}

    def check_consistent(self) -> None:
        """Check that, whatever is listed, everything says the same."""
        self.until_all_done()
        listed = sessions(self.server)
        left = [s for s in self.stored().sessions if s.session_id not in self._known()]
        ids = {model["id"] for model in listed}
        self.check(*listed, dormant=[{"id": s.session_id} for s in left if s.session_id not in ids])

    def _known(self) -> set[str]:
        return {s.session_id for s in self._before.sessions}

    def running(self) -> set[str]:
        """Return the ids of the kernels whose processes run; no other process may."""
        found = set()
        for process in self.home.processes():
            if process.pid != self.server.pid and not is_keeper(process):
                match = _KERNEL_FILE.search(" ".join(process.cmdline()))
                assert match is not None, process
                found.add(match[1])
        return found

    def check(self, *live: Model, dormant: Iterable[Model] = ()) -> None:
        """Check that the list, the kernels, their processes and the database say the same.

        :param live: as they were told to clients
        """
        self.until_all_done()
        expected = {model["id"]: _described(model) for model in live}
        kernels = {model["kernel"]["id"] for model in live}
        assert {m["id"]: _described(m) for m in sessions(self.server)} == expected
        assert {kernel["id"] for kernel in self.server.get("/api/kernels").json()} == kernels
        assert self.running() == kernels
        stored = self.stored()
        assert {
            s.session_id: (s.path, s.name, s.type, s.kernel_id)
            for s in stored.sessions
            if s.state is SessionState.LIVE
        } == expected
        asleep = {s.session_id for s in stored.sessions if s.state is SessionState.DORMANT}
        assert asleep - self._known() == {model["id"] for model in dormant}
        assert {k.kernel_id: k.phase for k in stored.kernels} == dict.fromkeys(
            kernels, KernelPhase.RUNNING
        )
        assert [k.intent for k in stored.kernels if k.intent] == []
        self._lister.until_next()
        self._lister.check(self._away)


class Held:
    """Starts or ends of kernels that are being held."""

    def __init__(self, races: Races, what: str) -> None:
        self._races = races
        self._what = what

    def reached(self, count: int = 1) -> list[str]:
        """Wait until so many are held, or have been, and return the ids of their kernels."""

        def kernels() -> list[str]:
            found = self._races.signs("reached", self._what)
            return sorted(found) if len(found) >= count else []

        return wait_until(kernels, PATIENCE, f"{count} kernels were held at their {self._what}")

    def holds(self, request: Reply) -> Reply:
        """Wait until one is held for a request that was sent."""
        self.reached()
        return request

    def forget(self) -> None:
        """Count only those that are held from now on."""
        for reached in self._races.folder.glob(f"reached.{self._what}.*"):
            reached.unlink()

    def release(self, kernel_id: str) -> None:
        """Let one go on."""
        (self._races.folder / f"go.{self._what}.{kernel_id}").touch()

    def fail(self, kernel_id: str) -> None:
        """Have one fail."""
        (self._races.folder / f"fail.{self._what}.{kernel_id}").touch()


def _described(model: Model) -> tuple[Any, ...]:
    return (model["path"], model["name"], model["type"], model["kernel"]["id"])


def told(reply: Reply, status: int) -> Model:
    """Return what a client was told, with this status."""
    answer = reply.result(PATIENCE)
    assert answer.status_code == status, (answer.status_code, answer.text)
    model: Model = answer.json() if answer.content else {}
    return model
