"""What happens when sessions are opened, renamed and deleted at once.

Each test is a row of the table in docs/sessions-api.md. Its order is held by the start or the end
of a kernel; meanwhile a client lists all the time.
"""

from __future__ import annotations

from races import MOST_AT_ONCE, Races, told


def test_posts_for_one_path_are_told_one_session(races: Races) -> None:
    with races.held("start") as start:
        first = start.holds(races.post())
        second = races.post()
        races.until_asked("POST", 2)
        assert not first.done()
        assert not second.done()
    model = told(first, 201)
    assert told(second, 201)["id"] == model["id"]
    races.check(model)


def test_fifty_posts_for_one_path_start_one_kernel(races: Races) -> None:
    with races.held("start") as start:
        posts = [races.post() for _ in range(MOST_AT_ONCE)]
        races.until_asked("POST", MOST_AT_ONCE)
        [kernel] = start.reached()
    models = [told(post, 201) for post in posts]
    assert {(model["id"], model["kernel"]["id"]) for model in models} == {(models[0]["id"], kernel)}
    races.check(models[0])


def test_the_first_of_posts_decides_what_the_session_is(races: Races) -> None:
    with races.held("start") as start:
        first = start.holds(races.post(name="first", type="file"))
        second = races.post(name="second", type="notebook", kernel={"name": "no such kernel"})
        races.until_asked("POST", 2)
    model = told(first, 201)
    assert (model["name"], model["type"], model["kernel"]["name"]) == ("first", "file", "python3")
    assert told(second, 201)["id"] == model["id"]
    races.check(model)


def test_a_post_that_waits_begins_anew_when_the_first_fails(races: Races) -> None:
    with races.held("start") as start:
        first = races.post()
        [failing] = start.reached()
        others = [races.post() for _ in range(5)]
        races.until_asked("POST", 6)
        start.fail(failing)
        told(first, 500)
        kernels = start.reached(2)
        races.check_listed()
    models = [told(other, 201) for other in others]
    assert len(kernels) == 2
    assert {model["id"] for model in models} == {models[0]["id"]}
    races.check(models[0])


def test_a_post_for_another_path_does_not_wait(races: Races) -> None:
    with races.held("start") as start:
        first = races.post()
        [held] = start.reached()
        second = races.post("b.ipynb")
        [other] = set(start.reached(2)) - {held}
        start.release(other)
        model = told(second, 201)
        assert not first.done()
    races.check(told(first, 201), model)


def test_posts_that_revive_are_told_the_same_session(races: Races) -> None:
    dormant = races.new_dormant()
    with races.held("start") as start:
        posts = [races.post() for _ in range(3)]
        races.until_asked("POST", 3)
        start.reached()
    models = [told(post, 201) for post in posts]
    assert {model["id"] for model in models} == {dormant["id"]}
    races.check(models[0])


def test_a_failed_revival_leaves_the_session_dormant(races: Races) -> None:
    dormant = races.new_dormant()
    with races.held("start") as start:
        post = races.post()
        [kernel] = start.reached()
        start.fail(kernel)
        told(post, 500)
    races.check(dormant=[dormant])
    model = told(races.post(), 201)
    assert model["id"] == dormant["id"]
    races.check(model)


def test_a_post_while_the_session_is_being_deleted_makes_another(races: Races) -> None:
    old = races.new()
    with races.held("end") as end:
        delete = end.holds(races.delete(old))
        model = told(races.post(), 201)
        assert model["id"] != old["id"]
        assert not delete.done()
    told(delete, 204)
    races.check(model)


def test_a_post_and_a_delete_at_once_leave_what_the_later_one_says(races: Races) -> None:
    for _ in range(5):
        old = races.new()
        delete, post = races.delete(old), races.post()
        model = told(post, 201)
        told(delete, 204)
        races.check(*([] if model["id"] == old["id"] else [model]))
        if model["id"] != old["id"]:
            told(races.delete(model), 204)


def test_a_session_that_is_being_created_cannot_be_deleted(races: Races) -> None:
    dormant = races.new_dormant()
    with races.held("start") as start:
        post = start.holds(races.post())
        told(races.delete(dormant), 404)
        told(races.patch(dormant, path="b.ipynb"), 404)
    model = told(post, 201)
    assert model["id"] == dormant["id"]
    races.check(model)


def test_a_rename_onto_a_live_path_leaves_both(races: Races) -> None:
    first, second = races.new("a.ipynb"), races.new("b.ipynb")
    renamed = told(races.patch(second, path="a.ipynb"), 200)
    assert told(races.post("a.ipynb"), 201)["id"] == first["id"]
    races.check(first, renamed)


