"""What requests to ``/api/sessions`` cost beside stock, and beside a constant reply of their size.

Both servers are real and keep their sessions on disk; requests are made to the one and the other
in turn, so that whatever else the machine does meets both. It adds to both, though, and so brings
their ratio nearer to 1. Hence what is compared is the mean of the fastest tenth; the ratio of the
medians is told beside it, and differs where the machine was busy or where some requests are slower
than others.

The N sessions share 20 kernels, as no machine here runs 10,000 of them. Stock makes the model of a
kernel anew for each session and gains nothing by that. Ours writes it once for each change of the
kernel, however many sessions have it, and joins N texts for each list in which anything changed. So
a list after all 20 kernels were used costs what it does on a server with N kernels of which 20 were
used since the last list. What is not shown is one on which all N were.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from random import Random
from statistics import mean, median
from typing import TYPE_CHECKING, Final

from .figure import Figure, note
from .subject import AT_ONCE, Subject
from .ticker import fsync_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

FEW: Final = 100
MANY: Final = 1000
WARM_UPS: Final = 3

LIST_TO_STOCK: Final = 0.2
LIST_TO_FLOOR: Final = 3.0
GROWTH: Final = 1.3
ONE_TO_STOCK: Final = 1.0
ROUND_TO_STOCK: Final = 0.5
SCRAPE_MILLISECONDS: Final = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How often each is measured, and how many kernels and sessions there are."""

    kernels: int
    lists: int
    ones: int
    rounds: int
    most: int


FULL: Final = Size(kernels=20, lists=60, ones=500, rounds=150, most=10_000)
SHORT: Final = Size(kernels=10, lists=30, ones=100, rounds=30, most=4000)


def measure(folder: Path, short: bool) -> list[Figure]:
    """Send requests to two servers with as many sessions, and then to one with more of them."""
    size = SHORT if short else FULL
    with ExitStack() as running:
        ours = running.enter_context(_running(folder / "ours", size))
        with _running(folder / "stock", size, is_stock=True) as stock:
            figures = []
            for number in (FEW, MANY):
                for subject in (ours, stock):
                    subject.fill(number)
                disk = fsync_time(folder) * 1000
                note(f"requests: {number} sessions; an fsync takes {disk:.2f} ms")
                figures += _compare_ones(ours, stock, size.ones)
            figures = [
                *_compare_lists(ours, stock, size.lists),
                *figures,
                _compare_rounds(ours, stock, size.rounds),
            ]
        large = running.enter_context(_running(folder / "large", size))
        large.fill(size.most)
        note(f"requests: {size.most} sessions")
        return [*figures, *_compare_sizes(ours, large, size.lists)]


@contextmanager
def _running(folder: Path, size: Size, *, is_stock: bool = False) -> Iterator[Subject]:
    subject = Subject(folder, size.kernels, is_stock=is_stock)
    try:
        yield subject
    except BaseException:
        note(f"requests: the log of {subject.name} ends with\n{subject.server.log[-4000:]}")
        raise
    finally:
        subject.close()


def _compare_lists(ours: Subject, stock: Subject, rounds: int) -> list[Figure]:
    """Compare lists of sessions that did not change, and of such as did."""
    ours.answer(ours.list().body)
    for subject in (ours, stock):
        subject.connect()
    every = len(ours.kernels)
    times = _in_turn(
        rounds,
        {
            "ours": lambda: ours.list().seconds,
            "stock": lambda: stock.list().seconds,
            "floor": lambda: ours.constant().seconds,
            "renamed": lambda: _list_after(ours, ours.rename),
            "one used": lambda: _list_after(ours, lambda: ours.use_kernels(1)),
            "all used": lambda: _list_after(ours, lambda: ours.use_kernels(every)),
            "stock, all used": lambda: _list_after(stock, lambda: stock.use_kernels(every)),
        },
    )
    for subject in (ours, stock):
        subject.disconnect()
    what = f"list of {len(ours.sessions)}"
    return [
        _ratio(f"{what}, ours / stock", times, "ours", "stock", LIST_TO_STOCK),
        _ratio(f"{what}, ours / floor", times, "ours", "floor", LIST_TO_FLOOR),
        _ratio(
            f"{what} after a rename / floor",
            times,
            "renamed",
            "floor",
            LIST_TO_FLOOR,
            beside="stock",
        ),
        _ratio(
            f"{what} after use of 1 kernel of {every} / floor",
            times,
            "one used",
            "floor",
            LIST_TO_FLOOR,
            beside="stock",
        ),
        _ratio(
            f"{what} after use of all {every} kernels / floor",
            times,
            "all used",
            "floor",
            LIST_TO_FLOOR,
            beside="stock, all used",
        ),
    ]


