"""From live to dormant and back, and what history and the event bus say of it."""

from __future__ import annotations

import contextlib
import json
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest
import websocket
from clients import new_session, sessions, until_idle
from homes import TESTS, database, history, kernel_process, locked
from servers import Home, Server, kernel_processes, wait_until

from jupyter_sessions_ext.events import KERNEL_EVENTS, SESSION_EVENTS
from jupyter_sessions_ext.models import TRANSITIONS, EventAction

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

HASTY = "--ServerApp.jpserver_extensions={'hasty': True}"
ADA = "--ServerApp.identity_provider_class=configured.Ada"


@pytest.fixture
def known(server_factory: Callable[..., Server]) -> Iterator[Server]:
    """Run a server that knows its user by name, and soon gives a kernel up when it dies."""
    args = [ADA, "--KernelRestarter.restart_limit=0", "--KernelRestarter.time_to_dead=0.1"]
    with server_factory(args=args, env={"PYTHONPATH": str(TESTS)}) as server:
        yield server


def end_kernel(server: Server, home: Home, session: dict[str, Any], how: str) -> None:
    kernel_id = session["kernel"]["id"]
    if how == "shut down":
        assert server.delete(f"/api/kernels/{kernel_id}").status_code == 204
    elif how == "died":
        kernel_process(home, kernel_id).kill()
    else:
        server.kill()
        server.args += [
            "--MappingKernelManager.cull_idle_timeout=1",
            "--MappingKernelManager.cull_interval=1",
        ]
        server.start()
    wait_until(lambda: not kernel_processes(home), 30, f"the kernel was {how}")
    wait_until(lambda: sessions(server) == [], 10, "its session is not listed")


@pytest.mark.parametrize(
    ("reason", "user"), [("culled", "system"), ("died", "system"), ("shut down", "ada")]
)
def test_a_session_whose_kernel_is_gone_is_dormant_and_comes_back(
    home: Home, known: Server, reason: str, user: str
) -> None:
    session = new_session(known)
    known.execute(session["kernel"]["id"], "pass")
    end_kernel(known, home, session, reason)
    assert known.get(f"/api/sessions/{session['id']}").status_code == 404
    wait_until(
        lambda: history(home, session["id"])[-1] == ("dormant", reason, user), 10, "it is history"
    )
    known.kill()
    known.args = known.args[:3]
    known.start()
    assert sessions(known) == []
    back = new_session(known)
    assert back["id"] == session["id"]
    assert back["kernel"]["id"] != session["kernel"]["id"]
    assert history(home, session["id"])[-1] == ("revived", "", "ada")


def test_a_session_whose_kernel_is_gone_is_not_shown_while_that_cannot_be_stored(
    home: Home, known: Server
) -> None:
    session = new_session(known)
    with locked(home) as connection:
        kernel_process(home, session["kernel"]["id"]).kill()
        wait_until(lambda: known.get("/api/kernels").json() == [], 10, "the kernel was given up")
        assert sessions(known) == []
        reply = known.get(f"/api/sessions/{session['id']}")
        assert (reply.status_code, session["id"] in reply.json()["message"]) == (404, True)
        assert connection.execute("SELECT state FROM session_detail").fetchall() == [("live",)]
    wait_until(
        lambda: history(home, session["id"])[-1] == ("dormant", "died", "system"), 10, "it is kept"
    )


def test_deleting_a_session_leaves_others_of_its_kernel_dormant(home: Home, known: Server) -> None:
    first = new_session(known)
    kernel = {"id": first["kernel"]["id"]}
    second = new_session(known, "console", type="console", kernel=kernel)
    assert known.delete(f"/api/sessions/{first['id']}").status_code == 204
    assert kernel_processes(home) == []
    assert sessions(known) == []
    assert history(home, first["id"])[-1] == ("deleted", "", "ada")
    assert history(home, second["id"])[-1] == ("dormant", "shut down", "ada")
    assert new_session(known, "console", type="console")["id"] == second["id"]
    assert new_session(known)["id"] != first["id"]


def test_every_transition_is_one_event_with_its_user(home: Home, known: Server) -> None:
    session = new_session(known)
    url = f"/api/sessions/{session['id']}"
    known.patch(url, {"path": "b.ipynb"})
    known.patch(url, {"path": "b.ipynb", "name": "no transition"})
    known.patch(url, {"kernel": {"name": "python3"}})
    assert known.patch(url, {"kernel": {"name": "nothing"}}).status_code == 501
    known.delete(url)
    assert history(home, session["id"]) == [
        ("created", "", "ada"),
        ("renamed", "from a.ipynb", "ada"),
        ("kernel_changed", f"from {session['kernel']['id']}", "ada"),
        ("deleted", "", "ada"),
    ]


