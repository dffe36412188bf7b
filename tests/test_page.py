"""The page at ``/sessions``, in a browser, over a real server."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from browsers import FLAGS, Watched, chromium
from clients import new_session, sessions
from homes import TESTS
from servers import Home, Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Browser, Locator, Page

API = "/sessions/api/v1"
BASE_URL = "/user/a%20b"
HOSTILE = """<img src=x onerror="document.title = 'owned'"> "quoted' & <b>bold.ipynb"""
PATIENCE_MS = 15_000


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Run JupyterLab's server below a base URL that has to be quoted."""
    home = Home(tmp_path_factory.mktemp("page") / "home")
    with Server(home, app="lab", base_url=BASE_URL) as server:
        yield server
    assert home.processes() == []


@pytest.fixture
def jp_asyncio_loop() -> None:
    """Replace pytest-jupyter's, for each test: it closes the loop that drives the browser."""


@pytest.fixture
def jp_server_cleanup() -> None:
    """Replace pytest-jupyter's, for each test: it needs the loop, and no server is in here."""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    executable = chromium()
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=PATIENCE_MS)
    env: dict[str, str | float | bool] = {
        **os.environ,
        "HOME": str(tmp_path_factory.mktemp("chromium")),
    }
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=FLAGS, env=env)
        yield browser
        browser.close()


@pytest.fixture
def nothing_is_left(site: Server) -> Iterator[None]:
    """Delete all sessions, and the kernels that have none."""
    yield
    assert site.post(f"{API}/sessions/actions", {"action": "delete", "all": True}).is_success
    for kernel in site.get("/api/kernels").json():
        site.delete(f"/api/kernels/{kernel['id']}")


@pytest.fixture
def expected_errors() -> list[str]:
    """Return a list for what the test expects the browser to complain of."""
    return []


@pytest.fixture
def make_page(
    browser: Browser, site: Server, nothing_is_left: None, expected_errors: list[str]
) -> Iterator[Callable[..., Page]]:
    """Open pages that may have no errors but those expected, and ask no other host."""
    watched = []
    contexts = []

    def make(**options: Any) -> Page:
        # Without motion a box has its colours at once, when its contrasts are looked at.
        usual = {"viewport": {"width": 1280, "height": 800}, "reduced_motion": "reduce"}
        context = browser.new_context(**{**usual, **options})
        contexts.append(context)
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()
        watched.append(Watched(page))
        return page

    yield make
    for context in contexts:
        context.close()
    for one in watched:
        assert [e for e in one.errors if not any(said in e for said in expected_errors)] == []
        assert one.hosts == {f"127.0.0.1:{site.port}"}


@pytest.fixture
def page(make_page: Callable[..., Page]) -> Page:
    return make_page()


def visit(page: Page, site: Server, query: str = "") -> Page:
    """Open the page, and wait until it shows what the server has."""
    page.goto(f"{site.url}/sessions?token=test-token&{query}")
    page.locator("#list[aria-busy=false]").wait_for(state="attached")
    return page


def see(locator: Locator) -> Any:
    """Say what is expected of a part of the page, in a while."""
    from playwright.sync_api import expect

    return expect(locator)


def bring_in(site: Server, *paths: str, kernel: str = "python3", type: str = "notebook") -> None:
    """Make dormant sessions, which need no kernel."""
    time = "2024-05-01T12:00:00Z"
    header = {"format": "jupyter_sessions_ext", "version": 1, "exported_at": time}
    lines = [header] + [
        {
            "session": {
                "id": str(uuid4()),
                "path": path,
                "name": path,
                "type": type,
                "kernel_id": None,
                "kernel_name": kernel,
                "state": "dormant",
                "reason": "culled",
                "created_at": time,
                "created_by": "ada",
                "since": time,
            }
        }
        for path in paths
    ]
    body = "\n".join(map(json.dumps, lines)).encode()
    reply = site.request("POST", f"{API}/import", content=body)
    assert reply.is_success, reply.text


def listed(page: Page) -> list[str]:
    """Return the paths of the sessions that are listed."""
    return page.locator("#list tbody .path").all_inner_texts()


def row(page: Page, path: str) -> Locator:
    return page.locator("#list tbody tr").filter(has=page.get_by_title(path, exact=True))


def select(page: Page, path: str) -> None:
    page.get_by_role("checkbox", name=f"Select {path}", exact=True).check()


def focused(page: Page) -> str:
    """Return the text of what has the focus."""
    return str(page.evaluate("document.activeElement.textContent.trim()"))


# ---------------------------------------------------------------------- who may see it


def test_whoever_is_not_logged_in_is_led_to_the_login(site: Server) -> None:
    for address in ("/sessions", "/sessions/"):
        reply = site.get(address, token=None)
        assert reply.status_code == 302
        assert reply.headers["Location"].startswith(f"{BASE_URL}/login?next=")


def test_a_token_does_not_stay_in_the_address(page: Page, site: Server) -> None:
    visit(page, site, "state=live")
    assert page.url == f"{site.url}/sessions?state=live"


