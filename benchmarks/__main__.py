"""Measures what DESIGN promises, with real servers and kernels: ``python -m benchmarks --help``."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

# The servers are those of the tests: real processes in a home of their own.
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from . import administration, adopt, relay, requests, resident, start, ticker
from .figure import show

if TYPE_CHECKING:
    from collections.abc import Callable

    from .figure import Figure

BENCHMARKS: Final[dict[str, Callable[[Path, bool], list[Figure]]]] = {
    "start": start.measure,
    "adopt": adopt.measure,
    "ticker": ticker.measure,
    "requests": requests.measure,
    "administration": administration.measure,
    "relay": relay.measure,
    "resident": resident.measure,
}


def main() -> int:
    """Measure what the command line names, and return 1 if a target was missed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure the extension with real processes. Exits with 1 on a missed target.",
    )
    parser.add_argument("what", nargs="?", choices=list(BENCHMARKS), help="default: all of them")
    parser.add_argument("--short", action="store_true", help="fewer runs, and fewer kernels")
    parser.add_argument(
        "--folder",
        help="where to put the servers' folders: on the disk that is to be measured, not in memory "
        "(default: %(default)s)",
        default=tempfile.gettempdir(),
    )
    arguments = parser.parse_args()
    # As Ctrl-C does, it passes through each `finally` that ends processes.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="benchmarks-", dir=arguments.folder) as folder:
        for name in [arguments.what] if arguments.what else BENCHMARKS:
            path = Path(folder, name)
            path.mkdir()
            figures += BENCHMARKS[name](path, arguments.short)
    show(figures)
    return 0 if all(figure.is_met for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
