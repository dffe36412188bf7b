"""An IPython kernel that drops nothing of what it prints: its queues have no limit.

ipykernel's hold 1000 messages for each who listens, and what is more than that is dropped before
anybody could have it: with six busy programs on two cores, of one flood in ten. As a script this
is the process of kernelspec ``patient``; imported it installs that kernelspec.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zmq
from ipykernel.kernelapp import IPKernelApp

if TYPE_CHECKING:
    from servers import Home


def install(home: Home) -> None:
    """Write kernelspec ``patient`` into a home."""
    folder = home.data_dir / "kernels" / "patient"
    folder.mkdir(parents=True)
    argv = [sys.executable, str(Path(__file__).resolve()), "-f", "{connection_file}"]
    spec = {"argv": argv, "display_name": "patient", "language": "python"}
    (folder / "kernel.json").write_text(json.dumps(spec))


def _main() -> None:
    make = zmq.Context.socket

    def unlimited(*args: Any, **options: Any) -> Any:
        made = make(*args, **options)
        made.sndhwm = 0
        return made

    zmq.Context.socket = unlimited  # type: ignore[method-assign]
    IPKernelApp.launch_instance()


if __name__ == "__main__":
    _main()
