"""The keeper's loop: what goes wrong in one callback is logged, and no other's matter."""

from __future__ import annotations

import selectors
import socket
import time
from contextlib import ExitStack
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from jupyter_sessions_ext.keeper import loop as loops
from jupyter_sessions_ext.keeper.loop import Loop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PAUSE = 0.1


class Watched(Loop):
    """A loop that ends when it is told to, or after a while; and files that can be read."""

    def __init__(self, stack: ExitStack) -> None:
        self.logged: list[str] = []
        super().__init__(self.logged.append)
        self._stack = stack
        self.call_later(10, self.stop)

    def file(self) -> socket.socket:
        """Return a socket on which something has come, and stays."""
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            self._stack.enter_context(end)
        theirs.send(b"x")
        return ours

    def every(self, seconds: float, callback: Callable[[], object]) -> None:
        """Call again and again."""

        def call() -> None:
            self.call_later(seconds, call)
            callback()

        call()

    @property
    def errors(self) -> list[str]:
        return [text.splitlines()[-1] for text in self.logged]


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    monkeypatch.setattr(loops, "PAUSE", PAUSE)
    with ExitStack() as stack:
        yield Watched(stack)


def test_a_file_whose_callback_fails_is_left_alone_for_a_while_and_then_watched_again(
    loop: Watched,
) -> None:
    failed, others = list[float](), list[float]()

    def fail(events: int) -> None:
        failed.append(time.monotonic())
        if len(failed) == 3:
            loop.stop()
        raise LookupError(events)

    loop.watch(loop.file(), fail)
    loop.every(PAUSE / 20, lambda: others.append(time.monotonic()))
    loop.run()
    assert loop.errors == [f"LookupError: {selectors.EVENT_READ}"] * 3
    for before, after in pairwise(failed):
        assert after - before >= PAUSE
        assert len([moment for moment in others if before < moment < after]) > 3


def test_a_file_that_is_left_alone_can_be_forgotten_or_watched_for_something_else(
    loop: Watched,
) -> None:
    one, two = loop.file(), loop.file()
    called = list[tuple[socket.socket, int]]()

    def fail(file: socket.socket, events: int) -> None:
        called.append((file, events))
        if len(called) == 3:
            loop.stop()
        raise LookupError

    for file in (one, two):
        loop.watch(file, lambda events, file=file: fail(file, events))  # type: ignore[misc]
    loop.call_later(PAUSE / 2, lambda: loop.forget(one))
    loop.call_later(PAUSE / 2, lambda: loop.watch_writing(two, also=True))
    loop.run()
    read, both = selectors.EVENT_READ, selectors.EVENT_READ | selectors.EVENT_WRITE
    assert sorted(called[:2], key=lambda call: call[0] is two) == [(one, read), (two, read)]
    assert called[2:] == [(two, both)]


def test_a_callback_may_fail_when_it_has_closed_its_file(loop: Watched) -> None:
    file = loop.file()

    def fail(_: int) -> None:
        loop.forget(file)
        file.close()
        loop.stop()
        raise LookupError

    loop.watch(file, fail)
    loop.run()
    assert loop.errors == ["LookupError"]


def test_what_is_called_soon_or_later_may_fail_and_the_next_is_called(loop: Watched) -> None:
    called = list[str]()

    def fail() -> None:
        raise LookupError

    loop.call_soon(fail)
    loop.call_soon(lambda: called.append("soon"))
    loop.call_later(0, fail)
    loop.call_later(0, lambda: called.append("later"))
    loop.call_later(0.001, loop.stop)
    loop.run()
    assert loop.errors == ["LookupError", "LookupError"]
    assert called == ["soon", "later"]


@pytest.mark.parametrize("is_reused", [False, True])
def test_a_file_that_is_forgotten_in_the_same_turn_is_not_called_any_more(
    loop: Watched, is_reused: bool
) -> None:
    """Whose it is by then may be another's: a process that was started again, for one."""
    files = [loop.file(), loop.file()]
    called: list[int] = []

    def other(_: int) -> None:
        called.append(2)
        loop.stop()

    def call(index: int) -> Callable[[int], object]:
        def callback(_: int) -> None:
            called.append(index)
            for file in files:
                loop.forget(file)
            if is_reused:
                loop.watch(files[1 - index], other)
            else:
                loop.stop()

        return callback

    for index, file in enumerate(files):
        loop.watch(file, call(index))
    loop.run()
    assert len(called) == 1 + is_reused
    assert called[1:] == [2] * is_reused
