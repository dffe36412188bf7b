"""What a session's kernel has run and printed comes back as a notebook."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import nbformat
import pytest
from administered import Administered
from clients import new_session
from commands import run
from homes import state_folder
from messages import execute_request
from nbclient import NotebookClient
from nbconvert.preprocessors import CoalesceStreamsPreprocessor
from servers import CellError, Home, Server, wait_until

from jupyter_sessions_ext.kernels.logs import rings_in, trim_rings
from jupyter_sessions_ext.models import now

PATH = "work/Übung 1.ipynb"
PLOT = """
import struct, zlib
from IPython.display import Image, display

def chunk(kind, data):
    whole = kind + data
    return struct.pack(">I", len(data)) + whole + struct.pack(">I", zlib.crc32(whole))

rows = b"".join(b"\\0" + bytes([40 * y, 255 - 40 * x, 128])[:3] * 6 for y in range(6) for x in [y])
png = (
    b"\\x89PNG\\r\\n\\x1a\\n"
    + chunk(b"IHDR", struct.pack(">IIBBBBB", 6, 6, 8, 2, 0, 0, 0))
    + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
)
display(Image(png), metadata={"image/png": {"width": 60}})
"""
STREAMS = """
import sys
for i in range(3):
    print(i, flush=True)
print("to stderr", file=sys.stderr, flush=True)
print("ü \\udcff ⚠", flush=True)
"""
DISPLAYS = """
from IPython.display import clear_output, update_display
shown = display("first", display_id="one")
also_shown = display("second", display_id="two")
"""
UPDATES = """
update_display("first, later", display_id="one")
update_display({"a": [1]}, display_id="two")
"""
STEPS = """
for i in range(20):
    clear_output(wait=True)
    print("step", i, flush=True)
"""
CLEARED = """
print("gone", flush=True)
clear_output()
print("stays", flush=True)
clear_output(wait=True)
"""
PROGRESS = """
for i in range(5):
    print(f"{i}0%", end="\\r", flush=True)
print("done", flush=True)
"""
RICH = """
display({"application/json": {"a": [1, 2]}, "text/html": "<b>b</b>"}, raw=True)
"result"
"""
CELLS = [
    STREAMS,
    "6 * 7",
    "print('before', flush=True)\n1 / 0",
    PLOT,
    DISPLAYS,
    UPDATES,
    STEPS,
    CLEARED,
    PROGRESS,
    RICH,
    "raise SystemExit",
    "_ = 5",
]


class Recorded:
    """A server, and a session whose kernel has run some cells."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.admin = Administered(server)
        self.session = new_session(server, PATH)
        self.kernel = self.session["kernel"]["id"]
        self.at = f"/sessions/{self.session['id']}/transcript"
        for code in CELLS:
            self.run(code)

    def run(self, code: str) -> None:
        with contextlib.suppress(CellError):
            self.server.execute(self.kernel, code)

    def send(self, code: str, **content: Any) -> None:
        """Have the kernel run code, as clients do for themselves, until it is done and replied."""
        request = execute_request(code, "client")
        request["content"] |= content
        with contextlib.closing(self.server.connect(self.kernel, "client")) as channels:
            channels.send(json.dumps(request))
            channels.settimeout(20)
            awaited = {"idle", "execute_reply"}
            while awaited:
                message = json.loads(channels.recv())
                if message["parent_header"].get("msg_id") == request["header"]["msg_id"]:
                    awaited -= {message["content"].get("execution_state"), message["msg_type"]}

    def transcript(self, session_id: str | None = None, **parameters: Any) -> Any:
        """Return a transcript when it is complete: the keeper may hear of it after the client."""
        path = f"/sessions/{session_id}/transcript" if session_id else self.at
        found: dict[str, Any] = {}

        def is_over() -> bool:
            found.update(self.admin.get(path, **parameters))
            return not any("jupyter_sessions" in cell["metadata"] for cell in found["cells"])

        wait_until(is_over, 20, "all cells were over")
        nbformat.validate(nbformat.from_dict(found))
        return found


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorded]:
    home = Home(tmp_path_factory.mktemp("transcript") / "home")
    (home.root_dir / "work").mkdir()
    with Server(home) as server:
        yield Recorded(server)
    assert home.processes() == []


def sources(notebook: dict[str, Any]) -> list[str]:
    return [cell["source"] for cell in notebook["cells"]]


def text_of(cell: dict[str, Any]) -> str:
    return "".join(output["text"] for output in cell["outputs"] if "text" in output)


def executed(notebook: dict[str, Any], home: Home) -> list[Any]:
    """Return the outputs of a notebook's cells in a fresh kernel, as nbclient has them."""
    node = nbformat.from_dict(notebook)
    for cell in node.cells:
        cell.outputs, cell.execution_count = [], None
    with mock.patch.dict(os.environ, home.environment(), clear=True):
        NotebookClient(node, kernel_name="python3", timeout=60, allow_errors=True).execute()
    node, _ = CoalesceStreamsPreprocessor().preprocess(node, {})
    return [(cell.execution_count, cell.outputs) for cell in node.cells]


