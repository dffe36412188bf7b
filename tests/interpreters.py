"""Python interpreters that tests start and see end."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def run_python(
    *arguments: str | Path, timeout: float = 20, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run an interpreter to its end, which it must reach within ``timeout`` seconds."""
    return subprocess.run(
        [sys.executable, *arguments],
        env=env,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