def test_what_a_recovery_does_is_the_systems(home: Home, known: Server) -> None:
    session = new_session(known)
    lost = new_session(known, "b.ipynb")
    known.kill()
    kernel_process(home, lost["kernel"]["id"]).kill()
    known.start()
    until_idle(known, session["kernel"]["id"])
    assert ("adopted", "", "system") in history(home)
    [*_, last] = history(home, lost["id"])
    assert last == ("dormant", "its kernel ended while no server ran", "system")


def test_a_session_that_was_dormant_for_too_long_expires(home: Home, known: Server) -> None:
    kept, gone = new_session(known), new_session(known, "b.ipynb")
    for session in (kept, gone):
        known.delete(f"/api/kernels/{session['kernel']['id']}")
    known.terminate()
    with database(home) as connection:
        for session, days in ((kept, 29), (gone, 31)):
            since = datetime.now(timezone.utc) - timedelta(days=days)
            connection.execute(
                "UPDATE session_detail SET since=? WHERE session_id=?",
                (since.isoformat(), session["id"]),
            )
    known.args.append(HASTY)
    known.start()
    wait_until(lambda: history(home, gone["id"])[-1][0] == "expired", 10, "it expired")
    assert history(home, gone["id"])[-1] == ("expired", "path b.ipynb", "system")
    assert new_session(known)["id"] == kept["id"]
    assert new_session(known, "b.ipynb")["id"] != gone["id"]


@pytest.mark.parametrize("days", [40, 400, -400])
def test_nothing_expires_by_a_wrong_clock_or_while_no_server_runs(
    home: Home, known: Server, tmp_path: Path, days: int
) -> None:
    live, dormant = new_session(known), new_session(known, "b.ipynb")
    known.delete(f"/api/kernels/{dormant['kernel']['id']}")
    known.terminate()
    before = history(home)
    sign = tmp_path / "asked"
    known.args.append(HASTY)
    known.env |= {"DAYS_AHEAD": str(days), "UPKEEP_SIGN": str(sign)}
    known.start()
    wait_until(lambda: sign.exists() and len(sign.read_text()) > 3, 10, "it had looked")
    known.get("/api/sessions")  # by then what it has found is done
    assert history(home)[: len(before)] == before
    assert [session["id"] for session in sessions(known)] == [live["id"]]
    assert new_session(known, "b.ipynb")["id"] == dormant["id"]


def test_zero_keeps_dormant_sessions_for_ever(
    home: Home, server_factory: Callable[..., Server]
) -> None:
    limits = ["--SessionsApp.dormant_retention=0", "--SessionsApp.history_limit=2", HASTY]
    with server_factory(args=limits, env={"PYTHONPATH": str(TESTS)}) as server:
        session = new_session(server)
        for number in range(4):
            server.patch(f"/api/sessions/{session['id']}", {"path": f"{number}.ipynb"})
        server.delete(f"/api/kernels/{session['kernel']['id']}")
        server.terminate()
        with database(home) as connection:
            connection.execute("UPDATE session_detail SET since='1990-01-01T00:00:00+00:00'")
        server.start()
        wait_until(lambda: len(history(home, session["id"])) == 2, 10, "the rest was dropped")
        assert [action for action, _, _ in history(home, session["id"])] == ["renamed", "dormant"]
        assert new_session(server, "3.ipynb")["id"] == session["id"]


def test_transitions_are_events_of_the_servers_bus(home: Home, known: Server) -> None:
    with contextlib.closing(
        websocket.create_connection(
            f"ws://127.0.0.1:{known.port}/api/events/subscribe",
            header=[f"Authorization: token {known.token}"],
            timeout=20,
        )
    ) as bus:
        # The socket is a subscriber from the first event that comes over it.
        session = new_session(known)
        known.patch(f"/api/sessions/{session['id']}", {"path": "b.ipynb"})
        known.delete(f"/api/sessions/{session['id']}")
        ours: list[dict[str, Any]] = []
        while not ours or ours[-1]["action"] != "deleted":
            event = json.loads(bus.recv())
            if event["schema_id"] in (SESSION_EVENTS, KERNEL_EVENTS):
                ours.append(event)
    seen = [(e["action"], e["detail"], e["user"]) for e in ours]
    assert seen == history(home, session["id"])
    assert {e["session_id"] for e in ours} == {session["id"]}
    assert all(e["kernel_id"] == session["kernel"]["id"] for e in ours)


def test_every_action_has_its_transition() -> None:
    assert set(TRANSITIONS) == set(EventAction) - {EventAction.ADOPTED}
