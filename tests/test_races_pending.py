"""What happens at once where kernels are pending: POST is answered before its kernel runs.

Each test is a row of the table in docs/sessions-api.md, held as in test_races.py.
"""

from __future__ import annotations

import pytest
from races import PENDING, Model, Races, told
from servers import wait_until

from jupyter_sessions_ext.models import KernelPhase


@pytest.fixture(scope="module")
def race_options() -> list[str]:
    return [PENDING]


def check_replaced(races: Races, old: Model, new: Model) -> None:
    """Check that one pending kernel is gone when it has started, and the other one stays."""
    races.until_gone(old["kernel"]["id"])
    races.until_stored(new["kernel"]["id"], KernelPhase.RUNNING)
    races.check(new)


def test_posts_for_one_path_are_told_one_pending_session(races: Races) -> None:
    with races.held("start") as start:
        posts = [races.post() for _ in range(10)]
        models = [told(post, 201) for post in posts]
        assert {model["id"] for model in models} == {models[0]["id"]}
        assert start.reached() == [models[0]["kernel"]["id"]]
        races.check_listed(models[0])
    races.until_stored(models[0]["kernel"]["id"], KernelPhase.RUNNING)
    races.check(models[0])


def test_a_pending_session_is_deleted_when_its_kernel_has_started(races: Races) -> None:
    with races.held("start") as start:
        model = told(races.post(), 201)
        start.reached()
        delete = races.delete(model)
        races.until_unlisted(model)
        races.check_listed()
        told(races.get(model), 404)
        assert not delete.done()
    told(delete, 204)
    races.until_gone(model["kernel"]["id"])
    races.check()


def test_a_post_while_a_pending_session_is_deleted_makes_another(races: Races) -> None:
    with races.held("start") as start:
        old = told(races.post(), 201)
        start.reached()
        delete = races.delete(old)
        races.until_unlisted(old)
        new = told(races.post(), 201)
        assert new["id"] != old["id"]
        races.check_listed(new)
    told(delete, 204)
    check_replaced(races, old, new)


def test_a_pending_kernel_that_is_replaced_ends_when_it_has_started(races: Races) -> None:
    with races.held("start") as start:
        old = told(races.post(), 201)
        start.reached()
        new = told(races.patch(old, kernel={"name": "python3"}), 200)
        assert new["kernel"]["id"] != old["kernel"]["id"]
        races.check_listed(new)
    check_replaced(races, old, new)


def test_a_pending_kernel_that_fails_is_gone_with_its_session(races: Races) -> None:
    with races.held("start") as start:
        model = told(races.post(), 201)
        [kernel] = start.reached()
        start.fail(kernel)
        told(races.delete(model), 204)
    kernels = "/api/kernels"
    wait_until(lambda: races.server.get(kernels).json() == [], 10, "the kernel was forgotten")
    races.until_gone(kernel)
    races.check()
