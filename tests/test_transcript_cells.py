"""What comes of a kernel's messages in its transcript, message by message."""

from __future__ import annotations

import json
import random
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import nbformat
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jupyter_sessions_ext.administration.cells import overwritten
from jupyter_sessions_ext.administration.transcript import (
    NothingRecordedError,
    Transcript,
    file_name,
    read_transcript,
)
from jupyter_sessions_ext.folder import Place, places
from jupyter_sessions_ext.keeper.protocol import Channel, Record, unpack_records
from jupyter_sessions_ext.keeper.ring import Ring, folder_name, read_ring

START = datetime(2026, 5, 1, 12, tzinfo=timezone.utc)


class Kernel:
    """Sends messages: one in each second."""

    def __init__(self, number: int = 1) -> None:
        self.records: list[Record] = []
        self.number = number
        self.process = "process-1"
        self.count = 0

    @property
    def now(self) -> datetime:
        return START + timedelta(seconds=self.number)

    def send(
        self,
        kind: str,
        parent: str | None,
        channel: Channel = Channel.IOPUB,
        *,
        raw: bytes | None = None,
        **content: Any,
    ) -> None:
        header = {"msg_type": kind, "msg_id": f"m{self.number}", "session": self.process}
        asked = {} if parent is None else {"msg_type": "execute_request", "msg_id": parent}
        frames = [
            b"signature",
            json.dumps({**header, "date": self.now.isoformat()}).encode(),
            json.dumps({**asked, "session": "client"} if asked else {}).encode(),
            b"{}",
            json.dumps(content).encode() if raw is None else raw,
        ]
        self.records.append(Record(channel, self.number, b"", frames))
        self.number += 1

    def begin(self, request: str, code: str = "code", count: int | None = None) -> None:
        self.count = count or self.count + 1
        self.send("status", request, execution_state="busy")
        self.send("execute_input", request, code=code, execution_count=self.count)

    def print(self, request: str, text: str, name: str = "stdout") -> None:
        self.send("stream", request, name=name, text=text)

    def display(self, request: str, text: str, display_id: str | None = None, **more: Any) -> None:
        transient = {"display_id": display_id} if display_id else {}
        data = {"text/plain": text}
        kind = more.pop("kind", "display_data")
        self.send(kind, request, data=data, metadata={}, transient=transient, **more)

    def clear(self, request: str, wait: bool = False) -> None:
        self.send("clear_output", request, wait=wait)

    def end(self, request: str, **reply: Any) -> None:
        if reply:
            self.send("execute_reply", request, Channel.SHELL, **reply)
        self.send("status", request, execution_state="idle")

    def run(self, request: str, text: str = "") -> None:
        self.begin(request, f"code of {request}")
        if text:
            self.print(request, text)
        self.end(request)

    def cells(self, is_running: bool = True, since: datetime | None = None) -> list[dict[str, Any]]:
        """Return what comes of it, which must be a notebook."""
        transcript = Transcript()
        transcript.read(self.records)
        return valid([*transcript.cells(is_running, since)], transcript.language)


def valid(
    cells: list[dict[str, Any]], language: dict[str, Any] | None = None
) -> list[dict[str, Any]]:
    metadata = {} if language is None else {"language_info": language}
    version = {"nbformat": 4, "nbformat_minor": 5}
    nbformat.validate(nbformat.from_dict({"cells": cells, "metadata": metadata, **version}))
    assert len({cell["id"] for cell in cells}) == len(cells)
    return cells


def shown(cell: dict[str, Any]) -> list[str]:
    """Return a cell's outputs in short."""
    return [
        f"{output['name']}: {output['text']}" if "name" in output else output["data"]["text/plain"]
        for output in cell["outputs"]
    ]


@pytest.fixture
def kernel() -> Kernel:
    return Kernel()


# ---------------------------------------------------------------------- outputs


def test_what_is_printed_is_joined_while_nothing_comes_between(kernel: Kernel) -> None:
    kernel.begin("a")
    for name, text in (("stdout", "1\n"), ("stdout", "2"), ("stderr", "3"), ("stdout", "4")):
        kernel.print("a", text, name)
    kernel.display("a", "between")
    kernel.print("a", "5")
    [cell] = kernel.cells()
    assert shown(cell) == ["stdout: 1\n2", "stderr: 3", "stdout: 4", "between", "stdout: 5"]


def test_each_output_is_in_the_cell_whose_request_it_answers(kernel: Kernel) -> None:
    kernel.begin("a")
    kernel.end("a")
    kernel.begin("b")
    kernel.print("a", "of a thread that a has started")
    kernel.print("b", "of b")
    kernel.end("b")
    assert [shown(cell) for cell in kernel.cells()] == [
        ["stdout: of a thread that a has started"],
        ["stdout: of b"],
    ]


