"""The page at ``/sessions`` in a browser, and what its tests do there."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from browsers import FLAGS, Watched, chromium
from clients import new_session
from servers import Home, Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Browser, Locator, Page

API = "/sessions/api/v1"
BASE_URL = "/user/a%20b"
PATIENCE_MS = 15_000


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Run JupyterLab's server below a base URL that has to be quoted."""
    home = Home(tmp_path_factory.mktemp("page") / "home")
    with Server(home, app="lab", base_url=BASE_URL) as server:
        yield server
    assert home.processes() == []


@pytest.fixture
def no_loop() -> None:
    """Stand in for pytest-jupyter's fixtures of each test: they close the browser's event loop."""


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
    watched: list[tuple[Watched, Server]] = []
    contexts = []

    def make(server: Server = site, **options: Any) -> Page:
        # Without motion a box has its colours at once, when its contrasts are looked at.
        usual = {"viewport": {"width": 1280, "height": 800}, "reduced_motion": "reduce"}
        context = browser.new_context(**{**usual, **options})
        contexts.append(context)
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()
        watched.append((Watched(page), server))
        return page

    yield make
    for context in contexts:
        context.close()
    for one, server in watched:
        assert [e for e in one.errors if not any(said in e for said in expected_errors)] == []
        assert one.hosts == {f"127.0.0.1:{server.port}"}


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


def bring_in(
    site: Server,
    *paths: str,
    kernel: str = "python3",
    type: str = "notebook",
    reason: str = "culled",
) -> None:
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
                "reason": reason,
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
