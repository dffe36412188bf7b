"""What happens when a session is given another kernel while something else happens to it.

Each test is a row of the table in docs/sessions-api.md, held as in test_races.py.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

from clients import sessions
from homes import kernel_process
from races import Model, Races, Reply, told

from jupyter_sessions_ext.models import KernelPhase

if TYPE_CHECKING:
    from collections.abc import Iterator

OTHER: Final = {"name": "python3"}
"""A kernel that a session is to have instead of its own."""


@contextlib.contextmanager
def changing_kernel(
    races: Races, session: Model, held: str = "start", **more: str
) -> Iterator[Reply]:
    """Give a session another kernel, whose start is held, or the end of the one before."""
    with races.held(held) as gate:
        yield gate.holds(races.patch(session, kernel=OTHER, **more))


def test_a_kernel_change_shows_the_old_kernel_until_the_new_one_runs(races: Races) -> None:
    old = races.new()
    with races.held("start") as start:
        change = races.patch(old, kernel=OTHER)
        [kernel] = start.reached()
        races.check_listed(old)
        assert told(races.post(), 201)["kernel"]["id"] == old["kernel"]["id"]
    new = told(change, 200)
    assert (new["id"], new["kernel"]["id"]) == (old["id"], kernel)
    races.check(new)


def test_a_failed_kernel_change_leaves_the_old_kernel(races: Races) -> None:
    old = races.new()
    with races.held("start") as start:
        change = races.patch(old, kernel=OTHER, path="b.ipynb")
        [kernel] = start.reached()
        start.fail(kernel)
        told(change, 501)
    races.check(old)


def test_a_rename_while_the_kernel_is_changed_is_made_at_once(races: Races) -> None:
    old = races.new()
    with changing_kernel(races, old) as change:
        renamed = told(races.patch(old, path="b.ipynb"), 200)
        assert renamed["kernel"]["id"] == old["kernel"]["id"]
        races.check_listed(renamed)
    new = told(change, 200)
    assert new["path"] == races.path("b.ipynb")
    assert new["kernel"]["id"] != old["kernel"]["id"]
    races.check(new)


def test_a_path_that_comes_with_a_kernel_is_made_with_it(races: Races) -> None:
    old = races.new()
    with changing_kernel(races, old, path="with-kernel.ipynb") as change:
        renamed = told(races.patch(old, path="meanwhile.ipynb"), 200)
        races.check_listed(renamed)
    new = told(change, 200)
    assert new["path"] == races.path("with-kernel.ipynb")
    races.check(new)


def test_kernel_changes_are_made_one_after_the_other(races: Races) -> None:
    old = races.new()
    with races.held("start") as start:
        changes = [races.patch(old, kernel=OTHER)]
        [first] = start.reached()
        changes += [races.patch(old, kernel=OTHER) for _ in range(3)]
        races.until_asked("PATCH", 4)
        assert start.reached() == [first]
    kernels = [told(change, 200)["kernel"]["id"] for change in changes]
    assert kernels[0] == first
    assert len({old["kernel"]["id"], *kernels}) == 5
    last = told(races.get(old), 200)
    assert last["kernel"]["id"] in kernels[1:]
    races.check(last)


def test_a_kernel_change_that_fails_lets_the_next_one_be_made(races: Races) -> None:
    old = races.new()
    with races.held("start") as start:
        first = races.patch(old, kernel=OTHER)
        [failing] = start.reached()
        second = races.patch(old, kernel=OTHER)
        races.until_asked("PATCH", 2)
        start.fail(failing)
        told(first, 501)
        [kernel] = set(start.reached(2)) - {failing}
        races.check_listed(old)
    new = told(second, 200)
    assert new["kernel"]["id"] == kernel
    races.check(new)


def test_a_running_kernel_is_taken_after_the_change_before(races: Races) -> None:
    model, other = races.new("a.ipynb"), races.new("b.ipynb")
    with races.held("start") as start:
        change = races.patch(model, kernel=OTHER)
        [started] = start.reached()
        take = races.patch(model, kernel={"id": other["kernel"]["id"]})
        races.until_asked("PATCH", 2)
        races.check_listed(model, other)
    assert told(change, 200)["kernel"]["id"] == started
    taken = told(take, 200)
    assert taken["kernel"]["id"] == other["kernel"]["id"]
    races.check(taken, other)


def test_two_sessions_that_exchange_kernels_at_once_keep_what_runs(races: Races) -> None:
    first, second = races.new("a.ipynb"), races.new("b.ipynb")
    changes = [
        races.patch(first, kernel={"id": second["kernel"]["id"]}),
        races.patch(second, kernel={"id": first["kernel"]["id"]}),
    ]
    statuses = [change.result().status_code for change in changes]
    assert set(statuses) <= {200, 400, 404}
    races.check_consistent()


def test_a_delete_while_the_kernel_is_changed_ends_both_kernels(races: Races) -> None:
    old = races.new()
    with changing_kernel(races, old) as change:
        told(races.delete(old), 204)
        races.check_listed()
        assert old["kernel"]["id"] not in races.running()
    told(change, 404)
    races.check()


def test_a_delete_while_the_replaced_kernel_ends_ends_both_kernels(races: Races) -> None:
    old = races.new()
    with races.held("end") as end:
        change = races.patch(old, kernel=OTHER)
        assert end.reached() == [old["kernel"]["id"]]
        [new] = sessions(races.server)
        delete = races.delete(old)
        assert set(end.reached(2)) == {old["kernel"]["id"], new["kernel"]["id"]}
        races.check_listed()
    told(delete, 204)
    assert told(change, 200)["kernel"]["id"] == new["kernel"]["id"]
    races.check()


def test_a_kernel_change_while_the_session_is_being_deleted_starts_nothing(races: Races) -> None:
    old = races.new()
    with races.held("end") as end:
        delete = end.holds(races.delete(old))
        launched = races.signs("launched")
        told(races.patch(old, kernel=OTHER), 404)
        assert races.signs("launched") == launched
    told(delete, 204)
    races.check()


def test_a_rename_while_the_replaced_kernel_ends_is_made_at_once(races: Races) -> None:
    old = races.new()
    with changing_kernel(races, old, "end") as change:
        renamed = told(races.patch(old, path="b.ipynb"), 200)
        assert renamed["kernel"]["id"] != old["kernel"]["id"]
        races.check_listed(renamed)
    told(change, 200)
    races.check(renamed)


def test_a_kernel_change_of_a_session_that_loses_its_kernel_is_not_made(races: Races) -> None:
    old = races.new()
    with changing_kernel(races, old) as change:
        races.end_kernel(old)
    told(change, 404)
    races.check(dormant=[old])


def test_a_kernel_change_while_the_session_is_being_revived_waits_for_nothing(races: Races) -> None:
    dormant = races.new_dormant()
    with races.held("start") as start:
        post = start.holds(races.post())
        told(races.patch(dormant, kernel=OTHER), 404)
    races.check(told(post, 201))


def test_a_kernel_change_ends_the_kernel_of_a_revival_meanwhile(races: Races) -> None:
    old = races.new()
    with races.held("start") as start:
        change = races.patch(old, kernel=OTHER)
        [changed] = start.reached()
        races.end_kernel(old)
        post = races.post()
        [revived] = set(start.reached(2)) - {changed}
        start.release(revived)
        assert told(post, 201)["kernel"]["id"] == revived
    new = told(change, 200)
    assert (new["id"], new["kernel"]["id"]) == (old["id"], changed)
    races.check(new)


def test_a_session_does_not_take_a_kernel_that_is_being_ended(races: Races) -> None:
    first, second = races.new("a.ipynb"), races.new("b.ipynb")
    with races.held("end") as end:
        delete = end.holds(races.delete(second))
        told(races.patch(first, kernel={"id": second["kernel"]["id"]}), 400)
    told(delete, 204)
    races.check(first)


def test_a_new_session_does_not_take_a_kernel_that_is_being_ended(races: Races) -> None:
    first = races.new("a.ipynb")
    with races.held("end") as end:
        delete = end.holds(races.delete(first))
        told(races.post("b.ipynb", kernel={"id": first["kernel"]["id"]}), 409)
    told(delete, 204)
    races.check()


def test_a_delete_while_the_kernel_is_restarted_ends_it(races: Races) -> None:
    model = races.new()
    with races.held("start") as start:
        start.holds(races.restart(model))
        delete = races.delete(model)
        races.until_unlisted(model)
        races.check_listed()
        assert not delete.done()
    told(delete, 204)
    races.check()


def test_a_delete_while_a_dead_kernel_is_restarted_ends_it(races: Races) -> None:
    model = races.new()
    with races.held("start") as start:
        kernel_process(races.home, model["kernel"]["id"]).kill()
        start.reached()
        delete = races.delete(model)
        races.until_unlisted(model)
        races.check_listed()
    told(delete, 204)
    races.check()


def test_a_kernel_that_is_restarted_while_its_session_is_being_deleted_ends(races: Races) -> None:
    model = races.new()
    with races.held("start") as start:
        with races.held("end") as end:
            delete = end.holds(races.delete(model))
            restart = start.holds(races.restart(model))
        told(delete, 204)
    restart.result()
    races.until_ended_again(model)
    races.check()


def test_a_kernel_change_while_the_kernel_is_restarted_ends_it(races: Races) -> None:
    old = races.new()
    with races.held("start") as start:
        races.restart(old)
        [restarted] = start.reached()
        change = races.patch(old, kernel=OTHER)
        [kernel] = set(start.reached(2)) - {restarted}
        start.release(kernel)
        races.until_stored(restarted, KernelPhase.STOPPING)
        assert not change.done()
    races.check(told(change, 200))


def test_a_kernel_that_is_ended_while_it_is_restarted_leaves_its_session_dormant(
    races: Races,
) -> None:
    model = races.new()
    with races.held("start") as start:
        start.holds(races.restart(model))
        end = races.delete_kernel(model)
        races.until_stored(model["kernel"]["id"], KernelPhase.STOPPING)
        races.check_listed(model)
    told(end, 204)
    races.check(dormant=[model])