def test_its_cells_give_the_same_outputs_in_a_fresh_kernel(recorded: Recorded) -> None:
    notebook = recorded.transcript()
    assert sources(notebook) == CELLS
    found = [(cell["execution_count"], cell["outputs"]) for cell in notebook["cells"]]
    assert found == executed(notebook, recorded.server.home)
    kinds = {output["output_type"] for cell in notebook["cells"] for output in cell["outputs"]}
    assert kinds == {"stream", "execute_result", "error", "display_data"}
    shown = [output["data"]["text/plain"] for output in notebook["cells"][4]["outputs"]]
    assert shown == ["'first, later'", "{'a': [1]}"]


def test_it_says_what_it_is_of_and_when_each_cell_ran(recorded: Recorded) -> None:
    notebook = recorded.transcript()
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    assert notebook["metadata"]["language_info"]["name"] == "python"
    for cell in notebook["cells"]:
        times = cell["metadata"].pop("execution")
        assert times["iopub.status.busy"] <= times["iopub.execute_input"]
        assert times["iopub.execute_input"] <= times["iopub.status.idle"]
        assert cell["metadata"] == {}


def test_it_can_be_downloaded_as_a_file(recorded: Recorded) -> None:
    reply = recorded.admin.ask("GET", f"{recorded.at}?format=ipynb")
    assert reply.headers["Content-Type"] == "application/x-ipynb+json"
    assert reply.headers["Content-Disposition"] == (
        "attachment; filename*=utf-8''%C3%9Cbung%201-transcript.ipynb"
    )
    node = nbformat.reads(reply.text, as_version=nbformat.NO_CONVERT)
    assert node == nbformat.from_dict(recorded.transcript())
    tag = {"If-None-Match": reply.headers["ETag"]}
    again = recorded.admin.ask("GET", f"{recorded.at}?format=ipynb", headers=tag)
    assert again.status_code == 304


def test_what_clients_run_for_themselves_is_no_cell(recorded: Recorded) -> None:
    before = recorded.transcript()
    recorded.send("print('silent')", silent=True, store_history=False)
    recorded.send("print('not for the history')", store_history=False)
    recorded.run("'for all'")
    assert sources(recorded.transcript()) == [*sources(before), "'for all'"]


def test_only_what_was_run_since_a_time_is_there(recorded: Recorded) -> None:
    recorded.transcript()
    since = now().isoformat()
    assert recorded.transcript(since=since)["cells"] == []
    recorded.run("'later'")
    assert sources(recorded.transcript(since=since)) == ["'later'"]
    assert len(recorded.transcript()["cells"]) > len(CELLS)


def test_a_cell_that_still_runs_is_marked_and_a_restart_shown(recorded: Recorded) -> None:
    session = new_session(recorded.server, "runs.ipynb")
    kernel, at = session["kernel"]["id"], f"/sessions/{session['id']}/transcript"
    code = "import threading; print('begun', flush=True); threading.Event().wait()"
    with contextlib.closing(recorded.server.connect(kernel, "client")) as channels:
        channels.send(json.dumps(execute_request(code, "client")))
        deadline = time.monotonic() + 30
        while json.loads(channels.recv())["header"]["msg_type"] != "stream":
            assert time.monotonic() < deadline
    wait_until(lambda: text_of(recorded.admin.get(at)["cells"][0]), 10, "it was recorded")
    [cell] = recorded.admin.get(at)["cells"]
    assert cell["metadata"]["jupyter_sessions"] == {"state": "running"}
    assert text_of(cell) == "begun\n"

    assert recorded.admin.ask("POST", f"/sessions/{session['id']}/restart").status_code == 200
    recorded.server.execute(kernel, "print('again')")
    wait_until(lambda: text_of(recorded.admin.get(at)["cells"][-1]), 10, "it was recorded")
    cells = recorded.admin.get(at)["cells"]
    assert "jupyter_sessions" not in cells[0]["metadata"]
    assert cells[0]["outputs"][-1]["ename"] == "KeyboardInterrupt"
    assert [cell["source"] for cell in cells] == [
        code, "*The kernel was restarted.*", "print('again')"
    ]  # fmt: skip
    assert [cell.get("execution_count") for cell in cells] == [1, None, 1]
    assert cells[0]["id"] == cell["id"], "it is not the same cell any more"


def test_a_large_output_is_there_in_full_also_where_clients_were_spared_it(
    recorded: Recorded,
) -> None:
    session = new_session(recorded.server, "large.ipynb")
    code = "for i in range(50):\n    print(f'{i:099}\\n' * 1024, end='', flush=True)"
    with contextlib.suppress(CellError):
        recorded.server.execute(session["kernel"]["id"], code)
    [cell] = recorded.transcript(session["id"])["cells"]
    [output] = cell["outputs"]
    assert len(output["text"]) == 50 * 1024 * 100
    assert output["text"] == "".join(f"{i:099}\n" * 1024 for i in range(50))