def test_a_rename_onto_a_dormant_path_absorbs_it(races: Races) -> None:
    dormant, live = races.new_dormant("a.ipynb"), races.new("b.ipynb")
    renamed = told(races.patch(live, path="a.ipynb"), 200)
    assert (renamed["id"], renamed["kernel"]["id"]) == (live["id"], live["kernel"]["id"])
    history = races.history(live)
    assert races.history(dormant) == []
    assert {"created", "renamed", "absorbed", "dormant"} <= set(history)
    races.check(renamed)


def test_a_rename_onto_a_path_that_is_being_created_leaves_both(races: Races) -> None:
    live = races.new("b.ipynb")
    with races.held("start") as start:
        post = start.holds(races.post("a.ipynb"))
        renamed = told(races.patch(live, path="a.ipynb"), 200)
    model = told(post, 201)
    assert model["id"] != live["id"]
    races.check(renamed, model)


def test_a_rename_onto_a_dormant_path_that_is_being_revived_leaves_both(races: Races) -> None:
    dormant, live = races.new_dormant("a.ipynb"), races.new("b.ipynb")
    with races.held("start") as start:
        post = start.holds(races.post("a.ipynb"))
        renamed = told(races.patch(live, path="a.ipynb"), 200)
        races.check_listed(renamed)
    model = told(post, 201)
    assert model["id"] == dormant["id"]
    assert races.history(model) == ["created", "dormant", "revived"]
    assert races.history(live) == ["created", "renamed"]
    races.check(renamed, model)


def test_of_two_renames_the_later_one_stays(races: Races) -> None:
    model = races.new()
    renames = [races.patch(model, path=f"{n}.ipynb") for n in range(20)]
    paths = {told(rename, 200)["path"] for rename in renames}
    assert paths <= {races.path(f"{n}.ipynb") for n in range(20)}
    last = told(races.get(model), 200)
    assert last["path"] in paths
    assert races.history(model)[-1] == "renamed"
    races.check(last)


def test_a_new_path_and_a_new_name_at_once_are_both_made(races: Races) -> None:
    model = races.new()
    for n in range(10):
        path, name = races.patch(model, path=f"{n}.ipynb"), races.patch(model, name=f"name {n}")
        told(path, 200)
        told(name, 200)
        both = told(races.get(model), 200)
        assert (both["path"], both["name"]) == (races.path(f"{n}.ipynb"), f"name {n}")
    races.check(both)


def test_a_session_that_is_being_deleted_cannot_be_changed(races: Races) -> None:
    model = races.new()
    with races.held("end") as end:
        delete = end.holds(races.delete(model))
        told(races.patch(model, path="b.ipynb"), 404)
        told(races.patch(model, kernel={"name": "python3"}), 404)
        told(races.get(model), 404)
        races.check_listed()
    told(delete, 204)
    races.check()


def test_a_rename_and_a_delete_at_once_delete_it(races: Races) -> None:
    for _ in range(5):
        model = races.new()
        rename, delete = races.patch(model, path="b.ipynb"), races.delete(model)
        told(delete, 204)
        assert rename.result().status_code in (200, 404)
        races.check()


def test_of_two_deletes_one_is_told_that_it_is_gone(races: Races) -> None:
    model = races.new()
    with races.held("end") as end:
        first = end.holds(races.delete(model))
        told(races.delete(model), 404)
        assert not first.done()
    told(first, 204)
    races.check()


def test_many_deletes_at_once_end_one_kernel_once(races: Races) -> None:
    model = races.new()
    deletes = [races.delete(model) for _ in range(20)]
    statuses = sorted(delete.result().status_code for delete in deletes)
    assert statuses == [204] + [404] * 19
    assert races.history(model).count("deleted") == 1
    races.check()


def test_sessions_of_one_kernel_are_deleted_at_once(races: Races) -> None:
    first = races.new("a.ipynb")
    second = races.new("b.ipynb", kernel={"id": first["kernel"]["id"]})
    with races.held("end") as end:
        deletes = [races.delete(first)]
        end.reached()
        deletes.append(races.delete(second))
        races.until_asked("DELETE", 2)
    for delete in deletes:
        told(delete, 204)
    races.check()


def test_a_delete_leaves_the_other_sessions_of_its_kernel_dormant(races: Races) -> None:
    first = races.new("a.ipynb")
    second = races.new("b.ipynb", kernel={"id": first["kernel"]["id"]})
    with races.held("end") as end:
        delete = end.holds(races.delete(first))
        races.check_listed(second)
        rename = told(races.patch(second, path="c.ipynb"), 200)
    told(delete, 204)
    assert rename["kernel"]["id"] == first["kernel"]["id"]
    races.check(dormant=[second])
