"""What ``/metrics`` tells of sessions, beside jupyter_server's own metrics: ``docs/metrics.md``.

Metrics are the process's, as prometheus_client has them. Where several servers come and go in one,
as under pytest-jupyter, counters go on and gauges show the workspace of the latest server.
"""

from __future__ import annotations

import contextlib
import functools
from collections import Counter as Tally
from collections.abc import Callable, Collection, Coroutine, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal, ParamSpec, TypeVar, get_args
from weakref import WeakMethod

from prometheus_client import REGISTRY, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from .errors import KernelStartError, StoreUnavailableError, ValueRefusedError
from .models import SessionRecord, SessionState
from .wire import InvalidBodyError

P = ParamSpec("P")
T = TypeVar("T")

Operation = Literal[
    "create", "revive", "change", "follow", "delete",
    "forget", "interrupt", "restart", "attach", "import",
]  # fmt: skip
Result = Literal["ok", "refused", "unavailable", "failed"]
RecoveredKernel = Literal["adopted", "ended", "gone", "left", "failed"]

TYPES = ("notebook", "console", "file")
"""Types of sessions that clients are known to use; all others count as ``OTHER``."""
OTHER = "other"
JOURNALS = ("store", "kernels")

OPERATIONS = Counter(
    "jupyter_sessions_operations_total",
    "Operations on sessions, by what became of them",
    ["operation", "result"],
)
COMMIT_SECONDS = Histogram(
    "jupyter_sessions_store_commit_seconds",
    "How long commits to the store took, those that failed included",
    buckets=(
        *(0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05),
        *(0.1, 0.2, 0.5, 1, 2, 5, 10),
    ),
)
COMMIT_FAILURES = Counter(
    "jupyter_sessions_store_commit_failures_total", "Commits that the store could not make"
)
RECOVERY_KERNELS = Counter(
    "jupyter_sessions_recovery_kernels_total",
    "Kernels that earlier servers had started, by what became of them at start",
    ["result"],
)
RECOVERY_SESSIONS = Counter(
    "jupyter_sessions_recovery_sessions_total",
    "Sessions whose state was changed by the recovery at start",
    ["result"],
)
RECOVERY_SECONDS = Gauge("jupyter_sessions_recovery_seconds", "How long the recovery at start took")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What the gauges show of a workspace."""

    sessions: Collection[SessionRecord] = ()
    adopted_kernels: int = 0
    """Kernels that run here and that an earlier server started."""
    journal_bytes: Mapping[str, int] = field(default_factory=dict)
    """Sizes by journal, one of ``JOURNALS``."""


class _Gauges(Collector):
    """Gauges that are computed when they are scraped."""

    def __init__(self) -> None:
        self.read: Callable[[], Callable[[], Reading] | None] = lambda: None
        """Returns what reads the workspace, while there is one."""

    def collect(self) -> Iterator[GaugeMetricFamily]:
        read = self.read()
        reading = Reading() if read is None else read()
        sessions = GaugeMetricFamily(
            "jupyter_sessions_sessions", "Sessions by state and type", labels=["state", "type"]
        )
        for state in SessionState:
            tally = Tally(session.type for session in reading.sessions if session.state is state)
            for name in TYPES:
                sessions.add_metric([state.value, name], tally.pop(name, 0))
            sessions.add_metric([state.value, OTHER], sum(tally.values()))
        yield sessions
        yield GaugeMetricFamily(
            "jupyter_sessions_adopted_kernels",
            "Kernels of this server that an earlier one started",
            value=reading.adopted_kernels,
        )
        journals = GaugeMetricFamily(
            "jupyter_sessions_journal_bytes", "Sizes of journals on disk", labels=["journal"]
        )
        for name in JOURNALS:
            journals.add_metric([name], reading.journal_bytes.get(name, 0))
        yield journals


_GAUGES = _Gauges()
REGISTRY.register(_GAUGES)
for _operation in get_args(Operation):
    for _result in get_args(Result):
        OPERATIONS.labels(_operation, _result)
for _result in get_args(RecoveredKernel):
    RECOVERY_KERNELS.labels(_result)
for _result in ("recovered", "dormant"):
    RECOVERY_SESSIONS.labels(_result)


def follow(read: Callable[[], Reading]) -> None:
    """Have the gauges show what a workspace's method returns, for as long as there is one.

    It takes the place of the workspace that they have shown before.
    """
    _GAUGES.read = WeakMethod(read)


# ---------------------------------------------------------------------- operations

_underway: ContextVar[list[str] | None] = ContextVar("underway", default=None)
"""The operation that this context is part of; the list is empty when that has ended."""


@contextlib.contextmanager
def operation(name: Operation, times: int = 1) -> Iterator[None]:
    """Count an operation by what becomes of it; one within another is a part of that one.

    :param times: to how many sessions it is done at once
    """
    if _underway.get():
        yield
        return
    underway: list[str] = [name]
    token = _underway.set(underway)
    result: Result = "ok"
    try:
        yield
    except BaseException as error:
        result = result_of(error)
        raise
    finally:
        underway.clear()  # also for what was begun in this context and goes on
        _underway.reset(token)
        OPERATIONS.labels(name, result).inc(times)


def counted(
    name: Operation,
) -> Callable[[Callable[P, Coroutine[Any, Any, T]]], Callable[P, Coroutine[Any, Any, T]]]:
    """Have each call of an asynchronous function counted as an operation."""

    def decorate(function: Callable[P, Coroutine[Any, Any, T]]) -> Any:
        @functools.wraps(function)
        async def call(*args: P.args, **kwargs: P.kwargs) -> T:
            with operation(name):
                return await function(*args, **kwargs)

        return call

    return decorate


_REFUSALS = {"NoSuchKernel", "DuplicateKernelError"}
"""jupyter_client's errors about what a client has asked for; they bear no status."""


def result_of(error: BaseException) -> Result:
    """Tell what became of an operation that raised an error."""
    if isinstance(error, KernelStartError) and error.__cause__ is not None:
        error = error.__cause__
    status = getattr(error, "status_code", None)
    if status == 503 or isinstance(error, StoreUnavailableError):
        return "unavailable"
    if isinstance(status, int):
        return "refused" if status < 500 else "failed"
    names = {cls.__name__ for cls in type(error).__mro__}
    is_refused = isinstance(error, ValueRefusedError | InvalidBodyError) or names & _REFUSALS
    return "refused" if is_refused else "failed"


# ---------------------------------------------------------------------- commits, recovery


@contextlib.contextmanager
def commit() -> Iterator[None]:
    """Time a commit to the store, and count it where the store cannot make it."""
    with COMMIT_SECONDS.time(), COMMIT_FAILURES.count_exceptions(StoreUnavailableError):
        yield


def recovered_kernel(result: RecoveredKernel) -> None:
    """Count what became of a recorded kernel when a server started."""
    RECOVERY_KERNELS.labels(result).inc()


def recovered_session(session: SessionRecord) -> None:
    """Count a session that the recovery has brought back, or has turned dormant."""
    live = session.state is SessionState.LIVE
    RECOVERY_SESSIONS.labels("recovered" if live else "dormant").inc()