def test_an_update_is_of_all_cells_that_show_it_and_shows_nothing_itself(kernel: Kernel) -> None:
    for request in ("a", "b"):
        kernel.begin(request)
        kernel.display(request, "old", "id")
        kernel.end(request)
    kernel.begin("c")
    kernel.display("c", "new", "id", kind="update_display_data")
    kernel.display("c", "unknown", "another", kind="update_display_data")
    kernel.end("c")
    assert [shown(cell) for cell in kernel.cells()] == [["new"], ["new"], []]


def test_what_was_cleared_is_updated_no_more(kernel: Kernel) -> None:
    kernel.begin("a")
    kernel.display("a", "old", "id")
    kernel.clear("a")
    kernel.display("a", "new", "id", kind="update_display_data")
    assert [shown(cell) for cell in kernel.cells()] == [[]]
    kernel.display("a", "again", "id")
    assert [shown(cell) for cell in kernel.cells()] == [["again"]]


def test_clearing_may_wait_for_the_next_output_of_the_same_cell(kernel: Kernel) -> None:
    kernel.begin("a")
    kernel.begin("b")
    kernel.print("a", "1")
    kernel.clear("a", wait=True)
    kernel.print("b", "of b")
    assert [shown(cell) for cell in kernel.cells()] == [["stdout: 1"], ["stdout: of b"]]
    kernel.print("a", "2")
    assert [shown(cell) for cell in kernel.cells()] == [["stdout: 2"], ["stdout: of b"]]


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("10%\r20%\rdone\n", "done\n"),
        ("10%\r20%\r", "20%\r"),
        ("a\r\nb\r\n", "a\r\nb\r\n"),
        ("a\nb\rc", "a\nc"),
        ("\rx", "x"),
    ],
)
def test_a_carriage_return_has_its_line_overwritten(text: str, left: str) -> None:
    assert overwritten(text) == left


def test_a_long_line_after_a_carriage_return_takes_no_long_time() -> None:
    assert overwritten("\r" + 5_000_000 * "x") == 5_000_000 * "x"


# ---------------------------------------------------------------------- which cells


def test_a_cell_keeps_its_id_whatever_comes_later(kernel: Kernel) -> None:
    kernel.run("a")
    [before] = kernel.cells()
    kernel.run("b")
    assert [before, kernel.cells()[1]] == kernel.cells()


def test_a_request_that_is_sent_twice_makes_two_cells(kernel: Kernel) -> None:
    kernel.run("a", "first")
    kernel.run("a", "second")
    assert [shown(cell) for cell in kernel.cells()] == [["stdout: first"], ["stdout: second"]]


def test_what_is_silent_is_no_cell(kernel: Kernel) -> None:
    kernel.send("status", "a", execution_state="busy")
    kernel.print("a", "silent")
    kernel.end("a")
    kernel.send("stream", None, name="stdout", text="of nothing")
    assert kernel.cells() == []


@pytest.mark.parametrize(
    ("reply", "is_there"),
    [
        ({"status": "ok", "execution_count": 1}, True),
        ({"status": "ok", "execution_count": 0}, False),
        ({"status": "error", "execution_count": 0}, True),
        ({"status": "ok"}, True),
    ],
)
def test_what_the_kernel_has_not_counted_is_no_cell(
    kernel: Kernel, reply: dict[str, Any], is_there: bool
) -> None:
    kernel.begin("a")
    kernel.end("a", **reply)
    assert len(kernel.cells()) == is_there


def test_a_restart_is_shown_once_and_what_ran_then_is_unfinished(kernel: Kernel) -> None:
    kernel.begin("a")
    for kernel.process in ("process-2", "process-3"):
        kernel.send("status", None, execution_state="starting")
    kernel.count = 0
    kernel.begin("b")
    a, restart, b = kernel.cells()
    assert (restart["cell_type"], restart["source"]) == ("markdown", "*The kernel was restarted.*")
    assert a["metadata"]["jupyter_sessions"] == {"state": "unfinished"}
    assert b["metadata"]["jupyter_sessions"] == {"state": "running"}
    [*_, b] = kernel.cells(is_running=False)
    assert b["metadata"]["jupyter_sessions"] == {"state": "unfinished"}


def test_a_kernel_that_writes_its_clients_sessions_was_not_restarted(kernel: Kernel) -> None:
    kernel.run("a")
    kernel.process = "client"  # as IRkernel does
    kernel.run("b")
    assert len(kernel.cells()) == 2


