"""What happens when the server renames or deletes a document whose session is being changed.

Each test is a row of the table in docs/sessions-api.md, held as in test_races.py.
"""

from __future__ import annotations

from races import Races, Reply, told


def rename(races: Races, document: str) -> None:
    """Rename a document on the server, to b.ipynb, and wait until its sessions have followed."""
    told(races.send("PATCH", document, {"path": races.path("b.ipynb")}), 200)
    races.until_done("renamed")


def delete(races: Races, document: str) -> None:
    """Delete a document on the server, and wait until that has reached its sessions."""
    told(races.send("DELETE", document), 204)
    races.until_asked("deleted")


def delete_during_start(races: Races, document: str) -> Reply:
    """Delete a document while a kernel starts for it; return what its session was asked for."""
    with races.held("start") as start:
        post = start.holds(races.post("a.ipynb"))
        delete(races, document)
    return post


def test_a_document_that_is_renamed_during_the_start_takes_its_session_along(races: Races) -> None:
    document = races.new_document("a.ipynb")
    with races.held("start") as start:
        post = start.holds(races.post("a.ipynb", name=races.path("a.ipynb")))
        rename(races, document)
        second = races.post("b.ipynb")
        races.until_asked("POST", 2)
        assert [k.intent.path for k in races.stored().kernels if k.intent] == [
            races.path("b.ipynb")
        ]
    model = told(post, 201)
    assert (model["path"], model["name"]) == (races.path("b.ipynb"), races.path("b.ipynb"))
    assert told(second, 201)["id"] == model["id"]
    races.check(model)


def test_a_document_that_is_renamed_takes_its_dormant_session_along_while_it_is_revived(
    races: Races,
) -> None:
    document = races.new_document("a.ipynb")
    dormant = races.new_dormant("a.ipynb")
    with races.held("start") as start:
        post = start.holds(races.post("a.ipynb"))
        rename(races, document)
    model = told(post, 201)
    assert (model["id"], model["path"]) == (dormant["id"], races.path("b.ipynb"))
    races.check(model)


def test_a_document_that_is_renamed_during_a_kernel_change_takes_its_session_along(
    races: Races,
) -> None:
    document = races.new_document("a.ipynb")
    old = races.new("a.ipynb")
    with races.held("start") as start:
        change = start.holds(races.patch(old, kernel={"name": "python3"}))
        rename(races, document)
    model = told(change, 200)
    assert model["path"] == races.path("b.ipynb")
    assert model["kernel"]["id"] != old["kernel"]["id"]
    races.check(model)


def test_a_document_that_server_and_client_rename_at_once_is_renamed_once(races: Races) -> None:
    document = races.new_document("a.ipynb")
    model = races.new("a.ipynb")
    rename = races.send("PATCH", document, {"path": races.path("b.ipynb")})
    patch = races.patch(model, path="b.ipynb")
    told(rename, 200)
    renamed = told(patch, 200)
    races.until_done("renamed")
    assert races.history(model).count("renamed") == 1
    races.check(renamed)


def test_a_document_that_is_deleted_during_a_failing_start_leaves_nothing(races: Races) -> None:
    document = races.new_document("a.ipynb")
    races.new_dormant("a.ipynb")
    with races.held("start") as start:
        post = races.post("a.ipynb")
        [kernel] = start.reached()
        delete(races, document)
        start.fail(kernel)
        told(post, 500)
    races.check()


def test_a_document_that_is_deleted_during_a_kernel_change_ends_both_kernels(races: Races) -> None:
    document = races.new_document("a.ipynb")
    old = races.new("a.ipynb")
    with races.held("start") as start:
        change = start.holds(races.patch(old, kernel={"name": "python3"}))
        delete(races, document)
        races.until_done("deleted")
        races.check_listed()
        assert old["kernel"]["id"] not in races.running()
    told(change, 404)
    races.check()


def test_a_document_and_its_session_that_are_deleted_at_once_end_one_kernel(races: Races) -> None:
    document = races.new_document("a.ipynb")
    model = races.new("a.ipynb")
    with races.held("end") as end:
        told(races.send("DELETE", document), 204)
        end.reached()
        told(races.delete(model), 404)
        races.check_listed()
    races.until_done("deleted")
    assert races.history(model).count("deleted") == 1
    races.check()


def test_a_document_that_is_deleted_during_the_start_has_no_session_after_it(races: Races) -> None:
    document = races.new_document("a.ipynb")
    post = delete_during_start(races, document)
    assert post.result().status_code in (201, 404)
    races.check()


def test_a_document_that_is_deleted_while_its_session_is_revived_has_none_after_it(
    races: Races,
) -> None:
    document = races.new_document("a.ipynb")
    races.new_dormant("a.ipynb")
    post = delete_during_start(races, document)
    assert post.result().status_code in (201, 404)
    races.check()
