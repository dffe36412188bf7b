"""The page at ``/sessions``, in a browser, over a real server."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from clients import new_session
from homes import TESTS, database
from pages import BASE_URL, bring_in, furnish, listed, no_loop, row, see, select, visit

from jupyter_sessions_ext import __version__
from jupyter_sessions_ext.page import handler

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import Page
    from servers import Server

jp_asyncio_loop = jp_server_cleanup = no_loop

LABEXTENSION = Path(handler.__file__).parent / "labextension"
STRICT = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'"
)
HOSTILE = """<img src=x onerror="document.title = 'owned'"> "quoted' & <b>bold.ipynb"""


# ---------------------------------------------------------------------- who may see it


def test_whoever_is_not_logged_in_is_led_to_the_login(site: Server) -> None:
    for address in ("/sessions", "/sessions/"):
        reply = site.get(address, token=None)
        assert reply.status_code == 302
        assert reply.headers["Location"].startswith(f"{BASE_URL}/login?next=")


def test_a_token_does_not_stay_in_the_address(page: Page, site: Server) -> None:
    visit(page, site, "state=live")
    assert page.url == f"{site.url}/sessions?state=live"


def test_an_authorizer_that_denies_is_obeyed_and_so_is_a_policy(
    make_page: Callable[..., Page],
    server_factory: Callable[..., Server],
    tmp_path: Path,
    expected_errors: list[str],
) -> None:
    headers = {"Content-Security-Policy": STRICT}
    args = [
        "--ServerApp.authorizer_class=configured.Denying",
        f"--ServerApp.tornado_settings={{'headers': {headers}}}",
    ]
    env = {"PYTHONPATH": str(TESTS), "ASKED": str(tmp_path / "asked"), "DENIED": "read"}
    with server_factory(args=args, env=env) as server:
        reply = server.get("/sessions")
        assert reply.status_code == 403
        assert reply.headers["Content-Security-Policy"] == STRICT
        assert (tmp_path / "asked").read_text() == "GET read sessions_admin\n"

        server.kill()
        server.env["DENIED"] = ""
        server.start()
        bring_in(server, "a.ipynb")
        server.kill()
        server.env["DENIED"] = "write"
        server.start()
        expected_errors.append("status of 403")
        page = visit(make_page(server), server)
        row(page, "a.ipynb").click()
        page.locator("#drawer").get_by_role("button", name="Delete…").click()
        see(page.get_by_role("dialog", name="Delete: not done")).to_contain_text(
            "Ask whoever runs this server for the right to write sessions_admin."
        )
        page.close()


def test_the_page_allows_nothing_from_elsewhere(site: Server) -> None:
    policy = site.get("/sessions").headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'self'" in policy
    assert "unsafe" not in policy


# ---------------------------------------------------------------------- the list


def test_nothing_to_list_is_a_lesson(page: Page, site: Server) -> None:
    visit(page, site)
    lesson = page.locator("#empty")
    see(lesson).to_contain_text("No sessions yet")
    see(lesson).to_contain_text("Live")
    see(lesson).to_contain_text("Dormant")
    see(lesson.get_by_role("link", name="Open JupyterLab")).to_have_attribute(
        "href", f"{BASE_URL}/lab"
    )
    see(page.locator("#list")).to_be_hidden()


def test_a_session_that_is_created_shows_without_a_reload(page: Page, site: Server) -> None:
    # Without what is read every few seconds, only an event can tell of it.
    page.add_init_script(
        "const real = setTimeout;"
        "setTimeout = (run, wait, ...rest) => wait < 4000 ? real(run, wait, ...rest) : 0;"
    )
    visit(page, site)
    see(page.locator("#connection")).to_have_text("Connected")
    page.evaluate("document.body.dataset.mark = 'same'")
    session = new_session(site, path="live/a.ipynb")
    see(row(page, "live/a.ipynb")).to_contain_text("Live")
    see(row(page, "live/a.ipynb")).to_contain_text(re.compile(r"\d+ MB"))
    see(page.locator("[data-count=live]")).to_have_text("1")
    site.delete(f"/api/kernels/{session['kernel']['id']}")
    see(row(page, "live/a.ipynb")).to_contain_text("Dormant")
    assert page.evaluate("document.body.dataset.mark") == "same"


def test_without_events_the_list_is_read_every_few_seconds(page: Page, site: Server) -> None:
    page.route_web_socket("**/api/events/subscribe", lambda socket: socket.close())
    visit(page, site)
    see(page.locator("#connection")).to_have_text("Every 5 s")
    bring_in(site, "a.ipynb")
    see(row(page, "a.ipynb")).to_be_visible()