# ---------------------------------------------------------------------- what is not there


def test_a_transcript_says_from_when_on_it_is(kernel: Kernel) -> None:
    kernel.run("a")
    assert [cell["cell_type"] for cell in kernel.cells()] == ["code"]
    later = Kernel(number=7)
    later.run("a")
    note, cell = later.cells()
    assert (note["cell_type"], cell["cell_type"]) == ("markdown", "code")
    assert "before 2026-05-01T12:00:07+00:00 is not kept" in note["source"]
    assert len(later.cells(since=START)) == 2
    assert later.cells(since=START + timedelta(seconds=8)) == [cell]


def test_it_says_that_a_kernel_had_run_cells_before_it_was_recorded(kernel: Kernel) -> None:
    kernel.count = 4
    kernel.run("a")
    assert "is not kept" in kernel.cells()[0]["source"]


def test_it_says_that_something_in_between_is_missing(kernel: Kernel) -> None:
    kernel.run("a")
    kernel.number += 1
    kernel.run("b")
    assert "In between" in kernel.cells()[0]["source"]


def test_outputs_whose_code_is_gone_are_kept() -> None:
    kernel = Kernel(number=7)
    kernel.print("a", "the rest")
    kernel.end("a")
    note, cell = kernel.cells()
    assert "the outputs are kept, but not the code" in note["source"]
    assert (cell["source"], shown(cell)) == ("", ["stdout: the rest"])
    assert cell["metadata"]["jupyter_sessions"] == {"source": "missing"}


def test_only_what_was_run_since_a_time_is_there(kernel: Kernel) -> None:
    kernel.run("a")
    begun = kernel.now + timedelta(seconds=1)
    kernel.run("b")
    for since, sources in ((begun, ["code of b"]), (begun + timedelta(seconds=1), [])):
        assert [cell["source"] for cell in kernel.cells(since=since)] == sources


# ---------------------------------------------------------------------- whatever there may be


def test_bytes_that_are_no_text_are_replaced(kernel: Kernel) -> None:
    kernel.begin("a")
    kernel.send("stream", "a", raw=b'{"name": "stdout", "text": "a\xff \\ud800 b"}')
    assert shown(kernel.cells()[0]) == ["stdout: a\ufffd ? b"]


def test_a_value_that_no_notebook_may_have_is_left_out(kernel: Kernel) -> None:
    kernel.begin("a")
    data = {"text/plain": "a", "text/html": 5, "image/png": ["b", "c"], "text/x": ["b", 5]}
    data |= {"application/json": 5, "application/vnd.x+json": {"a": None}}
    kernel.send("display_data", "a", data=data, metadata=None)
    [output] = kernel.cells()[0]["outputs"]
    assert {*output["data"]} == {*data} - {"text/html", "text/x"}


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=4,
)
FIELDS = {
    "execution_state": st.sampled_from(["busy", "idle"]) | VALUES,
    "code": st.text() | VALUES,
    "execution_count": st.integers(-1, 3) | VALUES,
    "name": st.sampled_from(["stdout", "stderr"]) | VALUES,
    "text": st.text() | VALUES,
    "data": st.dictionaries(st.sampled_from(["text/plain", "application/json"]), VALUES) | VALUES,
    "metadata": st.just({}) | VALUES,
    "transient": st.fixed_dictionaries({"display_id": st.sampled_from("ab")}) | VALUES,
    "ename": st.text() | VALUES,
    "evalue": st.text() | VALUES,
    "traceback": st.lists(st.text(), max_size=2) | VALUES,
    "wait": st.booleans() | VALUES,
    "status": st.just("ok") | VALUES,
    "language_info": st.fixed_dictionaries(
        {"name": VALUES}, optional=dict.fromkeys(("mimetype", "codemirror_mode", "x"), VALUES)
    )
    | VALUES,
}
KINDS = [
    *("status", "execute_input", "stream", "display_data", "execute_result", "error"),
    *("clear_output", "update_display_data", "execute_reply", "kernel_info_reply", "comm_msg"),
]
FRAMES = st.one_of(
    st.fixed_dictionaries({}, optional=FIELDS).map(lambda body: json.dumps(body).encode()),
    st.fixed_dictionaries(FIELDS).map(lambda body: json.dumps(body).encode()),
    st.binary(max_size=9),
    st.just(b"[" * 100_000),
)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(KINDS), st.sampled_from("ab"), FRAMES), max_size=12))
def test_whatever_a_kernel_sends_a_notebook_comes_of_it(sent: list[tuple[str, str, bytes]]) -> None:
    kernel = Kernel()
    for kind, request, content in sent:
        kernel.send(kind, request, Channel("reply" in kind), raw=content)
    kernel.cells()


