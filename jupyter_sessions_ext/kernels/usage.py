"""What the kernels' processes use of the host: measured off the event loop, kept for a moment."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import psutil

from ..host import is_running
from ..models import ProcessIdentity
from ..tasks import Tasks

FRESH_SECONDS = 2.0
"""For how long what was measured is answered without measuring again."""

STALE_SECONDS = 10.0
"""After how long it is not answered any more, but waited for what is measured anew."""

_FIRST_SECONDS = 0.1
"""Over how long CPU time is measured where nothing was measured before."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a kernel's process uses, with its child processes."""

    pid: int
    cpu_percent: float
    """Of one CPU, since the measurement before."""
    memory_bytes: int
    """Resident; pages that processes share count for each."""


@dataclass(frozen=True, slots=True)
class _Measured:
    """The processes of one kernel at one time."""

    memory: int = 0
    cpu: Mapping[tuple[int, float], float] = field(default_factory=dict)
    """Seconds of CPU time by pid and time of start."""


class UsageMeter:
    """Measures the processes of kernels when it is asked, every 2 seconds at most."""

    def __init__(self) -> None:
        self.latest: Mapping[str, Usage] = {}
        """What was measured last, by kernel id."""
        self._at = float("-inf")
        self._of: Mapping[str, ProcessIdentity] = {}
        """The kernels that were measured last, or were to be."""
        self._measured: Mapping[str, _Measured] = {}
        self._measuring: asyncio.Future[None] | None = None
        self._tasks = Tasks()

    async def measure(self, kernels: Mapping[str, ProcessIdentity]) -> Mapping[str, Usage]:
        """Return what these kernels use; those that do not run are left out.

        Who asks soon after another gets what was measured for that one, and does not wait.
        """
        if not kernels:
            return {}
        if self._measuring is not None and not self._covers(kernels):
            await asyncio.shield(self._measuring)  # one measurement at a time
        age = time.monotonic() - self._at
        is_known = self._covers(kernels)
        if age > FRESH_SECONDS or not is_known:
            if self._measuring is None:
                is_first = age > STALE_SECONDS or not is_known
                self._measuring = self._tasks.spawn(self._measure(dict(kernels), is_first))
                self._measuring.add_done_callback(self._done)
            if age > STALE_SECONDS or not is_known:
                await asyncio.shield(self._measuring)
        return self.latest

    def _covers(self, kernels: Mapping[str, ProcessIdentity]) -> bool:
        return kernels.items() <= self._of.items()

    def _done(self, _: object) -> None:
        self._measuring = None

    async def _measure(self, kernels: dict[str, ProcessIdentity], is_first: bool) -> None:
        self._of = kernels
        if is_first:
            self._at, self._measured = await asyncio.to_thread(_measure, kernels)
            await asyncio.sleep(_FIRST_SECONDS)
        before, since = self._measured, self._at
        self._at, self._measured = await asyncio.to_thread(_measure, kernels)
        elapsed = self._at - since
        self.latest = {
            kernel_id: Usage(
                pid=kernels[kernel_id].pid,
                cpu_percent=_percent(before.get(kernel_id), now, elapsed),
                memory_bytes=now.memory,
            )
            for kernel_id, now in self._measured.items()
        }


def _percent(before: _Measured | None, now: _Measured, elapsed: float) -> float:
    """Return the share of one CPU, rounded so that what does next to nothing does not change."""
    known = before.cpu if before is not None else now.cpu
    used = sum(seconds - known.get(process, 0.0) for process, seconds in now.cpu.items())
    return round(100 * max(used, 0.0) / elapsed, 1)


def _measure(kernels: Mapping[str, ProcessIdentity]) -> tuple[float, dict[str, _Measured]]:
    children = defaultdict(list)
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            children[process.ppid()].append(process.pid)
    measured = {
        kernel_id: _sum_up(_family(identity.pid, children))
        for kernel_id, identity in kernels.items()
        if is_running(identity)
    }
    return time.monotonic(), measured


def _family(pid: int, children: Mapping[int, list[int]]) -> Iterator[int]:
    """Yield a process, its children, and theirs."""
    yield pid
    for child in children.get(pid, ()):
        yield from _family(child, children)


def _sum_up(pids: Iterable[int]) -> _Measured:
    memory = 0
    cpu = {}
    for pid in pids:
        with contextlib.suppress(psutil.Error):  # it has ended meanwhile
            process = psutil.Process(pid)
            with process.oneshot():
                times = process.cpu_times()
                cpu[pid, process.create_time()] = times.user + times.system
                memory += process.memory_info().rss
    return _Measured(memory, cpu)
