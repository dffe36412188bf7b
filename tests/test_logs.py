"""Kernels' log files stay small, and go with their kernels after a while."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from jupyter_sessions_ext.keeper.log_file import LOG_LIMIT
from jupyter_sessions_ext.kernels.logs import LOG_RETENTION, trim

if TYPE_CHECKING:
    from pathlib import Path


def test_a_long_log_keeps_its_end_and_goes_on_while_its_kernel_writes(tmp_path: Path) -> None:
    log = tmp_path / "kernel-k.log"
    writer = "import sys\nfor line in sys.stdin: print(line, end='', flush=True)"
    with (
        log.open("ab") as file,
        subprocess.Popen(
            [sys.executable, "-c", writer], stdin=subprocess.PIPE, stdout=file, text=True
        ) as kernel,
    ):
        assert kernel.stdin is not None
        for number in range(2 * LOG_LIMIT // 100):
            kernel.stdin.write(f"{number:099}\n")
        kernel.stdin.close()
        kernel.wait()
    assert log.stat().st_size > LOG_LIMIT
    with log.open("ab") as still_open:
        trim(tmp_path, {"kernel-k.log"})
        assert log.stat().st_size <= LOG_LIMIT
        still_open.write(b"after\n")
    lines = log.read_text().splitlines()
    assert lines[0] == "[... earlier output was dropped ...]"
    assert lines[1:-1] == [f"{n:099}" for n in range(int(lines[1]), 2 * LOG_LIMIT // 100)]
    assert lines[-1] == "after"


def test_a_short_log_is_left_as_it_is(tmp_path: Path) -> None:
    log = tmp_path / "kernel-k.log"
    log.write_text("a line\n")
    trim(tmp_path, {"kernel-k.log"})
    assert log.read_text() == "a line\n"


def test_only_the_old_logs_of_kernels_that_are_gone_are_removed(tmp_path: Path) -> None:
    logs = {name: tmp_path / f"kernel-{name}.log" for name in ("runs", "gone", "just-gone")}
    for log in logs.values():
        log.write_text("trace\n")
    long_ago = time.time() - LOG_RETENTION - 60
    for name in ("runs", "gone"):
        os.utime(logs[name], (long_ago, long_ago))
    trim(tmp_path, {"kernel-runs.log"})
    assert sorted(log.name for log in tmp_path.iterdir()) == [
        "kernel-just-gone.log",
        "kernel-runs.log",
    ]