def test_frames_that_are_none_are_left_out(kernel: Kernel) -> None:
    kernel.records.append(Record(Channel.IOPUB, 1, b"", [b"", b"{}"]))
    kernel.records.append(Record(Channel.IOPUB, 2, b"", [b"", b"[]", b"", b"", b""]))
    kernel.records.append(Record(Channel.STDIN, 3, b"c", [b"", b'{"msg_type": 5}', b"", b"", b""]))
    assert kernel.cells() == []


# ---------------------------------------------------------------------- the files


def in_ring(folder: Path, kernel: Kernel, limit: int) -> None:
    ring = Ring(folder, limit)
    for record in kernel.records:
        ring.append([(record.channel, record.client, record.frames)])


def read(folder: Path) -> list[dict[str, Any]]:
    transcript = Transcript()
    transcript.read(record for data in read_ring(folder) for record in unpack_records(data))
    return valid([*transcript.cells(is_running=True)])


def test_what_a_ring_has_dropped_is_said(tmp_path: Path, kernel: Kernel) -> None:
    for i in range(200):
        kernel.run(f"request-{i}", "some text\n" * 10)
    in_ring(tmp_path, kernel, 1 << 20)
    assert read(tmp_path) == kernel.cells()
    for file in tmp_path.iterdir():
        file.unlink()
    in_ring(tmp_path, kernel, 32 << 10)
    note, *cells = read(tmp_path)
    assert "is not kept" in note["source"]
    assert 10 < len(cells) < 100
    assert cells[-1] == kernel.cells()[-1]


def test_a_ring_is_read_while_it_is_written_and_dropped(tmp_path: Path, kernel: Kernel) -> None:
    for i in range(200):
        kernel.run(f"request-{i}", "some text\n" * 10)
    in_ring(tmp_path, kernel, 1 << 18)
    whole = kernel.cells()
    first, *_, last = sorted(tmp_path.iterdir())
    reading = read_ring(tmp_path)
    parts = [next(reading)]
    first.unlink()
    with last.open("r+b") as file:
        file.truncate(last.stat().st_size - random.Random(0).randint(1, 50))
    parts += reading
    transcript = Transcript()
    transcript.read(record for data in parts for record in unpack_records(data))
    found = [*transcript.cells(is_running=True)]
    assert found[-1]["metadata"]["jupyter_sessions"] == {"state": "running"}
    assert found[:-1] == whole[:-1]
    assert "is not kept" in read(tmp_path)[0]["source"]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return next(places(tmp_path / "state", str(tmp_path), None))


def ring_of(place: Place, kernel_id: str) -> Path:
    return place.folder / "keeper" / "rings" / folder_name(kernel_id)


def test_a_file_that_makes_no_sense_is_missing_as_one_that_was_dropped_is(
    place: Place, kernel: Kernel
) -> None:
    for i in range(200):
        kernel.run(f"request-{i}", "some text\n" * 10)
    in_ring(ring_of(place, "../k"), kernel, 1 << 18)
    _, second, *_ = sorted(ring_of(place, "../k").iterdir())
    second.write_bytes(b"\xff" * 100)
    notebook = read_transcript(place, "../k", kernel_name=None, is_running=True)
    note, *cells = notebook.cells
    assert "In between" in note["source"]
    assert (cells[0], cells[-1]) == (kernel.cells()[0], kernel.cells()[-1])
    assert notebook.metadata == {}


def test_a_kernel_that_is_not_installed_is_named(place: Place, kernel: Kernel) -> None:
    kernel.send(
        "kernel_info_reply",
        "a",
        Channel.SHELL,
        language_info={"name": "r", "version": "4", "x": 1},
    )
    in_ring(ring_of(place, "k"), kernel, 1 << 18)
    notebook = read_transcript(place, "k", kernel_name="gone", is_running=True)
    assert notebook.metadata == {
        "kernelspec": {"name": "gone", "display_name": "gone"},
        "language_info": {"name": "r", "version": "4"},
    }
    assert notebook.cells == []


def test_nothing_is_recorded_of_an_unknown_kernel(place: Place) -> None:
    with pytest.raises(NothingRecordedError):
        read_transcript(place, "unknown", kernel_name=None, is_running=False)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("work/a b.ipynb", "a b-transcript.ipynb"),
        ("script.py", "script.py-transcript.ipynb"),
        ("", "session-transcript.ipynb"),
        (None, "session-transcript.ipynb"),
    ],
)
def test_its_file_is_named_by_the_path(path: str | None, name: str) -> None:
    assert file_name(path) == name
