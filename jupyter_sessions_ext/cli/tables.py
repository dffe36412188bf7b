"""What is printed: tables for people, JSON for programs, and how far long work is."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

_LONG_SECONDS = 1.0
"""After how long work is long, and its progress is shown."""


def clean(text: str) -> str:
    """Return a text without what would steer a terminal: names come from anyone."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def print_json(value: Any) -> None:
    """Print a value for programs."""
    print(json.dumps(value, indent=2))


def print_table(
    titles: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    numbers: Sequence[str] = (),
    ids: Sequence[str] = (),
) -> None:
    """Print rows; on a terminal as wide as it is, else in full and plain.

    :param numbers: the titles of the columns that are aligned at the right
    :param ids: the titles of those whose long ids are cut on a terminal, where they stay distinct
    """
    columns = [[clean(cell) for cell in column] for column in zip(*rows, strict=True)]
    if sys.stdout.isatty():
        _print_rich(titles, columns, numbers, ids)
        return
    widths = [max(map(len, (t, *column))) for t, column in zip(titles, columns, strict=True)]
    for row in (titles, *zip(*columns, strict=True)):
        parts = (
            cell.rjust(width) if title in numbers else cell.ljust(width)
            for title, cell, width in zip(titles, row, widths, strict=True)
        )
        print(f"  {'  '.join(parts)}".rstrip())


def _print_rich(
    titles: Sequence[str],
    columns: Sequence[Sequence[str]],
    numbers: Sequence[str],
    ids: Sequence[str],
) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", padding=(0, 1))
    for title in titles:
        table.add_column(title, justify="right" if title in numbers else "left", overflow="fold")
    shown = [_cut(c) if t in ids else c for t, c in zip(titles, columns, strict=True)]
    for row in zip(*shown, strict=True):
        table.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
    console().print(table)


def _cut(cells: Sequence[str]) -> Sequence[str]:
    """Cut long ids, as they can be named by their beginnings."""
    width = _SHORT_ID
    while len({cell[:width] for cell in cells}) < len({*cells}):
        width += 4
    return [cell[:width] if len(cell) >= _LONG_ID else cell for cell in cells]


_SHORT_ID, _LONG_ID = 8, 32
_STYLES = {
    "live": "green",
    "dormant": "dim",
    "ok": "green",
    "warning": "yellow",
    "problem": "bold red",
}


def print_pairs(pairs: Iterable[tuple[str, str]]) -> None:
    """Print names and values, one pair a line."""
    known = [(name, clean(value)) for name, value in pairs if value]
    width = max((len(name) for name, _ in known), default=0)
    for name, value in known:
        print(f"{name.ljust(width)}  {value}")


def print_title(text: str) -> None:
    """Print what the lines below are about."""
    if sys.stdout.isatty():
        console().print(clean(text), style="bold", markup=False, highlight=False)
    else:
        print(clean(text))


def console(*, stderr: bool = False) -> Console:
    """Return the terminal; it has colours unless NO_COLOR is set."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, markup=False, emoji=False)


class Progress:
    """How much of some work is done."""

    def __init__(self, what: str, total: int | None) -> None:
        self._what = what
        self._total = total
        self._began = time.monotonic()
        self._bar: Any = None

    def advance(self, by: int = 1) -> None:
        """Note that some of it is done; show it if it takes long and there is a terminal."""
        if not sys.stderr.isatty():
            return
        if self._bar is None:
            self._bar = _bar()
            self._task = self._bar.add_task(self._what, total=self._total)
        self._bar.advance(self._task, by)
        if not self._bar.live.is_started and time.monotonic() - self._began > _LONG_SECONDS:
            self._bar.start()

    def close(self) -> None:
        """Show it no more."""
        if self._bar is not None:
            self._bar.stop()


def _bar() -> Any:
    from rich import progress

    return progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeElapsedColumn(),
        console=console(stderr=True),
        transient=True,
    )


@contextmanager
def progress(what: str, total: int | None = None) -> Iterator[Progress]:
    """Show how far some work is."""
    shown = Progress(what, total)
    try:
        yield shown
    finally:
        shown.close()