def _list_after(subject: Subject, change: Callable[[], object]) -> float:
    """Return how long a list takes that must show a change."""
    before = subject.list().body
    change()
    reply = subject.list()
    assert reply.body != before, f"{subject.name} does not show the change"
    return reply.seconds


def _compare_ones(ours: Subject, stock: Subject, rounds: int) -> list[Figure]:
    """Compare reading and renaming one session."""
    reads = _in_turn(
        rounds, {"ours": lambda: ours.read().seconds, "stock": lambda: stock.read().seconds}
    )
    renames = _in_turn(
        rounds, {"ours": lambda: ours.rename().seconds, "stock": lambda: stock.rename().seconds}
    )
    number = len(ours.sessions)
    return [
        _ratio(f"GET of 1 in {number}, ours / stock", reads, "ours", "stock", ONE_TO_STOCK),
        _ratio(f"PATCH of 1 in {number}, ours / stock", renames, "ours", "stock", ONE_TO_STOCK),
    ]


def _compare_rounds(ours: Subject, stock: Subject, rounds: int) -> Figure:
    """Compare changes that are made at once, and are durable when they are acknowledged."""
    ours.answer(ours.read().body)
    times = _in_turn(
        rounds,
        {
            "ours": lambda: _rename_durably(ours),
            "stock": lambda: _rename_durably(stock),
            "floor": lambda: ours.constant("PATCH", AT_ONCE).seconds,
        },
    )
    name = f"{AT_ONCE} PATCHes at once in {len(ours.sessions)}, ours / stock"
    return _ratio(name, times, "ours", "stock", ROUND_TO_STOCK, beside="floor")


def _rename_durably(subject: Subject) -> float:
    renaming = subject.rename(AT_ONCE)
    stored = subject.stored(renaming.paths)
    assert stored == AT_ONCE, f"{subject.name} has acknowledged {AT_ONCE} and stored {stored}"
    return renaming.seconds


def _compare_sizes(ours: Subject, large: Subject, rounds: int) -> list[Figure]:
    """Compare what listing a session costs with what it costs among more of them."""
    large.answer(large.list().body)
    times = _in_turn(
        rounds,
        {
            "large": lambda: large.list().seconds,
            "ours": lambda: ours.list().seconds,
            "large, renamed": lambda: _list_after(large, large.rename),
            "ours, renamed": lambda: _list_after(ours, ours.rename),
            "floor": lambda: large.constant().seconds,
            "scrape": lambda: large.scrape().seconds,
            "scrape of fewer": lambda: ours.scrape().seconds,
        },
    )
    many, most = len(ours.sessions), len(large.sessions)
    share = most / many
    scrape, of_fewer = (median(times[key]) * 1000 for key in ("scrape", "scrape of fewer"))
    name = f"list of {most} / {share:g} lists of {many}"
    return [
        _ratio(name, times, "large", "ours", GROWTH, share=share, beside="floor"),
        _ratio(
            f"{name}, after renames", times, "large, renamed", "ours, renamed", GROWTH, share=share
        ),
        Figure(
            name=f"/metrics with {most} sessions",
            measured=scrape,
            target=SCRAPE_MILLISECONDS,
            unit="ms",
            detail=f"median of {rounds}; with {many} {of_fewer:.2f} ms",
        ),
    ]


def _in_turn(rounds: int, actions: Mapping[str, Callable[[], float]]) -> dict[str, list[float]]:
    """Do each of the actions so many times, in turn, and return their seconds."""
    times: dict[str, list[float]] = {name: [] for name in actions}
    chance = Random(0)
    for number in range(-WARM_UPS, rounds):
        # One that comes right after another of the same server finds its caches warm: in the order
        # of chance this favours none of them.
        for name in chance.sample(list(actions), len(actions)):
            seconds = actions[name]()
            if number >= 0:
                times[name].append(seconds)
    return times


def _ratio(
    name: str,
    times: Mapping[str, list[float]],
    over: str,
    under: str,
    target: float,
    *,
    share: float = 1,
    beside: str = "",
) -> Figure:
    """Return the ratio of what the fastest requests take.

    :param share: how often what it is divided by counts
    :param beside: what else was measured in these rounds and is worth telling
    """
    ratio, of_medians = (
        statistic(times[over]) / statistic(times[under]) / share for statistic in (_fastest, median)
    )
    told = ", ".join(
        f"{key} {_fastest(times[key]) * 1000:.2f} ms" for key in (over, under, beside) if key
    )
    return Figure(
        name=name,
        measured=ratio,
        target=target,
        detail=f"{told}; of the medians of {len(times[over])} {of_medians:.3g}",
    )


def _fastest(seconds: list[float]) -> float:
    """Return the mean of the fastest tenth."""
    return mean(sorted(seconds)[: max(len(seconds) // 10, 1)])
