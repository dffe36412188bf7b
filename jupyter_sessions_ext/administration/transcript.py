"""A kernel's transcript: what it ran and printed, from its ring, as a notebook."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from jupyter_client.kernelspec import KernelSpecManager
from msgspec import Struct

from ..folder import Place
from ..keeper.protocol import RINGS, Channel, ProtocolError, Record, unpack_records
from ..keeper.ring import folder_name, read_ring
from .cells import (
    Cell,
    ClearContent,
    DisplayContent,
    Displays,
    ErrorContent,
    StreamContent,
    count_of,
)
from .schemas import Notebook

T = TypeVar("T")

_EXECUTE = "execute_request"


FILE_TYPE = "application/x-ipynb+json"
"""The media type of a notebook's file."""


class NothingRecordedError(LookupError):
    """There is no record of a kernel."""


def read_transcript(
    place: Place,
    kernel_id: str,
    *,
    kernel_name: str | None,
    is_running: bool,
    since: datetime | None = None,
) -> Notebook:
    """Return a kernel's transcript.

    It needs as much memory as the ring has bytes, and a second: it is not for an event loop.

    :param kernel_name: its kernelspec's name
    :param is_running: whether its process runs
    :param since: leave out what was run before
    :raises NothingRecordedError: there is nothing
    """
    transcript = Transcript()
    transcript.read(_records(place, kernel_id))
    if transcript.began is None:
        raise NothingRecordedError(kernel_id)
    return Notebook(
        cells=[*transcript.cells(is_running, since)],
        metadata=_metadata(kernel_name, transcript.language),
    )


def write_file(notebook: Notebook) -> bytes:
    """Return a notebook as the text of its file.

    nbformat would need 300 MB for one of 15 MB: it has an object for each line of each output.
    """
    return msgspec.json.format(msgspec.json.encode(notebook), indent=1) + b"\n"


def file_name(path: str | None) -> str:
    """Return what the file of a transcript is called, by its session's path."""
    name = Path(path or "").name
    return f"{name.removesuffix('.ipynb') or 'session'}-transcript.ipynb"


def _records(place: Place, kernel_id: str) -> Iterator[Record]:
    """Yield what is in a kernel's ring; what makes no sense is missing, as what is dropped is."""
    for data in read_ring(place.keeper / RINGS / folder_name(kernel_id)):
        with suppress(ProtocolError):
            yield from unpack_records(data)


# ---------------------------------------------------------------------- messages


class _Header(Struct):
    msg_id: str = ""
    msg_type: str = ""
    session: str = ""
    date: str = ""


class _InputContent(Struct):
    code: str
    execution_count: Any = None


class _StatusContent(Struct):
    execution_state: str


class _ReplyContent(Struct):
    status: str = ""
    execution_count: Any = None


class _Language(Struct, omit_defaults=True):
    """What a notebook may say of a language."""

    name: str
    version: str = ""
    mimetype: str = ""
    file_extension: str = ""
    pygments_lexer: str = ""
    nbconvert_exporter: str = ""
    codemirror_mode: str | dict[str, Any] = ""


class _InfoContent(Struct):
    language_info: _Language


@dataclass(frozen=True, slots=True)
class _Message:
    header: _Header
    parent: _Header
    content: bytes

    def read(self, cls: type[T]) -> T | None:
        return _decoded(self.content, cls)


def _message_of(record: Record) -> _Message | None:
    if len(record.frames) < 5:
        return None
    header = _decoded(record.frames[1], _Header)
    if header is None:
        return None
    parent = _decoded(record.frames[2], _Header) or _Header()
    return _Message(header, parent, record.frames[4])


def _decoded(frame: bytes, cls: type[T]) -> T | None:
    """Return what a frame of JSON says; None where it is not what it must be."""
    with suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return msgspec.json.decode(frame, type=cls)
    # Kernels may print bytes that are no text, which clients replace.
    with suppress(msgspec.MsgspecError, ValueError, RecursionError):
        value = json.loads(frame.decode("utf-8", "replace"))
        text = json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")
        return msgspec.json.decode(text, type=cls)
    return None