def test_an_authorizer_that_denies_is_obeyed(
    home: Home, server_factory: Callable[..., Server], tmp_path: Path
) -> None:
    policy = "default-src 'none'"
    args = [
        "--ServerApp.authorizer_class=configured.Denying",
        f"--ServerApp.tornado_settings={{'headers': {{'Content-Security-Policy': {policy!r}}}}}",
    ]
    env = {"PYTHONPATH": str(TESTS), "ASKED": str(tmp_path / "asked"), "DENIED": "read"}
    with server_factory(args=args, env=env) as server:
        reply = server.get("/sessions")
        assert reply.status_code == 403
        assert reply.headers["Content-Security-Policy"] == policy
        assert (tmp_path / "asked").read_text() == "GET read sessions_admin\n"


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
        assert page.evaluate("document.activeElement.closest('dialog, body').id") in ("box", "")
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
    session = new_session(site, path="work/old name.ipynb")
    kernel_id = session["kernel"]["id"]
    write = "import os, sys; x = 1; os.write(sys.stderr._original_stdstream_copy, b'<b>a log\\n')"
    site.execute(kernel_id, write)
    visit(page, site)
    opener = row(page, "work/old name.ipynb").get_by_role("button")
    opener.press("Enter")
    drawer = page.get_by_role("dialog", name="old name.ipynb")
    see(drawer.get_by_role("heading")).to_be_focused()
    see(drawer).to_contain_text(session["id"])
    see(drawer).to_contain_text("by ")
    see(drawer.get_by_role("link", name="Open in JupyterLab")).to_have_attribute(
        "href", f"{BASE_URL}/lab/tree/work/old%20name.ipynb"
    )
    drawer.get_by_role("tab", name="Details").focus()
    page.keyboard.press("ArrowRight")
    see(drawer.get_by_role("tabpanel", name="History")).to_contain_text("Created")
    page.keyboard.press("ArrowRight")
    see(drawer.locator("pre")).to_contain_text("<b>a log")
    page.keyboard.press("Escape")
    see(drawer).to_be_hidden()
    see(opener).to_be_focused()

    opener.click()
    drawer.get_by_role("button", name="Restart…").click()
    see(page.locator("#box .losses")).to_contain_text("without the variables")
    page.get_by_role("button", name="Restart 1 session").click()
    see(page.locator("#toasts")).to_contain_text("work/old name.ipynb: restarted")
    assert site.execute(kernel_id, "print('x' in globals())").strip() == "False"

    drawer.get_by_role("button", name="Rename…").click()
    page.get_by_label("Path of the document").fill("work/new.ipynb")
    page.keyboard.press("Enter")
    see(page.get_by_role("dialog", name="new.ipynb")).to_be_visible()
    assert [s["path"] for s in sessions(site)] == ["work/new.ipynb"]

    drawer = page.locator("#drawer")
    drawer.get_by_role("tab", name="History").click()
    see(drawer.locator(".history li").first).to_contain_text("Renamed from work/old name.ipynb")
    drawer.get_by_role("button", name="Forget…").click()
    see(page.locator("#box .losses")).to_contain_text("1 kernel runs on")
    page.get_by_role("button", name="Forget 1 session").click()
    see(drawer).to_be_hidden()
    see(page.locator("#kernels")).to_contain_text(kernel_id[:8])
    assert sessions(site) == []


def test_a_dormant_session_is_revived_in_its_drawer(page: Page, site: Server) -> None:
    bring_in(site, "a.ipynb")
    visit(page, site)
    row(page, "a.ipynb").click()
    drawer = page.locator("#drawer")
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


# ---------------------------------------------------------------------- how it looks


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everyone_can_use_it(make_page: Callable[..., Page], site: Server, scheme: str) -> None:
    """axe-core finds no serious problem in the list, the drawer and the boxes."""
    furnish(site)
    page = visit(make_page(color_scheme=scheme), site, "sort=-memory")
    see(page.locator("#list tbody tr")).to_have_count(9)
    background = str(page.evaluate("getComputedStyle(document.body.parentElement).backgroundColor"))
    assert (int(re.findall(r"\d+", background)[0]) < 64) == (scheme == "dark")
    picture(page, "page.png" if scheme == "light" else "page-dark.png")
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


def furnish(site: Server) -> None:
    """Make sessions of every kind, and a kernel without one."""
    for path in ("projects/churn/model.ipynb", "projects/churn/explore.ipynb"):
        new_session(site, path=path)
    new_session(site, path="work/1f0c", type="console", name="Console 1")
    bring_in(site, "teaching/week-1.ipynb", "teaching/week-2.ipynb", "teaching/week-3.ipynb")
    bring_in(site, "Untitled.ipynb", "projects/figures.ipynb")
    bring_in(site, "projects/clean.py", type="file")
    kernel_id = site.post("/api/kernels", {"name": "python3"}).json()["id"]
    site.execute(kernel_id, "pass")


def check(page: Page) -> None:
    from axe_playwright_python.sync_playwright import Axe

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


def picture(page: Page, name: str) -> None:
    """Save a picture for the documentation, if SESSIONS_SCREENSHOTS names a folder."""
    if folder := os.environ.get("SESSIONS_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / name)


# ---------------------------------------------------------------------- the server


def test_a_server_that_is_gone_is_waited_for(
    page: Page, site: Server, expected_errors: list[str]
) -> None:
    expected_errors += ["ERR_CONNECTION_REFUSED", "ERR_CONNECTION_RESET"]
    bring_in(site, "a.ipynb")
    visit(page, site)
    see(row(page, "a.ipynb")).to_be_visible()
    site.kill()
    see(page.locator("#banners")).to_contain_text("The server does not answer.")
    see(page.locator("#connection")).to_have_text("Not connected")
    see(row(page, "a.ipynb")).to_be_visible()
    site.restart()
    bring_in(site, "b.ipynb")
    see(row(page, "b.ipynb")).to_be_visible()
    see(page.locator("#banners")).to_be_empty()
    see(page.locator("#connection")).to_have_text("Connected")


def test_jupyterlab_leads_to_it(page: Page, site: Server) -> None:
    page.goto(f"{site.url}/lab?reset&token=test-token")
    with page.expect_popup() as opened:
        page.locator(".jp-LauncherCard", has_text="Sessions").click()
    see(opened.value.get_by_role("heading", name="Sessions", exact=True)).to_be_visible()
    assert opened.value.url == f"{site.url}/sessions"