@pytest.mark.parametrize("since", ["yesterday", "2026-01-01T00:00:00", "5", "0001-01-01T00:00+14"])
def test_what_is_no_time_is_refused(recorded: Recorded, since: str) -> None:
    reply = recorded.admin.ask("GET", f"{recorded.at}?since={since.replace('+', '%2B')}")
    assert (reply.status_code, reply.json()["message"][:6]) == (400, "since:")


def test_there_is_none_of_a_kernel_that_is_gone(recorded: Recorded) -> None:
    session_id = recorded.admin.dormant("gone.ipynb")
    reply = recorded.admin.ask("GET", f"/sessions/{session_id}/transcript")
    assert reply.status_code == 409
    assert "revive the session" in reply.json()["message"]
    assert recorded.admin.ask("GET", "/sessions/nonsense/transcript").status_code == 404
    done = run(recorded.server.home, "transcript", "gone.ipynb")
    assert (done.code, done.out) == (1, "")
    assert "revive the session" in done.err


def test_that_of_a_kernel_that_has_ended_stays_with_its_session(recorded: Recorded) -> None:
    session = new_session(recorded.server, "ended.ipynb")
    kernel_id = session["kernel"]["id"]
    recorded.server.execute(kernel_id, "print('the last words')")
    assert recorded.server.delete(f"/api/kernels/{kernel_id}").status_code == 204
    [cell] = recorded.transcript(session["id"])["cells"]
    assert text_of(cell) == "the last words\n"
    [ring] = (recorded.server.home.data_dir).rglob(f"rings/kernel-{kernel_id}")
    path = f"/sessions/{session['id']}"
    assert recorded.admin.ask("DELETE", path).status_code == 204
    others = {path.name for path in ring.parent.iterdir()} - {ring.name}
    trim_rings(rings_in(ring.parent), others, set(), 1 << 30)  # as is done once a minute
    assert not ring.exists()


def test_rings_are_removed_when_nobody_wants_them_any_more(tmp_path: Path) -> None:
    for name in ("running", "wanted", "old", "unwanted"):
        folder = tmp_path / f"kernel-{name}"
        folder.mkdir()
        (folder / "1.ring").touch()
    long_ago = time.time() - 8 * 24 * 3600
    for name in ("running", "old"):
        os.utime(tmp_path / f"kernel-{name}" / "1.ring", (long_ago, long_ago))
    trim_rings(rings_in(tmp_path), {"kernel-running"}, {"kernel-wanted", "kernel-old"}, 1 << 30)
    assert {path.name for path in tmp_path.iterdir()} == {"kernel-running", "kernel-wanted"}


def test_rings_of_kernels_that_have_ended_give_way_the_oldest_first(tmp_path: Path) -> None:
    names = ["running", "first", "second", "third"]
    for age, name in enumerate(reversed(names)):
        folder = tmp_path / f"kernel-{name}"
        folder.mkdir()
        (folder / "1.ring").write_bytes(bytes(100))
        os.utime(folder / "1.ring", (time.time() - age, time.time() - age))
    everyone = {f"kernel-{name}" for name in names}
    trim_rings(rings_in(tmp_path), {"kernel-running"}, everyone, 250)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"kernel-running", "kernel-third"}


# ---------------------------------------------------------------------- the command line


def test_the_command_line_writes_the_same_with_and_without_a_server(recorded: Recorded) -> None:
    home = recorded.server.home
    file = home.path / "out.ipynb"
    told = recorded.transcript()
    alone = recorded.server.post("/api/kernels", {"name": "python3"}).json()["id"]
    recorded.server.execute(alone, "'alone'")
    try:
        for is_running in (True, False):
            if not is_running:
                recorded.server.kill()
            done = run(home, "transcript", PATH, "-o", file)
            assert (done.code, done.out) == (0, "")
            assert json.loads(file.read_text()) == told
            assert run(home, "transcript", recorded.session["id"][:8]).json == told
            done = run(home, "transcript", PATH, "--json", "--since", "2030-01-01", "-o", file)
            assert done.json == {
                "id": recorded.session["id"],
                "kernel_id": recorded.kernel,
                "cells": 0,
                "file": str(file),
            }
            done = run(home, "transcript", alone)
            if is_running:
                assert (done.code, "has no session" in done.err) == (1, True)
            else:
                assert sources(done.json) == ["'alone'"]
        for ring in (state_folder(home) / "keeper" / "rings").glob("*/*.ring"):
            if recorded.kernel in str(ring):
                ring.unlink()
        done = run(home, "transcript", PATH, "-o", home.path / "none.ipynb")
        assert (done.code, "nothing is recorded" in done.err) == (1, True)
        assert not (home.path / "none.ipynb").exists()
    finally:
        recorded.server.restart()
    wait_until(lambda: recorded.admin.get(""), 10, "it answered")