# ---------------------------------------------------------------------- what comes of them


@dataclass(frozen=True, slots=True)
class _Restart:
    process: str
    began: str

    def made(self) -> dict[str, Any]:
        return _note(f"restart {self.process}", "*The kernel was restarted.*")


class Transcript:
    """What a kernel has run and printed, message by message."""

    def __init__(self) -> None:
        self.began: str | None = None
        """When the oldest message that is kept was sent."""
        self.language: dict[str, Any] | None = None
        """The kernel's ``language_info``, if a client has asked for it."""
        self._entries: list[Cell | _Restart] = []
        self._of_request: dict[str, Cell] = {}
        self._begun: dict[str, str] = {}
        self._processes: set[str] = set()
        self._displays = Displays()
        self._first = self._next = 1
        self._has_gap = False
        self._ids: set[str] = set()
        self._published: dict[str, Callable[[_Message], None]] = {
            "status": self._status,
            "execute_input": self._input,
            "stream": self._output(StreamContent, Cell.print),
            "display_data": self._output(
                DisplayContent, lambda cell, content: cell.display(content, is_result=False)
            ),
            "execute_result": self._output(
                DisplayContent, lambda cell, content: cell.display(content, is_result=True)
            ),
            "error": self._output(ErrorContent, Cell.fail),
            "clear_output": self._output(ClearContent, Cell.clear),
            "update_display_data": self._update,
        }

    def read(self, records: Iterable[Record]) -> None:
        """Take messages, in the order in which they were sent."""
        for record in records:
            if self.began is None:
                self._first = record.number
            elif record.number != self._next:
                self._has_gap = True
            self._next = record.number + 1
            message = _message_of(record)
            self.began = self.began or (message.header.date if message else "")
            if message is not None:
                self._take(record.channel, message)

    def _take(self, channel: Channel, message: _Message) -> None:
        kind = message.header.msg_type
        if channel is Channel.IOPUB:
            self._notice_restart(message)
            if taken := self._published.get(kind):
                taken(message)
        elif channel is Channel.SHELL and kind == "execute_reply":
            self._reply(message)
        elif channel is Channel.SHELL and kind == "kernel_info_reply":
            info = message.read(_InfoContent)
            self.language = msgspec.to_builtins(info.language_info) if info else self.language

    def _notice_restart(self, message: _Message) -> None:
        """Note that there is another process: by the session that it writes into its messages.

        Some kernels write that of their clients, and so tell nothing.
        """
        process = message.header.session
        if not process or process in self._processes or process == message.parent.session:
            return
        if self._processes and self._entries and isinstance(self._entries[-1], Cell):
            self._entries.append(_Restart(process, message.header.date))
        self._processes.add(process)

    def _status(self, message: _Message) -> None:
        content, parent = message.read(_StatusContent), message.parent
        if content is None or parent.msg_type != _EXECUTE:
            return
        if content.execution_state == "busy":
            self._begun[parent.msg_id] = message.header.date
        elif content.execution_state == "idle" and (cell := self._of_request.get(parent.msg_id)):
            cell.is_over = True
            cell.times["iopub.status.idle"] = message.header.date

    def _input(self, message: _Message) -> None:
        content = message.read(_InputContent)
        if content is None:
            return
        cell = self._begin(message)
        cell.source = content.code
        cell.execution_count = count_of(content.execution_count)
        cell.times["iopub.execute_input"] = message.header.date
        if message.parent.msg_id in self._begun:
            cell.times["iopub.status.busy"] = self._begun[message.parent.msg_id]

    def _begin(self, message: _Message) -> Cell:
        request = message.parent.msg_id
        cell_id = _id(request)
        while cell_id in self._ids:  # a client may send the same request again
            cell_id = _id(cell_id)
        self._ids.add(cell_id)
        cell = Cell(cell_id, self._displays, len(self._processes), message.header.date)
        self._of_request[request] = cell
        self._entries.append(cell)
        return cell

    def _output(self, cls: type[T], show: Callable[[Cell, T], None]) -> Callable[[_Message], None]:
        """Return what takes an output of some kind to its cell."""

        def taken(message: _Message) -> None:
            parent = message.parent
            cell = self._of_request.get(parent.msg_id)
            # One that has begun, but without showing what it runs, is silent.
            if cell is None and parent.msg_type == _EXECUTE and parent.msg_id not in self._begun:
                cell = self._begin(message)
            if cell is not None and (content := message.read(cls)) is not None:
                show(cell, content)

        return taken

    def _update(self, message: _Message) -> None:
        content = message.read(DisplayContent)
        if content is not None:
            self._displays.update(content)

    def _reply(self, message: _Message) -> None:
        """Learn whether a cell has been counted: one that is not for the history has not."""
        cell = self._of_request.get(message.parent.msg_id)
        content = message.read(_ReplyContent)
        if cell is None or content is None:
            return
        cell.times["shell.execute_reply"] = message.header.date
        counted = count_of(content.execution_count)
        if content.status == "ok" and counted is not None and cell.execution_count is not None:
            cell.is_recorded = counted >= cell.execution_count

    # ------------------------------------------------------------------ the notebook's cells

    def cells(self, is_running: bool, since: datetime | None = None) -> Iterator[dict[str, Any]]:
        """Yield them as nbformat has them.

        :param is_running: whether the kernel runs
        :param since: leave out what was run before
        """
        chosen = [
            entry
            for entry in self._entries
            if not (isinstance(entry, Cell) and not entry.is_recorded)
            and (since is None or _is_from(entry.began, since))
        ]
        missing = [*self._missing(chosen, since)]
        if missing:
            yield _note("truncated", "**Not everything is here.** " + " ".join(missing))
        for entry in chosen:
            if isinstance(entry, _Restart):
                yield entry.made()
            else:
                runs = is_running and entry.process == len(self._processes)
                yield entry.made("running" if runs else "unfinished")

    def _missing(self, chosen: Iterable[Cell | _Restart], since: datetime | None) -> Iterator[str]:
        """Yield in words what is not there."""
        began = _time(self.began or "")
        first = next((entry for entry in self._entries if isinstance(entry, Cell)), None)
        is_late = first is not None and first.process <= 1 and (first.execution_count or 1) > 1
        if (self._first > 1 or is_late) and not (since and began and began <= since):
            yield f"What the kernel ran and printed before {self.began} is not kept."
        if self._has_gap:
            yield "In between something is missing that could not be written to the disk."
        if any(isinstance(entry, Cell) and entry.source is None for entry in chosen):
            yield "Of a cell without code the outputs are kept, but not the code."