def test_filters_narrow_the_list_and_stay_after_a_reload(page: Page, site: Server) -> None:
    bring_in(site, "a/one.ipynb", "a/two.ipynb", "b/one.ipynb")
    bring_in(site, "a/other.py", type="file", kernel="ir")
    new_session(site, path="a/live.ipynb")
    visit(page, site)
    see(page.locator("#count")).to_have_text("5 sessions")
    assert page.locator("[data-count]").all_inner_texts() == ["5", "1", "4"]

    page.get_by_role("searchbox").fill("one")
    see(page.locator("#count")).to_have_text("2 sessions")
    assert sorted(listed(page)) == ["a/one.ipynb", "b/one.ipynb"]
    page.get_by_role("searchbox").fill("a/")
    page.get_by_text("Dormant").first.click()
    page.get_by_role("combobox", name="Type").select_option("notebook")
    page.get_by_role("combobox", name="Kernel").select_option("python3")
    see(page.locator("#count")).to_have_text("2 sessions")
    assert page.url.endswith("/sessions?q=a%2F&state=dormant&type=notebook&kernel_name=python3")
    page.reload()
    see(page.locator("#count")).to_have_text("2 sessions")
    assert sorted(listed(page)) == ["a/one.ipynb", "a/two.ipynb"]

    page.get_by_role("combobox", name="Idle for").select_option("604800")
    see(page.locator("#empty")).to_contain_text("No session matches")
    page.locator("#empty").get_by_role("button", name="Clear filters").click()
    see(page.locator("#count")).to_have_text("5 sessions")
    assert page.url.endswith("/sessions")


def test_the_heads_of_columns_sort(page: Page, site: Server) -> None:
    bring_in(site, "c.ipynb", "a.ipynb", "b.ipynb")
    visit(page, site)
    head = page.get_by_role("columnheader", name="Session")
    see(head).to_have_attribute("aria-sort", "none")
    head.get_by_role("button").click()
    see(head).to_have_attribute("aria-sort", "ascending")
    assert listed(page) == ["a.ipynb", "b.ipynb", "c.ipynb"]
    head.get_by_role("button").click()
    see(head).to_have_attribute("aria-sort", "descending")
    assert listed(page) == ["c.ipynb", "b.ipynb", "a.ipynb"]
    assert page.url.endswith("?sort=-path")


def test_long_lists_have_pages(page: Page, site: Server) -> None:
    bring_in(site, *(f"{n:03}.ipynb" for n in range(230)))
    visit(page, site, "sort=path")
    see(page.locator("#count")).to_have_text("1\N{EN DASH}100 of 230 sessions")
    for first in ("100.ipynb", "200.ipynb"):
        page.get_by_role("button", name="Next").click()
        see(page.locator("#list tbody .path").first).to_have_text(first)
    see(page.get_by_role("button", name="Next")).to_be_disabled()
    page.get_by_role("button", name="Previous").click()
    see(page.locator("#list tbody .path").first).to_have_text("100.ipynb")


def test_what_is_written_in_a_path_is_text(page: Page, site: Server) -> None:
    bring_in(site, HOSTILE, f"folder/{HOSTILE}")
    visit(page, site)
    assert sorted(listed(page)) == sorted([HOSTILE, f"folder/{HOSTILE}"])
    row(page, HOSTILE).get_by_role("button").click()
    see(page.get_by_role("heading", level=2)).to_have_text(HOSTILE)
    page.locator("#drawer").get_by_role("button", name="Delete…").click()
    see(page.locator("#box .paths")).to_have_text(HOSTILE)
    assert page.title() == "Sessions"


# ---------------------------------------------------------------------- how it looks


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everyone_can_use_it(make_page: Callable[..., Page], site: Server, scheme: str) -> None:
    """axe-core finds no serious problem in the list, the drawer and the boxes."""
    furnish(site)
    page = visit(make_page(color_scheme=scheme), site, "sort=-memory")
    see(page.locator("#list tbody tr")).to_have_count(9)
    background = str(page.evaluate("getComputedStyle(document.body.parentElement).backgroundColor"))
    assert (int(re.findall(r"\d+", background)[0]) < 64) == (scheme == "dark")
    check(page)
    select(page, "projects/churn/model.ipynb")
    select(page, "teaching/week-3.ipynb")
    check(page)
    page.get_by_role("button", name="Delete…").click()
    page.get_by_role("dialog", name="Delete 2 sessions?").wait_for()
    check(page)
    page.keyboard.press("Escape")
    row(page, "projects/churn/model.ipynb").click()
    drawer = page.get_by_role("dialog", name="model.ipynb")
    for tab in ("Details", "History", "Log"):
        drawer.get_by_role("tab", name=tab).click()
        drawer.get_by_role("tabpanel", name=tab).wait_for()
        check(page)
    drawer.get_by_role("button", name="Rename…").click()
    page.get_by_role("dialog", name="Rename this session").wait_for()
    check(page)
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    page.get_by_role("searchbox").fill("nothing has this name")
    page.locator("#empty").wait_for()
    check(page)


