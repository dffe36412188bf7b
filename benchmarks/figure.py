"""One measured figure and its target, and the table of them."""

from __future__ import annotations

import sys
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """What was measured.

    :param detail: what the figure was made of
    :param at_least: the target is a lower bound, not an upper one
    """

    name: str
    measured: float
    target: float
    unit: str = ""
    detail: str = ""
    at_least: bool = False

    @property
    def is_met(self) -> bool:
        """Whether the target is met."""
        if self.at_least:
            return self.measured >= self.target
        return self.measured <= self.target

    def cells(self) -> tuple[str, ...]:
        """Return what its line of the table says."""
        bound = "at least" if self.at_least else "at most"
        return (
            self.name,
            _text(self.measured, self.unit),
            f"{bound} {_text(self.target, self.unit)}",
            "met" if self.is_met else "MISSED",
            self.detail,
        )


def show(figures: list[Figure]) -> None:
    """Print the table."""
    rows = [("figure", "measured", "target", "", "made of"), *(f.cells() for f in figures)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print(line.rstrip())


def note(text: str) -> None:
    """Tell whoever waits how far it is."""
    print(text, file=sys.stderr, flush=True)


def _text(value: float, unit: str) -> str:
    return f"{value:.3g} {unit}".rstrip()