def _is_from(time: str, since: datetime) -> bool:
    """Tell whether a message was sent at a time or after it; where it has none, it may be."""
    sent = _time(time)
    return sent is None or sent >= since


def _time(text: str) -> datetime | None:
    with suppress(msgspec.ValidationError):
        time = msgspec.convert(text, datetime)
        return time if time.tzinfo else time.replace(tzinfo=timezone.utc)
    return None


def _note(name: str, text: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "id": _id(name), "metadata": {}, "source": text}


def _id(text: str) -> str:
    """Return a cell's id: the same for the same text."""
    return hashlib.blake2b(text.encode(errors="replace"), digest_size=8).hexdigest()


def _metadata(kernel_name: str | None, language: dict[str, Any] | None) -> dict[str, Any]:
    """Return what a notebook says of its kernel, as far as it is known."""
    if not kernel_name:
        return {"language_info": language} if language else {}
    spec = {"name": kernel_name, "display_name": kernel_name}
    try:
        found = KernelSpecManager().get_kernel_spec(kernel_name)
    except Exception:  # whatever is wrong with it is not the transcript's matter
        found = None
    if found is not None:
        spec |= {"display_name": found.display_name, "language": found.language}
        language = language or ({"name": found.language} if found.language else None)
    return {"kernelspec": spec, **({"language_info": language} if language else {})}
