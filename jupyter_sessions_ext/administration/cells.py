"""What a cell shows: a kernel's outputs, put together as Jupyter's clients do.

nbclient does it too, but only as a client that drives a kernel: it validates every message (100 to
200 µs each, of which a ring has 30,000), and what one cell waits to clear, another's output clears.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any, Literal

from msgspec import Struct

METADATA = "jupyter_sessions"
"""Under which a cell's metadata say what is particular about it."""

_JSON = re.compile(r"application/(.*\+)?json")


class StreamContent(Struct):
    """What is printed."""

    name: str
    text: str


class Transient(Struct):
    """What is not for the document."""

    display_id: str | None = None


class DisplayContent(Struct):
    """What is displayed, or a result."""

    data: dict[str, Any]
    metadata: dict[str, Any] | None = None
    transient: Transient | None = None
    execution_count: Any = None


class ErrorContent(Struct):
    """An error."""

    ename: str
    evalue: str
    traceback: list[str]


class ClearContent(Struct):
    """That outputs go, now or with the next one."""

    wait: bool = False


@dataclass(eq=False, slots=True)
class _Stream:
    name: str
    parts: list[str]

    def made(self) -> dict[str, Any]:
        text = overwritten("".join(self.parts))
        return {"output_type": "stream", "name": self.name, "text": text}


@dataclass(eq=False, slots=True)
class _Output:
    values: dict[str, Any]
    display_id: str | None = None

    def made(self) -> dict[str, Any]:
        return self.values


class Displays:
    """The outputs that can be updated, wherever they are."""

    def __init__(self) -> None:
        self._of: defaultdict[str, list[_Output]] = defaultdict(list)

    def add(self, output: _Output) -> None:
        """Take one that is shown."""
        if output.display_id is not None:
            self._of[output.display_id].append(output)

    def update(self, content: DisplayContent) -> None:
        """Change what all outputs of an id show."""
        display_id = content.transient.display_id if content.transient else None
        for output in self._of.get(display_id, ()) if display_id else ():
            output.values |= _shown(content)


@dataclass(eq=False, slots=True)
class Cell:
    """One execution.

    :ivar began: when it did, in ISO 8601, as far as is known
    :ivar process: which of the kernel's processes runs it
    """

    cell_id: str
    displays: Displays
    process: int
    began: str
    source: str | None = None
    """None where it is not kept."""
    execution_count: int | None = None
    is_over: bool = False
    is_recorded: bool = True
    """Whether it counts: its client may have asked for one that is in no history."""
    times: dict[str, str] = field(default_factory=dict)
    """As nbformat has them in a cell's metadata."""
    _outputs: list[_Stream | _Output] = field(default_factory=list)
    _will_clear: bool = False

    def print(self, content: StreamContent) -> None:
        """Show what is printed: together with what was printed to the same stream just before."""
        self._make_room()
        last = self._outputs[-1] if self._outputs else None
        if isinstance(last, _Stream) and last.name == content.name:
            last.parts.append(content.text)
        else:
            self._outputs.append(_Stream(content.name, [content.text]))

    def display(self, content: DisplayContent, *, is_result: bool) -> None:
        """Show what is displayed, or a result."""
        self._make_room()
        values: dict[str, Any] = {"output_type": "display_data", **_shown(content)}
        if is_result:
            count = count_of(content.execution_count)
            values |= {"output_type": "execute_result", "execution_count": count}
        output = _Output(values, content.transient.display_id if content.transient else None)
        self._outputs.append(output)
        self.displays.add(output)

    def fail(self, content: ErrorContent) -> None:
        """Show an error."""
        self._make_room()
        values = {"ename": content.ename, "evalue": content.evalue, "traceback": content.traceback}
        self._outputs.append(_Output({"output_type": "error", **values}))

    def clear(self, content: ClearContent) -> None:
        """Show nothing more of what is shown, at once or when there is something else."""
        self._will_clear = True
        if not content.wait:
            self._make_room()

    def _make_room(self) -> None:
        if self._will_clear:
            self._outputs.clear()
            self._will_clear = False

    def made(self, state: Literal["running", "unfinished"] | None) -> dict[str, Any]:
        """Return it as nbformat has it.

        :param state: what there is to say of it if it is not over
        """
        told: dict[str, Any] = {}
        if state is not None and not self.is_over:
            told["state"] = state
        if self.source is None:
            told["source"] = "missing"
        return {
            "cell_type": "code",
            "id": self.cell_id,
            "metadata": {
                **({"execution": self.times} if self.times else {}),
                **({METADATA: told} if told else {}),
            },
            "execution_count": self.execution_count,
            "source": self.source or "",
            "outputs": [output.made() for output in self._outputs],
        }


def count_of(value: object) -> int | None:
    """Return an execution count, if it is one."""
    return value if type(value) is int and value >= 0 else None


def _shown(content: DisplayContent) -> dict[str, Any]:
    """Return what the document keeps of it: a value that nbformat does not allow is left out."""
    return {
        "data": {k: v for k, v in content.data.items() if _JSON.fullmatch(k) or _is_text(v)},
        "metadata": content.metadata or {},
    }


def _is_text(value: object) -> bool:
    return isinstance(value, str) or (
        isinstance(value, list) and all(isinstance(line, str) for line in value)
    )


def overwritten(text: str) -> str:
    """Return a text without what a carriage return has had overwritten.

    As nbconvert does it (``CoalesceStreamsPreprocessor``): the line goes as a whole.
    """
    if "\r" not in text:
        return text
    return "\n".join(map(_last_of_line, text.split("\n")))


def _last_of_line(line: str) -> str:
    shown = line.rstrip("\r")
    return line[shown.rfind("\r") + 1 :]
