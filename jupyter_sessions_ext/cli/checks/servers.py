"""The servers that run: whether they answer, and what would end their kernels with them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from ... import __version__
from ..outcome import NO_SERVER
from ..servers import Server, ServerError
from .findings import Finding, ok, problem, warning

Makes = Callable[..., Finding]

PROC = Path("/proc")

_SYSTEMCTL_SECONDS = 5.0


def answers(failures: Mapping[Server, ServerError | None]) -> Iterator[Finding]:
    """Tell which servers answer, and whether they can store changes."""
    if not failures:
        yield ok("server", "none runs")
    for server, failure in failures.items():
        if failure is None:
            yield _of(server)
        elif failure.status == 404:
            yield problem(
                "server",
                f"{server.url} (pid {server.pid}) runs without jupyter_sessions_ext",
                "restart it; if it still does, mend what is found of the extension and its "
                "managers here, and read its log",
                subject=server.url,
            )
        elif failure.code == NO_SERVER:
            yield warning(
                "server",
                f"nothing answers at {server.url}, where pid {server.pid} should",
                "wait until it has started; if it was killed, its file in "
                "`jupyter --runtime-dir` is a remnant",
                subject=server.url,
            )
        else:
            yield problem("server", str(failure), "see above", subject=server.url)


def _of(server: Server) -> Finding:
    version = server.about["version"]
    if server.key is None:
        return warning(
            "server",
            f"{server.url} keeps nothing in this run",
            "its log says why, at its start",
            subject=server.url,
        )
    try:
        server.request("GET", "/health")
    except ServerError as error:
        return problem(
            "server",
            f"{server.url} cannot store changes: {error}",
            "mend what is found of its folder and its database, then restart it",
            subject=server.url,
        )
    if version != __version__:
        return warning(
            "server",
            f"{server.url} runs version {version}, {__version__} is installed",
            "restart it to use that",
            subject=server.url,
        )
    return ok("server", f"{server.url} answers (pid {server.pid or 'unknown'})", subject=server.url)


# ---------------------------------------------------------------------- systemd


def systemd(pids: Iterable[int], *, proc: Path = PROC) -> Iterator[Finding]:
    """Tell whether systemd would end kernels together with a server.

    :param pids: servers; where there are none, this process is looked at
    :param proc: where processes are told of
    """
    looked_at = {pid: (f"pid {pid}", problem) for pid in pids}
    if not looked_at:
        looked_at = {os.getpid(): ("a server started from here", warning)}
    findings: dict[str, Finding] = {}
    for pid, (what, found) in looked_at.items():
        unit = unit_of(pid, proc)
        if unit is not None and (finding := _kill_mode(*unit, what, found)) is not None:
            findings[unit[0]] = finding
    yield from findings.values()
    if not findings:
        yield ok("systemd", "no service of it has to do with this")


def unit_of(pid: int, proc: Path = PROC) -> tuple[str, bool] | None:
    """Return the systemd service that a process is part of, and whether it is a user's own."""
    try:
        lines = (proc / str(pid) / "cgroup").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        services = re.findall(r"[^/]+\.service", line.split(":", 2)[-1])
        if services and not services[-1].startswith("user@"):
            return services[-1], any(s.startswith("user@") for s in services)
    return None


def _kill_mode(unit: str, is_user: bool, what: str, found: Makes) -> Finding | None:
    systemctl = shutil.which("systemctl")
    if systemctl is None:
        return None
    scope = ["--user"] if is_user else []
    try:
        mode = subprocess.run(
            [systemctl, *scope, "show", "--property=KillMode", "--value", unit],
            capture_output=True,
            text=True,
            timeout=_SYSTEMCTL_SECONDS,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
    if mode not in ("control-group", "mixed"):
        return ok("systemd", f"{unit} has KillMode={mode}", subject=unit)
    option = "--user " if is_user else ""
    return found(
        "systemd",
        f"{unit} ({what}) has KillMode={mode}: systemd ends kernels when it restarts or stops it",
        f"set KillMode=process: systemctl {option}edit {unit}, then add [Service] and "
        "KillMode=process",
        subject=unit,
    )
