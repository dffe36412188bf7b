"""What is done to sessions and kernels on the page at ``/sessions``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from clients import new_session, sessions
from pages import API, BASE_URL, bring_in, focused, listed, no_loop, row, see, select, visit

if TYPE_CHECKING:
    from playwright.sync_api import Page
    from servers import Server

jp_asyncio_loop = jp_server_cleanup = no_loop


# ---------------------------------------------------------------------- acting


def test_many_are_deleted_after_a_question_that_says_what_is_lost(page: Page, site: Server) -> None:
    one, two = (new_session(site, path=f"{n}.ipynb") for n in ("one", "two"))
    bring_in(site, "dormant.ipynb", "stays.ipynb")
    visit(page, site)
    for path in ("one.ipynb", "two.ipynb", "dormant.ipynb"):
        select(page, path)
    see(page.locator("#chosen")).to_contain_text("3 selected")

    delete = page.get_by_role("button", name="Delete…")
    delete.press("Enter")
    box = page.get_by_role("dialog", name="Delete 3 sessions?")
    losses = box.locator(".losses")
    see(losses).to_contain_text("2 kernels of 2 live sessions end, with all variables in them.")
    see(losses).to_contain_text("1 dormant session is gone for good")
    see(losses).to_contain_text("No file is deleted.")
    assert focused(page) == "Cancel"
    for _ in range(6):
        page.keyboard.press("Tab")
        assert page.evaluate("[document.body, null].includes(document.activeElement)") or (
            page.locator("#box:focus-within").count()
        )
    page.keyboard.press("Escape")
    see(box).to_be_hidden()
    see(delete).to_be_focused()
    assert len(sessions(site)) == 2

    delete.press("Enter")
    yes = box.get_by_role("button", name="Delete 3 sessions")
    while focused(page) != "Delete 3 sessions":
        page.keyboard.press("Tab")
    yes.press("Enter")
    done = page.get_by_role("dialog", name="3 sessions deleted")
    see(done.locator(".paths li")).to_have_count(3)
    assert focused(page) == "Close"
    page.keyboard.press("Enter")
    see(page.locator("#count")).to_have_text("1 session")
    assert listed(page) == ["stays.ipynb"]
    assert sessions(site) == []
    running = {kernel["id"] for kernel in site.get("/api/kernels").json()}
    assert running.isdisjoint({one["kernel"]["id"], two["kernel"]["id"]})


def test_all_that_match_are_acted_on_by_their_filter(page: Page, site: Server) -> None:
    bring_in(site, *(f"old/{n:03}.ipynb" for n in range(120)), "new/a.ipynb")
    visit(page, site, "q=old/")
    page.get_by_role("checkbox", name="Select all on this page").check()
    see(page.locator("#chosen")).to_contain_text("100 selected")
    page.get_by_role("button", name="Select all 120 that match").click()
    see(page.locator("#chosen")).to_contain_text("120 selected")
    page.get_by_role("button", name="Delete…").click()
    box = page.get_by_role("dialog", name="Delete 120 sessions?")
    see(box).to_contain_text("and 20 more")
    with page.expect_request(f"**{API}/sessions/actions") as sent:
        box.get_by_role("button", name="Delete 120 sessions").click()
    assert sent.value.post_data_json == {
        "action": "delete",
        "filter": {"q": "old/"},
        "dry_run": False,
    }
    page.get_by_role("dialog", name="120 sessions deleted").get_by_role("button").click()
    page.get_by_role("button", name="Clear filters").first.click()
    see(page.locator("#count")).to_have_text("1 session")
    assert listed(page) == ["new/a.ipynb"]


def test_what_failed_stays_to_be_read_with_what_to_do(page: Page, site: Server) -> None:
    bring_in(site, "no-kernel.ipynb", kernel="nonesuch")
    bring_in(site, "fine.ipynb")
    visit(page, site)
    page.get_by_role("checkbox", name="Select all on this page").check()
    see(page.get_by_role("button", name="Restart…")).to_be_disabled()
    page.get_by_role("button", name="Revive…").click()
    page.get_by_role("button", name="Revive 2 sessions").click()
    box = page.get_by_role("dialog", name="1 of 2 sessions revived")
    failure = box.locator(".failures li")
    see(failure).to_contain_text("no-kernel.ipynb")
    see(failure).to_contain_text("nonesuch")
    see(failure).to_contain_text("Open its document with another kernel")
    box.get_by_role("button", name="Close").click()
    see(page.locator("#chosen")).to_contain_text("1 selected")
    see(row(page, "no-kernel.ipynb").get_by_role("checkbox")).to_be_checked()
    see(row(page, "fine.ipynb")).to_contain_text("Live")


def test_a_kernel_without_a_session_can_be_attached_and_shut_down(page: Page, site: Server) -> None:
    visit(page, site)
    section = page.get_by_role("region", name="Kernels without a session")
    see(section).to_be_hidden()
    attached, ended = (
        site.post("/api/kernels", {"name": "python3"}).json()["id"] for _ in range(2)
    )
    see(section.locator("tbody tr")).to_have_count(2)
    section.locator(f"[data-id='{ended}']").get_by_role("button", name="Shut down…").click()
    page.get_by_role("button", name="Shut down", exact=True).click()
    see(section.locator("tbody tr")).to_have_count(1)
    section.locator(f"[data-id='{attached}']").get_by_role("button", name="Attach…").click()
    page.get_by_label("Path of the document").fill("attached.ipynb")
    page.keyboard.press("Enter")
    see(row(page, "attached.ipynb")).to_contain_text("Live")
    see(section).to_be_hidden()
    [session] = sessions(site)
    assert (session["path"], session["kernel"]["id"]) == ("attached.ipynb", attached)


# ---------------------------------------------------------------------- the drawer


def test_the_drawer_tells_of_a_session_and_steers_it(page: Page, site: Server) -> None:
    session = new_session(site, path="reports/old name.ipynb")
    kernel_id = session["kernel"]["id"]
    write = "import os, sys; x = 1; os.write(sys.stderr._original_stdstream_copy, b'<b>a log\\n')"
    site.execute(kernel_id, write)
    visit(page, site)
    opener = row(page, "reports/old name.ipynb").get_by_role("button")
    opener.press("Enter")
    drawer = page.get_by_role("dialog", name="old name.ipynb")
    see(drawer.get_by_role("heading")).to_be_focused()
    see(drawer).to_contain_text(session["id"])
    see(drawer).to_contain_text("by ")
    see(drawer.get_by_role("link", name="Open in JupyterLab")).to_have_attribute(
        "href", f"{BASE_URL}/lab/tree/reports/old%20name.ipynb"
    )
    drawer.get_by_role("tab", name="Details").focus()
    page.keyboard.press("ArrowRight")
    see(drawer.get_by_role("tabpanel", name="History")).to_contain_text("Created")
    page.keyboard.press("ArrowRight")
    see(drawer.locator("pre")).to_contain_text("<b>a log")
    with page.expect_download() as download:
        drawer.get_by_role("link", name="Transcript").click()
    assert download.value.suggested_filename == "old name-transcript.ipynb"
    notebook = json.loads(download.value.path().read_text())
    assert [cell["source"] for cell in notebook["cells"]] == [write]
    page.keyboard.press("Escape")
    see(drawer).to_be_hidden()
    see(opener).to_be_focused()

    opener.click()
    drawer.get_by_role("button", name="Restart…").click()
    see(page.locator("#box .losses")).to_contain_text("without the variables")
    page.get_by_role("button", name="Restart 1 session").click()
    see(page.locator("#toasts")).to_contain_text("reports/old name.ipynb: restarted")
    assert site.execute(kernel_id, "print('x' in globals())").strip() == "False"

    drawer.get_by_role("button", name="Rename…").click()
    page.get_by_label("Path of the document").fill("work/new.ipynb")
    page.keyboard.press("Enter")
    see(page.get_by_role("dialog", name="new.ipynb")).to_be_visible()
    assert [s["path"] for s in sessions(site)] == ["work/new.ipynb"]

    drawer = page.locator("#drawer")
    drawer.get_by_role("tab", name="History").click()
    see(drawer.locator(".history li").first).to_contain_text("Renamed from reports/old name.ipynb")
    drawer.get_by_role("button", name="Forget…").click()
    see(page.locator("#box .losses")).to_contain_text("1 kernel runs on")
    page.get_by_role("button", name="Forget 1 session").click()
    see(drawer).to_be_hidden()
    see(page.locator("#kernels")).to_contain_text(kernel_id[:8])
    assert sessions(site) == []


def test_a_dormant_session_is_revived_in_its_drawer(
    page: Page, site: Server, expected_errors: list[str]
) -> None:
    expected_errors += ["status of 404", "status of 409"]
    bring_in(site, "a.ipynb")
    visit(page, site)
    row(page, "a.ipynb").click()
    drawer = page.locator("#drawer")
    drawer.get_by_role("link", name="Transcript").click()
    see(drawer.get_by_role("alert")).to_contain_text("Nothing is recorded")
    drawer.get_by_role("tab", name="Log").click()
    see(drawer.get_by_role("tabpanel", name="Log")).to_contain_text("No log is kept")
    drawer.get_by_role("tab", name="History").click()
    drawer.get_by_role("button", name="Revive").click()
    see(drawer.locator(".where")).to_contain_text("Live")
    see(drawer.locator(".history")).to_contain_text("Revived, with a new kernel")
    assert [s["path"] for s in sessions(site)] == ["a.ipynb"]


def test_a_rename_that_others_were_faster_with_is_asked_again(
    page: Page, site: Server, expected_errors: list[str]
) -> None:
    expected_errors.append("status of 412")
    session = new_session(site, path="a.ipynb")
    visit(page, site)
    row(page, "a.ipynb").click()
    page.locator("#drawer").get_by_role("button", name="Rename…").click()
    path = page.get_by_label("Path of the document")
    see(path).to_have_value("a.ipynb")
    site.patch(f"/api/sessions/{session['id']}", {"path": "theirs.ipynb"})
    path.fill("ours.ipynb")
    with page.expect_response(lambda reply: reply.request.method == "PATCH") as refused:
        page.keyboard.press("Enter")
    assert refused.value.status == 412
    see(page.locator("#box")).to_contain_text("changed meanwhile")
    see(path).to_have_value("theirs.ipynb")