def test_a_narrow_screen_needs_no_scrolling_to_the_side(
    make_page: Callable[..., Page], site: Server
) -> None:
    furnish(site)
    bring_in(site, f"{'a-very-long-folder/' * 4}{'and_a_name_without_any_break' * 3}.ipynb")
    page = visit(make_page(viewport={"width": 360, "height": 740}), site)
    see(page.locator("#list tbody tr")).to_have_count(10)
    fits(page)
    page.get_by_role("checkbox", name="Select all on this page").check()
    fits(page)
    page.get_by_role("button", name="Delete…").click()
    page.get_by_role("dialog", name="Delete 10 sessions?").wait_for()
    fits(page)
    page.keyboard.press("Escape")
    page.locator("#list .open").last.click()
    page.locator("#drawer").get_by_role("tab", name="Details").wait_for()
    fits(page)
    check(page)


REASONS = ["it was shut down by " + "somebody of whom much is to be told " * 20, "x" * 4096]


@pytest.mark.parametrize("width", [1600, 1280, 900, 360])
def test_a_long_reason_leaves_room_for_the_path(
    make_page: Callable[..., Page], site: Server, width: int
) -> None:
    for number, reason in enumerate(REASONS):
        bring_in(site, f"a folder/a document {number}.ipynb", reason=reason)
    page = visit(make_page(viewport={"width": width, "height": 800}), site)
    see(page.locator("#list tbody tr")).to_have_count(2)
    for box in (each.bounding_box() for each in page.locator("#list tbody tr").all()):
        assert box is not None
        assert box["height"] < 120
        assert box["x"] + box["width"] <= width
    paths = [cell.bounding_box() for cell in page.locator("#list tbody .c-path").all()]
    assert min(box["width"] for box in paths if box is not None) >= 200
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.locator("#list .open").first.click()
    drawer = page.locator("#drawer")
    drawer.get_by_role("tab", name="Details").wait_for()
    see(drawer.locator("dd").filter(has_text=re.compile("xxx|somebody"))).to_have_count(1)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    box = drawer.get_by_role("tab", name="Details").bounding_box()
    assert box is not None
    assert box["y"] < 400, "what the drawer is for can be seen"


def check(page: Page) -> None:
    from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]

    found = Axe().run(page).response["violations"]
    assert [
        f"{violation['id']}: {node['html']} {node['any'][:1]}"
        for violation in found
        if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"]
    ] == []


def fits(page: Page) -> None:
    widths = page.evaluate(
        "[document.documentElement, ...document.querySelectorAll('dialog[open]')]"
        ".map((element) => element.scrollWidth)"
    )
    assert max(widths) <= 360


# ---------------------------------------------------------------------- the server


def test_a_server_that_is_gone_is_waited_for(
    page: Page, site: Server, expected_errors: list[str]
) -> None:
    expected_errors += ["ERR_CONNECTION_REFUSED", "ERR_CONNECTION_RESET"]
    bring_in(site, "a.ipynb")
    visit(page, site)
    see(row(page, "a.ipynb")).to_be_visible()
    see(page.locator("#connection")).to_have_text("Connected")
    site.kill()
    see(page.locator("#banners")).to_contain_text("The server does not answer.")
    see(page.locator("#connection")).to_have_text("Not connected")
    see(row(page, "a.ipynb")).to_be_visible()
    # Not when it is there again: the page tries by itself, and the button may be gone by then.
    with page.expect_request("**/sessions/api/v1/sessions*"):
        page.get_by_role("button", name="Try now").click()
    site.restart()
    bring_in(site, "b.ipynb")
    see(row(page, "b.ipynb")).to_be_visible()
    see(page.locator("#banners")).to_be_empty()
    see(page.locator("#connection")).to_have_text("Connected")


def test_a_store_that_cannot_be_written_is_told_of(
    page: Page, site: Server, expected_errors: list[str]
) -> None:
    expected_errors.append("status of 503")
    bring_in(site, "a.ipynb")
    with database(site.home) as connection:
        connection.execute("BEGIN IMMEDIATE")
        visit(page, site)
        see(page.locator("#banners")).to_contain_text("Sessions can be seen, but not changed:")
        see(row(page, "a.ipynb")).to_be_visible()
        connection.rollback()
    bring_in(site, "b.ipynb")
    see(row(page, "b.ipynb")).to_be_visible()
    see(page.locator("#banners")).to_be_empty()


def test_what_leads_to_it_is_not_taken_from_the_cache_of_another_version() -> None:
    package = json.loads((LABEXTENSION / "package.json").read_text())
    assert package["version"] == __version__
    load = package["jupyterlab"]["_build"]["load"]
    assert load == f"static/remoteEntry.js?v={__version__}"


def test_jupyterlab_leads_to_it(page: Page, site: Server) -> None:
    page.goto(f"{site.url}/lab?reset&token=test-token")
    with page.expect_popup() as opened:
        page.locator(".jp-LauncherCard", has_text="Sessions").click()
    see(opened.value.get_by_role("heading", name="Sessions", exact=True)).to_be_visible()
    assert opened.value.url == f"{site.url}/sessions"
